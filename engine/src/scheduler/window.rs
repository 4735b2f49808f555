//! The window: how much of each campaign is in the queue, and whose turn it is.
//!
//! Deficit round robin over tenants: each round gives every tenant with waiting jobs the same quantum, so a campaign
//! of 10 M and one of 100 get the same share until the small one is done. What is not in the window waits in the
//! ledger.

use std::collections::{HashMap, VecDeque};

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{Channel, Lane},
};
use dispatch_workers::delivery::Plans as _;

use super::Scheduler;
use crate::{
    ledger::{CampaignBrief, LedgerError},
    queue::Batch,
};

/// Jobs a tenant may publish in one round.
const QUANTUM: usize = 2_000;
/// Jobs in a batch of retries, which lie apart and share nothing.
pub(super) const RETRY_BATCH: usize = 100;
/// Rounds in one call: bounds how long a fill keeps the scheduler from its other work.
const ROUNDS_MAX: usize = 32;

/// How far each campaign has been published, and the order of tenants.
#[derive(Debug, Default)]
pub(super) struct Window {
    cursors: HashMap<CampaignId, Cursor>,
    turn: VecDeque<TenantId>,
}

/// How far a campaign has been published.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    /// The next number to publish.
    next: i64,
    /// Nothing below this number was ready at the last look back.
    low: i64,
}

/// A campaign that can take jobs in this fill.
struct Wanting {
    campaign: CampaignId,
    tenant: TenantId,
    channel: Channel,
    lane: Lane,
    room: usize,
    batch: usize,
}

impl Window {
    /// Publishes from the start again: what was published before may be gone.
    pub(super) fn restart(&mut self, campaign: CampaignId) {
        self.cursors.remove(&campaign);
    }

    /// The campaign has ended.
    pub(super) fn forget(&mut self, campaign: CampaignId) {
        self.cursors.remove(&campaign);
    }

    /// Fills the windows of all campaigns that may send.
    pub(super) async fn fill(
        &mut self,
        scheduler: &Scheduler,
        campaigns: &[CampaignBrief],
        now_ms: i64,
    ) -> Result<(), LedgerError> {
        let mut wanting = Vec::new();
        for campaign in campaigns.iter().filter(|c| c.ready > 0 && scheduler.may_send(c, now_ms)) {
            if let Some(wants) = self.wants(scheduler, campaign).await? {
                wanting.push(wants);
            }
        }
        self.take_turns(&wanting);
        for _ in 0..ROUNDS_MAX {
            let mut published = 0;
            for tenant in self.turn.clone() {
                published += self.serve(scheduler, tenant, &mut wanting).await?;
            }
            if published == 0 {
                break;
            }
        }
        self.turn.rotate_left(usize::from(!self.turn.is_empty()));
        Ok(())
    }

    async fn wants(&mut self, scheduler: &Scheduler, campaign: &CampaignBrief) -> Result<Option<Wanting>, LedgerError> {
        let outstanding = scheduler.queue.outstanding(campaign.id);
        let plan = scheduler.plans.plan(campaign.id).await.map_err(|error| LedgerError::Unavailable(error.0))?;
        let Some(plan) = plan else {
            if campaign.lane == Lane::Bulk {
                let reason = "its content or its account cannot be used; see the log";
                scheduler.ledger.pause(campaign.tenant, campaign.id, reason).await?;
            }
            return Ok(None);
        };
        let rate = scheduler.limits.per_second(&plan.scopes);
        let size = match rate {
            None => scheduler.window.window_max,
            // A slow campaign gets a small window, so that its jobs do not stand in the way of others.
            Some(rate) => {
                let seconds = scheduler.window.window_seconds as f64;
                ((rate * seconds).ceil() as usize).clamp(1, scheduler.window.window_max)
            }
        };
        let room = size.saturating_sub(outstanding).min(scheduler.queue.room(campaign.channel, campaign.lane));
        Ok((room > 0).then(|| Wanting {
            campaign: campaign.id,
            tenant: campaign.tenant,
            channel: campaign.channel,
            lane: campaign.lane,
            room,
            batch: plan.account.claim_size(),
        }))
    }

    fn take_turns(&mut self, wanting: &[Wanting]) {
        self.turn.retain(|tenant| wanting.iter().any(|w| w.tenant == *tenant));
        for wants in wanting {
            if !self.turn.contains(&wants.tenant) {
                self.turn.push_back(wants.tenant);
            }
        }
    }

    /// Publishes up to a quantum for one tenant, over its campaigns in turn.
    async fn serve(
        &mut self,
        scheduler: &Scheduler,
        tenant: TenantId,
        wanting: &mut [Wanting],
    ) -> Result<usize, LedgerError> {
        let mut left = QUANTUM;
        for wants in wanting.iter_mut().filter(|w| w.tenant == tenant && w.room > 0) {
            let room = wants.room.min(left).min(scheduler.queue.room(wants.channel, wants.lane));
            if room == 0 {
                continue;
            }
            let limit = u32::try_from(room).unwrap_or(u32::MAX);
            let cursor = self.cursors.entry(wants.campaign).or_default();
            let mut seqs = scheduler.ledger.ready_from(wants.campaign, cursor.next, limit).await?;
            if seqs.is_empty() && cursor.low < cursor.next && scheduler.queue.outstanding(wants.campaign) == 0 {
                // Some are ready and none is with a worker: they lie behind, lost with a worker or a round that failed.
                seqs = scheduler.ledger.ready_from(wants.campaign, cursor.low, limit).await?;
                cursor.low = seqs.first().copied().unwrap_or(cursor.next);
            }
            wants.room = if seqs.len() < room { 0 } else { wants.room - seqs.len() };
            left -= seqs.len();
            if let Some(last) = seqs.last() {
                cursor.next = cursor.next.max(last + 1);
            }
            for chunk in seqs.chunks(wants.batch) {
                scheduler.queue.publish(Batch {
                    campaign: wants.campaign,
                    channel: wants.channel,
                    lane: wants.lane,
                    seqs: chunk.to_vec(),
                });
            }
        }
        Ok(QUANTUM - left)
    }
}
