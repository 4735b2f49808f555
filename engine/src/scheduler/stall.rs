//! Why a campaign does not move.

use std::{collections::HashMap, time::Duration};

use dispatch_schemas::{
    api::campaigns::StallReason,
    ids::CampaignId,
    states::{CampaignState, Channel},
};
use dispatch_workers::limits::{Pause, Scope};

use super::Scheduler;
use crate::ledger::CampaignBrief;

/// A campaign without progress for this long is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// How far each campaign was, and since when.
#[derive(Debug, Default)]
pub(super) struct Stalls(HashMap<CampaignId, (u64, Duration)>);

impl Stalls {
    /// The campaigns that do not move, and why.
    pub(super) fn look(
        &mut self,
        scheduler: &Scheduler,
        campaigns: &[CampaignBrief],
    ) -> HashMap<CampaignId, StallReason> {
        let now = scheduler.clock.monotonic();
        self.0.retain(|id, _| campaigns.iter().any(|c| c.id == *id));
        let mut stalls = HashMap::new();
        for campaign in campaigns {
            if campaign.state != CampaignState::Running || !campaign.has_open_deliveries() {
                self.0.remove(&campaign.id);
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
        for why in [
            StallReason::Limit,
            StallReason::ProviderPaused,
            StallReason::ProviderRefused,
            StallReason::WaitingForRetry,
            StallReason::OutcomeUnknown,
            StallReason::NoWorker,
        ] {
            let count = stalls.values().filter(|known| **known == why).count();
            metrics::gauge!("dispatch_stalled_campaigns", "reason" => word(why)).set(count as f64);
        }
        stalls
    }
}

fn reason(scheduler: &Scheduler, campaign: &CampaignBrief) -> StallReason {
    match scheduler.limits.paused(&campaign.account) {
        Some(Pause::Until(_)) => return StallReason::ProviderPaused,
        Some(Pause::Refused(_)) => return StallReason::ProviderRefused,
        None => {}
    }
    if campaign.ready + campaign.claimed > 0 {
        let scopes = [
            Scope::Campaign(campaign.id),
            Scope::Tenant(campaign.tenant),
            Scope::Account(campaign.account.as_str().into()),
        ];
        return if scheduler.limits.per_second(&scopes).is_some() { StallReason::Limit } else { StallReason::NoWorker };
    }
    if campaign.waiting > 0 { StallReason::WaitingForRetry } else { StallReason::OutcomeUnknown }
}

const fn word(reason: StallReason) -> &'static str {
    match reason {
        StallReason::Limit => "limit",
        StallReason::ProviderPaused => "provider_paused",
        StallReason::ProviderRefused => "provider_refused",
        StallReason::WaitingForRetry => "waiting_for_retry",
        StallReason::OutcomeUnknown => "outcome_unknown",
        StallReason::NoWorker => "no_worker",
    }
}
