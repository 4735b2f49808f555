//! Recording outcomes: soon, together, and until the ledger takes them.

use std::{
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dispatch_schemas::ids::AttemptId;
use futures_util::{Stream, StreamExt as _};

use super::{LedgerUnavailable, Outcome, Plan, Plane, Record, RetryDelay};
use crate::abort::AbortPoint;

/// How long an outcome waits for others of its batch before it is recorded without them.
const RECORD_TOGETHER: Duration = Duration::from_millis(100);

/// How long a record is tried again before the worker gives up on it and leaves it to the reaper.
const RECORD_PATIENCE: Duration = Duration::from_secs(60);

/// When outcomes have not been taken for this long, nothing more is sent: what can't be recorded must not be.
const UNRECORDED_MAX: Duration = Duration::from_secs(5);

/// Whether the ledger takes outcomes.
#[derive(Debug, Default)]
pub struct Recording(Mutex<Failing>);

#[derive(Debug, Default)]
struct Failing {
    /// Since when it does not take them, on the monotonic clock.
    since: Option<Duration>,
    /// Records it did not take that are tried again.
    trying: usize,
}

/// A record that is tried again.
#[derive(Debug)]
struct Trying<'a>(&'a Recording);

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.0.failing().trying -= 1;
    }
}

impl Recording {
    /// Whether sending may go on. Where the last record was given up nobody would ever hear that the ledger takes them
    /// again; so the next one may find out.
    pub(super) fn works(&self, now: Duration) -> bool {
        let failing = self.failing();
        failing.trying == 0 || failing.since.is_none_or(|since| now.saturating_sub(since) < UNRECORDED_MAX)
    }

    fn failed(&self, now: Duration) -> Trying<'_> {
        let mut failing = self.failing();
        failing.since.get_or_insert(now);
        failing.trying += 1;
        Trying(self)
    }

    fn succeeded(&self) {
        self.failing().since = None;
    }

    fn failing(&self) -> MutexGuard<'_, Failing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records the outcomes of an attempt as its answers come: a slow request does not keep the outcomes of quick ones from
/// the ledger, and a slow ledger does not keep answers from being read. Returns the deliveries that were released.
///
/// # Errors
/// When the ledger did not take an outcome in time. The requests are seen to their end even then.
pub(super) async fn as_they_come(
    attempt: AttemptId,
    answers: impl Stream<Item = Vec<(i64, Outcome)>> + Send,
    plan: &Plan,
    plane: &Plane,
) -> Result<Vec<i64>, LedgerUnavailable> {
    let mut answers = pin!(answers.fuse());
    let mut outcomes = Vec::new();
    let mut released = Vec::new();
    let mut all_in = false;
    while !(all_in && outcomes.is_empty()) {
        let gathering = async {
            while let Some(of_one) = answers.next().await {
                outcomes.extend(of_one);
            }
        };
        all_in = tokio::time::timeout(RECORD_TOGETHER, gathering).await.is_ok();
        let mut batch = std::mem::take(&mut outcomes);
        if batch.is_empty() {
            continue;
        }
        released.extend(released_of(&batch));
        batch.sort_unstable_by_key(|(seq, _)| *seq);
        let record = Record { plan, attempt, outcomes: batch, now_ms: plane.clock.now_ms() };
        let mut recording = pin!(until_taken(&record, plane));
        let recorded = loop {
            tokio::select! {
                biased;
                recorded = &mut recording => break recorded,
                of_one = answers.next(), if !all_in => match of_one {
                    Some(of_one) => outcomes.extend(of_one),
                    None => all_in = true,
                },
            }
        };
        if let Err(error) = recorded {
            while answers.next().await.is_some() {}
            return Err(error);
        }
    }
    Ok(released)
}

/// Records outcomes that wait for no answer. Returns the deliveries that were released.
///
/// # Errors
/// When the ledger did not take them in time.
pub(super) async fn now(
    attempt: AttemptId,
    mut outcomes: Vec<(i64, Outcome)>,
    plan: &Plan,
    plane: &Plane,
) -> Result<Vec<i64>, LedgerUnavailable> {
    let released = released_of(&outcomes);
    if !outcomes.is_empty() {
        outcomes.sort_unstable_by_key(|(seq, _)| *seq);
        until_taken(&Record { plan, attempt, outcomes, now_ms: plane.clock.now_ms() }, plane).await?;
    }
    Ok(released)
}

fn released_of(outcomes: &[(i64, Outcome)]) -> Vec<i64> {
    let is_released = |outcome: &Outcome| matches!(outcome, Outcome::Released { .. });
    outcomes.iter().filter(|(_, outcome)| is_released(outcome)).map(|(seq, _)| *seq).collect()
}

/// What a provider accepted must not be forgotten because a database blinked.
async fn until_taken(record: &Record<'_>, plane: &Plane) -> Result<(), LedgerUnavailable> {
    let give_up_at = plane.clock.monotonic() + RECORD_PATIENCE;
    let mut delay = RetryDelay::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut trying = None;
    let kept = plane.journal.keep(record).await;
    AbortPoint::AfterJournal.reached();
    loop {
        let recorded = plane.claims.record(record).await;
        match recorded {
            Ok(()) => {
                AbortPoint::AfterRecord.reached();
                plane.recording.succeeded();
                if let Some(kept) = kept {
                    kept.recorded();
                }
                return Ok(());
            }
            Err(error) if plane.clock.monotonic() >= give_up_at => return Err(error),
            Err(error) => {
                trying.get_or_insert_with(|| plane.recording.failed(plane.clock.monotonic()));
                tracing::warn!(%error, deliveries = record.outcomes.len(), "outcomes not recorded yet; trying again");
                tokio::time::sleep(delay.next_wait()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_stops_when_nothing_can_be_recorded_and_goes_on_when_it_can() {
        let recording = Recording::default();
        let trying = [100, 104].map(|second| recording.failed(Duration::from_secs(second)));
        assert!(recording.works(Duration::from_secs(104)));
        assert!(!recording.works(Duration::from_secs(105)));
        recording.succeeded();
        assert!(recording.works(Duration::from_secs(105)));
        drop(trying);
    }

    #[test]
    fn after_the_last_record_was_given_up_the_next_one_finds_out_whether_the_ledger_is_back() {
        let recording = Recording::default();
        let (first, last) = (recording.failed(Duration::ZERO), recording.failed(Duration::ZERO));
        drop(first);
        assert!(!recording.works(RECORD_PATIENCE));
        drop(last);
        assert!(recording.works(RECORD_PATIENCE));
        let again = recording.failed(RECORD_PATIENCE);
        assert!(!recording.works(RECORD_PATIENCE), "it was away all the time");
        recording.succeeded();
        drop(again);
        assert!(recording.works(RECORD_PATIENCE));
    }
}
