//! What this process knows of the queue: what it has handed over, what the broker last said, what came back.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use dispatch_schemas::{
    ids::CampaignId,
    states::{Channel, Lane},
};

use super::{receipts::Tags, returned, set_aside::Misfit, topology};
use crate::queue::Batch;

/// Most batches that came back and wait for the scheduler, and most on their way to one. What is beyond comes again
/// when the scheduler looks for what does not move.
const RETURNED_MAX: usize = 10_000;

/// How many more jobs than its share a line may hold for a moment: retries are published without asking for room.
const BEYOND_CAPACITY: usize = 2;

/// Something to be sent to the broker, and what it was until it was confirmed.
#[derive(Debug)]
pub(super) enum Parcel {
    /// A job.
    Job {
        /// Its channel and lane.
        line: (Channel, Lane),
        /// Whose.
        campaign: CampaignId,
        /// Which.
        seq: i64,
    },
    /// Jobs that were not done.
    Returned(Batch),
    /// A queue had to be made anew.
    Lost,
    /// A message to be set aside, and its tag, to be settled then.
    Misfit(Box<Misfit>, Arc<Tags>, u64),
}

/// One channel's lane.
#[derive(Debug, Default)]
struct Line {
    /// Handed over by the scheduler, not sent yet.
    waiting: VecDeque<(CampaignId, std::vec::IntoIter<i64>)>,
    /// How many jobs those are.
    waiting_jobs: usize,
    /// Sent, not confirmed.
    unconfirmed: usize,
    /// Confirmed, ever.
    confirmed: u64,
    /// Confirmed before the broker was last asked.
    confirmed_then: u64,
    /// What it said was in the queue.
    depth: usize,
}

impl Line {
    /// At most this many are in the queue or on their way to it.
    fn used(&self) -> usize {
        let since = usize::try_from(self.confirmed - self.confirmed_then).unwrap_or(usize::MAX);
        self.depth.saturating_add(since).saturating_add(self.waiting_jobs + self.unconfirmed)
    }
}

/// The books.
#[derive(Debug, Default)]
pub(super) struct Books {
    capacity: usize,
    lines: HashMap<(Channel, Lane), Line>,
    errands: VecDeque<Parcel>,
    returned: Vec<Batch>,
    /// Refused by the broker; given back when there has been time for the reason to pass.
    refused: Vec<Batch>,
    lost: bool,
    /// Whether jobs can be sent.
    pub(super) publishing: bool,
    /// The broker takes no messages until an alarm of its own is over.
    pub(super) blocked: bool,
    /// Why there is no connection for publishing.
    pub(super) publisher_trouble: Option<String>,
    /// Why there is no connection for consuming.
    pub(super) consumer_trouble: Option<String>,
}

impl Books {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Takes jobs over. Without a connection they are dropped: with the next one the scheduler is told that all it
    /// published may be lost.
    pub(super) fn take_over(&mut self, batch: Batch) {
        let most = self.capacity.saturating_mul(BEYOND_CAPACITY);
        let line = self.lines.entry((batch.channel, batch.lane)).or_default();
        if !self.publishing || line.waiting_jobs >= most {
            let jobs = batch.seqs.len() as u64;
            metrics::counter!("dispatch_queue_refused_total", "why" => "dropped").increment(jobs);
            return;
        }
        line.waiting_jobs += batch.seqs.len();
        line.waiting.push_back((batch.campaign, batch.seqs.into_iter()));
    }

    pub(super) fn room(&self, line: (Channel, Lane)) -> usize {
        if !self.publishing || self.blocked {
            return 0;
        }
        self.capacity.saturating_sub(self.lines.get(&line).map_or(0, Line::used))
    }

    /// Whether some line has little room left, so that its depth matters.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.lines.values().any(|line| line.used() > self.capacity / 2)
    }

    pub(super) fn depths(&self) -> Vec<(Channel, Lane, usize)> {
        topology::lines().map(|line| (line.0, line.1, self.lines.get(&line).map_or(0, Line::used))).collect()
    }

    /// The next parcels to send: errands first, then what people wait for.
    pub(super) fn next(&mut self, most: usize) -> Vec<Parcel> {
        let errands = self.errands.len().min(most);
        let mut parcels: Vec<Parcel> = self.errands.drain(..errands).collect();
        let mut lines: Vec<_> = self.lines.iter_mut().collect();
        lines.sort_unstable_by_key(|((_, lane), _)| *lane != Lane::Transactional);
        for (line, of) in lines {
            while parcels.len() < most
                && let Some((campaign, seqs)) = of.waiting.front_mut()
            {
                let before = parcels.len();
                let jobs = seqs.by_ref().take(most - before);
                parcels.extend(jobs.map(|seq| Parcel::Job { line: *line, campaign: *campaign, seq }));
                of.waiting_jobs -= parcels.len() - before;
                of.unconfirmed += parcels.len() - before;
                if seqs.len() == 0 {
                    of.waiting.pop_front();
                }
            }
        }
        parcels
    }

    /// Nothing waits to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.errands.is_empty() && self.lines.values().all(|line| line.waiting_jobs == 0)
    }

    pub(super) fn confirmed(&mut self, line: (Channel, Lane)) {
        let line = self.lines.entry(line).or_default();
        line.unconfirmed = line.unconfirmed.saturating_sub(1);
        line.confirmed += 1;
    }

    /// The broker did not take a job.
    pub(super) fn refused(&mut self, line: (Channel, Lane), campaign: CampaignId, seq: i64) {
        let of = self.lines.entry(line).or_default();
        of.unconfirmed = of.unconfirmed.saturating_sub(1);
        match self.refused.last_mut() {
            Some(last)
                if last.campaign == campaign && (last.channel, last.lane) == line && last.seqs.last() < Some(&seq) =>
            {
                last.seqs.push(seq);
            }
            _ => self.refused.push(Batch { campaign, channel: line.0, lane: line.1, seqs: vec![seq] }),
        }
    }

    /// How many jobs of a line were confirmed until now: asked before the broker is asked for its depth.
    pub(super) fn confirmed_until_now(&self, line: (Channel, Lane)) -> u64 {
        self.lines.get(&line).map_or(0, |line| line.confirmed)
    }

    /// What the broker says is in a queue, `confirmed` being what had been confirmed when it was asked.
    pub(super) fn measured(&mut self, line: (Channel, Lane), depth: usize, confirmed: u64) {
        let line = self.lines.entry(line).or_default();
        (line.depth, line.confirmed_then) = (depth, confirmed);
    }

    /// What was refused may be tried again.
    pub(super) fn release_refused(&mut self) -> bool {
        let refused = std::mem::take(&mut self.refused);
        let any = !refused.is_empty();
        refused.into_iter().for_each(|batch| self.give_back(batch));
        any
    }

    /// Gives jobs back to the scheduler.
    pub(super) fn give_back(&mut self, batch: Batch) {
        if self.returned.len() < RETURNED_MAX {
            self.returned.push(batch);
        }
    }

    pub(super) fn take_returned(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.returned)
    }

    /// Lets the schedulers know of jobs that were not done.
    pub(super) fn tell(&mut self, batch: &Batch) {
        for seqs in batch.seqs.chunks(returned::JOBS_MAX) {
            if self.errands.len() < RETURNED_MAX {
                self.errands.push_back(Parcel::Returned(Batch { seqs: seqs.to_vec(), ..*batch }));
            }
        }
    }

    /// Lets the schedulers know that a queue had to be made anew: what they published may be gone. This one knows.
    pub(super) fn tell_lost(&mut self) {
        self.lost();
        if !self.errands.iter().any(|parcel| matches!(parcel, Parcel::Lost)) {
            self.errands.push_back(Parcel::Lost);
        }
    }

    /// Sets a message aside. As many can wait as consumers may hold unacknowledged.
    pub(super) fn set_aside(&mut self, misfit: Misfit, tags: Arc<Tags>, tag: u64) {
        self.errands.push_back(Parcel::Misfit(Box::new(misfit), tags, tag));
    }

    /// What was published may be gone.
    pub(super) const fn lost(&mut self) {
        self.lost = true;
    }

    pub(super) const fn take_lost(&mut self) -> bool {
        std::mem::replace(&mut self.lost, false)
    }

    /// A connection for publishing is there.
    pub(super) fn open(&mut self) {
        self.publishing = true;
        self.blocked = false;
        self.publisher_trouble = None;
        self.lost();
    }

    /// The connection for publishing is gone, and with it the certainty about what was sent on it. What it was to do
    /// for others is done on the next one.
    pub(super) fn shut(&mut self, in_doubt: impl DoubleEndedIterator<Item = Parcel>) {
        (self.publishing, self.blocked) = (false, false);
        for line in self.lines.values_mut() {
            line.waiting.clear();
            (line.waiting_jobs, line.unconfirmed) = (0, 0);
        }
        for parcel in in_doubt.rev() {
            if !matches!(parcel, Parcel::Job { .. }) {
                self.errands.push_front(parcel);
            }
        }
    }

    /// What is wrong, if anything.
    pub(super) fn trouble(&self) -> Option<String> {
        let blocked = || {
            let why = "RabbitMQ takes no messages: an alarm is set there (memory or disk); jobs wait in the ledger";
            self.blocked.then(|| why.to_owned())
        };
        self.publisher_trouble.clone().or_else(|| self.consumer_trouble.clone()).or_else(blocked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: (Channel, Lane) = (Channel::Email, Lane::Bulk);

    fn batch(lane: Lane, seqs: &[i64]) -> Batch {
        Batch { campaign: CampaignId(1), channel: Channel::Email, lane, seqs: seqs.to_vec() }
    }

    fn open(capacity: usize) -> Books {
        let mut books = Books::new(capacity);
        books.open();
        books
    }

    fn seqs(parcels: &[Parcel]) -> Vec<i64> {
        parcels
            .iter()
            .filter_map(|parcel| if let Parcel::Job { seq, .. } = parcel { Some(*seq) } else { None })
            .collect()
    }

    #[test]
    fn room_counts_what_is_on_its_way_and_what_the_broker_last_said() {
        let mut books = open(10);
        books.take_over(batch(Lane::Bulk, &[0, 1, 2]));
        assert_eq!(books.room(LINE), 7);
        assert_eq!(seqs(&books.next(2)), [0, 1]);
        books.confirmed(LINE);
        assert_eq!(books.room(LINE), 7, "confirmed, unconfirmed and waiting");
        let until_now = books.confirmed_until_now(LINE);
        books.confirmed(LINE);
        books.measured(LINE, 0, until_now);
        assert_eq!(
            books.room(LINE),
            8,
            "one was taken; what was confirmed after the question may not be in the answer"
        );
        books.measured(LINE, 10, 2);
        assert_eq!(books.room(LINE), 0);
        books.blocked = true;
        books.measured(LINE, 0, 2);
        assert_eq!(books.room(LINE), 0, "whatever the depth while the broker is blocked");
    }

    #[test]
    fn single_messages_and_errands_go_first() {
        let mut books = open(10);
        books.take_over(batch(Lane::Bulk, &[0, 1]));
        books.take_over(batch(Lane::Transactional, &[7]));
        books.tell(&batch(Lane::Bulk, &[9]));
        let parcels = books.next(3);
        assert!(matches!(parcels[0], Parcel::Returned(_)));
        assert_eq!(seqs(&parcels), [7, 0]);
    }

    #[test]
    fn a_lost_connection_forgets_jobs_and_keeps_errands_in_their_order() {
        let mut books = open(10);
        assert!(books.take_lost(), "a new connection does not know what the last one lost");
        books.take_over(batch(Lane::Bulk, &[0, 1]));
        books.tell(&batch(Lane::Bulk, &[8]));
        books.tell(&batch(Lane::Bulk, &[9]));
        let sent = books.next(3);
        books.shut(sent.into_iter());
        assert_eq!(books.room(LINE), 0);
        books.take_over(batch(Lane::Bulk, &[5]));
        books.open();
        assert!(books.take_lost() && !books.take_lost(), "once");
        assert_eq!(books.room(LINE), 10);
        let parcels = books.next(10);
        let told: Vec<i64> = parcels
            .iter()
            .filter_map(|parcel| if let Parcel::Returned(batch) = parcel { Some(batch.seqs[0]) } else { None })
            .collect();
        assert_eq!((told.as_slice(), parcels.len()), ([8, 9].as_slice(), 2));
    }

    #[test]
    fn what_was_refused_comes_back_in_batches_after_a_while() {
        let mut books = open(10);
        books.take_over(batch(Lane::Bulk, &[0, 1, 2]));
        books.next(3);
        (0..3).for_each(|seq| books.refused(LINE, CampaignId(1), seq));
        assert!(books.take_returned().is_empty(), "not at once, or a full queue would be asked without rest");
        assert!(books.release_refused() && !books.release_refused());
        assert_eq!(books.take_returned(), [batch(Lane::Bulk, &[0, 1, 2])]);
    }
}
