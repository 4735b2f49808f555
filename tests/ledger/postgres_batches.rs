//! The batches of workers and schedulers on PostgreSQL, several processes at once: each test has a database of its own
//! on the server that `DISPATCH_TEST_POSTGRES_URL` names (`postgres://…`, a role that may make databases).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "functions of tests; a failed expectation is the failed test, and a measurement is told"
)]

mod own_process;
mod postgres_measure;
mod postgres_plans;
mod postgres_races;
mod postgres_rows;
mod statements;
