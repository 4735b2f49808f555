//! A tenant's own limits, and its campaigns'.

use std::sync::Arc;

use axum::extract::State;
use dispatch_schemas::{
    api::{campaigns::Campaign, limits::Windows, problems::ProblemDocument},
    ids::CampaignId,
};

use super::found;
use crate::api::{
    Context,
    authentication::{Caller, Read, Write},
    problem::Answer,
    request::{Id, Json},
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

/// Set a campaign's limits
///
/// All of them at once: a window left out has no limit. They hold from now on, in the middle of the campaign too; what
/// it has sent so far still counts. A campaign that was cancelled has none to set.
#[utoipa::path(
    put, path = "/v1/campaigns/{id}/limits", tag = "campaigns", params(("id" = CampaignId, Path)), request_body = Windows,
    responses((status = 200, body = Campaign), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["write"])),
)]
pub async fn put_of_campaign(
    caller: Caller<Write>,
    State(context): State<Arc<Context>>,
    Id(campaign): Id<CampaignId>,
    limits: Json<Windows>,
) -> Answer {
    let campaign = context.api.ledger.set_campaign_limits(caller.tenant, campaign, limits.value).await?;
    context.api.control.campaign_limits_changed(&campaign);
    found(campaign)
}
