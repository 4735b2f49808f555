//! Jobs that consumers have got ahead of the workers, gathered by campaign: messages travel one by one, the ledger is
//! asked for many.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use dispatch_schemas::{
    ids::CampaignId,
    states::{Channel, Lane},
};

use super::receipts::Tags;

/// Most jobs in one run.
pub(super) const RUN_MAX: usize = 1_000;

/// The smallest size that a run shrinks to when workers do not get through theirs.
const RUN_MIN: usize = 16;

/// How long the first job of a run waits for others of its campaign.
const LINGER: Duration = Duration::from_millis(3);

/// Campaigns whose run size is remembered.
const SIZES_MAX: usize = 10_000;

/// What a look for a run found.
pub(super) enum Look {
    /// A run.
    Run(Gathered),
    /// A run that is worth more in a moment.
    Soon(Duration),
    /// Nothing.
    Nothing,
}

/// Jobs of one campaign.
pub(super) struct Gathered {
    pub(super) line: (Channel, Lane),
    pub(super) campaign: CampaignId,
    pub(super) tags: Arc<Tags>,
    /// Number and tag.
    pub(super) jobs: Vec<(i64, u64)>,
}

/// What one consumer has got.
struct Line {
    tags: Arc<Tags>,
    groups: HashMap<CampaignId, Group>,
    /// Whose turn it is.
    turn: VecDeque<CampaignId>,
}

struct Group {
    jobs: VecDeque<(i64, u64)>,
    since: Duration,
}

/// What all consumers have got.
#[derive(Default)]
pub(super) struct Prefetched {
    lines: HashMap<(Channel, Lane), Line>,
    sizes: HashMap<CampaignId, usize>,
}

impl Prefetched {
    /// Jobs have arrived, all on the channel of these tags.
    pub(super) fn add(
        &mut self,
        line: (Channel, Lane),
        tags: &Arc<Tags>,
        jobs: impl Iterator<Item = (CampaignId, i64, u64)>,
        now: Duration,
    ) {
        let new = || Line { tags: tags.clone(), groups: HashMap::new(), turn: VecDeque::new() };
        let line = self.lines.entry(line).or_insert_with(new);
        for (campaign, seq, tag) in jobs {
            let group = line.groups.entry(campaign).or_insert_with(|| {
                line.turn.push_back(campaign);
                Group { jobs: VecDeque::new(), since: now }
            });
            group.jobs.push_back((seq, tag));
        }
    }

    /// The consumer is gone; what it had comes again.
    pub(super) fn forget(&mut self, line: (Channel, Lane)) {
        self.lines.remove(&line);
    }

    /// Takes a run of the first of these lanes that has one. Campaigns take turns.
    pub(super) fn take(&mut self, channel: Channel, lanes: &[Lane], now: Duration) -> Look {
        let mut soon: Option<Duration> = None;
        for lane in lanes {
            match self.take_from((channel, *lane), now) {
                Look::Run(run) => return Look::Run(run),
                Look::Soon(wait) => soon = Some(soon.map_or(wait, |known| known.min(wait))),
                Look::Nothing => {}
            }
        }
        soon.map_or(Look::Nothing, Look::Soon)
    }

    fn take_from(&mut self, name: (Channel, Lane), now: Duration) -> Look {
        let Some(line) = self.lines.get_mut(&name) else { return Look::Nothing };
        let mut soon: Option<Duration> = None;
        for at in 0..line.turn.len() {
            let campaign = line.turn[at];
            let Some(group) = line.groups.get_mut(&campaign) else { continue };
            let size = self.sizes.get(&campaign).copied().unwrap_or(RUN_MAX);
            let ripe_at = group.since + LINGER;
            // A person waits for single messages; nobody waits for one mail of a campaign.
            if group.jobs.len() < size && name.1 == Lane::Bulk && now < ripe_at {
                let wait = ripe_at - now;
                soon = Some(soon.map_or(wait, |known| known.min(wait)));
                continue;
            }
            let jobs: Vec<_> = group.jobs.drain(..size.min(group.jobs.len())).collect();
            let is_empty = group.jobs.is_empty();
            line.turn.remove(at);
            if is_empty {
                line.groups.remove(&campaign);
            } else {
                line.turn.push_back(campaign);
            }
            line.tags.lend(jobs.len());
            return Look::Run(Gathered { line: name, campaign, tags: line.tags.clone(), jobs });
        }
        soon.map_or(Look::Nothing, Look::Soon)
    }

    /// How many jobs of a run a worker got through. The next runs of the campaign are of a size that it can do: what is
    /// left over would go back to the scheduler and through the broker once more.
    pub(super) fn learn(&mut self, campaign: CampaignId, done: usize, of: usize) {
        if done == of {
            if let Some(size) = self.sizes.get_mut(&campaign)
                && of >= *size
            {
                *size += (*size / 8).max(1);
                if *size >= RUN_MAX {
                    self.sizes.remove(&campaign);
                }
            }
            return;
        }
        if self.sizes.len() >= SIZES_MAX {
            self.sizes.clear();
        }
        self.sizes.insert(campaign, done.clamp(RUN_MIN, RUN_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMAIL: Channel = Channel::Email;

    struct Arrivals {
        prefetched: Prefetched,
        tags: Arc<Tags>,
        next: u64,
    }

    impl Arrivals {
        fn new() -> Self {
            Self { prefetched: Prefetched::default(), tags: Arc::new(Tags::new(u16::MAX)), next: 1 }
        }

        fn arrive(&mut self, lane: Lane, campaign: i64, seqs: std::ops::Range<i64>, now: Duration) {
            let first = self.next;
            self.next += seqs.end as u64 - seqs.start as u64;
            let jobs = seqs.zip(first..).map(|(seq, tag)| (CampaignId(campaign), seq, tag));
            self.prefetched.add((EMAIL, lane), &self.tags, jobs, now);
        }

        fn take(&mut self, lanes: &[Lane], now: Duration) -> Option<(i64, usize)> {
            match self.prefetched.take(EMAIL, lanes, now) {
                Look::Run(run) => Some((run.campaign.0, run.jobs.len())),
                Look::Soon(_) | Look::Nothing => None,
            }
        }
    }

    const BOTH: &[Lane] = &[Lane::Transactional, Lane::Bulk];
    const LATER: Duration = Duration::from_secs(1);

    #[test]
    fn a_campaign_s_jobs_are_gathered_and_campaigns_take_turns() {
        let mut arrivals = Arrivals::new();
        arrivals.arrive(Lane::Bulk, 1, 0..1_500, Duration::ZERO);
        arrivals.arrive(Lane::Bulk, 2, 0..10, Duration::ZERO);
        arrivals.arrive(Lane::Bulk, 1, 1_500..2_500, Duration::ZERO);
        let runs: Vec<_> = std::iter::from_fn(|| arrivals.take(BOTH, LATER)).collect();
        assert_eq!(runs, [(1, 1_000), (2, 10), (1, 1_000), (1, 500)]);
        assert_eq!(arrivals.tags.out(), 2_510);
    }

    #[test]
    fn a_small_run_waits_a_moment_for_more_but_a_single_message_does_not() {
        let mut arrivals = Arrivals::new();
        arrivals.arrive(Lane::Bulk, 1, 0..10, Duration::ZERO);
        assert!(matches!(arrivals.prefetched.take(EMAIL, BOTH, Duration::ZERO), Look::Soon(wait) if wait == LINGER));
        arrivals.arrive(Lane::Transactional, 9, 0..1, Duration::ZERO);
        assert_eq!(arrivals.take(BOTH, Duration::ZERO), Some((9, 1)));
        arrivals.arrive(Lane::Bulk, 1, 10..20, Duration::from_millis(1));
        assert_eq!(arrivals.take(BOTH, LINGER), Some((1, 20)));
        arrivals.arrive(Lane::Bulk, 1, 20..1_020, LINGER);
        assert_eq!(arrivals.take(&[Lane::Transactional], LINGER), None);
        assert_eq!(arrivals.take(BOTH, LINGER), Some((1, 1_000)), "a full run is taken at once");
    }

    #[test]
    fn runs_take_the_size_that_workers_get_through() {
        let mut arrivals = Arrivals::new();
        arrivals.arrive(Lane::Bulk, 1, 0..10_000, Duration::ZERO);
        assert_eq!(arrivals.take(BOTH, LATER), Some((1, 1_000)));
        arrivals.prefetched.learn(CampaignId(1), 256, 1_000);
        assert_eq!(arrivals.take(BOTH, LATER), Some((1, 256)));
        arrivals.prefetched.learn(CampaignId(1), 256, 256);
        assert_eq!(arrivals.take(BOTH, LATER), Some((1, 288)));
        arrivals.prefetched.learn(CampaignId(1), 0, 288);
        assert_eq!(arrivals.take(BOTH, LATER), Some((1, RUN_MIN)));
        for _ in 0..50 {
            let size = arrivals.take(BOTH, LATER).unwrap_or_default().1;
            arrivals.prefetched.learn(CampaignId(1), size, size);
            arrivals.arrive(Lane::Bulk, 1, 10_000..11_000, Duration::ZERO);
        }
        assert_eq!(arrivals.take(BOTH, LATER), Some((1, 1_000)));
    }

    #[test]
    fn what_a_lost_consumer_had_is_forgotten() {
        let mut arrivals = Arrivals::new();
        arrivals.arrive(Lane::Bulk, 1, 0..10, Duration::ZERO);
        arrivals.prefetched.forget((EMAIL, Lane::Bulk));
        assert_eq!(arrivals.take(BOTH, LATER), None);
    }
}
