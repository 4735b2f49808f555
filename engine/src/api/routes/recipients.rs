//! Who of a campaign got what.

use std::sync::Arc;

use axum::extract::State;
use dispatch_schemas::{
    api::{Page, campaigns::RecipientStatus, problems::ProblemDocument},
    ids::CampaignId,
    states::DeliveryState,
};

use super::{found, is_full};
use crate::{
    api::{
        Context,
        authentication::{Caller, Read},
        cursor,
        problem::Answer,
        request::{Id, Parameters},
    },
    ledger::RecipientFilter,
};

/// List a campaign's recipients
///
/// By their number, all or those in one state.
#[utoipa::path(
    get, path = "/v1/campaigns/{id}/recipients", tag = "campaigns",
    params(
        ("id" = CampaignId, Path),
        ("state" = Option<DeliveryState>, Query, description = "Only those in this state"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000, 100 when left out"),
    ),
    responses((status = 200, body = Page<RecipientStatus>), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn list(
    caller: Caller<Read>,
    State(context): State<Arc<Context>>,
    Id(campaign): Id<CampaignId>,
    mut parameters: Parameters,
) -> Answer {
    let words: Vec<&str> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
    let state: Option<DeliveryState> =
        parameters.parsed("state", &format!("one of these words is wanted: {}", words.join(", ")));
    let (text, limit) = (parameters.text("cursor"), parameters.limit());
    parameters.finish()?;
    let list = format!("recipients {campaign} {}", state.map_or("all", DeliveryState::as_str));
    let after = match text {
        Some(text) => Some(cursor::number(&context.cursors.open(caller.tenant, &list, &text)?)?),
        None => None,
    };
    let filter = RecipientFilter { state, after, limit };
    let data = context.api.ledger.recipients(caller.tenant, campaign, filter).await?;
    let last = data.last().filter(|_| is_full(&data, limit)).map(|recipient| recipient.seq.to_be_bytes());
    let next_cursor = last.map(|position| context.cursors.seal(caller.tenant, &list, &position));
    found(Page { data, next_cursor })
}
