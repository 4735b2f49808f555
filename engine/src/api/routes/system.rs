//! What machines ask of the engine itself: alive, ready, measured, described.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::api::{Context, Health, openapi};

const TEXT: &str = "text/plain; charset=utf-8";
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether the process is alive
#[utoipa::path(get, path = "/healthz", tag = "system", responses((status = 200, body = String)), security(()))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the process can do its work
///
/// One line for each of its parts. One that works in part, because a provider refuses an account of several, is
/// `degraded` and does not make the process unready.
#[utoipa::path(
    get, path = "/readyz", tag = "system", responses((status = 200, body = String), (status = 503, body = String)),
    security(()),
)]
pub async fn readyz(State(context): State<Arc<Context>>) -> Response {
    let mut parts = context.api.control.readiness();
    let ledger = match context.api.ledger.check().await {
        Ok(()) => Health::Well,
        Err(error) => Health::Down(error.to_string()),
    };
    parts.push(("ledger", ledger));
    let mut text = String::new();
    for (part, state) in &parts {
        // Writing to a string does not fail.
        let _ = match state {
            Health::Well => writeln!(text, "{part}: ok"),
            Health::Impaired(why) => writeln!(text, "{part}: degraded: {why}"),
            Health::Down(why) => writeln!(text, "{part}: {why}"),
        };
    }
    let is_ready = !parts.iter().any(|(_, state)| matches!(state, Health::Down(_)));
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, TEXT)], text).into_response()
}

/// All metrics, for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "system", responses((status = 200, body = String)), security(()))]
pub async fn metrics(State(context): State<Arc<Context>>) -> Response {
    ([(header::CONTENT_TYPE, METRICS)], context.api.control.metrics()).into_response()
}

/// This description
#[utoipa::path(get, path = "/openapi.json", tag = "system", responses((status = 200, body = Object)), security(()))]
pub async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::text()).into_response()
}
