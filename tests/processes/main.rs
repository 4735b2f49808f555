//! The engine as a platform runs it: processes with roles of their own over PostgreSQL and RabbitMQ. They are started in
//! any order and again one by one, pause and cancel hold for all of them, tenants share them, and a service that goes
//! away is waited for. Read from the witness's log and the ledger.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "functions of tests; a failed expectation is the failed test"
)]

mod fairness;
mod fleet;
mod order;
mod outages;
mod restarts;
mod stopping;
mod uploads;
