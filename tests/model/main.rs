//! The delivery protocol, checked in every order.
#![expect(clippy::panic, reason = "a test that cannot go on says so by panicking")]

mod actions;
mod checking;
mod mutants;
mod properties;
mod reconcile;
mod recording;
mod state;
mod steps;
mod variants;
