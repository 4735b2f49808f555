//! The book of limits: what each scope may, and what was granted.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use dispatch_schemas::api::limits::Windows;

use super::{
    Past, Permits, Scope,
    changing::Changed,
    pace::{self, Pace},
    window::SlidingWindow,
};

/// When to ask again where no window says: the next step of a pace.
pub(super) const LOOK_SOON: Duration = Duration::from_millis(20);

/// How far ahead permits are granted: long enough to claim and render meanwhile, so that the limit is used and not the
/// time between; short enough that what a dead process held, and what was granted before a limit changed, is little.
pub(super) const AHEAD_MAX: Duration = Duration::from_millis(250);

/// A limit of one scope.
#[derive(Clone)]
pub(super) struct Limit {
    pub(super) limits: Windows,
    pub(super) windows: Vec<SlidingWindow>,
    pub(super) pace: Option<Arc<Pace>>,
}

impl Limit {
    /// A limit as of now. Windows that `old` has keep what they have counted; new ones of a second or a minute start
    /// used up, longer ones start with `past`.
    pub(super) fn new(limits: Windows, old: Option<Self>, past: &Past, now: Duration) -> Self {
        let mut old = old.map(|limit| limit.windows).unwrap_or_default();
        let windows = limits
            .iter()
            .map(|(period, most)| match old.iter().position(|window| window.period() == period) {
                Some(at) => {
                    let mut kept = old.swap_remove(at);
                    kept.set_limit(u64::from(most));
                    kept
                }
                None if period <= Duration::from_secs(60) => SlidingWindow::used_up(period, u64::from(most), now),
                None => SlidingWindow::restored(period, u64::from(most), now, past),
            })
            .collect();
        Self { limits, windows, pace: Self::pace(limits) }
    }

    pub(super) fn pace(limits: Windows) -> Option<Arc<Pace>> {
        limits.per_second.and_then(NonZeroU32::new).map(|most| Arc::new(Pace::new(most)))
    }
}

/// Why nothing is granted now: how long to wait, and for which kind of limit.
pub(super) type Denied = (Duration, &'static str);

/// All limits, by scope. A scope that is not in it has none.
#[derive(Default)]
pub(super) struct Book(pub(super) HashMap<Scope, Limit>);

impl Book {
    /// The part of it that is about these scopes.
    pub(super) fn part(&self, scopes: &[Scope]) -> Self {
        Self(scopes.iter().filter_map(|scope| Some((scope.clone(), self.0.get(scope)?.clone()))).collect())
    }

    /// Grants at least `least` and at most `wanted` for the same moment, now or a little later, or says why not.
    /// `paced` is what the paces have let through for this already; they are asked once.
    pub(super) fn grant(
        &mut self,
        scopes: &[Scope],
        least: u64,
        wanted: u64,
        now: Duration,
        paced: &mut Option<u64>,
    ) -> Result<Permits, Denied> {
        let least = least.max(1);
        let step = self.paces(scopes).map(Pace::step).min().unwrap_or(1);
        let enough = step.min(wanted).max(least);
        let due = self.moment(scopes, least, enough, now)?;
        let room = |window: &mut SlidingWindow| window.room(due, if window.is_even() { enough } else { least });
        let room = self.windows(scopes).map(room).min().unwrap_or(wanted).min(wanted);
        let paced = match *paced {
            Some(paced) => paced,
            None => *paced.insert(pace::let_through(self, scopes, least, room)?),
        };
        let count = room.min(paced);
        if count < least {
            return Err((LOOK_SOON, "none"));
        }
        for window in self.windows(scopes) {
            window.count(count, due);
        }
        Ok(Permits { scopes: scopes.to_vec(), count, due })
    }

    /// The first moment at which all windows have room: a second's for `enough`, so that permits are not handed out in
    /// crumbs; longer ones for `least`.
    fn moment(&mut self, scopes: &[Scope], least: u64, enough: u64, now: Duration) -> Result<Duration, Denied> {
        let (mut due, mut label) = (now, "none");
        loop {
            let before = due;
            for scope in scopes {
                let Some(limit) = self.0.get(scope) else { continue };
                for window in &limit.windows {
                    let needed = if window.is_even() { enough } else { least };
                    let Some(moment) = window.moment(due, needed) else {
                        return Err((window.period(), scope.label()));
                    };
                    if moment > due {
                        (due, label) = (moment, scope.label());
                    }
                }
            }
            if due == before {
                let ahead = due.saturating_sub(now);
                return if ahead <= AHEAD_MAX { Ok(due) } else { Err((ahead - AHEAD_MAX, label)) };
            }
        }
    }

    /// Those of these scopes whose windows have counted ahead of the clock.
    pub(super) fn ahead(&self, scopes: &[Scope], now: Duration) -> Vec<Scope> {
        let is_ahead = |limit: &Limit| limit.windows.iter().any(|window| window.is_ahead(now));
        scopes.iter().filter(|scope| self.0.get(scope).is_some_and(is_ahead)).cloned().collect()
    }

    /// Lets windows that are ahead go by the clock as it is.
    pub(super) fn set_back(&mut self, scopes: &[Scope], now: Duration) -> Changed {
        let mut changed = Changed::No;
        for window in self.windows(scopes).filter(|window| window.is_ahead(now)) {
            window.set_back(now);
            changed = Changed::Yes;
        }
        changed
    }

    /// Counts `sends` of these permits from now on: they leave now.
    pub(super) fn depart(&mut self, permits: &Permits, counted_at: Duration, sends: u64, now: Duration) {
        for window in self.windows(&permits.scopes) {
            window.uncount(sends, counted_at);
            window.count(sends, now);
        }
    }

    /// Whether any window must hear that what is counted at `due` leaves now.
    pub(super) fn is_late(&self, permits: &Permits, counted_at: Duration, now: Duration) -> bool {
        let limits = permits.scopes.iter().filter_map(|scope| self.0.get(scope));
        limits.flat_map(|limit| &limit.windows).any(|window| window.is_late(counted_at, now))
    }

    /// Takes permits back that were not used.
    pub(super) fn give_back(&mut self, permits: &Permits, unused: u64) {
        for window in self.windows(&permits.scopes) {
            window.uncount(unused, permits.due);
        }
    }

    /// The paces of these scopes.
    pub(super) fn paces(&self, scopes: &[Scope]) -> impl Iterator<Item = &Pace> {
        scopes.iter().filter_map(|scope| self.0.get(scope)?.pace.as_deref())
    }

    /// Whether a second is limited for any of these scopes.
    pub(super) fn is_paced(&self, scopes: &[Scope]) -> bool {
        self.paces(scopes).next().is_some()
    }

    /// The most sends per second these scopes let through over time; `None` when nothing limits them.
    pub(super) fn per_second(&self, scopes: &[Scope]) -> Option<f64> {
        scopes
            .iter()
            .filter_map(|scope| self.0.get(scope))
            .flat_map(|limit| limit.windows.iter().map(SlidingWindow::per_second))
            .reduce(f64::min)
    }

    fn windows<'a>(&'a mut self, scopes: &[Scope]) -> impl Iterator<Item = &'a mut SlidingWindow> {
        self.0.iter_mut().filter(|(scope, _)| scopes.contains(scope)).flat_map(|(_, limit)| &mut limit.windows)
    }
}
