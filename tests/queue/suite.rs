//! What every queue must do.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use dispatch_engine::queue::{Batch, Queue};
use dispatch_schemas::{
    ids::CampaignId,
    states::{Channel, Lane},
};
use dispatch_tests::support::wait;
use dispatch_workers::delivery::Run;

/// How long anything may take.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// Makes queues.
#[async_trait(?Send)]
pub(crate) trait Fixture: Sync {
    /// An empty queue that takes jobs.
    async fn queue(&self, capacity: usize) -> Arc<dyn Queue>;
}

/// A test of each case.
macro_rules! conformance {
    ($name:ident, $fixture:expr) => {
        mod $name {
            use super::*;

            $crate::suite::conformance!(@cases $fixture;
                every_job_is_taken_once,
                a_run_is_of_one_campaign_and_ascends,
                a_transactional_worker_takes_transactional_jobs_only,
                channels_do_not_mix,
                jobs_that_were_not_done_come_back,
                jobs_of_a_dropped_run_come_back,
                jobs_of_a_campaign_that_is_gone_do_not_come_back,
                room_shrinks_with_what_is_published_and_grows_with_what_is_taken,
                a_closed_queue_gives_nothing_more,
                a_queue_in_order_has_no_trouble,
            );
        }
    };
    (@cases $fixture:expr; $($case:ident,)+) => {
        $(#[tokio::test]
        async fn $case() {
            let fixture = $fixture;
            $crate::suite::$case(&fixture).await;
        })+
    };
}
pub(crate) use conformance;

/// Jobs of a campaign.
pub(crate) fn batch(campaign: i64, lane: Lane, seqs: impl IntoIterator<Item = i64>) -> Batch {
    Batch { campaign: CampaignId(campaign), channel: Channel::Email, lane, seqs: seqs.into_iter().collect() }
}

/// The next run.
pub(crate) async fn take(queue: &dyn Queue, lane: Lane) -> Run {
    let taken = tokio::time::timeout(WITHIN, queue.take(Channel::Email, lane)).await;
    taken.expect("jobs arrive in time").expect("the queue is open")
}

/// Takes until so many jobs were taken, and does them all.
pub(crate) async fn take_all(queue: &dyn Queue, jobs: usize) -> Vec<(i64, i64)> {
    let mut taken = Vec::new();
    while taken.len() < jobs {
        let run = take(queue, Lane::Bulk).await;
        taken.extend(run.seqs.iter().map(|seq| (run.campaign.0, *seq)));
        run.receipt.done(Vec::new());
    }
    taken
}

/// Waits for so many jobs that came back.
pub(crate) async fn returned(queue: &dyn Queue, jobs: usize) -> BTreeSet<(i64, i64)> {
    let mut back = BTreeSet::new();
    wait::until("jobs come back", WITHIN, async || {
        for batch in queue.take_returned() {
            assert_eq!((batch.channel, batch.lane), (Channel::Email, Lane::Bulk));
            back.extend(batch.seqs.iter().map(|seq| (batch.campaign.0, *seq)));
        }
        (back.len() >= jobs).then_some(())
    })
    .await;
    back
}

pub(crate) async fn every_job_is_taken_once(fixture: &impl Fixture) {
    let queue = fixture.queue(10_000).await;
    for from in (0..5_000).step_by(500) {
        queue.publish(batch(1, Lane::Bulk, from..from + 500));
    }
    queue.publish(batch(2, Lane::Bulk, 0..1));
    let mut taken = take_all(queue.as_ref(), 5_001).await;
    taken.sort_unstable();
    let expected: Vec<_> = (0..5_000).map(|seq| (1, seq)).chain([(2, 0)]).collect();
    assert_eq!(taken, expected);
}

pub(crate) async fn a_run_is_of_one_campaign_and_ascends(fixture: &impl Fixture) {
    let queue = fixture.queue(1_000).await;
    for seq in 0..50 {
        queue.publish(batch(seq % 3, Lane::Bulk, [seq]));
    }
    let mut left = 50;
    while left > 0 {
        let run = take(queue.as_ref(), Lane::Bulk).await;
        assert!(run.seqs.is_sorted_by(|a, b| a < b));
        assert!(run.seqs.iter().all(|seq| seq % 3 == run.campaign.0));
        left -= run.seqs.len();
        run.receipt.done(Vec::new());
    }
}

pub(crate) async fn a_transactional_worker_takes_transactional_jobs_only(fixture: &impl Fixture) {
    let queue = fixture.queue(100).await;
    queue.publish(batch(1, Lane::Bulk, [0]));
    queue.publish(batch(2, Lane::Transactional, [7]));
    let single = take(queue.as_ref(), Lane::Transactional).await;
    assert_eq!((single.campaign, single.seqs.as_slice()), (CampaignId(2), [7].as_slice()));
    single.receipt.done(Vec::new());
    let bulk = take(queue.as_ref(), Lane::Bulk).await;
    assert_eq!(bulk.campaign, CampaignId(1));
    bulk.receipt.done(Vec::new());
}

pub(crate) async fn channels_do_not_mix(fixture: &impl Fixture) {
    let queue = fixture.queue(100).await;
    queue.publish(Batch { channel: Channel::Sms, ..batch(3, Lane::Bulk, [1]) });
    queue.publish(batch(1, Lane::Bulk, [2]));
    assert_eq!(take(queue.as_ref(), Lane::Bulk).await.campaign, CampaignId(1));
    let sms = tokio::time::timeout(WITHIN, queue.take(Channel::Sms, Lane::Bulk)).await;
    assert_eq!(sms.expect("it arrives in time").expect("the queue is open").campaign, CampaignId(3));
}

pub(crate) async fn jobs_that_were_not_done_come_back(fixture: &impl Fixture) {
    let queue = fixture.queue(100).await;
    queue.publish(batch(1, Lane::Bulk, 0..5));
    let mut left = 5;
    while left > 0 {
        let run = take(queue.as_ref(), Lane::Bulk).await;
        left -= run.seqs.len();
        let undone = run.seqs.iter().copied().filter(|seq| seq % 2 == 1).collect();
        run.receipt.done(undone);
    }
    assert_eq!(returned(queue.as_ref(), 2).await, BTreeSet::from([(1, 1), (1, 3)]));
}

pub(crate) async fn jobs_of_a_dropped_run_come_back(fixture: &impl Fixture) {
    let queue = fixture.queue(100).await;
    queue.publish(batch(1, Lane::Bulk, [4]));
    drop(take(queue.as_ref(), Lane::Bulk).await);
    assert_eq!(returned(queue.as_ref(), 1).await, BTreeSet::from([(1, 4)]));
}

pub(crate) async fn jobs_of_a_campaign_that_is_gone_do_not_come_back(fixture: &impl Fixture) {
    let queue = fixture.queue(100).await;
    queue.publish(batch(1, Lane::Bulk, [4]));
    take(queue.as_ref(), Lane::Bulk).await.receipt.gone();
    queue.publish(batch(2, Lane::Bulk, [5]));
    drop(take(queue.as_ref(), Lane::Bulk).await);
    assert_eq!(returned(queue.as_ref(), 1).await, BTreeSet::from([(2, 5)]));
}

pub(crate) async fn room_shrinks_with_what_is_published_and_grows_with_what_is_taken(fixture: &impl Fixture) {
    let queue = fixture.queue(10).await;
    assert_eq!(queue.room(Channel::Email, Lane::Bulk), 10);
    queue.publish(batch(1, Lane::Bulk, 0..4));
    assert_eq!(queue.room(Channel::Email, Lane::Bulk), 6);
    assert_eq!(queue.room(Channel::Email, Lane::Transactional), 10);
    assert!(queue.depths().contains(&(Channel::Email, Lane::Bulk, 4)));
    take_all(queue.as_ref(), 4).await;
    wait::until("there is room", WITHIN, async || (queue.room(Channel::Email, Lane::Bulk) == 10).then_some(())).await;
}

pub(crate) async fn a_closed_queue_gives_nothing_more(fixture: &impl Fixture) {
    let queue = fixture.queue(100).await;
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.take(Channel::Email, Lane::Bulk).await.is_none() }
    });
    tokio::task::yield_now().await;
    queue.close();
    let ended = tokio::time::timeout(WITHIN, waiting).await.expect("the wait ends").expect("the worker lives");
    assert!(ended);
    assert!(queue.take(Channel::Email, Lane::Transactional).await.is_none());
    queue.finish().await;
}

pub(crate) async fn a_queue_in_order_has_no_trouble(fixture: &impl Fixture) {
    let queue = fixture.queue(100).await;
    queue.publish(batch(1, Lane::Bulk, [0]));
    take_all(queue.as_ref(), 1).await;
    assert_eq!(queue.trouble(), None);
}
