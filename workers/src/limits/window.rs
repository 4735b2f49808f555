//! Exact counting over a sliding window.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a window has counted, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    newest: u64,
    counts: Vec<u64>,
}

/// Into how many slots a window is cut. A permit counts until the end of the slot in which it leaves the window, so a
/// limit is never passed and at least 64/65 of it can be used.
const SLOTS: usize = 64;

/// How many permits were granted over the last `period`, slot by slot.
#[derive(Debug, Clone)]
pub(super) struct SlidingWindow {
    period: Duration,
    limit: u64,
    /// Counts by slot number modulo the length; one slot more than the window, for the one it half covers.
    counts: [u64; SLOTS + 1],
    newest: u64,
    total: u64,
}

impl SlidingWindow {
    /// A window that starts as if its limit had been used evenly until `now`: a process that crashes and starts over
    /// gains nothing.
    pub(super) fn used_up(period: Duration, limit: u64, now: Duration) -> Self {
        let mut window = Self { period, limit, counts: [0; SLOTS + 1], newest: 0, total: 0 };
        window.newest = window.slot(now);
        let (each, rest) = (limit / (SLOTS as u64 + 1), limit % (SLOTS as u64 + 1));
        for (at, count) in window.counts.iter_mut().enumerate() {
            *count = each + u64::from((at as u64) < rest);
        }
        window.total = limit;
        window
    }

    /// A window with what is known to have been granted: `(age, permits)` pairs.
    pub(super) fn restored(period: Duration, limit: u64, now: Duration, used: &[(Duration, u64)]) -> Self {
        let mut window = Self { period, limit, counts: [0; SLOTS + 1], newest: 0, total: 0 };
        window.newest = window.slot(now);
        for (age, permits) in used {
            let back = usize::try_from(age.as_nanos() / window.slot_nanos()).unwrap_or(usize::MAX);
            if back <= SLOTS {
                let at = window.index(window.newest.wrapping_add(SLOTS as u64 + 1 - back as u64));
                window.counts[at] += permits;
                window.total += permits;
            }
        }
        window
    }

    /// A window as it was written down by [`Self::counted`]; `None` for one of another make.
    pub(super) fn written(period: Duration, limit: u64, counted: &Counted) -> Option<Self> {
        let mut counts = [0; SLOTS + 1];
        let total = counted.counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count))?;
        (counted.counts.len() <= counts.len() && counted.newest <= u64::MAX / 2)
            .then(|| counts[..counted.counts.len()].copy_from_slice(&counted.counts))?;
        Some(Self { period, limit, counts, newest: counted.newest, total })
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

    /// Permits that could be granted now.
    pub(super) fn available(&mut self, now: Duration) -> u64 {
        self.advance(now);
        self.limit.saturating_sub(self.total)
    }

    /// Counts permits as granted now.
    pub(super) fn take(&mut self, permits: u64, now: Duration) {
        self.advance(now);
        let at = self.index(self.newest);
        self.counts[at] += permits;
        self.total += permits;
    }

    /// Counts permits that were taken at `taken_at` from now on: what was sent on them leaves now. So a window of what
    /// leaves holds no more than the limit, however long after their grants things leave within the period.
    pub(super) fn depart(&mut self, taken_at: Duration, permits: u64, now: Duration) {
        self.advance(now);
        let slot = self.slot(taken_at);
        if self.newest.saturating_sub(slot) <= SLOTS as u64 {
            let at = self.index(slot);
            let moved = permits.min(self.counts[at]);
            self.counts[at] -= moved;
            self.total -= moved;
        }
        self.take(permits, now);
    }

    /// Takes back permits counted at `taken_at`, if the slot they are counted in is still the newest.
    pub(super) fn give_back(&mut self, taken_at: Duration, permits: u64) {
        if self.slot(taken_at) == self.newest {
            let at = self.index(self.newest);
            let back = permits.min(self.counts[at]);
            self.counts[at] -= back;
            self.total -= back;
        }
    }

    /// How long until at least one permit can be granted, if nothing else is.
    pub(super) fn wait(&mut self, now: Duration) -> Duration {
        self.advance(now);
        let mut still = self.total;
        if still < self.limit {
            return Duration::ZERO;
        }
        if self.limit == 0 {
            return self.period;
        }
        for back in (0..=SLOTS as u64).rev() {
            // The oldest slot leaves when the newest becomes `oldest + SLOTS + 1`.
            let at = self.index(self.newest.wrapping_add(SLOTS as u64 + 1 - back));
            still -= self.counts[at];
            if still < self.limit {
                let leaves_at = u128::from(self.newest + SLOTS as u64 + 1 - back) * self.slot_nanos();
                return Duration::from_nanos(
                    u64::try_from(leaves_at.saturating_sub(now.as_nanos())).unwrap_or(u64::MAX),
                )
                .max(Duration::from_micros(100));
            }
        }
        self.period
    }

    fn slot_nanos(&self) -> u128 {
        (self.period.as_nanos() / SLOTS as u128).max(1)
    }

    fn slot(&self, now: Duration) -> u64 {
        // Offset so that slots before the process started have numbers too.
        u64::try_from(now.as_nanos() / self.slot_nanos()).unwrap_or(u64::MAX / 2)
    }

    const fn index(&self, slot: u64) -> usize {
        (slot % (SLOTS as u64 + 1)) as usize
    }

    fn advance(&mut self, now: Duration) {
        let slot = self.slot(now);
        let steps = slot.saturating_sub(self.newest).min(SLOTS as u64 + 1);
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

    proptest! {
        #[test]
        fn no_window_of_the_period_ever_holds_more_than_the_limit(
            limit in 1_u64..200,
            steps in prop::collection::vec((0_u64..200_000, 1_u64..50), 1..300),
        ) {
            let mut now = Duration::from_secs(5);
            let mut window = SlidingWindow::used_up(SECOND, limit, now);
            let mut granted: Vec<(Duration, u64)> = Vec::new();
            for (pause_us, wanted) in steps {
                now += Duration::from_micros(pause_us);
                let permits = window.available(now).min(wanted);
                window.take(permits, now);
                granted.push((now, permits));
                let inside: u64 = granted.iter().filter(|(at, _)| now - *at < SECOND).map(|(_, n)| n).sum();
                prop_assert!(inside <= limit, "{inside} in a second, limit {limit}");
            }
        }

        #[test]
        fn no_window_of_the_period_sees_more_leave_than_the_limit(
            limit in 1_u64..200,
            steps in prop::collection::vec((0_u64..100_000, 1_u64..50, 0_u64..900_000), 1..200),
        ) {
            let mut now = Duration::from_secs(5);
            let mut window = SlidingWindow::used_up(SECOND, limit, now);
            let mut waiting: Vec<(Duration, Duration, u64)> = Vec::new();
            let mut left: Vec<(Duration, u64)> = Vec::new();
            for (pause_us, wanted, delay_us) in steps {
                now += Duration::from_micros(pause_us);
                waiting.sort_unstable();
                while let Some((leaves_at, taken_at, permits)) = waiting.first().copied().filter(|(at, ..)| *at <= now) {
                    waiting.remove(0);
                    window.depart(taken_at, permits, leaves_at);
                    left.push((leaves_at, permits));
                    let inside: u64 = left.iter().filter(|(at, _)| leaves_at - *at < SECOND).map(|(_, n)| n).sum();
                    prop_assert!(inside <= limit, "{inside} left in a second, limit {limit}");
                }
                let permits = window.available(now).min(wanted);
                window.take(permits, now);
                waiting.push((now + Duration::from_micros(delay_us), now, permits));
            }
        }

        #[test]
        fn after_the_wait_there_is_a_permit(limit in 1_u64..100, at_ms in 0_u64..5_000) {
            let mut now = Duration::from_millis(at_ms);
            let mut window = SlidingWindow::used_up(SECOND, limit, now);
            for _ in 0..50 {
                let free = window.available(now);
                window.take(free, now);
                now += window.wait(now);
                prop_assert!(window.available(now) > 0);
            }
        }
    }

    #[test]
    fn a_new_window_gives_nothing_at_once() {
        let now = Duration::from_secs(9);
        assert_eq!(SlidingWindow::used_up(SECOND, 500, now).available(now), 0);
    }

    #[test]
    fn what_was_written_down_is_read_back_and_nonsense_is_not() {
        let now = Duration::from_secs(9);
        let mut window = SlidingWindow::restored(SECOND, 10, now, &[(Duration::ZERO, 4)]);
        let mut again = SlidingWindow::written(SECOND, 10, &window.counted()).unwrap();
        assert_eq!((again.available(now), again.wait(now)), (window.available(now), window.wait(now)));
        let sound = window.counted();
        for nonsense in [
            Counted { newest: u64::MAX, ..sound.clone() },
            Counted { counts: vec![0; SLOTS + 2], ..sound.clone() },
            Counted { counts: vec![u64::MAX, 1], ..sound },
        ] {
            assert!(SlidingWindow::written(SECOND, 10, &nonsense).is_none(), "{nonsense:?}");
        }
    }

    #[test]
    fn a_restored_window_counts_what_was_granted_before() {
        let (day, now) = (Duration::from_secs(86_400), Duration::from_secs(1));
        let used = [(Duration::from_secs(3_600), 30), (Duration::from_secs(90_000), 1_000)];
        let mut window = SlidingWindow::restored(day, 100, now, &used);
        assert_eq!(window.available(now), 70);
    }
}
