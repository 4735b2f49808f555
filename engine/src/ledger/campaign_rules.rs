//! What a campaign is when it is made, and what stands against its launch.

use dispatch_schemas::{
    api::{
        campaigns::{Campaign, NewCampaign},
        templates::{Content, StoredTemplate, TemplateSource},
        time::Moment,
    },
    ids::{CampaignId, ListId, TenantId},
    states::{CampaignState, Channel, UnknownPolicy},
};
use dispatch_workers::sealing::SendKeys;

use super::{LedgerError, MessageTerms, Result};

/// By which channel this content goes.
pub(super) const fn channel_of(content: &TemplateSource) -> Channel {
    match content.content {
        Content::Email { .. } => Channel::Email,
        Content::Sms { .. } => Channel::Sms,
    }
}

/// A campaign as it is made. A list that is named twice is one list.
pub(super) fn draft(
    id: CampaignId,
    new: &NewCampaign,
    content: &TemplateSource,
    account: &str,
    now_ms: i64,
) -> Campaign {
    let mut lists: Vec<ListId> = Vec::with_capacity(new.lists.len());
    for list in &new.lists {
        if !lists.contains(list) {
            lists.push(*list);
        }
    }
    Campaign {
        id,
        name: new.name.clone(),
        state: CampaignState::Draft,
        pause_reason: None,
        channel: channel_of(content),
        purpose: new.purpose,
        unknown_policy: new.unknown_policy.unwrap_or(UnknownPolicy::Verify),
        account: account.to_owned(),
        limits: new.limits,
        lists,
        send_at: new.send_at,
        expires_at: new.expires_at,
        sending_window: new.sending_window.clone(),
        created_at: Moment::from_ms(now_ms),
        launched_at: None,
        ended_at: None,
    }
}

/// Whether a campaign may be launched, as far as it says so itself.
pub(super) fn check_launch(campaign: &Campaign, now_ms: i64) -> Result<()> {
    if campaign.state == CampaignState::Cancelled && campaign.launched_at.is_none() {
        return Err(LedgerError::conflict(
            "campaign-state",
            "this campaign was cancelled before it was launched, for good; make a new one",
        ));
    }
    if campaign.state != CampaignState::Draft {
        return Err(LedgerError::conflict(
            "already-launched",
            format!("this campaign was launched before; it is {} now", campaign.state),
        ));
    }
    if campaign.expires_at.is_some_and(|at| at.as_ms() <= now_ms) {
        return Err(LedgerError::conflict(
            "campaign-expired",
            "this campaign's expires_at has passed; make a new one with a later moment",
        ));
    }
    Ok(())
}

/// Whether its audience may be launched at.
pub(super) fn check_audience(channel: Channel, importing: bool, is_empty: bool) -> Result<()> {
    if importing {
        return Err(LedgerError::conflict(
            "import-running",
            "an upload into one of this campaign's lists is still running; launch when it has ended",
        ));
    }
    if is_empty {
        return Err(LedgerError::conflict(
            "audience-empty",
            format!("no contact in this campaign's lists has an address for {channel}; upload contacts first"),
        ));
    }
    Ok(())
}

/// What a campaign is that was set going now: it waits for its time, or runs.
pub(super) fn set_going(campaign: &Campaign, now_ms: i64) -> CampaignState {
    let waits = campaign.send_at.is_some_and(|at| at.as_ms() > now_ms);
    if waits { CampaignState::Scheduled } else { CampaignState::Running }
}

/// What names the stream that a single message joins: one for each tenant, template, purpose and account.
pub(super) fn stream_key(tenant: TenantId, template: &StoredTemplate, terms: &MessageTerms) -> String {
    format!("{tenant}/{}/{}/{}", template.id, terms.purpose, terms.account)
}

/// The id a single message is asked for by: its first send key.
pub(super) fn message_id(send_keys: &SendKeys, campaign: CampaignId, seq: i64) -> String {
    send_keys.make(campaign, seq, 0).to_string()
}
