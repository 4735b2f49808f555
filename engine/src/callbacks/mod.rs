//! Callbacks: what providers report of messages they took, from their request to the ledger.
//!
//! Two halves with a spool between them. [`ingest`] answers a provider: it knows the caller by the raw bytes, puts what
//! came into the [`spool`] on this machine's own disk, sealed and synced, and says 2xx. No database is on that way, so one
//! that is away costs nothing but delay. [`apply`] reads the spool in batches, finds the deliveries, closes gates and
//! tells the ledger. A callback is removed from the spool when the ledger has it; applied twice, it counts once.

pub mod apply;
pub mod ingest;
mod matching;
mod orphans;
mod record;
pub mod spool;
#[cfg(test)]
mod tests;

pub use record::Callback;
