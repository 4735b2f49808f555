//! The book of limits: what each scope may, and what was granted.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use dispatch_schemas::api::limits::Windows;

use super::{
    Past, Permits, Scope,
    pace::{Pace, paced},
    window::SlidingWindow,
};

/// When to ask again where no window says: the next step of a pace.
pub(super) const LOOK_SOON: Duration = Duration::from_millis(20);

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

    /// How many of `wanted` the paces let through now, at least `least`.
    pub(super) fn paced(&self, scopes: &[Scope], least: u64, wanted: u64) -> Result<u64, Denied> {
        paced(&self.0, scopes, least, wanted)
    }

    /// How many of `wanted` the windows would grant now, or why fewer than `least`.
    pub(super) fn available(
        &mut self,
        scopes: &[Scope],
        least: u64,
        wanted: u64,
        now: Duration,
    ) -> Result<u64, Denied> {
        let mut granted = wanted;
        let mut wait: Option<Denied> = None;
        for scope in scopes {
            let Some(limit) = self.0.get_mut(scope) else { continue };
            for window in &mut limit.windows {
                granted = granted.min(window.available(now));
                let this = window.wait(now);
                if this > wait.map_or(Duration::ZERO, |(longest, _)| longest) {
                    wait = Some((this, scope.label()));
                }
            }
        }
        if granted < least.max(1) {
            return Err(wait.unwrap_or((LOOK_SOON, "none")));
        }
        Ok(granted)
    }

    /// Counts permits as granted now.
    pub(super) fn take(&mut self, scopes: &[Scope], granted: u64, now: Duration) -> Permits {
        for window in self.windows(scopes) {
            window.take(granted, now);
        }
        Permits { scopes: scopes.to_vec(), count: granted, taken_at: now }
    }

    /// Counts permits that were taken at `taken_at` from now on.
    pub(super) fn depart(&mut self, scopes: &[Scope], taken_at: Duration, sends: u64, now: Duration) {
        for window in self.windows(scopes) {
            window.depart(taken_at, sends, now);
        }
    }

    /// Takes permits back that were not used.
    pub(super) fn give_back(&mut self, permits: &Permits, unused: u64) {
        for window in self.windows(&permits.scopes) {
            window.give_back(permits.taken_at, unused);
        }
    }

    /// Whether a second is limited for any of these scopes.
    pub(super) fn is_paced(&self, scopes: &[Scope]) -> bool {
        scopes.iter().any(|scope| self.0.get(scope).is_some_and(|limit| limit.pace.is_some()))
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
