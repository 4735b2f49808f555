//! What happens around every call: a request id, its count and time, a panic caught, a change carried through.

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, header::HeaderName},
    middleware::Next,
    response::{IntoResponse, Response},
};
use dispatch_workers::clock::random;
use metrics::{counter, histogram};

use super::{
    Context,
    problem::{Kind, Problem},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The route of requests that no route took: their path is the client's own, and no label.
const NO_ROUTE: &str = "none";

/// Names, counts and times a call. Labels are the route as declared, never the URL.
pub(super) async fn observe(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let clock = &context.api.clock;
    let began = clock.monotonic();
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| NO_ROUTE.into(), |path| path.as_str().to_owned());
    let method = method_label(request.method());
    let id = format!("{:016x}", u64::from_be_bytes(random(context.api.entropy.as_ref())));

    let mut response = next.run(request).await;

    let took: Duration = clock.monotonic().saturating_sub(began);
    let status = response.status().as_u16().to_string();
    if response.status().is_server_error() {
        tracing::warn!(request = %id, %route, method, %status, "an API call failed");
    }
    counter!("dispatch_api_requests_total", "route" => route.clone(), "method" => method, "status" => status)
        .increment(1);
    histogram!("dispatch_api_seconds", "route" => route).record(took.as_secs_f64());
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Carries a change through although its client has gone: what the ledger has committed is also told to the engine,
/// and an upload that was cut is rolled back.
pub(super) async fn finish_what_was_begun(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panicked(panic),
            Err(_) => {
                Problem::new(Kind::UNAVAILABLE, "the engine is stopping; try again").retry_after(5).into_response()
            }
        },
    }
}

/// Answers a call whose handler panicked. What the panic said is not repeated: it may hold anything.
pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response {
    Problem::new(Kind::INTERNAL, "the call failed because of a fault in the engine; report the X-Request-Id")
        .into_response()
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::get};
    use tower::ServiceExt as _;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_answers_with_a_problem_that_repeats_nothing() {
        async fn fails() -> &'static str {
            panic!("anna@example.org")
        }
        let router = Router::new()
            .route("/", get(fails).post(fails))
            .layer(middleware::from_fn(finish_what_was_begun))
            .layer(CatchPanicLayer::custom(panicked));
        for method in [Method::GET, Method::POST] {
            let request = Request::builder().method(method).uri("/").body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 500);
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains("/problems/internal") && !body.contains("anna"), "{body}");
        }
    }
}
