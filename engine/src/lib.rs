//! The campaign dispatch engine: ledger, queue, scheduler, API and command line.

pub mod ledger;
pub mod settings;
pub mod telemetry;
