//! What the scheduler may do.

use async_trait::async_trait;
use dispatch_schemas::{
    ids::{AttemptId, CampaignId, TenantId},
    states::{StallReason, StopReason},
};
use dispatch_workers::delivery::Timing;

use super::{
    Result,
    records::{CampaignBrief, CampaignPlan, Due, PastSends, UnknownGroup},
};

/// What the reconciler found out about deliveries of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// T12: the provider has it.
    Accepted {
        /// How we know: `log`.
        evidence: &'static str,
        /// The provider's id for it.
        provider_id: Option<String>,
    },
    /// The provider's log says it refused it for good.
    Refused(String),
    /// T15, T18: the provider never took it over; send again with the same key, or stop it if its gate has closed.
    /// Nothing of it is in doubt from then on.
    Absent,
    /// T14: ask again with the first attempt's key.
    AskAgain,
    /// T16: send again on the campaign's policy, as a request of its own; counted.
    Resend,
    /// T16 where the key is the provider's id of the message for good (class B): the same, with a key that is as old as
    /// it was, because a repeat that the provider refuses is better than one it takes.
    ResendWithSameKey,
    /// Nothing known yet; look again then (milliseconds since 1970).
    Later(i64),
    /// T17: undecidable.
    Final,
}

/// How waiting deliveries end unsent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// T3.
    Stopped(StopReason),
    /// T4.
    Expired,
}

/// The scheduler's operations.
#[async_trait]
pub trait Schedule: Send + Sync + 'static {
    /// Says that this scheduler lives, and returns all that do, itself among them, ascending: they share the campaigns.
    /// One that was not heard of for `silent_max_ms` is dead.
    async fn beat(&self, scheduler: i64, now_ms: i64, silent_max_ms: i64) -> Result<Vec<i64>>;
    /// What workers need to know of a campaign; nothing when it is gone.
    async fn brief(&self, campaign: CampaignId) -> Result<Option<CampaignPlan>>;
    /// Sends since then by minute, for windows that outlive a process.
    async fn past_sends(&self, since_ms: i64) -> Result<Vec<PastSends>>;
    /// All campaigns that are scheduled, running or paused, or cancelled with deliveries still open.
    async fn unfinished(&self) -> Result<Vec<CampaignBrief>>;
    /// Notes why campaigns do not move; nothing for those that do again.
    async fn note_stalls(&self, stalls: &[(CampaignId, Option<StallReason>)]) -> Result<()>;
    /// Sets scheduled campaigns running whose time has come.
    async fn start_due(&self, now_ms: i64) -> Result<u64>;
    /// T1: finds the next chunk of a campaign's recipients. Returns how many were added.
    async fn expand(&self, campaign: CampaignId, contacts_max: u32, now_ms: i64) -> Result<u64>;
    /// Ready deliveries from a number on, ascending.
    async fn ready_from(&self, campaign: CampaignId, from: i64, limit: u32) -> Result<Vec<i64>>;
    /// T11: makes deliveries ready whose wait is over, of running campaigns.
    async fn wake_waiting(&self, now_ms: i64, limit: u32) -> Result<Vec<Due>>;
    /// Closes campaigns past their end: nobody more is found for them, and nothing of them is claimed.
    async fn close_expired(&self, now_ms: i64) -> Result<()>;
    /// T3, T4: ends the waiting deliveries of a campaign among the `span` numbers from `from` on. One that may have
    /// been accepted before ends `unknown_final`. Returns where to go on; nothing when the campaign has no more.
    async fn end_waiting(
        &self,
        campaign: CampaignId,
        end: End,
        from: i64,
        span: u32,
        now_ms: i64,
    ) -> Result<Option<i64>>;
    /// T10: calls deliveries unknown whose attempt was claimed before `claimed_before_ms` and has no outcome. Returns how
    /// many attempts were ended, at most 1,000.
    async fn reap(&self, claimed_before_ms: i64, now_ms: i64, timing: &Timing) -> Result<u64>;
    /// Unknown deliveries that are due to be looked at, by attempt: all of an attempt, and at most `attempts_max` of them.
    async fn unknown_due(&self, now_ms: i64, attempts_max: u32) -> Result<Vec<UnknownGroup>>;
    /// T12, T14 to T18: settles unknown deliveries of one attempt. Returns those that are ready to be sent again.
    async fn settle(
        &self,
        campaign: CampaignId,
        attempt: AttemptId,
        verdicts: &[(i64, Verdict)],
        now_ms: i64,
    ) -> Result<Vec<i64>>;
    /// Pauses the campaigns of an account that its provider refuses, apart from those past their end. Returns them.
    async fn pause_account(&self, account: &str, reason: &str, now_ms: i64) -> Result<Vec<(TenantId, CampaignId)>>;
    /// Completes a campaign if all of it is expanded and every recipient final. True if it is now. Nothing keeps it any
    /// more.
    async fn complete(&self, campaign: CampaignId, now_ms: i64) -> Result<bool>;
    /// Forgets the answers of idempotent calls stored before then. Returns how many.
    async fn forget_old_answers(&self, older_than_ms: i64) -> Result<u64>;
}
