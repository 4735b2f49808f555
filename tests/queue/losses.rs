//! Connections break, queues vanish, the broker is away: jobs come again, and nothing else happens.

use std::collections::BTreeSet;

use dispatch_engine::queue::{Queue as _, RabbitQueue, rabbitmq::Side};
use dispatch_schemas::states::{Channel, Lane};
use dispatch_tests::support::wait;
use dispatch_workers::delivery::Jobs as _;
use lapin::options::{QueueDeleteOptions, QueuePurgeOptions};

use crate::{
    broker::{Broker, ready},
    proxy::Proxy,
    suite::{WITHIN, batch, take, take_all},
};

const BULK: &str = "dispatch.email.bulk";

async fn is_lost(queue: &RabbitQueue) {
    wait::until("the loss is told", WITHIN, async || queue.take_lost().then_some(())).await;
}

#[tokio::test]
async fn jobs_that_were_with_a_worker_when_the_connection_broke_come_again() {
    let broker = Broker::new().await;
    let proxy = Proxy::before(broker.address()).await;
    let queue = broker.scheduler_behind(&proxy, 1_000).await;
    queue.publish(batch(1, Lane::Bulk, 0..100));
    let mut held = Vec::new();
    while held.iter().map(|run: &dispatch_workers::delivery::Run| run.seqs.len()).sum::<usize>() < 100 {
        held.push(take(&queue, Lane::Bulk).await);
    }
    proxy.cut();
    is_lost(&queue).await;
    // The receipts of the lost connection mean nothing on the next one.
    for run in held {
        run.receipt.done(Vec::new());
    }
    let again: BTreeSet<_> = take_all(&queue, 100).await.into_iter().collect();
    assert_eq!(again, (0..100).map(|seq| (1, seq)).collect());
    ready_again(&queue).await;
    queue.close();
    queue.finish().await;
    assert_eq!(broker.depth(BULK).await, 0, "and are acknowledged once");
}

async fn ready_again(queue: &RabbitQueue) {
    let stands = async || (queue.room(Channel::Email, Lane::Bulk) > 0 && queue.trouble().is_none()).then_some(());
    wait::until("the queue stands again", WITHIN, stands).await;
}

#[tokio::test]
async fn a_broker_that_is_away_at_the_start_is_waited_for() {
    let broker = Broker::new().await;
    let proxy = Proxy::before(broker.address()).await;
    proxy.set_away(true);
    let queue = RabbitQueue::start(broker.options(Side::Scheduler, 100, &broker.url(Some(proxy.port()))));
    let trouble = wait::until("the trouble is told", WITHIN, async || queue.trouble()).await;
    assert!(trouble.contains(&format!("cannot be reached at 127.0.0.1:{}", proxy.port())), "{trouble}");
    assert_eq!(queue.room(Channel::Email, Lane::Bulk), 0);
    queue.publish(batch(1, Lane::Bulk, [0]));
    proxy.set_away(false);
    ready(&queue).await;
    queue.publish(batch(1, Lane::Bulk, [1]));
    assert_eq!(take_all(&queue, 1).await, [(1, 1)], "what was published without a connection is the scheduler's again");
}

#[tokio::test]
async fn every_scheduler_is_told_of_a_queue_that_another_process_made_anew() {
    let broker = Broker::new().await;
    let schedulers = [broker.scheduler(1_000).await, broker.scheduler(1_000).await];
    let worker = RabbitQueue::start(broker.options(Side::Worker, 1_000, &broker.url(None)));
    schedulers[0].publish(batch(1, Lane::Bulk, [0]));
    take_all(&worker, 1).await;
    // What connecting told them.
    for scheduler in &schedulers {
        while scheduler.take_lost() {}
    }
    // The worker takes from it and makes it again; the schedulers have no business with it just then.
    let channel = broker.outsider().await;
    channel.queue_delete(BULK.into(), QueueDeleteOptions::default()).await.unwrap();
    for scheduler in &schedulers {
        is_lost(scheduler).await;
    }
}

#[tokio::test]
async fn a_deleted_queue_is_made_anew_and_the_loss_is_told() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(1_000).await;
    queue.publish(batch(1, Lane::Bulk, [0]));
    take_all(&queue, 1).await;
    let channel = broker.outsider().await;
    channel.queue_delete(BULK.into(), QueueDeleteOptions::default()).await.unwrap();
    is_lost(&queue).await;
    ready_again(&queue).await;
    let taken = async || {
        // As the scheduler does: until it is taken.
        queue.publish(batch(1, Lane::Bulk, [7]));
        let run =
            tokio::time::timeout(std::time::Duration::from_millis(500), queue.take(Channel::Email, Lane::Bulk)).await;
        run.ok().flatten().map(|run| run.seqs)
    };
    assert_eq!(wait::until("jobs travel again", WITHIN, taken).await, [7]);
}

#[tokio::test]
async fn a_deleted_queue_is_noticed_without_a_worker_too() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(1_000).await;
    broker.outsider().await.queue_delete(BULK.into(), QueueDeleteOptions::default()).await.unwrap();
    is_lost(&queue).await;
    ready_again(&queue).await;
    queue.publish(batch(1, Lane::Bulk, [7]));
    broker.holds(BULK, 1).await;
}

#[tokio::test]
async fn an_emptied_queue_has_room_again() {
    let broker = Broker::new().await;
    let queue = broker.scheduler(100).await;
    queue.publish(batch(1, Lane::Bulk, 0..100));
    assert_eq!(queue.room(Channel::Email, Lane::Bulk), 0);
    broker.holds(BULK, 100).await;
    broker.outsider().await.queue_purge(BULK.into(), QueuePurgeOptions::default()).await.unwrap();
    wait::until("there is room", WITHIN, async || (queue.room(Channel::Email, Lane::Bulk) == 100).then_some(())).await;
}

#[tokio::test]
async fn jobs_of_a_scheduler_that_died_are_still_there() {
    let broker = Broker::new().await;
    let first = broker.scheduler(1_000).await;
    first.publish(batch(1, Lane::Bulk, 0..100));
    broker.holds(BULK, 100).await;
    drop(first);
    let second = broker.scheduler(1_000).await;
    assert_eq!(take_all(&second, 100).await.len(), 100);
}

#[tokio::test]
async fn a_worker_in_another_process_gives_back_to_the_scheduler() {
    let broker = Broker::new().await;
    let scheduler = broker.scheduler(1_000).await;
    let worker = broker.worker();
    scheduler.publish(batch(1, Lane::Bulk, 0..10));
    let mut left = 10;
    while left > 0 {
        let run = take(&worker, Lane::Bulk).await;
        left -= run.seqs.len();
        let undone = run.seqs.iter().copied().filter(|seq| *seq >= 8).collect();
        run.receipt.done(undone);
    }
    let back = crate::suite::returned(&scheduler, 2).await;
    assert_eq!(back, BTreeSet::from([(1, 8), (1, 9)]));
    assert!(worker.take_returned().is_empty(), "which is the scheduler's, and nobody else's");
}
