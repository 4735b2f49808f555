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
    changing::Waiting,
    pauses::REFUSED_ASKED_AGAIN,
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
    /// When it is over, milliseconds since 1970; a refusal is over by itself in the end too.
    pub until_ms: TimestampMs,
}

/// Where limits are kept.
#[async_trait]
pub trait LimitStore: Send + Sync + 'static {
    /// Writes these rows if none of their versions has moved. Else nothing is written, and the rows as they are come
    /// back, without those that are gone.
    async fn swap(&self, rows: &[LimitRow]) -> Result<Option<Vec<LimitRow>>, LedgerUnavailable>;
    /// The scopes that have a limit, each with its row's version.
    async fn versions(&self) -> Result<Vec<(Scope, i64)>, LedgerUnavailable>;
    /// The rows of these scopes, without those that are gone.
    async fn rows(&self, scopes: &[Scope]) -> Result<Vec<LimitRow>, LedgerUnavailable>;
    /// Removes a limit.
    async fn remove(&self, scope: &Scope) -> Result<(), LedgerUnavailable>;
    /// Says that a process is alive whose settings want these limits, until then at least.
    async fn want(&self, scopes: &[Scope], until_ms: TimestampMs) -> Result<(), LedgerUnavailable>;
    /// Removes those of these limits that no living process's settings want; returns which those were.
    async fn remove_unwanted(&self, scopes: &[Scope]) -> Result<Vec<Scope>, LedgerUnavailable>;
    /// Sets a pause, unless there is a stronger one that is not over: a refusal is not shortened by a wait, nor a long
    /// wait by a short one.
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
    /// Changes of this process that wait for a turn.
    pub(super) waiting: Mutex<Vec<Box<dyn Waiting>>>,
    /// One write at a time: those of one process must not defeat each other.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn new(store: Arc<dyn LimitStore>) -> Self {
        Self { store, versions: Mutex::default(), waiting: Mutex::default(), turn: tokio::sync::Mutex::new(()) }
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

    /// The versions that are known now, to be told from those that are learned meanwhile.
    pub(super) fn known(&self) -> HashMap<Scope, i64> {
        self.versions().clone()
    }

    /// Takes over rows as they are, where they are newer than what is known; `before` is what was known before they
    /// were read. One that was older even then was removed and made anew.
    pub(super) fn learn(&self, rows: Vec<LimitRow>, before: &HashMap<Scope, i64>, book: &mut Book, now: Duration) {
        let mut versions = self.versions();
        for row in rows {
            if let Some(known) = versions.get(&row.scope) {
                let is_made_anew = row.version < *known && before.get(&row.scope) == Some(known);
                if row.version <= *known && !is_made_anew {
                    continue;
                }
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

    /// Forgets limits that are not among these; `before` is what was known before those were read, and what was
    /// learned or written since stays.
    pub(super) fn forget_others(&self, scopes: &HashSet<Scope>, before: &HashMap<Scope, i64>, book: &mut Book) {
        let mut gone = HashSet::new();
        self.versions().retain(|scope, version| {
            let stays = scopes.contains(scope) || before.get(scope) != Some(version);
            if !stays {
                gone.insert(scope.clone());
            }
            stays
        });
        book.0.retain(|scope, _| !gone.contains(scope));
    }

    /// Forgets limits that are gone.
    pub(super) fn forget(&self, is_gone: impl Fn(&Scope) -> bool, book: &mut Book) {
        self.versions().retain(|scope, _| !is_gone(scope));
        book.0.retain(|scope, _| !is_gone(scope));
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
            Pause::Refused(code) => {
                (Some(code.as_str().to_owned()), now_ms.saturating_add(millis(REFUSED_ASKED_AGAIN)))
            }
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
