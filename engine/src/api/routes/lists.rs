//! Contact lists.

use std::sync::Arc;

use axum::extract::State;
use dispatch_schemas::{
    api::{
        Page,
        lists::{List, NewList},
        problems::ProblemDocument,
    },
    ids::ListId,
};

use super::{all, created, found, named_at};
use crate::api::{
    Context,
    authentication::{Caller, Read, Write},
    problem::Answer,
    request::{Id, IdempotencyKey, Json},
};

/// Make a contact list
///
/// An empty one; contacts come in with uploads.
#[utoipa::path(
    post, path = "/v1/lists", tag = "lists", request_body = NewList,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    responses((status = 201, body = List), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["write"])),
)]
pub async fn create(
    caller: Caller<Write>,
    State(context): State<Arc<Context>>,
    key: IdempotencyKey,
    new: Json<NewList>,
) -> Answer {
    let once = new.once("POST /v1/lists", key);
    let made =
        context.api.ledger.create_list(caller.tenant, &new.value, once.as_ref()).await.map_err(named_at("/source"))?;
    Ok(created(&format!("/v1/lists/{}", made.value.id), made))
}

/// List the contact lists
///
/// By name, at most 1,000.
#[utoipa::path(
    get, path = "/v1/lists", tag = "lists",
    responses((status = 200, body = Page<List>), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn list(caller: Caller<Read>, State(context): State<Arc<Context>>) -> Answer {
    all(context.api.ledger.lists(caller.tenant).await?)
}

/// Look at a contact list
#[utoipa::path(
    get, path = "/v1/lists/{id}", tag = "lists", params(("id" = ListId, Path)),
    responses((status = 200, body = List), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn get(caller: Caller<Read>, State(context): State<Arc<Context>>, Id(list): Id<ListId>) -> Answer {
    found(context.api.ledger.list(caller.tenant, list).await?)
}
