//! How long to wait before trying again. The only module that names the `backoff` crate.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

use super::timing::Timing;

/// Growing waits for something that has failed several times in a row.
#[derive(Debug)]
pub struct RetryDelay(ExponentialBackoff);

impl RetryDelay {
    /// Waits that start at `first`, double each time with ±20 %, and stop growing at `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self(
            ExponentialBackoffBuilder::new()
                .with_initial_interval(first)
                .with_max_interval(longest)
                .with_multiplier(2.0)
                .with_randomization_factor(0.2)
                .with_max_elapsed_time(None)
                .build(),
        )
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let longest = self.0.max_interval;
        self.0.next_backoff().unwrap_or(longest)
    }

    /// After a success: the next wait is the first again.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

/// The wait of a delivery before its try number `attempt_no + 1`, milliseconds.
pub(super) fn after_attempt(timing: &Timing, attempt_no: u8) -> i64 {
    let first = Duration::from_millis(timing.retry_first_ms);
    let longest = Duration::from_millis(timing.retry_max_ms.max(timing.retry_first_ms));
    let mut delay = RetryDelay::new(first, longest);
    let mut wait = delay.next_wait();
    for _ in 1..attempt_no {
        wait = delay.next_wait();
    }
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_no_further() {
        let timing = Timing { retry_first_ms: 1_000, retry_max_ms: 60_000, ..Timing::default() };
        let waits: Vec<i64> = [1, 2, 3, 20, 255].iter().map(|tries| after_attempt(&timing, *tries)).collect();
        for (wait, around) in waits.iter().zip([1_000, 2_000, 4_000, 60_000, 60_000]) {
            assert!((around * 8 / 10..=around * 12 / 10).contains(wait), "{wait} is about {around}");
        }
    }
}
