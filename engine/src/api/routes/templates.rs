//! Templates.

use std::sync::Arc;

use axum::extract::State;
use dispatch_schemas::{
    api::{
        Page,
        problems::ProblemDocument,
        templates::{
            CreatedTemplate, NewTemplate, Preview, PreviewRequest, StoredTemplate, TemplateReport, TemplateSource,
        },
    },
    ids::TemplateId,
};

use super::{all, created, found};
use crate::api::{
    Context,
    authentication::{Caller, Read, Write},
    content,
    problem::Answer,
    request::{Id, IdempotencyKey, Json},
};
use crate::ledger::Replayable;

/// Store a template
///
/// Answers with the variables it uses, those a recipient must have a value for, and what may not come out as meant.
#[utoipa::path(
    post, path = "/v1/templates", tag = "templates", request_body = NewTemplate,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    responses((status = 201, body = CreatedTemplate), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["write"])),
)]
pub async fn create(
    caller: Caller<Write>,
    State(context): State<Arc<Context>>,
    key: IdempotencyKey,
    new: Json<NewTemplate>,
) -> Answer {
    let once = new.once("POST /v1/templates", key);
    let source = &new.value.source;
    let (message, template) = content::compile(source)?;
    let made = context.api.ledger.create_template(caller.tenant, &new.value, once.as_ref()).await?;
    let location = format!("/v1/templates/{}", made.value.id);
    let value = CreatedTemplate {
        stored: made.value,
        variables: template.variables().to_vec(),
        required: content::required(&template),
        warnings: content::warnings(source, &message, &template),
    };
    Ok(created(&location, Replayable { value, replayed: made.replayed }))
}

/// List the templates
///
/// By name, at most 1,000.
#[utoipa::path(
    get, path = "/v1/templates", tag = "templates",
    responses((status = 200, body = Page<StoredTemplate>), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn list(caller: Caller<Read>, State(context): State<Arc<Context>>) -> Answer {
    all(context.api.ledger.templates(caller.tenant).await?)
}

/// Look at a template
#[utoipa::path(
    get, path = "/v1/templates/{id}", tag = "templates", params(("id" = TemplateId, Path)),
    responses((status = 200, body = StoredTemplate), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn get(caller: Caller<Read>, State(context): State<Arc<Context>>, Id(template): Id<TemplateId>) -> Answer {
    found(context.api.ledger.template(caller.tenant, template).await?)
}

/// Check a template without storing it
///
/// Says what is wrong by part and line, which variables it uses, what a text message costs, and what may not come out
/// as meant.
#[utoipa::path(
    post, path = "/v1/templates/validate", tag = "templates", request_body = TemplateSource,
    responses((status = 200, body = TemplateReport), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn validate(_: Caller<Read>, source: Json<TemplateSource>) -> Answer {
    found(content::report(&source.value))
}

/// Fill a template for one imagined recipient
#[utoipa::path(
    post, path = "/v1/templates/{id}/preview", tag = "templates", request_body = PreviewRequest,
    params(("id" = TemplateId, Path)),
    responses((status = 200, body = Preview), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn preview(
    caller: Caller<Read>,
    State(context): State<Arc<Context>>,
    Id(template): Id<TemplateId>,
    body: Json<PreviewRequest>,
) -> Answer {
    let stored = context.api.ledger.template(caller.tenant, template).await?;
    found(content::preview(&stored.template.source, &body.value.variables)?)
}
