//! The broker takes no messages, or does not let us in.

use dispatch_engine::{
    queue::{Queue as _, RabbitQueue, rabbitmq::Side},
    settings::QueueUrl,
};
use dispatch_schemas::states::{Channel, Lane};
use dispatch_tests::support::wait;

use crate::{
    broker::Broker,
    proxy::Proxy,
    suite::{WITHIN, batch, take},
};

#[tokio::test]
async fn while_the_broker_is_blocked_nothing_is_published_and_jobs_go_on_being_done() {
    let broker = Broker::new().await;
    let behind = Proxy::before(broker.address()).await;
    let scheduler = broker.scheduler_behind(&behind, 1_000).await;
    let worker = broker.worker();
    scheduler.publish(batch(1, Lane::Bulk, 0..10));
    let mut held = vec![take(&worker, Lane::Bulk).await];
    while held.iter().map(|run| run.seqs.len()).sum::<usize>() < 10 {
        held.push(take(&worker, Lane::Bulk).await);
    }

    behind.block();
    let trouble = wait::until("the alarm is told", WITHIN, async || scheduler.trouble()).await;
    assert!(trouble.contains("takes no messages"), "{trouble}");
    assert_eq!(scheduler.room(Channel::Email, Lane::Bulk), 0);
    scheduler.publish(batch(1, Lane::Bulk, 10..20));
    for run in held {
        run.receipt.done(Vec::new());
    }
    worker.close();
    worker.finish().await;
    assert_eq!(broker.depth("dispatch.email.bulk").await, 0, "the first ten are acknowledged, the others not sent");

    behind.unblock();
    broker.holds("dispatch.email.bulk", 10).await;
    assert_eq!(scheduler.trouble(), None);
}

#[tokio::test]
async fn a_wrong_password_or_virtual_host_is_told_without_the_password() {
    let broker = Broker::new().await;
    let text = |user: &str, vhost: &str| format!("amqp://{user}@{}/{vhost}", broker.address());
    for (text, says) in [
        (text("guest:canary-5", &broker.vhost), "user and password"),
        (text("guest:guest", "none-such"), "virtual host"),
    ] {
        let url: QueueUrl = text.parse().unwrap();
        let queue = RabbitQueue::start(broker.options(Side::Scheduler, 10, &url));
        let trouble = wait::until("the trouble is told", WITHIN, async || queue.trouble()).await;
        assert!(trouble.contains("refuses us") && trouble.contains(says), "{trouble}");
        assert!(!format!("{trouble} {queue:?} {url:?}").contains("canary"));
    }
}
