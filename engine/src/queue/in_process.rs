//! The queue inside one process.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use dispatch_schemas::{
    ids::CampaignId,
    states::{Channel, Lane},
};
use dispatch_workers::delivery::{Jobs, Receipt, Run};
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::{Batch, Queue};

/// A bounded queue in memory, one line per channel and lane.
pub struct InProcessQueue {
    shared: Arc<Shared>,
    capacity: usize,
}

struct Shared {
    state: Mutex<State>,
    /// There are jobs, or the queue is closing.
    filled: Notify,
    /// There is room, or jobs came back.
    drained: Notify,
}

#[derive(Default)]
struct State {
    lines: HashMap<(Channel, Lane), Line>,
    outstanding: HashMap<CampaignId, usize>,
    returned: Vec<Batch>,
    closed: bool,
}

#[derive(Default)]
struct Line {
    batches: VecDeque<Batch>,
    jobs: usize,
}

impl std::fmt::Debug for InProcessQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InProcessQueue")
    }
}

impl InProcessQueue {
    /// A queue that holds at most `capacity` jobs per channel and lane.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let shared = Shared { state: Mutex::default(), filled: Notify::new(), drained: Notify::new() };
        Self { shared: Arc::new(shared), capacity }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch out of the books; `undone` jobs are the scheduler's again.
    fn settle(&self, campaign: CampaignId, jobs: usize, undone: Option<Batch>) {
        let mut state = self.state();
        if let Some(outstanding) = state.outstanding.get_mut(&campaign) {
            *outstanding = outstanding.saturating_sub(jobs);
            if *outstanding == 0 {
                state.outstanding.remove(&campaign);
            }
        }
        state.returned.extend(undone);
        drop(state);
        self.drained.notify_one();
    }
}

impl Queue for InProcessQueue {
    fn publish(&self, batch: Batch) {
        let mut state = self.shared.state();
        *state.outstanding.entry(batch.campaign).or_default() += batch.seqs.len();
        let line = state.lines.entry((batch.channel, batch.lane)).or_default();
        line.jobs += batch.seqs.len();
        line.batches.push_back(batch);
        drop(state);
        self.shared.filled.notify_waiters();
    }

    fn room(&self, channel: Channel, lane: Lane) -> usize {
        let state = self.shared.state();
        self.capacity.saturating_sub(state.lines.get(&(channel, lane)).map_or(0, |line| line.jobs))
    }

    fn outstanding(&self, campaign: CampaignId) -> Option<usize> {
        Some(self.shared.state().outstanding.get(&campaign).copied().unwrap_or(0))
    }

    fn take_returned(&self) -> Vec<Batch> {
        std::mem::take(&mut self.shared.state().returned)
    }

    fn take_lost(&self) -> bool {
        false
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn depths(&self) -> Vec<(Channel, Lane, usize)> {
        let state = self.shared.state();
        Channel::ALL
            .iter()
            .flat_map(|channel| Lane::ALL.iter().map(|lane| (*channel, *lane)))
            .map(|(channel, lane)| (channel, lane, state.lines.get(&(channel, lane)).map_or(0, |line| line.jobs)))
            .collect()
    }

    fn close(&self) {
        self.shared.state().closed = true;
        self.shared.filled.notify_waiters();
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.drained.notified())
    }

    fn finish(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[async_trait]
impl Jobs for InProcessQueue {
    async fn take(&self, channel: Channel, lane: Lane) -> Option<Run> {
        let lanes: &[Lane] = match lane {
            Lane::Bulk => &[Lane::Transactional, Lane::Bulk],
            Lane::Transactional => &[Lane::Transactional],
        };
        loop {
            // Enlisted before the look, so that a publish in between is not missed.
            let mut filled = std::pin::pin!(self.shared.filled.notified());
            filled.as_mut().enable();
            {
                let mut state = self.shared.state();
                if state.closed {
                    return None;
                }
                let batch = lanes.iter().find_map(|lane| {
                    let line = state.lines.get_mut(&(channel, *lane))?;
                    let batch = line.batches.pop_front()?;
                    line.jobs -= batch.seqs.len();
                    Some(batch)
                });
                if let Some(batch) = batch {
                    drop(state);
                    self.shared.drained.notify_one();
                    let seqs = batch.seqs.clone();
                    let slip = Slip { shared: self.shared.clone(), batch: Some(batch) };
                    return Some(Run { campaign: slip.campaign()?, seqs, receipt: Box::new(slip) });
                }
            }
            filled.await;
        }
    }
}

/// The receipt of a batch: dropped without being handed in, its jobs go back.
struct Slip {
    shared: Arc<Shared>,
    batch: Option<Batch>,
}

impl Slip {
    fn campaign(&self) -> Option<CampaignId> {
        self.batch.as_ref().map(|batch| batch.campaign)
    }
}

impl Receipt for Slip {
    fn done(mut self: Box<Self>, undone: Vec<i64>) {
        if let Some(batch) = self.batch.take() {
            let jobs = batch.seqs.len();
            let undone = (!undone.is_empty()).then_some(Batch { seqs: undone, ..batch });
            let campaign = batch.campaign;
            self.shared.settle(campaign, jobs, undone);
        }
    }

    fn gone(self: Box<Self>) {
        self.done(Vec::new());
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.shared.settle(batch.campaign, batch.seqs.len(), Some(batch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(campaign: i64, lane: Lane, seqs: &[i64]) -> Batch {
        Batch { campaign: CampaignId(campaign), channel: Channel::Email, lane, seqs: seqs.to_vec() }
    }

    #[tokio::test]
    async fn transactional_jobs_overtake_bulk_ones() {
        let queue = InProcessQueue::new(100);
        queue.publish(batch(1, Lane::Bulk, &[0, 1]));
        queue.publish(batch(2, Lane::Transactional, &[7]));
        let first = queue.take(Channel::Email, Lane::Bulk).await.unwrap();
        assert_eq!((first.campaign, first.seqs.as_slice()), (CampaignId(2), [7].as_slice()));
        let second = queue.take(Channel::Email, Lane::Bulk).await.unwrap();
        assert_eq!(second.campaign, CampaignId(1));
    }

    #[tokio::test]
    async fn jobs_that_were_not_done_come_back() {
        let queue = InProcessQueue::new(100);
        queue.publish(batch(1, Lane::Bulk, &[0, 1]));
        queue.publish(batch(1, Lane::Bulk, &[2]));
        queue.take(Channel::Email, Lane::Bulk).await.unwrap().receipt.done(vec![1]);
        drop(queue.take(Channel::Email, Lane::Bulk).await.unwrap());
        assert_eq!(queue.take_returned(), [batch(1, Lane::Bulk, &[1]), batch(1, Lane::Bulk, &[2])]);
        assert_eq!(queue.outstanding(CampaignId(1)), Some(0));
    }

    #[tokio::test]
    async fn a_waiting_worker_hears_of_new_jobs_and_of_the_end() {
        let queue = Arc::new(InProcessQueue::new(100));
        let take = |queue: Arc<InProcessQueue>| {
            tokio::spawn(async move { queue.take(Channel::Email, Lane::Bulk).await.map(|run| run.seqs) })
        };
        let waiting = take(queue.clone());
        queue.publish(batch(1, Lane::Bulk, &[5]));
        assert_eq!(waiting.await.unwrap(), Some(vec![5]));
        let waiting = take(queue.clone());
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(waiting.await.unwrap(), None);
    }

    #[test]
    fn room_shrinks_with_what_is_published() {
        let queue = InProcessQueue::new(3);
        queue.publish(batch(1, Lane::Bulk, &[0, 1]));
        assert_eq!(queue.room(Channel::Email, Lane::Bulk), 1);
        assert_eq!(queue.room(Channel::Email, Lane::Transactional), 3);
    }
}
