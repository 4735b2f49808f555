//! Engines that are killed with SIGKILL in the middle of campaigns, under providers that go wrong.
//!
//! After each death and at the end, the ledger must hold every recipient once, and in the end it must agree with what
//! the providers saw: nobody lost, nobody written to twice.

#![expect(clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

mod kills;
mod look_ups;
mod resends;
