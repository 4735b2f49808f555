//! Acknowledgements: which messages of a consumer are done, and the receipts workers hand in.
//!
//! A consumer's messages have consecutive tags. What is done is acknowledged up to the first one that is not, in one
//! frame; one by one only when a slow run would keep too many others waiting. Nothing is ever sent back: what a lost
//! connection leaves unacknowledged comes again by itself.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dispatch_schemas::{
    ids::CampaignId,
    states::{Channel, Lane},
};
use dispatch_workers::delivery::Receipt;
use tokio::sync::Notify;

use super::{
    Shared,
    set_aside::{Misfit, Reason},
    wire,
};
use crate::queue::Batch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Here or with a worker.
    Open,
    /// Done, to be acknowledged.
    Done,
    /// Acknowledged by itself, below one that is open.
    Acked,
}

/// What is to be acknowledged now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acks {
    /// All up to this tag.
    pub(super) up_to: Option<u64>,
    /// These beyond it, ascending.
    pub(super) singles: Vec<u64>,
}

/// The messages one consumer has got on one channel.
#[derive(Debug)]
pub(super) struct Tags {
    window: Mutex<Window>,
    /// Some are done.
    pub(super) settled: Notify,
    /// Done messages above one that is not, beyond which they are acknowledged one by one.
    stragglers_max: usize,
}

#[derive(Debug)]
struct Window {
    /// The tag of the first state.
    base: u64,
    states: VecDeque<State>,
    done: usize,
    /// Messages with workers.
    out: usize,
    /// The channel is gone: its tags mean nothing any more.
    over: bool,
}

impl Tags {
    /// For a consumer that may have `prefetch` messages open.
    pub(super) fn new(prefetch: u16) -> Self {
        let window = Window { base: 1, states: VecDeque::new(), done: 0, out: 0, over: false };
        Self { window: Mutex::new(window), settled: Notify::new(), stragglers_max: usize::from(prefetch / 2) }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages up to this tag have arrived.
    pub(super) fn arrived(&self, tag: u64) {
        let mut window = self.window();
        while window.base + (window.states.len() as u64) <= tag {
            window.states.push_back(State::Open);
        }
    }

    /// So many went to a worker.
    pub(super) fn lend(&self, messages: usize) {
        self.window().out += messages;
    }

    /// So many came back from a worker.
    fn take_back(&self, messages: usize) {
        let mut window = self.window();
        window.out = window.out.saturating_sub(messages);
    }

    /// Messages with workers.
    pub(super) fn out(&self) -> usize {
        self.window().out
    }

    /// These are done.
    pub(super) fn settle(&self, tags: impl IntoIterator<Item = u64>) {
        let mut window = self.window();
        for tag in tags {
            let at = tag.checked_sub(window.base).and_then(|at| usize::try_from(at).ok());
            if let Some(state @ State::Open) = at.and_then(|at| window.states.get_mut(at)) {
                *state = State::Done;
                window.done += 1;
            }
        }
        drop(window);
        self.settled.notify_one();
    }

    /// The channel is gone.
    pub(super) fn end(&self) {
        self.window().over = true;
    }

    /// Whether the channel is gone, and with it the messages: they come again.
    fn is_over(&self) -> bool {
        self.window().over
    }

    /// Takes what can be acknowledged now.
    pub(super) fn acks(&self) -> Acks {
        let mut window = self.window();
        let mut acks = Acks::default();
        while let Some(state @ (State::Done | State::Acked)) = window.states.front().copied() {
            if state == State::Done {
                // A tag that was acknowledged before is unknown to the broker, so it must not be the one that is named.
                acks.up_to = Some(window.base);
                window.done -= 1;
            }
            window.states.pop_front();
            window.base += 1;
        }
        if window.done > self.stragglers_max {
            let base = window.base;
            for (state, tag) in window.states.iter_mut().zip(base..) {
                if *state == State::Done {
                    *state = State::Acked;
                    acks.singles.push(tag);
                }
            }
            window.done = 0;
        }
        acks
    }
}

/// The receipt of a run: dropped without being handed in, its jobs go back to the schedulers.
pub(super) struct Slip {
    shared: Arc<Shared>,
    line: (Channel, Lane),
    campaign: CampaignId,
    tags: Arc<Tags>,
    /// Number and tag, by number; a doubled job is here twice.
    jobs: Vec<(i64, u64)>,
}

impl Slip {
    pub(super) fn new(
        shared: Arc<Shared>,
        line: (Channel, Lane),
        campaign: CampaignId,
        tags: Arc<Tags>,
        jobs: Vec<(i64, u64)>,
    ) -> Self {
        Self { shared, line, campaign, tags, jobs }
    }

    fn settle(&mut self, jobs: &[(i64, u64)], undone: Vec<i64>) {
        // What a lost channel left open comes again; telling the schedulers too would only double it.
        if !undone.is_empty() && !self.tags.is_over() {
            let batch = Batch { campaign: self.campaign, channel: self.line.0, lane: self.line.1, seqs: undone };
            self.shared.books().tell(&batch);
            self.shared.outbox.notify_one();
        }
        self.tags.take_back(jobs.len());
        self.tags.settle(jobs.iter().map(|(_, tag)| *tag));
    }
}

fn numbers(jobs: &[(i64, u64)]) -> Vec<i64> {
    let mut seqs: Vec<i64> = jobs.iter().map(|(seq, _)| *seq).collect();
    seqs.dedup();
    seqs
}

impl Receipt for Slip {
    fn done(mut self: Box<Self>, undone: Vec<i64>) {
        let jobs = std::mem::take(&mut self.jobs);
        let all = numbers(&jobs).len();
        self.shared.prefetched().learn(self.campaign, all - undone.len().min(all), all);
        self.settle(&jobs, undone);
    }

    fn gone(mut self: Box<Self>) {
        let jobs = std::mem::take(&mut self.jobs);
        let mut books = self.shared.books();
        for (seq, tag) in &jobs {
            let body = wire::Written::new(self.campaign, *seq).as_bytes().to_vec();
            let misfit = Misfit::new(Reason::CampaignGone, self.line, body.len(), Some(body));
            books.set_aside(misfit, self.tags.clone(), *tag);
        }
        drop(books);
        self.shared.outbox.notify_one();
        self.tags.take_back(jobs.len());
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        let jobs = std::mem::take(&mut self.jobs);
        if !jobs.is_empty() {
            self.settle(&jobs, numbers(&jobs));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_done_is_acknowledged_up_to_the_first_that_is_not() {
        let tags = Tags::new(8);
        tags.arrived(6);
        tags.settle([2, 3]);
        assert_eq!(tags.acks(), Acks::default());
        tags.settle([1, 5]);
        assert_eq!(tags.acks(), Acks { up_to: Some(3), singles: vec![] });
        tags.settle([4, 6, 6]);
        assert_eq!(tags.acks(), Acks { up_to: Some(6), singles: vec![] });
    }

    #[test]
    fn a_slow_run_does_not_keep_the_others_waiting_for_ever() {
        let tags = Tags::new(8);
        tags.arrived(8);
        tags.settle(2..=5);
        assert_eq!(tags.acks(), Acks::default());
        tags.settle([6]);
        assert_eq!(tags.acks(), Acks { up_to: None, singles: vec![2, 3, 4, 5, 6] });
        tags.settle([1]);
        assert_eq!(tags.acks(), Acks { up_to: Some(1), singles: vec![] }, "6 is not known to the broker any more");
        tags.settle([7, 8]);
        assert_eq!(tags.acks(), Acks { up_to: Some(8), singles: vec![] });
    }

    proptest! {
        /// The broker's side: a set of open tags; each named tag must be in it.
        #[test]
        fn each_message_is_acknowledged_once_and_none_that_is_open(
            order in Just((1..=60_u64).collect::<Vec<_>>()).prop_shuffle(),
            flush_after in proptest::collection::vec(1..8_usize, 1..60),
        ) {
            let tags = Tags::new(16);
            tags.arrived(60);
            let mut open: std::collections::BTreeSet<u64> = (1..=60).collect();
            let mut done = std::collections::BTreeSet::new();
            let mut rest = order.as_slice();
            let mut steps = flush_after.iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*steps.next().unwrap()).min(rest.len()));
                rest = later;
                tags.settle(now.iter().copied());
                done.extend(now.iter().copied());
                let acks = tags.acks();
                if let Some(up_to) = acks.up_to {
                    prop_assert!(open.contains(&up_to));
                    open.retain(|tag| *tag > up_to);
                    prop_assert!((1..=up_to).all(|tag| done.contains(&tag)));
                }
                for tag in acks.singles {
                    prop_assert!(open.remove(&tag) && done.contains(&tag));
                }
                prop_assert!(done.iter().filter(|tag| open.contains(tag)).count() <= 8);
            }
            prop_assert!(open.is_empty());
        }
    }
}
