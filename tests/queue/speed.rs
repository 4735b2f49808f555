//! What a job costs on its way through the broker.

use std::collections::HashSet;

use dispatch_engine::queue::Queue as _;
use dispatch_schemas::states::{Channel, Lane};
use dispatch_workers::clock::{Clock as _, SystemClock};
use dispatch_workers::delivery::Jobs as _;

use crate::{broker::Broker, suite::batch};

const JOBS: usize = 200_000;
const BATCH: usize = 1_000;
const WORKERS: usize = 4;

/// CPU time of this process, seconds: user and system, in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().unwrap());
    ticks.sum::<f64>() / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long, and worth reading in a release build only: it prints what a job costs"]
async fn two_hundred_thousand_jobs_travel_through_the_broker() {
    let broker = Broker::new().await;
    let queue = std::sync::Arc::new(broker.scheduler(JOBS).await);
    let clock = SystemClock::new();
    let before = cpu_seconds();

    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                while let Some(run) = queue.take(Channel::Email, Lane::Bulk).await {
                    taken.extend_from_slice(&run.seqs);
                    run.receipt.done(Vec::new());
                    if taken.last() == Some(&i64::MAX) {
                        break;
                    }
                }
                taken
            })
        })
        .collect();
    for first in (0..JOBS).step_by(BATCH) {
        while queue.room(Channel::Email, Lane::Bulk) < BATCH {
            queue.changed().await;
        }
        let seqs = (first..first + BATCH).map(|seq| seq as i64);
        queue.publish(batch(1, Lane::Bulk, seqs));
    }
    broker.holds("dispatch.email.bulk", 0).await;
    // Nothing waits on the broker; the last jobs may be with the workers still.
    tokio::time::timeout(crate::suite::WITHIN, async {
        while queue.depths().iter().any(|(.., jobs)| *jobs > 0) {
            queue.changed().await;
        }
    })
    .await
    .unwrap();
    let (seconds, cpu) = (clock.monotonic().as_secs_f64(), cpu_seconds() - before);
    queue.close();
    let mut seen = HashSet::new();
    for worker in workers {
        seen.extend(worker.await.unwrap());
    }
    queue.finish().await;
    println!(
        "{JOBS} jobs in {seconds:.1} s: {:.0}/s published, taken and acknowledged; {:.1} µs of CPU per job on our side",
        JOBS as f64 / seconds,
        cpu * 1e6 / JOBS as f64
    );
    assert_eq!(seen.len(), JOBS, "all of them were taken");
    assert_eq!(broker.depth("dispatch.email.bulk").await, 0, "and acknowledged");
}
