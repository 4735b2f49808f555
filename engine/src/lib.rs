//! The campaign dispatch engine: ledger, queue, scheduler, API and command line.

pub mod ledger;
