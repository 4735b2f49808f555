//! Whether the ledger is what it was, and the time in which nothing is claimed because it is not.

use async_trait::async_trait;
use dispatch_schemas::ids::CampaignId;
use serde::{Deserialize, Serialize};

use super::Result;
use crate::second_place::{Claimed, SecondPlace};

/// Where a ledger stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// How far it is.
    pub head: i64,
    /// When it was moved there, milliseconds since 1970.
    pub moved_at_ms: i64,
    /// Whether it is on another server than before, after a failover or a restore elsewhere.
    pub is_elsewhere: bool,
    /// The quarantine it is in.
    pub quarantine: Option<Quarantine>,
    /// When the last quarantine ended, milliseconds since 1970.
    pub released_at_ms: Option<i64>,
}

impl Epoch {
    /// Whether nothing may be claimed, scheduled or settled now.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.is_elsewhere || self.quarantine.is_some()
    }
}

/// A time in which nothing is claimed and nothing scheduled, because the ledger has forgotten commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Which.
    pub id: i64,
    /// Since when, milliseconds since 1970.
    pub entered_at_ms: i64,
    /// How it was noticed.
    pub reason: String,
    /// Deliveries that were called unknown.
    pub doubted: u64,
}

/// How a quarantine ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// All that may have been forgotten is marked.
    Settled,
    /// An operator lets sending go on all the same: who.
    AcceptDuplicates(String),
}

impl Release {
    /// The word it is kept as.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::AcceptDuplicates(_) => "accept_duplicates",
        }
    }

    /// The operator.
    pub(super) const fn by(&self) -> Option<&String> {
        match self {
            Self::Settled => None,
            Self::AcceptDuplicates(by) => Some(by),
        }
    }
}

/// What is done with a ledger that may have forgotten. Each change is refused, as nothing, once the quarantine it is
/// made for has ended: of several processes that work one off, none does so behind the others' back.
#[async_trait]
pub trait Epochs: Send + Sync + 'static {
    /// The second place, where closings and claims are noted too.
    fn second_place(&self) -> &SecondPlace;
    /// Where it stands.
    async fn epoch(&self) -> Result<Epoch>;
    /// Moves the head on, unless there is a quarantine. Returns where it is.
    async fn move_head(&self) -> Result<i64>;
    /// Begins a quarantine, or returns the one there is. The server it is on now is the ledger's from here on.
    async fn enter_quarantine(&self, reason: &str) -> Result<Quarantine>;
    /// Ends a quarantine, with a head of `head` at least. False when it had ended.
    async fn release(&self, quarantine: i64, head: i64, release: &Release) -> Result<bool>;
    /// Which of these claims it does not know.
    async fn forgotten(&self, claims: &[Claimed]) -> Result<Vec<bool>>;
    /// T1 of a campaign that is not running now, but may have been in the time that was forgotten.
    async fn expand_held(&self, campaign: CampaignId, contacts_max: u32) -> Result<u64>;
    /// Makes the attempt of a forgotten claim again, made at that moment and without an outcome, to be looked at then
    /// (milliseconds since 1970). Returns how many deliveries are unknown by it.
    async fn recall(&self, quarantine: i64, claim: &Claimed, claimed_at_ms: i64, look_at_ms: i64) -> Result<u64>;
    /// Calls the deliveries of a campaign among the `span` numbers from `from` on unknown that may have been claimed
    /// since `since_ms` and nobody knows how: under an attempt that stands for all of that, looked at at `look_at_ms`.
    /// Returns how many, and where to go on; nothing when the campaign has no more.
    async fn doubt(
        &self,
        quarantine: i64,
        doubted: Doubted,
        since_ms: i64,
        look_at_ms: i64,
    ) -> Result<(u64, Option<i64>)>;
}

/// Deliveries that may have been claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubted {
    /// Of which campaign.
    pub campaign: CampaignId,
    /// From this number on.
    pub from: i64,
    /// So many numbers.
    pub span: u32,
}
