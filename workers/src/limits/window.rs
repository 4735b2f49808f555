//! Exact counting over a sliding window.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a window has counted, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    newest: u64,
    counts: Vec<u64>,
}

/// Into how many slots a window is cut: a second's are 8 ms long.
const SLOTS: usize = 125;

/// By how many slots a send may come later than its permit is counted. A sleep ends late on a busy machine, a request
/// takes its time to the provider, and the clocks of two machines differ: without this room, what left within a second
/// would now and then arrive within less.
const LATE_SLOTS: usize = 2;
/// How many of those it may leave late; the rest is for its way.
const LEAVES_LATE_SLOTS: u64 = 1;

/// A second is used evenly, whoever sends: of a tenth of it (96 ms), its share and a fifth more.
const TENTH_SLOTS: u64 = 12;
const TENTH_SHARE_PERCENT: u64 = 120;
/// The longest period that is used evenly. A longer one is used in bunches, so that requests can be full.
const EVEN_PERIOD_MAX: Duration = Duration::from_secs(1);

/// By how much more than that the clocks of processes may differ.
const AHEAD_OF_CLOCKS_MAX: Duration = Duration::from_secs(1);

/// Slots that count: the window's own, the one it half covers, and the late ones. So a window of what arrives never
/// holds more than the limit, and 125/128 of it can be used.
const RING: usize = SLOTS + 1 + LATE_SLOTS;

/// How many permits were granted over the last `period`, slot by slot. A permit is counted at the moment it is good
/// for, which may be ahead.
#[derive(Debug, Clone)]
pub(super) struct SlidingWindow {
    period: Duration,
    limit: u64,
    /// Counts by slot number modulo the length.
    counts: [u64; RING],
    newest: u64,
    total: u64,
}

impl SlidingWindow {
    /// A window that starts as if its limit had been used evenly until `now`: a process that crashes and starts over
    /// gains nothing.
    pub(super) fn used_up(period: Duration, limit: u64, now: Duration) -> Self {
        let mut window = Self { period, limit, counts: [0; RING], newest: 0, total: limit };
        window.newest = window.slot(now);
        let (each, rest) = (limit / RING as u64, limit % RING as u64);
        for (at, count) in window.counts.iter_mut().enumerate() {
            *count = each + u64::from((at as u64) < rest);
        }
        window
    }

    /// A window with what is known to have been granted: `(age, permits)` pairs.
    pub(super) fn restored(period: Duration, limit: u64, now: Duration, used: &[(Duration, u64)]) -> Self {
        let mut window = Self { period, limit, counts: [0; RING], newest: 0, total: 0 };
        window.newest = window.slot(now);
        for (age, permits) in used {
            let back = usize::try_from(age.as_nanos() / window.slot_nanos()).unwrap_or(usize::MAX);
            if back <= SLOTS {
                let at = window.index(window.newest.wrapping_add((RING - back) as u64));
                window.counts[at] += permits;
                window.total += permits;
            }
        }
        window
    }

    /// A window as it was written down by [`Self::counted`]; `None` for one of another make.
    pub(super) fn written(period: Duration, limit: u64, counted: &Counted) -> Option<Self> {
        let counts = <[u64; RING]>::try_from(counted.counts.as_slice()).ok()?;
        let total = counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count))?;
        (counted.newest <= u64::MAX / 2).then_some(Self { period, limit, counts, newest: counted.newest, total })
    }

    /// What it has counted, to be written down.
    pub(super) fn counted(&self) -> Counted {
        Counted { newest: self.newest, counts: self.counts.to_vec() }
    }

    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    pub(super) const fn period(&self) -> Duration {
        self.period
    }

    /// The limit as a rate.
    pub(super) fn per_second(&self) -> f64 {
        self.limit as f64 / self.period.as_secs_f64()
    }

    /// Whether it is used evenly.
    pub(super) fn is_even(&self) -> bool {
        self.period <= EVEN_PERIOD_MAX
    }

    /// The first moment from `from` on at which `enough` permits can be granted, if nothing else is; never before
    /// those that are counted already. `None` when the limit is lower than that.
    pub(super) fn moment(&self, from: Duration, enough: u64) -> Option<Duration> {
        if self.limit < enough {
            return None;
        }
        let first = self.slot(from).max(self.newest);
        // After a whole ring nothing counts any more.
        let slot = (first..first + RING as u64).find(|slot| self.room_in(*slot, enough) >= enough);
        Some(self.begin(slot.unwrap_or(first + RING as u64)).max(from))
    }

    /// Permits that could be granted for this moment, which has room for `enough`.
    pub(super) fn room(&self, at: Duration, enough: u64) -> u64 {
        self.room_in(self.slot(at).max(self.newest), enough)
    }

    /// Permits that could be granted in a slot, the newest or a later one, to someone who wants at least `enough`.
    fn room_in(&self, slot: u64, enough: u64) -> u64 {
        let free = self.limit.saturating_sub(self.counted_in(slot, RING as u64));
        if !self.is_even() {
            return free;
        }
        let share = (self.limit * TENTH_SLOTS * TENTH_SHARE_PERCENT).div_ceil(SLOTS as u64 * 100);
        free.min(share.max(enough).saturating_sub(self.counted_in(slot, TENTH_SLOTS)))
    }

    /// What is counted in so many slots up to this one, the newest or a later one.
    fn counted_in(&self, slot: u64, slots: u64) -> u64 {
        let ahead = slot - self.newest;
        if slots == RING as u64 {
            let gone = (1..=ahead.min(slots)).map(|nth| self.counts[self.index(self.newest + nth)]).sum::<u64>();
            return self.total - gone;
        }
        (ahead..slots).map(|back| self.counts[self.index(self.newest + RING as u64 + ahead - back)]).sum()
    }

    /// Counts permits at the moment they are good for.
    pub(super) fn count(&mut self, permits: u64, at: Duration) {
        self.advance(at);
        let at = self.index(self.kept(at).unwrap_or(self.newest));
        self.counts[at] += permits;
        self.total += permits;
    }

    /// Takes permits back that were counted at `at`, as far as they still count.
    pub(super) fn uncount(&mut self, permits: u64, at: Duration) {
        if let Some(slot) = self.kept(at) {
            let at = self.index(slot);
            let back = permits.min(self.counts[at]);
            self.counts[at] -= back;
            self.total -= back;
        }
    }

    /// Whether what is counted at `due` leaves so late that it must be counted anew.
    pub(super) fn is_late(&self, due: Duration, now: Duration) -> bool {
        self.slot(now) > self.slot(due) + LEAVES_LATE_SLOTS
    }

    /// Whether it has counted further ahead than anybody grants: the clock was set back since.
    pub(super) fn is_ahead(&self, now: Duration) -> bool {
        self.begin(self.newest) > now + AHEAD_OF_CLOCKS_MAX
    }

    /// Goes by the clock as it is now. What was counted keeps its age.
    pub(super) fn set_back(&mut self, now: Duration) {
        let (newest, counted) = (self.slot(now), self.counts);
        for back in 0..RING as u64 {
            let from = self.index(self.newest.wrapping_sub(back));
            let to = self.index(newest + RING as u64 - back);
            self.counts[to] = counted[from];
        }
        self.newest = newest;
    }

    fn slot_nanos(&self) -> u128 {
        (self.period.as_nanos() / SLOTS as u128).max(1)
    }

    fn slot(&self, at: Duration) -> u64 {
        u64::try_from(at.as_nanos() / self.slot_nanos()).unwrap_or(u64::MAX / 2)
    }

    /// When a slot begins.
    fn begin(&self, slot: u64) -> Duration {
        Duration::from_nanos(u64::try_from(u128::from(slot) * self.slot_nanos()).unwrap_or(u64::MAX))
    }

    const fn index(&self, slot: u64) -> usize {
        (slot % RING as u64) as usize
    }

    /// The slot of a moment, if it is one that still counts.
    fn kept(&self, at: Duration) -> Option<u64> {
        let slot = self.slot(at);
        (slot <= self.newest && self.newest - slot < RING as u64).then_some(slot)
    }

    fn advance(&mut self, at: Duration) {
        let slot = self.slot(at);
        let steps = slot.saturating_sub(self.newest).min(RING as u64);
        for step in 1..=steps {
            let at = self.index(slot - steps + step);
            self.total -= self.counts[at];
            self.counts[at] = 0;
        }
        self.newest = self.newest.max(slot);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const AHEAD: Duration = Duration::from_millis(250);

    proptest! {
        #[test]
        fn no_window_of_the_period_ever_sees_more_arrive_than_the_limit(
            limit in 1_u64..200,
            steps in prop::collection::vec((0_u64..100_000, 1_u64..50, 0_u64..400_000, 0_u64..8_000), 1..200),
        ) {
            let mut now = Duration::from_secs(5);
            let mut window = SlidingWindow::used_up(SECOND, limit, now);
            let mut waiting: Vec<(Duration, Duration, Duration, u64)> = Vec::new();
            let mut arrived: Vec<(Duration, u64)> = Vec::new();
            for (pause_us, wanted, late_us, travel_us) in steps {
                now += Duration::from_micros(pause_us);
                waiting.sort_unstable();
                let first = |waiting: &[_]| waiting.first().copied();
                while let Some((leaves_at, due, travel, permits)) = first(&waiting).filter(|(at, ..)| *at <= now) {
                    waiting.remove(0);
                    if window.is_late(due, leaves_at) {
                        window.uncount(permits, due);
                        window.count(permits, leaves_at);
                    }
                    arrived.push((leaves_at + travel, permits));
                }
                let Some(due) = window.moment(now, 1).filter(|due| *due - now <= AHEAD) else { continue };
                let permits = window.room(due, 1).min(wanted);
                prop_assert!(permits > 0, "a moment has room");
                window.count(permits, due);
                waiting.push((due + Duration::from_micros(late_us), due, Duration::from_micros(travel_us), permits));
            }
            for (end, _) in &arrived {
                let inside = arrived.iter().filter(|(at, _)| *at <= *end && *end - *at < SECOND).map(|(_, n)| n);
                let inside: u64 = inside.sum();
                prop_assert!(inside <= limit, "{inside} arrived in a second, limit {limit}");
            }
        }

        #[test]
        fn the_limit_is_used_evenly_but_for_the_room_for_late_ones(limit in 1_u64..1_000) {
            let step = (limit / 50).max(1);
            let begin = Duration::from_secs(5);
            // Nobody wanted anything for a while.
            let mut window = SlidingWindow::restored(SECOND, limit, begin, &[]);
            let mut granted: Vec<(Duration, u64)> = Vec::new();
            let mut due = begin;
            while due < begin + SECOND * 4 {
                due = window.moment(due, step).unwrap();
                let permits = window.room(due, step);
                window.count(permits, due);
                granted.push((due, permits));
            }
            let used: u64 = granted.iter().map(|(_, permits)| permits).sum();
            let until = |end: Duration| granted.iter().filter(move |(at, _)| *at <= end && end - *at < SECOND / 11);
            let tenth: u64 = granted.iter().map(|(end, _)| until(*end).map(|(_, n)| n).sum()).max().unwrap();
            prop_assert!(used * 100 >= limit * 4 * 95, "{used} in four seconds, limit {limit}");
            prop_assert!(tenth <= (limit * 12).div_ceil(100), "{tenth} in a tenth of a second, limit {limit}");
        }

        #[test]
        fn what_was_counted_keeps_its_age_when_the_clock_is_set_back(
            counted in prop::collection::vec((0_u64..1_000, 1_u64..20), 1..20),
            later_ms in 0_u64..1_100,
        ) {
            let (now, earlier) = (Duration::from_secs(5_000), Duration::from_millis(1_400_008));
            let mut window = SlidingWindow::restored(SECOND, 1_000, now - SECOND, &[]);
            let mut ages = counted.clone();
            ages.sort_unstable_by_key(|(age_ms, _)| std::cmp::Reverse(*age_ms));
            ages.iter().for_each(|(age_ms, permits)| window.count(*permits, now - Duration::from_millis(*age_ms)));
            window.count(0, now);
            let mut set_back = window.clone();
            prop_assert!(!window.is_ahead(now) && window.is_ahead(earlier));
            set_back.set_back(earlier);
            prop_assert!(!set_back.is_ahead(earlier));
            let later = Duration::from_millis(later_ms);
            let (then, instead) = (window.slot(now + later), set_back.slot(earlier + later));
            prop_assert_eq!(set_back.room_in(instead, 1_000), window.room_in(then, 1_000));
        }

        #[test]
        fn what_was_taken_back_can_be_had_again(taken in 1_u64..100, back in 0_u64..100, ahead_ms in 0_u64..250) {
            let now = Duration::from_secs(5);
            let mut window = SlidingWindow::restored(SECOND, 100, now, &[]);
            let due = now + Duration::from_millis(ahead_ms);
            window.count(taken, due);
            window.uncount(back, due);
            prop_assert_eq!(window.room(due, 100), 100 - taken.saturating_sub(back));
        }
    }

    #[test]
    fn a_new_window_gives_nothing_at_once() {
        let now = Duration::from_secs(9);
        assert_eq!(SlidingWindow::used_up(SECOND, 500, now).room(now, 1), 0);
    }

    #[test]
    fn what_was_written_down_is_read_back_and_nonsense_is_not() {
        let now = Duration::from_secs(9);
        let window = SlidingWindow::restored(SECOND, 10, now, &[(Duration::ZERO, 4)]);
        let again = SlidingWindow::written(SECOND, 10, &window.counted()).unwrap();
        assert_eq!((again.room(now, 1), again.moment(now, 7)), (window.room(now, 1), window.moment(now, 7)));
        let sound = window.counted();
        for nonsense in [
            Counted { newest: u64::MAX, ..sound.clone() },
            Counted { counts: vec![0; RING + 1], ..sound.clone() },
            Counted { counts: vec![0; RING - 1], ..sound.clone() },
            Counted { counts: vec![u64::MAX; RING], ..sound },
        ] {
            assert!(SlidingWindow::written(SECOND, 10, &nonsense).is_none(), "{nonsense:?}");
        }
    }

    #[test]
    fn a_restored_window_counts_what_was_granted_before() {
        let (day, now) = (Duration::from_secs(86_400), Duration::from_secs(1));
        let used = [(Duration::from_secs(3_600), 30), (Duration::from_secs(90_000), 1_000)];
        let window = SlidingWindow::restored(day, 100, now, &used);
        assert_eq!(window.room(now, 1), 70);
    }
}
