//! The ledger: the one truth about contacts, gates, campaigns and deliveries.
//!
//! [`Ledger`] is a narrow set of named operations, as coarse as the steps of the protocol; each is one transaction,
//! durable when it returns. Who may do what is said by its traits: the API and the import use [`Campaigns`],
//! [`Imports`], [`Gates`], …, workers use [`Claims`](dispatch_workers::delivery::Claims), the scheduler [`Schedule`].
//! SQLite fills them in ([`sqlite`]).

mod error;
mod operations;
mod records;
mod schedule;
pub mod sqlite;

pub use error::{LedgerError, Result};
pub use operations::{Campaigns, Gates, Imports, Ledger, Lists, Messages, Templates, Tenants};
pub use records::{
    CampaignBrief, CampaignPlan, ContactRow, Due, EvidenceRow, Held, Import, MessageTerms, NewContacts, Once,
    PastSends, RecipientFilter, Replayable, SealedMessage, StoreCounts, StoredKey, UnknownDelivery, UnknownGroup,
};
pub use schedule::{End, Schedule, Verdict};

/// How long the answer of a call with an Idempotency-Key is kept, milliseconds.
pub const ANSWERS_KEPT_MS: i64 = 24 * 3_600_000;
