//! Where contacts come from.

use std::sync::Arc;

use axum::extract::State;
use dispatch_schemas::api::{
    Page,
    lists::{NewSource, Source},
    problems::ProblemDocument,
};

use super::{all, created};
use crate::api::{
    Context,
    authentication::{Caller, Read, Write},
    problem::Answer,
    request::{IdempotencyKey, Json},
};

/// Make a source
///
/// A source says who collected contacts and on what legal basis they may be written to. No contact exists without one.
#[utoipa::path(
    post, path = "/v1/sources", tag = "lists", request_body = NewSource,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    responses((status = 201, body = Source), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["write"])),
)]
pub async fn create(
    caller: Caller<Write>,
    State(context): State<Arc<Context>>,
    key: IdempotencyKey,
    new: Json<NewSource>,
) -> Answer {
    let once = new.once("POST /v1/sources", key);
    let made = context.api.ledger.create_source(caller.tenant, &new.value, once.as_ref()).await?;
    Ok(created("/v1/sources", made))
}

/// List the sources
///
/// Newest first, at most 1,000.
#[utoipa::path(
    get, path = "/v1/sources", tag = "lists",
    responses((status = 200, body = Page<Source>), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn list(caller: Caller<Read>, State(context): State<Arc<Context>>) -> Answer {
    all(context.api.ledger.sources(caller.tenant).await?)
}
