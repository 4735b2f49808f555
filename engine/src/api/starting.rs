//! What a process answers that waits for its ledger, and how it changes over when the ledger has come.

use std::{
    convert::Infallible,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use tower::ServiceExt as _;

use super::problem::{Kind, Problem};

/// When a client may ask again, seconds.
const RETRY_AFTER_S: u32 = 5;

/// The routes that are served just now.
#[derive(Debug, Clone)]
pub struct Changeable(Arc<RwLock<Router>>);

impl Changeable {
    /// Serves what a process answers that waits, and says in `/readyz` for what.
    #[must_use]
    pub fn waiting_for(reason: &str) -> Self {
        Self(Arc::new(RwLock::new(waiting(reason))))
    }

    /// Serves these routes from now on.
    pub fn change_to(&self, router: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = router;
    }

    /// Waits for something else.
    pub fn wait_for(&self, reason: &str) {
        self.change_to(waiting(reason));
    }

    /// As routes that stay.
    pub fn router(&self) -> Router {
        let current = self.clone();
        Router::new().fallback(move |request: Request| {
            let router = current.0.read().unwrap_or_else(PoisonError::into_inner).clone();
            async move {
                let answer: Result<Response, Infallible> = router.oneshot(request).await;
                answer.unwrap_or_else(|never| match never {})
            }
        })
    }
}

fn waiting(reason: &str) -> Router {
    let ready = format!("ledger: waiting: {reason}\n");
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { (StatusCode::SERVICE_UNAVAILABLE, ready).into_response() }))
        .fallback(|| async {
            Problem::new(Kind::UNAVAILABLE, "the engine is waiting for its ledger; nothing was done, try again")
                .retry_after(RETRY_AFTER_S)
                .into_response()
        })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn ask(router: &Router, path: &str) -> Response {
        router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_process_that_waits_is_alive_and_not_ready_and_refuses_what_it_cannot_keep() {
        let routes = Changeable::waiting_for("the server does not answer");
        let router = routes.router();
        assert_eq!(ask(&router, "/healthz").await.status(), StatusCode::OK);
        assert_eq!(ask(&router, "/readyz").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let refused = ask(&router, "/v1/campaigns").await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));
        routes.change_to(Router::new().route("/v1/campaigns", get(|| async { "there" })));
        assert_eq!(ask(&router, "/v1/campaigns").await.status(), StatusCode::OK);
    }
}
