//! Ending the waiting deliveries of cancelled and expired campaigns, a span at a time.

use std::collections::HashMap;

use dispatch_schemas::{
    ids::CampaignId,
    states::{CampaignState, StopReason},
};

use super::Scheduler;
use crate::ledger::{CampaignBrief, End, LedgerError};

/// Numbers of a campaign gone through in one step: bounds how long the ledger is busy with it.
const SPAN: u32 = 10_000;

/// How far each campaign has been gone through.
#[derive(Debug, Default)]
pub(super) struct Endings(HashMap<CampaignId, i64>);

impl Endings {
    /// One step for each campaign that is to end. True when there is more to do at once.
    pub(super) async fn step(
        &mut self,
        scheduler: &Scheduler,
        campaigns: &[CampaignBrief],
        now_ms: i64,
    ) -> Result<bool, LedgerError> {
        let expired = |c: &CampaignBrief| c.expires_at_ms.is_some_and(|at| at <= now_ms);
        let is_open = |c: &CampaignBrief| {
            matches!(c.state, CampaignState::Scheduled | CampaignState::Paused)
                || (c.state == CampaignState::Running && !c.expanded)
        };
        if campaigns.iter().any(|c| expired(c) && is_open(c)) {
            scheduler.ledger.close_expired(now_ms).await?;
        }
        self.0.retain(|id, _| campaigns.iter().any(|c| c.id == *id));
        let mut busy = false;
        for campaign in campaigns.iter().filter(|c| c.ready + c.waiting > 0) {
            let end = match campaign.state {
                CampaignState::Cancelled => End::Stopped(StopReason::Cancelled),
                _ if expired(campaign) => End::Expired,
                _ => continue,
            };
            let from = self.0.get(&campaign.id).copied().unwrap_or(0);
            match scheduler.ledger.end_waiting(campaign.id, end, from, SPAN, now_ms).await? {
                Some(next) => {
                    self.0.insert(campaign.id, next);
                    busy = true;
                }
                None => drop(self.0.remove(&campaign.id)),
            }
        }
        Ok(busy)
    }
}
