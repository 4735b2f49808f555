//! A tenant's own limits.

use std::sync::Arc;

use axum::extract::State;
use dispatch_schemas::api::{limits::Windows, problems::ProblemDocument};

use super::found;
use crate::api::{
    Context,
    authentication::{Caller, Read, Write},
    problem::Answer,
    request::Json,
};

/// Look at the tenant's limits
#[utoipa::path(
    get, path = "/v1/limits", tag = "limits",
    responses((status = 200, body = Windows), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn get(caller: Caller<Read>, State(context): State<Arc<Context>>) -> Answer {
    found(context.api.ledger.tenant_limits(caller.tenant).await?)
}

/// Set the tenant's limits
///
/// All of them at once: a window left out has no limit. They hold for running campaigns from now on.
#[utoipa::path(
    put, path = "/v1/limits", tag = "limits", request_body = Windows,
    responses((status = 200, body = Windows), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["write"])),
)]
pub async fn put(caller: Caller<Write>, State(context): State<Arc<Context>>, limits: Json<Windows>) -> Answer {
    context.api.ledger.set_tenant_limits(caller.tenant, limits.value).await?;
    context.api.control.limits_changed(caller.tenant);
    found(limits.value)
}
