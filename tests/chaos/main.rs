//! Everything fails, again and again, while campaigns run in production mode: processes of the engine, the network,
//! PostgreSQL, RabbitMQ and the providers. In the end all is healed, and the ledger must agree with what the providers
//! saw: nobody lost, nobody written to twice, nothing sent behind a closed gate or above a limit.
//!
//! `DISPATCH_TEST_SEED` repeats the plan of a run, `DISPATCH_CHAOS_SECONDS` says how long the long one is,
//! `DISPATCH_CHAOS_PEOPLE` how many recipients a run has. It starts a
//! PostgreSQL and a RabbitMQ of its own with `tests/services`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by panicking"
)]

mod audience;
mod fleet;
mod plan;
mod platform_calls;
mod report;
mod run;

use std::time::Duration;

use dispatch_tests::support::seed::Seed;
use tokio::sync::Mutex;

/// Says how many seconds of chaos the long run has.
const SECONDS: &str = "DISPATCH_CHAOS_SECONDS";
/// Says how many recipients a run has.
const PEOPLE: &str = "DISPATCH_CHAOS_PEOPLE";
/// Seconds, and recipients in each of them, at most so many: what an unoptimised build on a busy machine can send.
const LONG: (u64, u64) = (180, 110);
const SHORT: (u64, u64) = (25, 40);
const PEOPLE_MAX: u64 = 200_000;

/// One run at a time: each keeps a machine busy.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_chaos_leaves_ledger_and_providers_agreed() {
    play(SHORT.0, SHORT.1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: three minutes of chaos, or DISPATCH_CHAOS_SECONDS"]
async fn a_long_chaos_leaves_ledger_and_providers_agreed() {
    play(set(SECONDS).unwrap_or(LONG.0), LONG.1).await;
}

fn set(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a whole number, not {text:?}")))
}

async fn play(seconds: u64, people_per_second: u64) {
    let people = set(PEOPLE).unwrap_or((seconds * people_per_second).min(PEOPLE_MAX));
    let _alone = ALONE.lock().await;
    let seed = Seed::of_this_run();
    eprintln!("{}", seed.how_to_repeat());
    let report = run::Run::new(seed.number(), Duration::from_secs(seconds), people).await.play().await;
    eprintln!("{report}");
    report.judge();
}
