//! The queue between processes: RabbitMQ, one persistent message per recipient on a quorum queue per channel and lane.
//!
//! [`link`] reaches the broker, [`topology`] is what is declared there, [`wire`] the job as it travels. [`publisher`]
//! and [`consumer`] have a connection each, keep it up as long as the queue lives, and meet workers and scheduler in
//! [`books`] (handed over, confirmed, came back), [`prefetched`] (jobs by campaign) and [`receipts`]
//! (acknowledgements). [`returned`] carries what a worker could not get to back to the schedulers, and word of a queue that was lost; [`set_aside`] keeps
//! what nobody can work on.
//!
//! RabbitMQ is never trusted with the truth: a message lost, doubled or late changes nothing but delay.

mod books;
mod consumer;
pub mod examination;
mod link;
mod prefetched;
mod publisher;
mod receipts;
mod returned;
pub mod set_aside;
pub mod topology;
mod wire;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dispatch_schemas::{
    ids::CampaignId,
    states::{Channel, Lane},
};
use dispatch_workers::{
    clock::Clock,
    delivery::{Jobs, Run},
};
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use link::{BrokerError, Link};

use self::{
    books::Books,
    prefetched::{Gathered, Look, Prefetched},
    receipts::Slip,
};
use super::{Batch, Queue};

/// How long [`finish`](Queue::finish) waits for the broker to take the last words.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// Jobs one worker may have ahead of it: its run, and one for when that is done.
const PREFETCH_PER_RUN: usize = prefetched::RUN_MAX * 2;

/// Which end of the queue a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It publishes, hears of jobs that were not done, and watches how full the queues are. It may work as well.
    Scheduler,
    /// It works only.
    Worker,
}

/// How a process takes part in the queue.
pub struct Options {
    /// The way to the broker.
    pub link: Link,
    /// Which end it has.
    pub side: Side,
    /// Most jobs in the queue per channel and lane.
    pub capacity: usize,
    /// Runs delivered side by side in one channel; decides how many jobs are fetched ahead.
    pub runs: usize,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Options({:?}, {:?})", self.link, self.side)
    }
}

/// The queue on RabbitMQ.
pub struct RabbitQueue {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for RabbitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RabbitQueue({:?})", self.shared.link)
    }
}

/// What the two connections and the two ends of the queue share.
struct Shared {
    link: Link,
    side: Side,
    prefetch: u16,
    clock: Arc<dyn Clock>,
    books: Mutex<Books>,
    prefetched: Mutex<Prefetched>,
    taps: Mutex<HashSet<(Channel, Lane)>>,
    /// A worker asks for a channel and lane for the first time.
    tap_wanted: Notify,
    /// Jobs have arrived, or the queue is closing.
    filled: Notify,
    /// There is something to send.
    outbox: Notify,
    /// Something has changed for the scheduler.
    changed: Notify,
    closing: CancellationToken,
    /// No more receipts come in.
    consumers_ended: CancellationToken,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prefetched(&self) -> MutexGuard<'_, Prefetched> {
        self.prefetched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted(&self) -> Vec<(Channel, Lane)> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn want(&self, line: (Channel, Lane)) {
        if self.taps.lock().unwrap_or_else(PoisonError::into_inner).insert(line) {
            self.tap_wanted.notify_one();
        }
    }
}

impl RabbitQueue {
    /// Starts to connect, and goes on trying for as long as the queue lives; [`Queue::trouble`] says how it stands.
    /// Must be called in a runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let shared = Arc::new(Shared {
            link: options.link,
            side: options.side,
            prefetch: u16::try_from(options.runs.saturating_mul(PREFETCH_PER_RUN)).unwrap_or(u16::MAX).max(1),
            clock: options.clock,
            books: Mutex::new(Books::new(options.capacity)),
            prefetched: Mutex::default(),
            taps: Mutex::default(),
            tap_wanted: Notify::new(),
            filled: Notify::new(),
            outbox: Notify::new(),
            changed: Notify::new(),
            closing: CancellationToken::new(),
            consumers_ended: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        let of = shared.clone();
        tasks.spawn(async move { publisher::run(&of).await });
        let of = shared.clone();
        tasks.spawn(async move { consumer::run(&of).await });
        tasks.close();
        Self { shared, tasks }
    }
}

impl Drop for RabbitQueue {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue for RabbitQueue {
    fn publish(&self, batch: Batch) {
        self.shared.books().take_over(batch);
        self.shared.outbox.notify_one();
    }

    fn room(&self, channel: Channel, lane: Lane) -> usize {
        self.shared.books().room((channel, lane))
    }

    fn outstanding(&self, _: CampaignId) -> Option<usize> {
        None
    }

    fn take_returned(&self) -> Vec<Batch> {
        self.shared.books().take_returned()
    }

    fn take_lost(&self) -> bool {
        self.shared.books().take_lost()
    }

    fn trouble(&self) -> Option<String> {
        self.shared.books().trouble()
    }

    fn depths(&self) -> Vec<(Channel, Lane, usize)> {
        self.shared.books().depths()
    }

    fn close(&self) {
        self.shared.closing.cancel();
        self.shared.filled.notify_waiters();
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.changed.notified())
    }

    fn finish(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if tokio::time::timeout(FINISH_WITHIN, self.tasks.wait()).await.is_err() {
                tracing::warn!("RabbitMQ did not take the last acknowledgements; those jobs come again and are no-ops");
            }
        })
    }
}

#[async_trait]
impl Jobs for RabbitQueue {
    async fn take(&self, channel: Channel, lane: Lane) -> Option<Run> {
        let lanes: &[Lane] = match lane {
            Lane::Bulk => &[Lane::Transactional, Lane::Bulk],
            Lane::Transactional => &[Lane::Transactional],
        };
        lanes.iter().for_each(|lane| self.shared.want((channel, *lane)));
        loop {
            // Enlisted before the look, so that an arrival in between is not missed.
            let mut filled = std::pin::pin!(self.shared.filled.notified());
            filled.as_mut().enable();
            if self.shared.closing.is_cancelled() {
                return None;
            }
            let look = self.shared.prefetched().take(channel, lanes, self.shared.clock.monotonic());
            match look {
                Look::Run(gathered) => return Some(run(&self.shared, gathered)),
                Look::Soon(wait) => {
                    // More jobs, or the wait is over: either way it is worth another look.
                    let _ = tokio::time::timeout(wait, filled).await;
                }
                Look::Nothing => filled.await,
            }
        }
    }
}

fn run(shared: &Arc<Shared>, gathered: Gathered) -> Run {
    let Gathered { line, campaign, tags, mut jobs } = gathered;
    jobs.sort_unstable();
    let mut seqs: Vec<i64> = jobs.iter().map(|(seq, _)| *seq).collect();
    seqs.dedup();
    Run { campaign, seqs, receipt: Box::new(Slip::new(shared.clone(), line, campaign, tags, jobs)) }
}
