//! One limit and three workers, as processes over PostgreSQL and RabbitMQ: what the witness saw arrive is never more
//! than the limit, and hardly less.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests; a failed expectation is the failed test"
)]
#![expect(clippy::print_stderr, reason = "what was measured is for whoever runs it")]

mod arrivals;
mod changed;
mod deaths;
mod fleet;
mod machine;
mod waits;
