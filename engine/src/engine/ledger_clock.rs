//! The ledger's time, for processes that share one.
//!
//! Deadlines that one process writes are read by another, so all of them must mean the same clock: the database's. Each
//! process carries it on with its own monotonic clock and compares now and then. A machine whose wall clock jumps by
//! an hour changes nothing.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use dispatch_workers::clock::{Clock, SystemClock, TimestampMs};

use crate::ledger::{Ledger, LedgerError};

/// How often the clocks are compared.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// A difference up to this, beyond what the answer took, is rounding and drift, milliseconds.
const NEGLIGIBLE_MS: i64 = 20;
/// The ledger's clock itself has jumped when it differs by more, milliseconds: an operator must know.
const JUMP_MS: i64 = 1_000;

/// The ledger's clock, carried on by this machine's monotonic one.
#[derive(Debug)]
pub struct LedgerClock {
    machine: SystemClock,
    /// What the ledger's clock said at zero of the monotonic one, milliseconds since 1970.
    zero_ms: AtomicI64,
}

impl LedgerClock {
    /// Begins with this machine's wall clock, until [`Self::compare`] knows better.
    #[must_use]
    pub fn new() -> Self {
        let machine = SystemClock::new();
        let zero_ms = machine.now_ms().saturating_sub(millis(machine.monotonic()));
        Self { machine, zero_ms: zero_ms.into() }
    }

    /// Asks the ledger what time it is.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ask(&self, ledger: &dyn Ledger) -> Result<(), LedgerError> {
        let asked = self.monotonic();
        let ledger_ms = ledger.time_ms().await?;
        self.compare(ledger_ms, asked, self.monotonic());
        Ok(())
    }

    /// Asks again and again, until `stop` completes.
    pub async fn keep_up(&self, ledger: &dyn Ledger, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
            if let Err(error) = self.ask(ledger).await {
                tracing::debug!(%error, "the ledger was not asked for the time");
            }
        }
    }

    /// The ledger's clock said `ledger_ms` somewhere between the two moments of the monotonic clock. An answer that what
    /// is known fits in with is no news: of a slow one only the bounds are certain, and a clock set forth by its half
    /// would let more than the limits through.
    pub fn compare(&self, ledger_ms: TimestampMs, asked: Duration, answered: Duration) {
        let middle = asked + answered.saturating_sub(asked) / 2;
        let zero_ms = ledger_ms.saturating_sub(millis(middle));
        let apart_ms = zero_ms.saturating_sub(self.zero_ms.load(Ordering::Relaxed));
        let uncertain_ms = millis(answered.saturating_sub(asked)) / 2;
        if apart_ms.abs() <= uncertain_ms.saturating_add(NEGLIGIBLE_MS) {
            return;
        }
        if apart_ms.abs() > JUMP_MS {
            tracing::warn!(apart_ms, "this machine's clock and the ledger's differ; the ledger's is used");
        }
        self.zero_ms.store(zero_ms, Ordering::Relaxed);
    }
}

impl Default for LedgerClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for LedgerClock {
    fn now_ms(&self) -> TimestampMs {
        self.zero_ms.load(Ordering::Relaxed).saturating_add(millis(self.machine.monotonic()))
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_by_the_ledger_whatever_the_machine_says() {
        let clock = LedgerClock::new();
        let hour_ahead = clock.now_ms() + 3_600_000;
        let moment = clock.monotonic();
        clock.compare(hour_ahead, moment, moment);
        let behind = clock.now_ms() - hour_ahead;
        assert!((0..60_000).contains(&behind), "it runs on from what the ledger said: {behind}");
        let kept = clock.zero_ms.load(Ordering::Relaxed);
        let moment = clock.monotonic();
        clock.compare(clock.now_ms() + 3, moment, moment);
        assert_eq!(clock.zero_ms.load(Ordering::Relaxed), kept, "a difference of the network's is no news");
    }

    #[test]
    fn a_slow_answer_does_not_set_it_forth() {
        let clock = LedgerClock::new();
        let known = clock.zero_ms.load(Ordering::Relaxed);
        let (asked, answered) = (Duration::from_secs(10), Duration::from_secs(14));
        // Said right after the question, or right before the answer.
        for said in [asked, answered] {
            clock.compare(known + millis(said), asked, answered);
            assert_eq!(clock.zero_ms.load(Ordering::Relaxed), known);
        }
        clock.compare(known + millis(answered) + 5_000, asked, answered);
        assert_eq!(clock.zero_ms.load(Ordering::Relaxed), known + 7_000, "it has certainly jumped");
    }
}
