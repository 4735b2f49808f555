//! The seams through which the data plane sees the world: [`Jobs`] and [`Claims`]. The engine fills them in.

use async_trait::async_trait;
use dispatch_schemas::{
    ids::{AttemptId, CampaignId, ContactId},
    states::{Channel, Lane},
};

use super::plan::Plan;
use crate::{clock::TimestampMs, message::Token, providers::Code};

/// The ledger did not do what it was asked: nothing is known to have changed. Worth trying again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the ledger cannot be reached: {0}")]
pub struct LedgerUnavailable(pub String);

/// Takes a run back into the queue's books when it is done or dropped.
pub trait Receipt: Send {
    /// The ledger knows about each of the jobs, except for `undone`, which come again.
    fn done(self: Box<Self>, undone: Vec<i64>);

    /// Nobody here can do these jobs, now or later: their campaign is gone. A queue that outlives this process keeps
    /// them apart for an operator to look at.
    fn gone(self: Box<Self>);
}

/// Some jobs of one campaign, taken from the queue.
pub struct Run {
    /// Whose jobs they are.
    pub campaign: CampaignId,
    /// The deliveries' numbers, ascending.
    pub seqs: Vec<i64>,
    /// Handed in when the ledger knows; dropped without that, all the jobs come again.
    pub receipt: Box<dyn Receipt>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Run({}, {} jobs)", self.campaign, self.seqs.len())
    }
}

/// Where jobs come from.
#[async_trait]
pub trait Jobs: Send + Sync + 'static {
    /// Waits for jobs of a channel. With [`Lane::Bulk`] it takes jobs of both lanes, transactional ones first; with
    /// [`Lane::Transactional`] those only. `None` when the queue is closing.
    async fn take(&self, channel: Channel, lane: Lane) -> Option<Run>;
}

/// What a claim asks for.
#[derive(Debug)]
pub struct Claim<'a> {
    /// The campaign and what the ledger must check for it.
    pub plan: &'a Plan,
    /// The deliveries' numbers, ascending.
    pub seqs: &'a [i64],
    /// Names the attempt.
    pub token: Token,
}

/// One delivery that is ours to send.
#[derive(Debug)]
pub struct ClaimedDelivery {
    /// Its number.
    pub seq: i64,
    /// Counts definite refusals; part of the send key.
    pub key_epoch: u8,
    /// Which try this is, from 1.
    pub attempt_no: u8,
    /// Must travel in a request of its own.
    pub alone: bool,
    /// The person; `None` when the contact was erased between the claim and this read.
    pub contact: Option<SealedContact>,
}

/// What is read of a contact to send to it. All sealed.
#[derive(Debug)]
pub struct SealedContact {
    /// Whose it is.
    pub id: ContactId,
    /// Its key, wrapped.
    pub key: Vec<u8>,
    /// The address of the campaign's channel.
    pub address: Vec<u8>,
    /// Its fields.
    pub fields: Option<Vec<u8>>,
    /// The variables of a single message.
    pub message: Option<Vec<u8>>,
}

/// What a claim got.
#[derive(Debug)]
pub struct Claimed {
    /// The attempt that holds them; `None` when nothing was claimed.
    pub attempt: Option<AttemptId>,
    /// The attempt's own token.
    pub token: Token,
    /// The token whose hash is the idempotency key of the request: the attempt's own, or that of the first attempt
    /// when an unknown request is asked again.
    pub root: Token,
    /// Ours to send, by number.
    pub deliveries: Vec<ClaimedDelivery>,
    /// Requests among the jobs that must be asked again whole, with their first attempt's key.
    pub again: Vec<AskAgain>,
}

/// An unknown request that is to be asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskAgain {
    /// The attempt whose token made its key.
    pub root: AttemptId,
    /// All its members that are ready, ascending.
    pub seqs: Vec<i64>,
}

/// What becomes of one claimed delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// T6.
    Accepted {
        /// The provider's id for it.
        provider_id: Option<String>,
    },
    /// The provider has had the key: T6 if an earlier attempt with it was unknown, T8 otherwise.
    Duplicate,
    /// T8: a try was refused for good.
    Failed(Code),
    /// T8 without a try: there is nothing that could be sent to this recipient.
    Unsendable(Code),
    /// T7: definitely not accepted, to be tried again.
    Retry {
        /// Not before.
        at_ms: TimestampMs,
        /// Why.
        code: Code,
        /// Whether the try counts.
        counts: Counts,
        /// Whether it must travel alone next time.
        alone: bool,
    },
    /// T21: no byte was sent and this worker knows it.
    Released {
        /// Whether it must travel alone next time.
        alone: bool,
    },
    /// T9.
    Unknown {
        /// Why.
        code: Code,
        /// When the reconciler first looks.
        look_at_ms: TimestampMs,
    },
    /// The contact was erased while it was claimed.
    Erased,
}

/// Whether a refused try uses up one of the delivery's attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// The refusal was about this message.
    AsAttempt,
    /// The refusal was about our speed or our account.
    Not,
}

/// What a claimed batch came to; written in one step.
#[derive(Debug)]
pub struct Record<'a> {
    /// Whose deliveries they are.
    pub plan: &'a Plan,
    /// The attempt that holds them.
    pub attempt: AttemptId,
    /// One per claimed delivery, by number.
    pub outcomes: Vec<(i64, Outcome)>,
    /// Now.
    pub now_ms: TimestampMs,
}

/// The ledger, as far as a worker may touch it.
#[async_trait]
pub trait Claims: Send + Sync + 'static {
    /// T5 for a batch, durable when it returns: checks and marks in one transaction, and stops what may not be sent.
    /// Nothing is claimed unless the campaign runs, has not expired and is in its sending window at the moment of the
    /// transaction, and its tenant is open.
    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, LedgerUnavailable>;

    /// T5 for the members of an unknown request that is to be asked again with its first key: all of them, or none when
    /// they are more than `claim.seqs`.
    async fn claim_again(&self, claim: &Claim<'_>, root: AttemptId) -> Result<Claimed, LedgerUnavailable>;

    /// T6 to T9 and T21 for a batch, by compare-and-set on the attempt. Safe to repeat.
    async fn record(&self, record: &Record<'_>) -> Result<(), LedgerUnavailable>;

    /// Lets ready deliveries wait until their destination has permits again. `(seq, not before)`.
    async fn defer(&self, plan: &Plan, waits: &[(i64, TimestampMs)]) -> Result<(), LedgerUnavailable>;

    /// The destination of each of these deliveries, for limits per domain or country.
    async fn destinations(&self, plan: &Plan, seqs: &[i64]) -> Result<Vec<Option<i64>>, LedgerUnavailable>;
}

/// A place on this machine's own disk where outcomes are kept until the ledger has them: evidence for a process that
/// dies in between.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Writes a record down, durable when it returns. A journal that cannot be written does not stop the record.
    async fn keep(&self, record: &Record<'_>) -> Option<Box<dyn Kept>>;
}

/// An entry of a [`Journal`].
pub trait Kept: Send {
    /// The ledger has it: the entry is not needed any more. Dropped without that, it is replayed at the next start.
    fn recorded(self: Box<Self>);
}

/// For a ledger on the same disk, where a journal would add nothing.
#[derive(Debug)]
pub struct NoJournal;

#[async_trait]
impl Journal for NoJournal {
    async fn keep(&self, _: &Record<'_>) -> Option<Box<dyn Kept>> {
        None
    }
}
