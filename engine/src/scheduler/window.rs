//! The window: how much of each campaign is in the queue, and whose turn it is.
//!
//! A window holds what workers take in the next seconds ([`Rates`]), and a fill goes round the tenants, the same quantum
//! for each: a campaign of 10 M and one of 100 get the same share until the small one is done. What is not in the window
//! waits in the ledger.
//!
//! A queue shared with other processes cannot say how many jobs of a campaign it holds. Then the ledger's counts do:
//! what is ready and lies before the cursor was published and not claimed yet. Should the queue have lost it, nothing
//! moves, and the window starts over from where the first of it lies.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{Channel, Lane},
};
use dispatch_workers::{abort::AbortPoint, delivery::Plans as _};

use super::{
    Scheduler,
    rates::{Rates, taken},
};
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

/// A campaign with published jobs none of which was claimed for this long is published again: the queue has lost them.
/// Longer than jobs wait behind others in a full queue; a job published twice is a no-op.
const LOST_AFTER: Duration = Duration::from_secs(30);

/// How far each campaign has been published, how fast it is taken, and the order of tenants.
#[derive(Debug, Default)]
pub(super) struct Window {
    cursors: HashMap<CampaignId, Cursor>,
    rates: Rates,
    turn: VecDeque<TenantId>,
    /// Campaigns that nobody can say how to send; logged once.
    unplanned: HashSet<CampaignId>,
}

/// How far a campaign has been published.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    /// The next number to publish.
    next: i64,
    /// Nothing below this number was ready at the last look back.
    low: i64,
    /// How many recipients had been found when nothing was ready from `next` on.
    passed: Option<u64>,
    /// How far its deliveries were when they last moved.
    moved: Moved,
    /// Starts over since then.
    again: u32,
}

/// How far a campaign's deliveries were, and since when. Zero ones stand for a campaign not looked at yet.
#[derive(Debug, Clone, Copy, Default)]
struct Moved {
    taken: u64,
    finished: u64,
    since: Option<Duration>,
}

impl Cursor {
    /// Jobs that must be in the queue or with a worker, by the ledger's counts.
    fn outstanding(&self, campaign: &CampaignBrief) -> usize {
        let found = found(campaign);
        // A cursor that began anew stands behind the last that was ready, and not at the end of what was found.
        let unpublished = match self.passed == Some(found) {
            true => 0,
            false => found.saturating_sub(u64::try_from(self.next).unwrap_or_default()),
        };
        usize::try_from(campaign.ready.saturating_sub(unpublished)).unwrap_or(usize::MAX)
    }

    /// Publishes from the first that can be ready again.
    const fn start_over(&mut self) {
        self.next = self.low;
        self.passed = None;
    }

    /// Starts over when published jobs have not moved for too long: from the low mark, then from the very first, since
    /// what came back from a wait may lie below it.
    fn watch(&mut self, campaign: &CampaignBrief, now: Duration) {
        let moved = Moved { taken: taken(campaign), finished: campaign.finished, since: Some(now) };
        let stands = (moved.taken, moved.finished) == (self.moved.taken, self.moved.finished);
        let since = self.moved.since.filter(|_| stands);
        if self.outstanding(campaign) == 0 || since.is_none() {
            (self.moved, self.again) = (moved, 0);
        } else if since.is_some_and(|since| now >= since + LOST_AFTER) {
            tracing::warn!(campaign = %campaign.id, "published jobs were not taken; publishing again what is ready");
            if self.again > 0 {
                self.low = 0;
            }
            self.start_over();
            self.again += 1;
            self.moved.since = Some(now);
        }
    }
}

/// Recipients that were found so far.
fn found(campaign: &CampaignBrief) -> u64 {
    campaign.ready + taken(campaign)
}

/// A campaign that can take jobs in this fill.
struct Wanting {
    campaign: CampaignId,
    found: u64,
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

    /// Forgets how far campaigns are that are another scheduler's now.
    pub(super) fn keep(&mut self, mine: &[CampaignBrief]) {
        self.cursors.retain(|id, _| mine.iter().any(|campaign| campaign.id == *id));
        self.unplanned.retain(|id| mine.iter().any(|campaign| campaign.id == *id));
    }

    /// All campaigns: the queue may have lost what it had.
    pub(super) fn restart_all(&mut self) {
        self.cursors.values_mut().for_each(Cursor::start_over);
    }

    /// These were published beside the window, wherever its cursor is.
    pub(super) fn published_apart(&mut self, campaign: CampaignId, seqs: &[i64]) {
        if let (Some(cursor), Some(first)) = (self.cursors.get_mut(&campaign), seqs.first()) {
            cursor.low = cursor.low.min(*first);
        }
    }

    /// The campaign has ended.
    pub(super) fn forget(&mut self, campaign: CampaignId) {
        self.cursors.remove(&campaign);
    }

    /// Fills the windows of those of `mine` that may send. `all` are those of every scheduler: they share the queue.
    pub(super) async fn fill(
        &mut self,
        scheduler: &Scheduler,
        all: &[CampaignBrief],
        mine: &[CampaignBrief],
        now_ms: i64,
    ) -> Result<(), LedgerError> {
        let sends = |campaign: &&CampaignBrief| campaign.ready > 0 && scheduler.may_send(campaign, now_ms);
        self.rates.look(all, scheduler.clock.monotonic());
        let sending: Vec<&CampaignBrief> = all.iter().filter(sends).collect();
        let shares = self.rates.shares(&sending, scheduler.window.window_seconds);
        let mut wanting = Vec::new();
        for campaign in mine.iter().filter(sends) {
            let share = shares.get(&campaign.id).copied().unwrap_or(0);
            match self.wants(scheduler, campaign, share).await {
                Ok(wants) => {
                    self.unplanned.remove(&campaign.id);
                    wanting.extend(wants);
                }
                // The others go on.
                Err(error) => {
                    if self.unplanned.insert(campaign.id) {
                        tracing::error!(campaign = %campaign.id, %error, "a campaign waits until it can be read");
                    }
                }
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

    async fn wants(
        &mut self,
        scheduler: &Scheduler,
        campaign: &CampaignBrief,
        share: usize,
    ) -> Result<Option<Wanting>, LedgerError> {
        let waiting = match scheduler.queue.outstanding(campaign.id) {
            // Of those some are with workers, and in nobody's way.
            Some(outstanding) => outstanding.saturating_sub(usize::try_from(campaign.claimed).unwrap_or(usize::MAX)),
            None => {
                let cursor = self.cursors.entry(campaign.id).or_default();
                cursor.watch(campaign, scheduler.clock.monotonic());
                cursor.outstanding(campaign)
            }
        };
        let plan = scheduler.plans.plan(campaign.id).await.map_err(|error| LedgerError::Unavailable(error.0))?;
        let Some(plan) = plan else {
            if campaign.lane == Lane::Bulk {
                let reason = "its content or its account cannot be used; see the log";
                scheduler.ledger.pause(campaign.tenant, campaign.id, reason).await?;
            }
            return Ok(None);
        };
        let batch = plan.account.claim_size();
        // Whole requests, or they would stay small.
        let share = share.max(1).div_ceil(batch).saturating_mul(batch).min(scheduler.window.window_max);
        let size = match scheduler.limits.per_second(&plan.scopes) {
            None => share,
            // A slow campaign gets a small window, so that its jobs do not stand in the way of others.
            Some(rate) => {
                let seconds = scheduler.window.window_seconds as f64;
                ((rate * seconds).ceil() as usize).clamp(1, share)
            }
        };
        let room = size.saturating_sub(waiting).min(scheduler.queue.room(campaign.channel, campaign.lane));
        Ok((room > 0).then_some(Wanting {
            campaign: campaign.id,
            found: found(campaign),
            tenant: campaign.tenant,
            channel: campaign.channel,
            lane: campaign.lane,
            room,
            batch,
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
            cursor.passed = (seqs.len() < room).then_some(wants.found);
            if cursor.next == cursor.low {
                cursor.low = seqs.first().copied().unwrap_or(cursor.low);
            }
            if seqs.is_empty() && cursor.low < cursor.next && scheduler.queue.outstanding(wants.campaign) == Some(0) {
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
                AbortPoint::Published.reached();
            }
        }
        Ok(QUANTUM - left)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use dispatch_schemas::states::{CampaignState, UnknownPolicy};

    use super::*;

    pub(in crate::scheduler) fn campaign(ready: u64, claimed: u64, finished: u64) -> CampaignBrief {
        CampaignBrief {
            is_tenant_closed: false,
            sending_window: None,
            id: CampaignId(1),
            tenant: TenantId(1),
            channel: Channel::Email,
            lane: Lane::Bulk,
            state: CampaignState::Running,
            account: "a".into(),
            unknown_policy: UnknownPolicy::Verify,
            send_at_ms: None,
            expires_at_ms: None,
            expanded: true,
            ready,
            claimed,
            unknown: 0,
            waiting: 0,
            finished,
            stall: None,
        }
    }

    #[test]
    fn what_is_ready_before_the_cursor_is_outstanding() {
        let cursor = |next| Cursor { next, ..Cursor::default() };
        assert_eq!(cursor(0).outstanding(&campaign(1_000, 0, 0)), 0);
        assert_eq!(cursor(200).outstanding(&campaign(1_000, 0, 0)), 200);
        assert_eq!(cursor(200).outstanding(&campaign(850, 50, 100)), 50);
        assert_eq!(cursor(1_000).outstanding(&campaign(5, 0, 995)), 5);
        // A scheduler that has just started does not know what was published before.
        assert_eq!(cursor(0).outstanding(&campaign(400, 0, 600)), 0);
    }

    #[test]
    fn what_is_ready_behind_a_cursor_with_nothing_before_it_is_outstanding() {
        // It began anew when one of 110 was left, and published that one.
        let mut cursor = Cursor { next: 42, low: 41, passed: Some(110), ..Cursor::default() };
        let one_left = campaign(1, 0, 109);
        assert_eq!(cursor.outstanding(&one_left), 1);
        cursor.watch(&one_left, Duration::ZERO);
        cursor.watch(&one_left, LOST_AFTER);
        assert_eq!((cursor.next, cursor.passed), (41, None), "it is published again");
        // More have been found since, and lie before it.
        let cursor = Cursor { next: 42, passed: Some(110), ..Cursor::default() };
        assert_eq!(cursor.outstanding(&campaign(91, 0, 109)), 0);
    }

    #[test]
    fn a_campaign_that_does_not_move_is_published_again_from_its_low_mark_then_from_its_start() {
        let mut cursor = Cursor { next: 500, low: 100, ..Cursor::default() };
        let stuck = campaign(600, 0, 400);
        cursor.watch(&stuck, Duration::ZERO);
        cursor.watch(&stuck, LOST_AFTER - Duration::from_millis(1));
        assert_eq!(cursor.next, 500);
        cursor.watch(&stuck, LOST_AFTER);
        assert_eq!(cursor.next, 100);
        cursor.next = 500;
        cursor.watch(&stuck, LOST_AFTER * 2);
        assert_eq!(cursor.next, 0);
    }

    #[test]
    fn a_campaign_that_moves_or_has_nothing_published_is_left_alone() {
        let mut cursor = Cursor { next: 500, ..Cursor::default() };
        for (seconds, finished) in [(0, 400), (20, 401), (40, 402), (60, 403)] {
            cursor.watch(&campaign(1_000 - finished, 0, finished), Duration::from_secs(seconds));
        }
        assert_eq!(cursor.next, 500);
        let mut idle = Cursor { next: 0, ..Cursor::default() };
        idle.watch(&campaign(1_000, 0, 0), Duration::ZERO);
        idle.watch(&campaign(1_000, 0, 0), LOST_AFTER * 3);
        assert_eq!(idle.again, 0);
    }
}
