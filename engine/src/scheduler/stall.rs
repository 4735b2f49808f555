//! Why a campaign does not move.

use std::{collections::HashMap, time::Duration};

use dispatch_schemas::{
    ids::CampaignId,
    states::{CampaignState, Channel, StallReason},
};
use dispatch_workers::limits::{Pause, Scope};

use super::Scheduler;
use crate::ledger::{CampaignBrief, Held, LedgerError};

/// A campaign without progress for this long is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// How far each campaign was, and since when.
#[derive(Debug, Default)]
pub(super) struct Stalls(HashMap<CampaignId, (u64, Duration)>);

impl Stalls {
    /// Notes in the ledger which campaigns do not move, and why.
    pub(super) async fn note(
        &mut self,
        scheduler: &Scheduler,
        campaigns: &[CampaignBrief],
        now_ms: i64,
    ) -> Result<(), LedgerError> {
        let stalls = self.look(scheduler, campaigns, now_ms);
        let now = |campaign: &CampaignBrief| stalls.get(&campaign.id).copied();
        let changed: Vec<_> =
            campaigns.iter().filter(|c| c.stall != now(c)).map(|campaign| (campaign.id, now(campaign))).collect();
        if changed.is_empty() { Ok(()) } else { scheduler.ledger.note_stalls(&changed).await }
    }

    /// The campaigns that do not move, and why. One that is held is told at once: it will not move.
    fn look(
        &mut self,
        scheduler: &Scheduler,
        campaigns: &[CampaignBrief],
        now_ms: i64,
    ) -> HashMap<CampaignId, StallReason> {
        let now = scheduler.clock.monotonic();
        self.0.retain(|id, _| campaigns.iter().any(|c| c.id == *id));
        let mut stalls = HashMap::new();
        for campaign in campaigns {
            if campaign.state != CampaignState::Running || !campaign.has_open_deliveries() {
                self.0.remove(&campaign.id);
                continue;
            }
            if let Some(held) = campaign.held(now_ms).filter(|_| campaign.ready + campaign.waiting > 0) {
                // What waits for its time is not late.
                self.0.remove(&campaign.id);
                stalls.insert(campaign.id, reason_of(held));
                continue;
            }
            let (progress, since) = self.0.entry(campaign.id).or_insert((campaign.finished, now));
            if *progress != campaign.finished {
                (*progress, *since) = (campaign.finished, now);
            } else if now.saturating_sub(*since) >= STALLED_AFTER {
                stalls.insert(campaign.id, reason(scheduler, campaign));
            }
        }
        for channel in Channel::ALL {
            let waits = campaigns.iter().filter(|c| c.channel == *channel && c.ready + c.claimed > 0);
            let longest = waits.filter_map(|c| Some(now.saturating_sub(self.0.get(&c.id)?.1))).max();
            metrics::gauge!("dispatch_oldest_waiting_seconds", "channel" => channel.as_str())
                .set(longest.unwrap_or_default().as_secs_f64());
        }
        for why in StallReason::ALL {
            let count = stalls.values().filter(|known| *known == why).count();
            metrics::gauge!("dispatch_stalled_campaigns", "reason" => why.as_str()).set(count as f64);
        }
        stalls
    }
}

const fn reason_of(held: Held) -> StallReason {
    match held {
        Held::Gate => StallReason::Gate,
        Held::OutsideWindow => StallReason::OutsideWindow,
    }
}

fn reason(scheduler: &Scheduler, campaign: &CampaignBrief) -> StallReason {
    match scheduler.limits.paused(&campaign.account) {
        Some(Pause::Until(_)) => return StallReason::ProviderPaused,
        Some(Pause::Refused(_)) => return StallReason::ProviderRefused,
        None => {}
    }
    let is_put_off = scheduler.limits.is_put_off(campaign.id);
    if campaign.ready + campaign.claimed > 0 {
        let scopes = [
            Scope::Campaign(campaign.id),
            Scope::Tenant(campaign.tenant),
            Scope::Account(campaign.account.as_str().into()),
        ];
        let is_limited = scheduler.limits.per_second(&scopes).is_some() || is_put_off;
        return if is_limited { StallReason::Limit } else { StallReason::NoWorker };
    }
    match campaign.waiting {
        0 => StallReason::OutcomeUnknown,
        _ if is_put_off => StallReason::Limit,
        _ => StallReason::WaitingForRetry,
    }
}
