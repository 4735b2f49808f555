//! The campaign dispatch engine: ledger, queue, scheduler, API and command line.

pub mod api;
pub mod callbacks;
pub mod cli;
pub mod demo;
pub mod engine;
pub mod import;
pub mod journal;
pub mod ledger;
pub mod operator;
pub mod plans;
pub mod quarantine;
pub mod queue;
pub mod scheduler;
pub mod second_place;
pub mod segments;
pub mod settings;
pub mod telemetry;
