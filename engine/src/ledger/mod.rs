//! The ledger: the one truth about contacts, gates, campaigns and deliveries.
//!
//! [`Ledger`] is a narrow set of named operations, as coarse as the steps of the protocol; each is one transaction,
//! durable when it returns. Who may do what is said by its traits: the API and the import use [`Campaigns`],
//! [`Imports`], [`Gates`], …, workers use [`Claims`](dispatch_workers::delivery::Claims), the scheduler [`Schedule`].
//! SQLite ([`sqlite`]) and PostgreSQL ([`postgres`]) fill them in; what becomes of a delivery is decided once for both
//! (`candidates`, `outcomes`, `verdicts`), and what a campaign may (`campaign_rules`). What is closed or claimed is noted
//! in the [second place](crate::second_place) as well before an operation returns.

mod campaign_rules;
mod candidates;
mod claim_notes;
mod columns;
mod epochs;
mod error;
mod facts;
mod masking;
mod operations;
mod operator_limits;
mod outcomes;
pub mod postgres;
mod records;
mod schedule;
pub mod sqlite;
mod tally;
mod verdicts;

pub use epochs::{Doubted, Epoch, Epochs, Quarantine, Release};
pub use error::{LedgerError, Result};
pub use facts::{
    Applied, FactBook, Member, ORPHAN_LOOKS_MS, ORPHANS_KEPT_MS, Orphan, REPORTS_SEEN_MS, Report, Reported, Revisited,
};
pub use operations::{Campaigns, Gates, Imports, Ledger, Lists, Messages, Templates, Tenants};
pub use operator_limits::{LimitTarget, OperatorLimit, OperatorLimits};
pub(crate) use operator_limits::{is_country, is_domain};
pub use records::{
    CampaignBrief, CampaignPlan, ContactRow, Due, EvidenceRow, Held, Import, MessageTerms, NewContacts, Once,
    PastSends, RecipientFilter, Replayable, SealedMessage, StoreCounts, StoredKey, UnknownDelivery, UnknownGroup,
};
pub use schedule::{End, Schedule, Verdict};

/// How long the answer of a call with an Idempotency-Key is kept, milliseconds.
pub const ANSWERS_KEPT_MS: i64 = 24 * 3_600_000;

/// Milliseconds after which an upload that nothing was written for was left by a process that died, where other
/// processes may have the ledger open: a living one stores a batch of even a slow upload in less.
pub const UPLOAD_SILENT_MS: i64 = 10 * 60_000;

/// Fields a list keeps the names of: as many as one recipient can have.
pub(crate) const LIST_FIELDS_MAX: i64 = 1_000;
