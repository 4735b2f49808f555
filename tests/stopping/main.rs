//! What stops a campaign, stops it: gates, pauses, cancels, refused keys, expiry, limits. Read from the witness.
//!
//! A stop is true from its answer on, but for what the answer reported as in flight. The witness and the engine run on
//! one machine with one clock, and a request is logged when it has been read to its end; so a request logged after the
//! answer counts as in flight or as a fault.

#![expect(clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

mod fairness;
mod gates;
mod hours;
mod limits;
mod operators;
mod processes;
mod rig;
mod tenants;
mod time;
