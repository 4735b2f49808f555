//! Behaviour tests of Dispatch against its real parts. Each folder is one test target; `tests/run` runs them all.
//!
//! [`support`] is what they share: real parts to run, and a checker that joins what those left behind.

#![expect(clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

pub mod support;
