//! Campaigns: made, launched, paused, resumed, cancelled, retried, watched.

use std::sync::Arc;

use axum::{
    Json as JsonAnswer,
    extract::State,
    response::{IntoResponse, Response},
};
use dispatch_schemas::{
    api::{
        Page,
        campaigns::{
            Campaign, CampaignContent, CampaignStopped, CreatedCampaign, NewCampaign, Progress, Retried, Retry,
        },
        problems::{FieldError, ProblemDocument},
        templates::TemplateSource,
        time::Moment,
    },
    ids::{CampaignId, TenantId},
    states::{CampaignState, Channel, StallReason},
};

use super::{created, found, is_full, named_at, replayable};
use crate::{
    api::{
        Context,
        authentication::{Caller, Read, Send, Write},
        content, cursor,
        problem::{Answer, Problem},
        request::{Id, IdempotencyKey, Json, NoBody, OptionalJson, Parameters},
        supply::Supply,
        terms,
    },
    ledger::{LedgerError, Replayable},
};

const LIST: &str = "campaigns";
/// What a campaign paused through the API says of it.
const BY_OPERATOR: &str = "operator";

/// Make a campaign
///
/// A draft: nothing is sent before its launch. Its content is what it will send, whatever becomes of a template it
/// was made from. A variable without a default that none of its lists has is refused; lists that are still empty are
/// looked at when it is launched.
#[utoipa::path(
    post, path = "/v1/campaigns", tag = "campaigns", request_body = NewCampaign,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    responses((status = 201, body = CreatedCampaign), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["write"])),
)]
pub async fn create(
    caller: Caller<Write>,
    State(context): State<Arc<Context>>,
    key: IdempotencyKey,
    new: Json<NewCampaign>,
) -> Answer {
    let once = new.once("POST /v1/campaigns", key);
    let new = new.value;
    let source = source(&context, caller.tenant, &new.content).await?;
    let (message, template) = content::compile(&source)?;
    let supply =
        Supply::of(context.api.ledger.as_ref(), caller.tenant, &new.lists).await.map_err(named_at("/lists"))?;
    let account = account(&context, message.channel(), new.account.as_deref());
    let mut errors = terms::times(&new, context.api.clock.now_ms());
    errors.extend(terms::lists(&new));
    errors.extend(terms::window(&new));
    let account = match account {
        Ok(account) if errors.is_empty() => account,
        Ok(_) => return Err(Problem::invalid(errors)),
        Err(error) => {
            errors.push(error);
            return Err(Problem::invalid(errors));
        }
    };
    if supply.is_whole() {
        supply.check(&template)?;
    }
    let made = context
        .api
        .ledger
        .create_campaign(caller.tenant, &new, &source, &account, once.as_ref())
        .await
        .map_err(named_at("/lists"))?;
    let location = format!("/v1/campaigns/{}", made.value.id);
    let mut warnings = content::warnings(&source, &message, &template);
    warnings.extend(terms::never_open(&new, context.api.clock.now_ms()));
    let value = CreatedCampaign { campaign: made.value, warnings };
    Ok(created(&location, Replayable { value, replayed: made.replayed }))
}

/// List the campaigns
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/campaigns", tag = "campaigns",
    params(
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000, 100 when left out"),
    ),
    responses((status = 200, body = Page<Campaign>), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn list(caller: Caller<Read>, State(context): State<Arc<Context>>, mut parameters: Parameters) -> Answer {
    let (text, limit) = (parameters.text("cursor"), parameters.limit());
    parameters.finish()?;
    let after = match text {
        Some(text) => {
            let position = context.cursors.open(caller.tenant, LIST, &text)?;
            let (moment, id) = position.split_at_checked(8).ok_or_else(cursor::refused)?;
            Some((cursor::number(moment)?, CampaignId(cursor::number(id)?)))
        }
        None => None,
    };
    let data = context.api.ledger.campaigns(caller.tenant, after, limit).await?;
    let next_cursor = data.last().filter(|_| is_full(&data, limit)).map(|last| {
        let position = [last.created_at.as_ms().to_be_bytes(), last.id.0.to_be_bytes()].concat();
        context.cursors.seal(caller.tenant, LIST, &position)
    });
    found(Page { data, next_cursor })
}

/// Look at a campaign
#[utoipa::path(
    get, path = "/v1/campaigns/{id}", tag = "campaigns", params(("id" = CampaignId, Path)),
    responses((status = 200, body = Campaign), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn get(caller: Caller<Read>, State(context): State<Arc<Context>>, Id(campaign): Id<CampaignId>) -> Answer {
    found(context.api.ledger.campaign(caller.tenant, campaign).await?)
}

/// Launch a campaign
///
/// Answers at once whatever the audience; recipients are found and written to afterwards, or from `send_at` on. The
/// Idempotency-Key makes a repeat harmless. Refused when the content has a variable without a default that none of the
/// campaign's lists has: every recipient would fail.
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/launch", tag = "campaigns",
    params(
        ("id" = CampaignId, Path),
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters; must be there"),
    ),
    responses((status = 200, body = Campaign), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["send"])),
)]
pub async fn launch(
    caller: Caller<Send>,
    State(context): State<Arc<Context>>,
    Id(campaign): Id<CampaignId>,
    key: IdempotencyKey,
    body: NoBody,
) -> Answer {
    let once = body.once("POST /v1/campaigns/{id}/launch", key)?;
    check_supply(&context, caller.tenant, campaign).await?;
    let launched = context.api.ledger.launch(caller.tenant, campaign, Some(&once)).await?;
    if !launched.replayed {
        context.api.control.campaign_changed(campaign);
    }
    let (header, value) = replayable(launched.value, launched.replayed);
    let mut response: Response = JsonAnswer(value).into_response();
    response.headers_mut().extend(header);
    Ok(response)
}

/// Pause a campaign
///
/// From the answer on nothing of it is begun; `in_flight` says how many messages were on their way before. Nothing is
/// lost: it goes on from there when resumed.
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/pause", tag = "campaigns", params(("id" = CampaignId, Path)),
    responses((status = 200, body = CampaignStopped), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["write"])),
)]
pub async fn pause(
    caller: Caller<Write>,
    State(context): State<Arc<Context>>,
    Id(campaign): Id<CampaignId>,
    _: NoBody,
) -> Answer {
    let stopped = context.api.ledger.pause(caller.tenant, campaign, BY_OPERATOR).await?;
    context.api.control.campaign_changed(campaign);
    found(stopped)
}

/// Resume a paused campaign
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/resume", tag = "campaigns", params(("id" = CampaignId, Path)),
    responses((status = 200, body = Campaign), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["send"])),
)]
pub async fn resume(
    caller: Caller<Send>,
    State(context): State<Arc<Context>>,
    Id(campaign): Id<CampaignId>,
    _: NoBody,
) -> Answer {
    let resumed = context.api.ledger.resume(caller.tenant, campaign).await?;
    context.api.control.campaign_changed(campaign);
    found(resumed)
}

/// Cancel a campaign for good
///
/// From the answer on nothing of it is begun; who was not written to by then is `stopped` with the reason `cancelled`.
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/cancel", tag = "campaigns", params(("id" = CampaignId, Path)),
    responses((status = 200, body = CampaignStopped), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["write"])),
)]
pub async fn cancel(
    caller: Caller<Write>,
    State(context): State<Arc<Context>>,
    Id(campaign): Id<CampaignId>,
    _: NoBody,
) -> Answer {
    let stopped = context.api.ledger.cancel(caller.tenant, campaign).await?;
    context.api.control.campaign_changed(campaign);
    found(stopped)
}

/// Try failed recipients again
///
/// All of them, or those that failed with one code. They were definitely not accepted, so nobody is written to twice.
#[utoipa::path(
    post, path = "/v1/campaigns/{id}/retry", tag = "campaigns", params(("id" = CampaignId, Path)), request_body = Retry,
    responses((status = 200, body = Retried), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["send"])),
)]
pub async fn retry(
    caller: Caller<Send>,
    State(context): State<Arc<Context>>,
    Id(campaign): Id<CampaignId>,
    OptionalJson(which): OptionalJson<Retry>,
) -> Answer {
    let retried = context.api.ledger.retry(caller.tenant, campaign, &which).await?;
    context.api.control.campaign_changed(campaign);
    found(retried)
}

/// How far a campaign has come
///
/// The counts of `states` add up to `audience` at any moment; `stall` says why it does not move, when it does not, and
/// `opens_at` when its sending window opens, when it waits for that.
#[utoipa::path(
    get, path = "/v1/campaigns/{id}/progress", tag = "campaigns", params(("id" = CampaignId, Path)),
    responses((status = 200, body = Progress), (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")),
    security(("api_key" = ["read"])),
)]
pub async fn progress(
    caller: Caller<Read>,
    State(context): State<Arc<Context>>,
    Id(campaign): Id<CampaignId>,
) -> Answer {
    let mut progress = context.api.ledger.progress(caller.tenant, campaign).await?;
    if progress.stall == Some(StallReason::OutsideWindow) {
        let window = context.api.ledger.campaign(caller.tenant, campaign).await?.sending_window;
        let opens_at_ms = window.and_then(|window| window.opens_at(context.api.clock.now_ms()));
        progress.opens_at = opens_at_ms.map(Moment::from_ms);
    }
    found(progress)
}

/// Whether the lists of a draft have what its content needs. What else is wrong with a launch is the ledger's to say.
async fn check_supply(context: &Context, tenant: TenantId, id: CampaignId) -> Answer<()> {
    let ledger = context.api.ledger.as_ref();
    let campaign = match ledger.campaign(tenant, id).await {
        Ok(campaign) if campaign.state == CampaignState::Draft => campaign,
        Ok(_) | Err(LedgerError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let supply = Supply::of(ledger, tenant, &campaign.lists).await?;
    match ledger.brief(id).await? {
        Some(plan) if supply.is_there() => supply.check(&content::compile(&plan.content)?.1),
        _ => Ok(()),
    }
}

async fn source(context: &Context, tenant: TenantId, given: &CampaignContent) -> Answer<TemplateSource> {
    match given {
        CampaignContent::Inline { content } => Ok(content.clone()),
        CampaignContent::Stored { template } => {
            let stored = context.api.ledger.template(tenant, *template).await.map_err(named_at("/template"))?;
            Ok(stored.template.source)
        }
    }
}

/// The account a message goes through: the one named, or the channel's own.
pub(super) fn account(context: &Context, channel: Channel, named: Option<&str>) -> Result<String, FieldError> {
    let of_channel = || context.api.accounts.iter().filter(|account| account.channel == channel);
    let names: Vec<&str> = of_channel().map(|account| account.name.as_str()).collect();
    let found = match named {
        Some(named) => of_channel().find(|account| account.name == named),
        None => of_channel().find(|account| account.is_default),
    };
    found.map(|account| account.name.clone()).ok_or_else(|| {
        let detail = match (named, names.as_slice()) {
            (_, []) => {
                format!("no provider account for {channel} is set up; add one under `providers` in the settings")
            }
            (Some(_), names) => format!("there is no such account for {channel}; there are: {}", names.join(", ")),
            (None, names) => format!(
                "name one of the accounts for {channel} ({}), or make one the channel's own under `routes` in the \
                 settings",
                names.join(", ")
            ),
        };
        FieldError::new("/account", detail)
    })
}
