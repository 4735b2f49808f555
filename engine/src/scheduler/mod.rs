//! The scheduler: finds recipients, keeps the window of each campaign filled, wakes what waits, and sees to it that
//! every delivery ends.
//!
//! It does no per-recipient work of its own: each step is one statement over many. Everything it needs is in the
//! ledger; what it keeps in memory (how far it has published) may be lost at any moment.

mod desk;
mod ended;
mod endings;
mod rates;
mod reconcile;
mod share;
mod stall;
mod uploads;
mod window;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

pub use desk::Desk;
use dispatch_schemas::{
    ids::CampaignId,
    states::{CampaignState, Channel, DeliveryState, Lane},
};
use dispatch_workers::{
    abort::AbortPoint,
    clock::Clock,
    delivery::{RetryDelay, Timing},
    limits::{Limits, Pause},
};
use endings::Endings;
pub use reconcile::Reconciler;
use stall::Stalls;
pub use uploads::look_after_uploads;
use window::Window;

use crate::{
    ledger::{CampaignBrief, Ledger, LedgerError},
    plans::PlanBook,
    queue::{Batch, Queue},
    settings::QueueSettings,
};

/// The longest the scheduler sleeps when nothing wakes it.
const TICK: Duration = Duration::from_millis(50);
/// The shortest it sleeps, so that a busy queue does not make it look at the ledger for every batch.
const REST: Duration = Duration::from_millis(10);
/// Wait after a round that failed: the first one, and the longest; it doubles in between. Shorter than the silence
/// after which other schedulers take over.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// How often it looks for what has ended, waits too long or is unknown.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// How often answers of old idempotent calls are forgotten.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(3_600);
/// Contacts looked at in one step of an expansion.
const EXPAND_CHUNK: u32 = 10_000;
/// Deliveries woken in one step.
const SWEEP_CHUNK: u32 = 10_000;

/// What the scheduler works with.
pub struct Scheduler {
    /// Its name among the schedulers of a ledger, drawn at start.
    pub id: i64,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Its end of the queue.
    pub queue: Arc<dyn Queue>,
    /// The campaigns' plans.
    pub plans: Arc<PlanBook>,
    /// The limits, for pauses of accounts.
    pub limits: Arc<Limits>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The protocol's timers.
    pub timing: Timing,
    /// How large windows may be.
    pub window: QueueSettings,
    /// What others may ask and say.
    pub desk: Arc<Desk>,
    /// By account: where its key comes from.
    pub key_places: HashMap<String, String>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scheduler")
    }
}

impl Scheduler {
    /// Works until `stop` completes.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut state = State::default();
        let mut delay = RetryDelay::new(AGAIN_FIRST, AGAIN_MAX);
        loop {
            let (busy, again_after) = match self.tick(&mut state).await {
                Ok(busy) => {
                    self.desk.beat(self.clock.monotonic());
                    delay.reset();
                    (busy, None)
                }
                Err(error) => {
                    tracing::warn!(%error, "the scheduler could not do its work; trying again");
                    (false, Some(delay.next_wait()))
                }
            };
            let pause = async {
                if let Some(wait) = again_after {
                    tokio::time::sleep(wait).await;
                } else if !busy {
                    tokio::time::sleep(REST).await;
                    tokio::select! {
                        () = tokio::time::sleep(TICK) => {}
                        () = self.desk.woken() => {}
                        () = self.queue.changed() => {}
                    }
                }
            };
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = pause => {}
            }
        }
    }

    /// One round. True when there is more to do at once.
    async fn tick(&self, state: &mut State) -> Result<bool, LedgerError> {
        let (now, now_ms) = (self.clock.monotonic(), self.clock.now_ms());
        let epoch = self.ledger.epoch().await?;
        if epoch.is_held() {
            return Ok(false);
        }
        if epoch.released_at_ms != state.released_at_ms {
            // Workers were given jobs meanwhile and could claim nothing.
            state.released_at_ms = epoch.released_at_ms;
            state.window.restart_all();
        }
        let sweeps = state.swept_at.is_none_or(|at| now >= at + SWEEP_EVERY);
        if sweeps {
            let silent_max_ms = i64::try_from(share::SILENT_MAX.as_millis()).unwrap_or(i64::MAX);
            self.desk.set_living(self.ledger.beat(self.id, now_ms, silent_max_ms).await?);
        }
        // Before the look: what was committed before the desk heard of it is in what is looked at.
        let restarted = self.desk.take_restarted();
        let all = match self.ledger.unfinished().await {
            Ok(campaigns) => campaigns,
            Err(error) => {
                self.desk.put_back(restarted);
                return Err(error);
            }
        };
        let living = self.desk.living();
        let mine: Vec<_> = all.iter().filter(|c| share::is_mine(c.id, self.id, &living)).cloned().collect();
        state.window.keep(&mine);
        self.restart(&mine, &restarted, state).await;
        if self.queue.take_lost() {
            state.window.restart_all();
        }
        self.pause_refused(&mine, state, now_ms).await?;
        self.close_gated(&mine);
        self.complete(&mine, state, now_ms).await?;
        let mut busy = self.expand(&mine, now_ms).await?;
        busy |= state.endings.step(self, &mine, now_ms).await?;
        if sweeps {
            state.swept_at = Some(now);
            busy |= self.sweep(&all, &mine, state, now_ms).await?;
        }
        self.give_back(&mine, state, now_ms);
        state.window.fill(self, &all, &mine, now_ms).await?;
        Ok(busy)
    }

    /// Campaigns that a person set going: their windows start over, and an account that was refused gets another try.
    async fn restart(&self, campaigns: &[CampaignBrief], restarted: &[CampaignId], state: &mut State) {
        // One that another process set going is seen by its state.
        let running: HashSet<CampaignId> =
            campaigns.iter().filter(|c| c.state == CampaignState::Running).map(|c| c.id).collect();
        let seen = running.difference(&state.running).copied();
        let restarted: HashSet<CampaignId> = restarted.iter().copied().chain(seen).collect();
        state.running = running;
        for id in &restarted {
            state.window.restart(*id);
            let running = campaigns.iter().find(|c| c.id == *id && c.state == CampaignState::Running);
            if let Some(campaign) = running
                && matches!(self.limits.paused(&campaign.account), Some(Pause::Refused(_)))
            {
                self.limits.resume(&campaign.account).await;
            }
        }
    }

    /// T1 for every running campaign that has recipients left to find, a chunk each.
    async fn expand(&self, campaigns: &[CampaignBrief], now_ms: i64) -> Result<bool, LedgerError> {
        let mut busy = false;
        for campaign in campaigns.iter().filter(|c| c.state == CampaignState::Running && !c.expanded) {
            self.ledger.expand(campaign.id, EXPAND_CHUNK, now_ms).await?;
            AbortPoint::Expanded.reached();
            busy = true;
        }
        Ok(busy)
    }

    /// Ends campaigns of which every recipient is final.
    async fn complete(&self, campaigns: &[CampaignBrief], state: &mut State, now_ms: i64) -> Result<(), LedgerError> {
        let may_end = |c: &&CampaignBrief| {
            matches!(c.state, CampaignState::Running | CampaignState::Cancelled) && c.lane == Lane::Bulk && c.expanded
        };
        for campaign in campaigns.iter().filter(may_end).filter(|c| !c.has_open_deliveries()) {
            if self.ledger.complete(campaign.id, now_ms).await? {
                self.plans.forget(campaign.id).await;
                state.window.forget(campaign.id);
                ended::log(&self.ledger.progress(campaign.tenant, campaign.id).await?);
            }
        }
        Ok(())
    }

    /// Publishes what workers gave back, unless its campaign has stopped: then a resume starts over.
    fn give_back(&self, campaigns: &[CampaignBrief], state: &mut State, now_ms: i64) {
        for batch in self.queue.take_returned() {
            let goes_on = campaigns.iter().any(|c| c.id == batch.campaign && self.may_send(c, now_ms));
            if goes_on {
                self.queue.publish(batch);
            } else {
                state.window.restart(batch.campaign);
            }
        }
    }

    fn may_send(&self, campaign: &CampaignBrief, now_ms: i64) -> bool {
        campaign.state == CampaignState::Running
            && campaign.held(now_ms).is_none()
            && self.limits.paused(&campaign.account).is_none()
    }

    /// Plans of tenants that were closed by another process.
    fn close_gated(&self, campaigns: &[CampaignBrief]) {
        for campaign in campaigns.iter().filter(|c| c.is_tenant_closed) {
            self.plans.close(campaign.id);
        }
    }

    /// Everything that happens with time: starts, ends, waits, unanswered requests. Done for all campaigns by every
    /// scheduler, so that nothing waits for one that has died.
    async fn sweep(
        &self,
        campaigns: &[CampaignBrief],
        mine: &[CampaignBrief],
        state: &mut State,
        now_ms: i64,
    ) -> Result<bool, LedgerError> {
        let mut busy = false;
        if campaigns.iter().any(|c| c.state == CampaignState::Scheduled && c.send_at_ms.is_none_or(|at| at <= now_ms)) {
            busy |= self.ledger.start_due(now_ms).await? > 0;
        }
        if campaigns.iter().any(|c| c.waiting > 0 && c.state == CampaignState::Running) {
            for due in self.ledger.wake_waiting(now_ms, SWEEP_CHUNK).await? {
                let brief = campaigns.iter().find(|c| c.id == due.campaign);
                match brief.filter(|c| self.may_send(c, now_ms)) {
                    Some(brief) => {
                        state.window.published_apart(due.campaign, &due.seqs);
                        self.publish_again(brief, &due.seqs);
                    }
                    // They wait in the ledger with the others.
                    None => state.window.restart(due.campaign),
                }
            }
        }
        if campaigns.iter().any(|c| c.claimed > 0) {
            let reap_after_ms = i64::try_from(self.timing.reap_after_ms()).unwrap_or(i64::MAX / 2);
            self.ledger.reap(now_ms.saturating_sub(reap_after_ms), now_ms, &self.timing).await?;
        }
        self.measure(campaigns);
        state.stalls.note(self, mine, now_ms).await?;
        if state.cleaned_at.is_none_or(|at| self.clock.monotonic() >= at + HOUSEKEEPING_EVERY) {
            state.cleaned_at = Some(self.clock.monotonic());
            self.ledger.forget_old_answers(now_ms.saturating_sub(crate::ledger::ANSWERS_KEPT_MS)).await?;
        }
        Ok(busy)
    }

    /// Deliveries that became ready out of order: the window's cursor has passed them.
    fn publish_again(&self, brief: &CampaignBrief, seqs: &[i64]) {
        for chunk in seqs.chunks(window::RETRY_BATCH) {
            self.queue.publish(Batch {
                campaign: brief.id,
                channel: brief.channel,
                lane: brief.lane,
                seqs: chunk.to_vec(),
            });
        }
    }

    /// An account that its provider refuses: it is logged once, its campaigns pause with the reason, and no recipient
    /// fails for it.
    async fn pause_refused(
        &self,
        campaigns: &[CampaignBrief],
        state: &mut State,
        now_ms: i64,
    ) -> Result<(), LedgerError> {
        for account in self.plans.accounts() {
            let Some(Pause::Refused(code)) = self.limits.paused(&account.name) else {
                state.refused.remove(&account.name);
                continue;
            };
            let mend = self.mend(&account.name);
            if state.refused.insert(account.name.clone()) {
                tracing::error!(
                    account = %account.name, %code,
                    "the provider refuses this account and its campaigns pause: {mend}"
                );
            }
            let sends = |c: &CampaignBrief| {
                c.state == CampaignState::Running
                    && c.lane == Lane::Bulk
                    && *c.account == *account.name
                    && c.expires_at_ms.is_none_or(|at| at > now_ms)
            };
            if campaigns.iter().any(sends) {
                let reason = format!("the provider refuses the account `{}` ({code}): {mend}", account.name);
                for (_, campaign) in self.ledger.pause_account(&account.name, &reason, now_ms).await? {
                    self.plans.close(campaign);
                }
            }
        }
        Ok(())
    }

    /// What an operator does about a refused account. Its key is read when the engine starts.
    fn mend(&self, account: &str) -> String {
        match self.key_places.get(account) {
            Some(place) => {
                format!("mend the key in {place} and restart, or the account at the provider; then resume the campaign")
            }
            None => "mend the account at the provider; then resume the campaign".to_owned(),
        }
    }

    fn measure(&self, campaigns: &[CampaignBrief]) {
        for (channel, lane, jobs) in self.queue.depths() {
            metrics::gauge!("dispatch_queue_jobs", "channel" => channel.as_str(), "lane" => lane.as_str())
                .set(jobs as f64);
        }
        for channel in Channel::ALL {
            let of_channel = || campaigns.iter().filter(|c| c.channel == *channel);
            for (state, count) in [
                (DeliveryState::Ready, of_channel().map(|c| c.ready).sum::<u64>()),
                (DeliveryState::Claimed, of_channel().map(|c| c.claimed).sum()),
                (DeliveryState::Unknown, of_channel().map(|c| c.unknown).sum()),
                (DeliveryState::RetryWait, of_channel().map(|c| c.waiting).sum()),
            ] {
                metrics::gauge!("dispatch_deliveries", "state" => state.as_str(), "channel" => channel.as_str())
                    .set(count as f64);
            }
        }
        for state in [CampaignState::Scheduled, CampaignState::Running, CampaignState::Paused] {
            let count = campaigns.iter().filter(|c| c.state == state && c.lane == Lane::Bulk).count();
            metrics::gauge!("dispatch_campaigns", "state" => state.as_str()).set(count as f64);
        }
    }
}

/// What the scheduler remembers between rounds. All of it may be lost.
#[derive(Default)]
struct State {
    window: Window,
    endings: Endings,
    stalls: Stalls,
    /// When the last quarantine was over.
    released_at_ms: Option<i64>,
    /// The campaigns that were running at the last look.
    running: HashSet<CampaignId>,
    /// The refused accounts that were logged.
    refused: HashSet<Arc<str>>,
    swept_at: Option<Duration>,
    cleaned_at: Option<Duration>,
}
