//! Limits: how fast a message may be sent.
//!
//! A send passes the limits of its provider account, tenant, campaign and recipient domain or country, each with
//! windows of a second, a minute, an hour and a day. [`Limits::permits`] waits until all of them agree and counts the
//! permits in all of them at once, so no window is ever passed; governor spreads the permits of a second evenly. A
//! provider's Retry-After pauses its account for every worker.
//!
//! Permits are taken before a claim: whoever waits here holds nothing.

mod pace;
mod permits;
mod put_off;
mod window;

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dispatch_schemas::{
    api::limits::Windows,
    ids::{CampaignId, TenantId},
};
use pace::{Pace, paced};
pub use permits::Permits;
use tokio::sync::Notify;
use window::SlidingWindow;

use crate::{clock::Clock, providers::Code};

/// What a limit is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A provider account, by its name in the settings.
    Account(Arc<str>),
    /// A tenant.
    Tenant(TenantId),
    /// A campaign.
    Campaign(CampaignId),
    /// A recipient domain (keyed hash of its name) or country (its two letters as a number).
    Destination(i64),
}

impl Scope {
    /// The bounded word for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Account(_) => "account",
            Self::Tenant(_) => "tenant",
            Self::Campaign(_) => "campaign",
            Self::Destination(_) => "destination",
        }
    }
}

/// Why an account takes nothing now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pause {
    /// The provider asked for it; over at this moment of the monotonic clock.
    Until(Duration),
    /// The account was refused; over when an operator says so, or after five minutes, when the next request tells
    /// whether it still is. Its campaigns stay paused; single messages go on by themselves once it is mended.
    Refused(Code),
}

struct Limit {
    windows: Vec<SlidingWindow>,
    pace: Option<Pace>,
}

/// Past permits of a scope, for windows that outlive a process: `(age, permits)`.
pub type Past = Vec<(Duration, u64)>;

/// All limits of this process.
pub struct Limits {
    clock: Arc<dyn Clock>,
    limits: Mutex<HashMap<Scope, Limit>>,
    /// By account: the pause and when it was set.
    pauses: Mutex<HashMap<Arc<str>, (Pause, Duration)>>,
    /// Campaigns with recipients that wait for their domain's or country's limit, and until when at the latest.
    put_off: Mutex<HashMap<CampaignId, Duration>>,
    changed: Notify,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Limits")
    }
}

/// The longest a wait for permits sleeps before it looks again at pauses and changed limits.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// After this long a refused account is asked again.
const REFUSED_ASKED_AGAIN: Duration = Duration::from_secs(300);

/// When to ask again where no window says: the next step of a pace.
const LOOK_SOON: Duration = Duration::from_millis(20);

impl Limits {
    /// No limits.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            limits: Mutex::default(),
            pauses: Mutex::default(),
            put_off: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Sets the windows of a scope, at once and for everyone. Windows that stay keep what they have counted; new ones
    /// of a second or a minute start used up, longer ones start with `past`.
    pub fn set(&self, scope: &Scope, windows: Windows, past: &Past) {
        let now = self.clock.monotonic();
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.is_unlimited() {
            limits.remove(scope);
        } else {
            let mut old = limits.remove(scope).map(|limit| limit.windows).unwrap_or_default();
            let windows_now = windows
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
            let pace = windows.per_second.and_then(NonZeroU32::new).map(Pace::new);
            limits.insert(scope.clone(), Limit { windows: windows_now, pace });
        }
        drop(limits);
        self.changed.notify_waiters();
    }

    /// Forgets a scope that has ended.
    pub fn remove(&self, scope: &Scope) {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).remove(scope);
        self.forget_put_off(scope);
    }

    /// Pauses an account for all workers. A refusal is not shortened by a wait, nor a long wait by a short one.
    pub fn pause(&self, account: &Arc<str>, pause: Pause) {
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let stronger = match (pauses.get(account).map(|(pause, _)| pause), &pause) {
            (Some(Pause::Refused(_)), Pause::Until(_)) => false,
            (Some(Pause::Until(old)), Pause::Until(new)) => new > old,
            (None | Some(_), _) => true,
        };
        if stronger {
            pauses.insert(account.clone(), (pause, self.clock.monotonic()));
        }
    }

    /// Ends any pause of an account.
    pub fn resume(&self, account: &str) {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).remove(account);
        self.changed.notify_waiters();
    }

    /// The pause an account is under now, if any.
    #[must_use]
    pub fn paused(&self, account: &str) -> Option<Pause> {
        let now = self.clock.monotonic();
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let (pause, since) = pauses.get(account)?;
        let is_over = match pause {
            Pause::Until(until) => *until <= now,
            Pause::Refused(_) => now.saturating_sub(*since) >= REFUSED_ASKED_AGAIN,
        };
        if is_over {
            pauses.remove(account);
            return None;
        }
        Some(pause.clone())
    }

    /// Takes permits for up to `wanted` sends that pass all of `scopes`, waiting at most `patience` for the first.
    ///
    /// Grants between 1 and `wanted`, counted in every window of every scope at the moment of the answer; none when
    /// `patience` ran out.
    pub async fn permits(&self, scopes: &[Scope], wanted: usize, patience: Duration) -> Permits {
        self.wait_for(scopes, 1, wanted, patience).await
    }

    /// Takes permits for exactly `wanted` sends, or none: for a request that can't be cut.
    pub async fn permits_for_all(&self, scopes: &[Scope], wanted: usize, patience: Duration) -> Permits {
        self.wait_for(scopes, wanted, wanted, patience).await
    }

    /// Says that so many of the permits' sends leave now: they were counted from their grant, and are counted from now.
    /// A provider counts what arrives, and a claim may take a while between the two.
    pub fn depart(&self, permits: &Permits, sends: usize) {
        let now = self.clock.monotonic();
        let sends = u64::try_from(sends).unwrap_or(u64::MAX);
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        for scope in &permits.scopes {
            for window in limits.get_mut(scope).into_iter().flat_map(|limit| &mut limit.windows) {
                window.depart(permits.taken_at, sends, now);
            }
        }
    }

    /// Whether something may still be sent on these permits. Where a second is limited they are good for a second:
    /// later they would leave together with those of a later one.
    #[must_use]
    pub fn are_fresh(&self, permits: &Permits) -> bool {
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let is_paced = permits.scopes.iter().any(|scope| limits.get(scope).is_some_and(|limit| limit.pace.is_some()));
        !is_paced || self.clock.monotonic().saturating_sub(permits.taken_at) < Duration::from_secs(1)
    }

    /// Takes back permits that were not used: nothing was sent on them. Those whose moment has passed are forfeited,
    /// because later ones may have been refused for them.
    pub fn give_back(&self, permits: &Permits, unused: usize) {
        let unused = u64::try_from(unused).unwrap_or(u64::MAX).min(permits.count);
        if unused == 0 {
            return;
        }
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        for scope in &permits.scopes {
            for window in limits.get_mut(scope).into_iter().flat_map(|limit| &mut limit.windows) {
                window.give_back(permits.taken_at, unused);
            }
        }
    }

    async fn wait_for(&self, scopes: &[Scope], least: usize, wanted: usize, patience: Duration) -> Permits {
        let give_up_at = self.clock.monotonic() + patience;
        let (least, wanted) = (least as u64, wanted as u64);
        loop {
            let changed = self.changed.notified();
            let (wait, scope) = match self.take(scopes, least, wanted) {
                Ok(permits) => {
                    metrics::counter!("dispatch_permits_granted_total").increment(permits.count);
                    return permits;
                }
                Err(denied) => denied,
            };
            let now = self.clock.monotonic();
            if now >= give_up_at {
                metrics::counter!("dispatch_permits_denied_total", "scope" => scope).increment(wanted);
                return Permits::none();
            }
            let wait = wait.min(LOOK_AGAIN).min(give_up_at.saturating_sub(now));
            metrics::histogram!("dispatch_permit_wait_seconds").record(wait.as_secs_f64());
            // A changed limit ends the wait early.
            let _ = tokio::time::timeout(wait, changed).await;
        }
    }

    /// The most sends per second these scopes let through over time; `None` when nothing limits them.
    #[must_use]
    pub fn per_second(&self, scopes: &[Scope]) -> Option<f64> {
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        scopes
            .iter()
            .filter_map(|scope| limits.get(scope))
            .flat_map(|limit| limit.windows.iter().map(SlidingWindow::per_second))
            .reduce(f64::min)
    }

    /// Takes permits of one destination without waiting. For those it has none for now: when to ask again.
    pub fn destination_permits(&self, destination: i64, wanted: usize) -> (usize, Duration) {
        let wanted_now = u64::try_from(wanted).unwrap_or(u64::MAX);
        match self.take(&[Scope::Destination(destination)], 1, wanted_now) {
            Ok(permits) => (permits.count(), LOOK_SOON),
            Err((wait, scope)) => {
                metrics::counter!("dispatch_permits_denied_total", "scope" => scope).increment(1);
                (0, wait)
            }
        }
    }

    /// Whether any destination has a limit: when none has, nobody needs to look a recipient's up.
    #[must_use]
    pub fn limits_destinations(&self) -> bool {
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.keys().any(|scope| matches!(scope, Scope::Destination(_)))
    }

    /// Grants at least `least` and at most `wanted`, or says how long to wait and for which kind of limit.
    fn take(&self, scopes: &[Scope], least: u64, wanted: u64) -> Result<Permits, (Duration, &'static str)> {
        let now = self.clock.monotonic();
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut granted = wanted;
        let mut wait: Option<(Duration, &'static str)> = None;
        for scope in scopes {
            let Some(limit) = limits.get_mut(scope) else { continue };
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
        let granted = paced(&limits, scopes, least, granted)?;
        for scope in scopes {
            for window in limits.get_mut(scope).into_iter().flat_map(|limit| &mut limit.windows) {
                window.take(granted);
            }
        }
        Ok(Permits { scopes: scopes.to_vec(), count: granted, taken_at: now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn limits() -> Limits {
        Limits::new(Arc::new(SystemClock::new()))
    }

    fn per_second(most: u32) -> Windows {
        Windows { per_second: Some(most), ..Windows::default() }
    }

    #[tokio::test]
    async fn without_limits_all_that_is_wanted_is_granted() {
        let scopes = [Scope::Tenant(TenantId(1)), Scope::Campaign(CampaignId(1))];
        assert_eq!(limits().permits(&scopes, 1_000, Duration::ZERO).await.count(), 1_000);
    }

    #[tokio::test]
    async fn the_narrowest_scope_decides() {
        let limits = limits();
        let (tenant, campaign) = (Scope::Tenant(TenantId(1)), Scope::Campaign(CampaignId(1)));
        limits.set(&tenant, Windows { per_day: Some(50), ..Windows::default() }, &Past::new());
        limits.set(&campaign, Windows { per_day: Some(20), ..Windows::default() }, &Past::new());
        assert_eq!(limits.permits(&[tenant.clone(), campaign.clone()], 30, Duration::ZERO).await.count(), 20);
        assert_eq!(limits.permits(&[tenant.clone(), campaign], 30, Duration::ZERO).await.count(), 0);
        assert_eq!(
            limits.permits(&[tenant], 100, Duration::ZERO).await.count(),
            30,
            "a denial takes nothing from the others"
        );
    }

    #[tokio::test]
    async fn a_limit_raised_while_someone_waits_lets_them_go() {
        let limits = Arc::new(limits());
        let scope = Scope::Tenant(TenantId(1));
        limits.set(&scope, Windows { per_day: Some(0), ..Windows::default() }, &Past::new());
        let waiting = tokio::spawn({
            let (limits, scope) = (limits.clone(), scope.clone());
            async move { limits.permits(&[scope], 5, Duration::from_secs(60)).await.count() }
        });
        limits.set(&scope, Windows { per_day: Some(5), ..Windows::default() }, &Past::new());
        assert_eq!(waiting.await.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_per_second_limit_is_paced_and_never_passed() {
        let limits = limits();
        let scope = [Scope::Account("main".into())];
        limits.set(&scope[0], per_second(200), &Past::new());
        let clock = SystemClock::new();
        let mut granted: Vec<(Duration, usize)> = Vec::new();
        while granted.iter().map(|(_, n)| n).sum::<usize>() < 300 {
            let permits = limits.permits(&scope, 40, Duration::from_secs(10)).await.count();
            granted.push((clock.monotonic(), permits));
        }
        for (start, _) in &granted {
            let window = *start..*start + Duration::from_millis(990);
            let inside: usize = granted.iter().filter(|(at, _)| window.contains(at)).map(|(_, n)| n).sum();
            assert!(inside <= 200, "{inside} in a second");
        }
    }

    #[tokio::test]
    async fn permits_that_were_not_used_can_be_had_again() {
        let limits = limits();
        let scope = [Scope::Tenant(TenantId(1))];
        limits.set(&scope[0], Windows { per_day: Some(50), ..Windows::default() }, &Past::new());
        let permits = limits.permits(&scope, 50, Duration::ZERO).await;
        limits.give_back(&permits, 20);
        assert_eq!(limits.permits(&scope, 50, Duration::ZERO).await.count(), 20);
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_cut_gets_all_its_permits_or_none() {
        let limits = limits();
        let scope = [Scope::Tenant(TenantId(1))];
        limits.set(&scope[0], Windows { per_day: Some(50), ..Windows::default() }, &Past::new());
        assert!(limits.permits_for_all(&scope, 51, Duration::ZERO).await.is_empty());
        assert_eq!(limits.permits_for_all(&scope, 50, Duration::ZERO).await.count(), 50);
    }

    #[test]
    fn a_refused_account_stays_refused_until_resumed() {
        let limits = limits();
        let account: Arc<str> = "main".into();
        limits.pause(&account, Pause::Refused(Code::known("http_401")));
        limits.pause(&account, Pause::Until(Duration::from_secs(3_600)));
        assert_eq!(limits.paused("main"), Some(Pause::Refused(Code::known("http_401"))));
        limits.resume("main");
        assert_eq!(limits.paused("main"), None);
    }
}
