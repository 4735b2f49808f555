//! Limits that several processes share, kept where all of them can see them.
//!
//! Each limit is a row: its windows, what they have counted, and a version. A change is made on a copy of the rows as
//! this process last saw them and written only if no version has moved meanwhile (compare-and-set); otherwise it is
//! made again on the rows as they are. So the arithmetic is the one of a single process, no lock is held across a round
//! trip, and a changed limit holds from the next change on, everywhere.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use dispatch_schemas::api::limits::Windows;

use super::{
    Pause, Scope,
    book::{Book, Limit},
    window::{Counted, SlidingWindow},
};
use crate::{clock::TimestampMs, delivery::LedgerUnavailable};

/// A limit as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRow {
    /// Whose.
    pub scope: Scope,
    /// How much it lets through.
    pub limits: Windows,
    /// What was granted, in this program's own words.
    pub counted: String,
    /// Moves with every change; 0 for a row that is not there yet.
    pub version: i64,
}

/// A pause as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseRow {
    /// The account.
    pub account: Arc<str>,
    /// The code it was refused with, or nothing when its provider only asked for a wait.
    pub refused: Option<String>,
    /// When it was set, milliseconds since 1970.
    pub since_ms: TimestampMs,
    /// When a wait is over, milliseconds since 1970.
    pub until_ms: TimestampMs,
}

/// Where limits are kept.
#[async_trait]
pub trait LimitStore: Send + Sync + 'static {
    /// Writes these rows if none of their versions has moved. Else nothing is written, and the rows as they are come
    /// back, without those that are gone.
    async fn swap(&self, rows: &[LimitRow]) -> Result<Option<Vec<LimitRow>>, LedgerUnavailable>;
    /// The rows that were changed since then, and maybe some that were not; all of them for 0.
    async fn changed_since(&self, since_ms: TimestampMs) -> Result<Vec<LimitRow>, LedgerUnavailable>;
    /// The scopes that have a limit.
    async fn scopes(&self) -> Result<Vec<Scope>, LedgerUnavailable>;
    /// Removes a limit.
    async fn remove(&self, scope: &Scope) -> Result<(), LedgerUnavailable>;
    /// Sets a pause, unless there is a stronger one: a refusal is not shortened by a wait, nor a long wait by a short
    /// one.
    async fn pause(&self, pause: &PauseRow) -> Result<(), LedgerUnavailable>;
    /// Ends any pause of an account.
    async fn resume(&self, account: &str) -> Result<(), LedgerUnavailable>;
    /// All pauses.
    async fn pauses(&self) -> Result<Vec<PauseRow>, LedgerUnavailable>;
}

/// Shared limits, and what this process knows of them.
pub(super) struct Shared {
    pub(super) store: Arc<dyn LimitStore>,
    versions: Mutex<HashMap<Scope, i64>>,
    /// One change at a time: those of one process must not defeat each other.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Pauses are written, or read and taken over: not both at once, for what was read would be old.
    pub(super) pausing: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn new(store: Arc<dyn LimitStore>) -> Self {
        Self {
            store,
            versions: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            pausing: tokio::sync::Mutex::default(),
        }
    }

    /// The limits of a book as rows, with the versions they were last seen at.
    pub(super) fn rows(&self, book: &Book) -> Vec<LimitRow> {
        let versions = self.versions();
        let mut rows: Vec<LimitRow> = book
            .0
            .iter()
            .map(|(scope, limit)| LimitRow {
                scope: scope.clone(),
                limits: limit.limits,
                counted: write(limit),
                version: versions.get(scope).copied().unwrap_or(0),
            })
            .collect();
        // In one order everywhere, so that two writers do not wait for each other in a circle.
        rows.sort_by(|a, b| a.scope.cmp(&b.scope));
        rows
    }

    /// Takes over rows that were written: the versions have moved by one.
    pub(super) fn wrote(&self, rows: &[LimitRow], written: Book, book: &mut Book) {
        let mut versions = self.versions();
        for row in rows {
            versions.insert(row.scope.clone(), row.version + 1);
        }
        book.0.extend(written.0);
    }

    /// Takes over rows as they are, where they are newer than what is known.
    pub(super) fn learn(&self, rows: Vec<LimitRow>, book: &mut Book, now: Duration) {
        let mut versions = self.versions();
        for row in rows {
            if versions.get(&row.scope).is_some_and(|known| *known >= row.version) {
                continue;
            }
            versions.insert(row.scope.clone(), row.version);
            let pace = book.0.get(&row.scope).filter(|old| old.limits == row.limits).map(|old| old.pace.clone());
            let limit = Limit {
                limits: row.limits,
                windows: read(&row, now),
                pace: pace.unwrap_or_else(|| Limit::pace(row.limits)),
            };
            book.0.insert(row.scope, limit);
        }
    }

    /// Forgets limits that are gone.
    pub(super) fn forget(&self, is_gone: impl Fn(&Scope) -> bool, book: &mut Book) {
        self.versions().retain(|scope, _| !is_gone(scope));
        book.0.retain(|scope, _| !is_gone(scope));
    }

    /// What this process knows, and at which versions.
    pub(super) fn known(&self) -> HashMap<Scope, i64> {
        self.versions().clone()
    }

    /// Forgets what was known `before` the scopes that are there were read, and is not among them. What came or changed
    /// meanwhile stays: that it was not read says nothing.
    pub(super) fn forget_others(&self, before: &HashMap<Scope, i64>, there: &HashSet<Scope>, book: &mut Book) {
        let known = self.known();
        let is_gone = |scope: &Scope| before.contains_key(scope) && before.get(scope) == known.get(scope);
        self.forget(|scope| !there.contains(scope) && is_gone(scope), book);
    }

    fn versions(&self) -> MutexGuard<'_, HashMap<Scope, i64>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a limit has counted: windows by their length in seconds.
fn write(limit: &Limit) -> String {
    let counted: BTreeMap<u64, Counted> =
        limit.windows.iter().map(|window| (window.period().as_secs(), window.counted())).collect();
    // Numbers in maps always have a JSON form.
    serde_json::to_string(&counted).unwrap_or_default()
}

/// The windows of a row. One that cannot be read, or was not there before, starts used up.
fn read(row: &LimitRow, now: Duration) -> Vec<SlidingWindow> {
    let counted: BTreeMap<u64, Counted> = serde_json::from_str(&row.counted).unwrap_or_default();
    row.limits
        .iter()
        .map(|(period, most)| {
            let most = u64::from(most);
            counted
                .get(&period.as_secs())
                .and_then(|counted| SlidingWindow::written(period, most, counted))
                .unwrap_or_else(|| SlidingWindow::used_up(period, most, now))
        })
        .collect()
}

impl PauseRow {
    /// A pause, as it is kept; `now` and `now_ms` are the same moment on both clocks.
    pub(super) fn new(account: &Arc<str>, pause: &Pause, now: Duration, now_ms: TimestampMs) -> Self {
        let (refused, until_ms) = match pause {
            Pause::Until(until) => (None, now_ms.saturating_add(millis(until.saturating_sub(now)))),
            Pause::Refused(code) => (Some(code.as_str().to_owned()), now_ms),
        };
        Self { account: account.clone(), refused, since_ms: now_ms, until_ms }
    }

    /// The pause and when it was set, on the monotonic clock; nothing for a row that cannot be read.
    pub(super) fn read(&self, now: Duration, now_ms: TimestampMs) -> Option<(Pause, Duration)> {
        let since = now.saturating_sub(Duration::from_millis(u64::try_from(now_ms - self.since_ms).unwrap_or(0)));
        let pause = match &self.refused {
            Some(code) => Pause::Refused(crate::providers::Code::written(code)?),
            None => Pause::Until(now + Duration::from_millis(u64::try_from(self.until_ms - now_ms).unwrap_or(0))),
        };
        Some((pause, since))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::sync::Notify;

    use super::{super::Limits, *};
    use crate::{clock::SystemClock, providers::Code};

    /// Rows in memory. A look for scopes tells the test that it has read them, and ends when it is told to; pauses
    /// cannot be written.
    #[derive(Default)]
    struct Slow {
        rows: Mutex<HashMap<Scope, LimitRow>>,
        was_read: Notify,
        go_on: Notify,
    }

    #[async_trait]
    impl LimitStore for Slow {
        async fn swap(&self, rows: &[LimitRow]) -> Result<Option<Vec<LimitRow>>, LedgerUnavailable> {
            let mut all = self.rows.lock().unwrap();
            for row in rows {
                all.insert(row.scope.clone(), LimitRow { version: row.version + 1, ..row.clone() });
            }
            Ok(None)
        }

        async fn changed_since(&self, _: TimestampMs) -> Result<Vec<LimitRow>, LedgerUnavailable> {
            Ok(self.rows.lock().unwrap().values().cloned().collect())
        }

        async fn scopes(&self) -> Result<Vec<Scope>, LedgerUnavailable> {
            let scopes = self.rows.lock().unwrap().keys().cloned().collect();
            self.was_read.notify_one();
            self.go_on.notified().await;
            Ok(scopes)
        }

        async fn remove(&self, scope: &Scope) -> Result<(), LedgerUnavailable> {
            self.rows.lock().unwrap().remove(scope);
            Ok(())
        }

        async fn pause(&self, _: &PauseRow) -> Result<(), LedgerUnavailable> {
            Err(LedgerUnavailable("away".to_owned()))
        }

        async fn resume(&self, _: &str) -> Result<(), LedgerUnavailable> {
            Ok(())
        }

        async fn pauses(&self) -> Result<Vec<PauseRow>, LedgerUnavailable> {
            Ok(Vec::new())
        }
    }

    fn limits() -> (Arc<Slow>, Limits) {
        let store = Arc::new(Slow::default());
        (store.clone(), Limits::shared(Arc::new(SystemClock::new()), store))
    }

    const SCOPE: Scope = Scope::Destination(1);

    async fn granted(limits: &Limits) -> usize {
        limits.permits(&[SCOPE], 10, Duration::ZERO).await.unwrap().count()
    }

    #[tokio::test]
    async fn a_limit_that_is_set_during_a_look_holds_after_it() {
        let (store, limits) = limits();
        let setting = async {
            store.was_read.notified().await;
            let nothing = Windows { per_day: Some(0), ..Windows::default() };
            limits.set(&SCOPE, nothing, &Vec::new()).await.unwrap();
            store.go_on.notify_one();
        };
        tokio::join!(limits.follow(ready(())), setting);
        assert_eq!(granted(&limits).await, 0);
    }

    #[tokio::test]
    async fn a_limit_that_another_process_removed_is_gone_after_a_look() {
        let (store, limits) = limits();
        limits.set(&SCOPE, Windows { per_day: Some(0), ..Windows::default() }, &Vec::new()).await.unwrap();
        store.remove(&SCOPE).await.unwrap();
        store.go_on.notify_one();
        limits.follow(ready(())).await;
        assert_eq!(granted(&limits).await, 10);
    }

    #[tokio::test]
    async fn a_pause_that_could_not_be_written_holds_where_it_was_set() {
        let (store, limits) = limits();
        let refused = Pause::Refused(Code::known("http_401"));
        limits.pause(&"main".into(), refused.clone()).await;
        store.go_on.notify_one();
        limits.follow(ready(())).await;
        assert_eq!(limits.paused("main"), Some(refused));
        limits.resume("main").await;
        assert_eq!(limits.paused("main"), None);
    }
}
