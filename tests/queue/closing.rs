//! The end of a process: what is done is acknowledged, what is not comes again.

use std::collections::BTreeSet;

use dispatch_engine::queue::Queue as _;
use dispatch_schemas::states::{Channel, Lane};
use dispatch_workers::delivery::Jobs as _;

use crate::{
    broker::Broker,
    suite::{batch, take, take_all},
};

#[tokio::test]
async fn receipts_handed_in_after_the_close_are_acknowledged() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(1_000).await;
    queue.publish(batch(1, Lane::Bulk, 0..100));
    let mut held = Vec::new();
    let mut taken = 0;
    while taken < 100 {
        let run = take(&queue, Lane::Bulk).await;
        taken += run.seqs.len();
        held.push(run);
    }
    queue.close();
    assert!(queue.take(Channel::Email, Lane::Bulk).await.is_none());
    let last = held.pop().unwrap();
    let left: Vec<i64> = last.seqs.clone();
    for run in held {
        run.receipt.done(Vec::new());
    }
    last.receipt.done(left.clone());
    queue.finish().await;
    assert_eq!(broker.depth("dispatch.email.bulk").await, 0);
}

#[tokio::test]
async fn jobs_that_no_worker_had_taken_are_there_for_the_next_process() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(1_000).await;
    queue.publish(batch(1, Lane::Bulk, 0..100));
    let run = take(&queue, Lane::Bulk).await;
    let done = run.seqs.len();
    queue.close();
    run.receipt.done(Vec::new());
    queue.finish().await;
    let next = broker.scheduler(1_000).await;
    let rest: BTreeSet<_> = take_all(&next, 100 - done).await.into_iter().collect();
    assert_eq!(rest.len(), 100 - done);
}

#[tokio::test]
async fn what_was_published_is_confirmed_before_the_end() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(100_000).await;
    queue.publish(batch(1, Lane::Bulk, 0..20_000));
    queue.close();
    queue.finish().await;
    broker.holds("dispatch.email.bulk", 20_000).await;
}
