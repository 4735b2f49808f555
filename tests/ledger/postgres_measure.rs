//! What a batch costs: claimed and recorded, by one worker and by four at once.

use std::{collections::VecDeque, time::Duration};

use dispatch_engine::ledger::Ledger as _;
use dispatch_tests::support::wait;
use dispatch_workers::{
    clock::{Clock as _, SystemClock},
    delivery::Outcome,
    providers::Class,
};
use futures_util::future::join_all;
use sqlx::Row as _;

use crate::postgres_rows::{Database, numbers, record};

const DELIVERIES: i64 = 200_000;
/// The server gathers what its sessions tell every second or so.
const STATISTICS_WITHIN: Duration = Duration::from_secs(60);
/// Batches of a worker that are with the provider at once.
const IN_FLIGHT: usize = 4;

/// The processor time a process of this machine has used, in hundredths of a second; nothing where it cannot be read.
fn processor_time(process: &str) -> Option<i64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold blanks; `utime` and `stime` are the 12th and 13th field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<i64>().ok()? + fields.next()?.parse::<i64>().ok()?)
}

/// The same of all the server's processes that work for the ledger.
async fn servers_time(database: &Database) -> Option<i64> {
    let pids = sqlx::query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dispatch'",
    )
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap();
    pids.iter().map(|row| processor_time(&row.get::<i32, _>(0).to_string())).sum()
}

async fn measure(batch: i64, workers: i64) {
    let database = Database::with_deliveries(DELIVERIES).await;
    database.run("ANALYZE").await;
    let plan = database.plan(Class::ClientId);
    let (database, plan) = (&database, &plan);
    let clock = SystemClock::default();
    let share = DELIVERIES / workers;
    let (started, client) = (clock.monotonic(), processor_time("self"));
    let ledgers = join_all((0..workers).map(|worker| async move {
        let ledger = database.open().await;
        let mut open = VecDeque::with_capacity(IN_FLIGHT);
        let batches = (worker * share..(worker + 1) * share).step_by(usize::try_from(batch).unwrap());
        for first in batches.map(Some).chain([None; IN_FLIGHT]) {
            if let Some(first) = first {
                let seqs: Vec<i64> = (first..first + batch).collect();
                let claimed = database.claim(&ledger, plan, &seqs).await;
                assert_eq!(numbers(&claimed), seqs);
                open.push_back((claimed.attempt.unwrap(), seqs));
            }
            if open.len() == IN_FLIGHT || first.is_none() {
                let Some((attempt, seqs)) = open.pop_front() else { break };
                let accepted = Outcome::Accepted { provider_id: Some("message-1".to_owned()) };
                record(&ledger, plan, attempt, &seqs, &accepted).await;
            }
        }
        ledger
    }))
    .await;
    let per_recipient = |micros: i64| micros as f64 / DELIVERIES as f64;
    let wall = per_recipient(i64::try_from((clock.monotonic() - started).as_micros()).unwrap());
    let client = processor_time("self").zip(client).map(|(now, then)| per_recipient((now - then) * 10_000));
    let server = servers_time(database).await.map(|hundredths| per_recipient(hundredths * 10_000));
    join_all(ledgers.iter().map(|ledger| ledger.close())).await;
    // Sessions tell their statistics when they end. Each delivery was claimed and recorded.
    let told = async || {
        let sums = "SELECT coalesce(sum(n_tup_upd), 0)::bigint, coalesce(sum(n_tup_hot_upd), 0)::bigint
                      FROM pg_stat_user_tables WHERE relname LIKE 'delivery%'";
        let row = sqlx::query(sums).fetch_one(&mut database.connect().await).await.unwrap();
        let (updates, hot) = (row.get::<i64, _>(0), row.get::<i64, _>(1));
        (updates >= 2 * DELIVERIES).then(|| 100 * hot / updates)
    };
    let hot = wait::until("the server tells of all updates", STATISTICS_WITHIN, told).await;
    println!(
        "batches of {batch}, {workers} workers: {wall:.1} µs a recipient by the clock, processor {client:.1?} µs here \
         and {server:.1?} µs in the server; {hot} % of the updates were HOT"
    );
    database.assert_adds_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: 200,000 deliveries four times; it prints what a batch costs"]
async fn what_a_batch_costs() {
    for batch in [1_000, 250] {
        for workers in [1, 4] {
            measure(batch, workers).await;
        }
    }
}
