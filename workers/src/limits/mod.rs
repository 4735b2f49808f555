//! Limits: how fast a message may be sent.
//!
//! A send passes the limits of its provider account, tenant, campaign and recipient domain or country, each with
//! windows of a second, a minute, an hour and a day. [`Limits::permits`] waits until all of them agree and counts the
//! permits in all of them at once, so no window is ever passed; governor spreads the permits of a second evenly. A
//! provider's Retry-After pauses its account for every worker.
//!
//! Permits are taken before a claim, for a moment a little ahead: the claim takes its time meanwhile, and what it got
//! leaves when the moment has come ([`Limits::until_due`], [`Limits::depart`]). What leaves late is counted anew,
//! because a provider counts what arrives.
//!
//! One process keeps its limits in memory; several keep them in a [`LimitStore`], with the same arithmetic.

mod book;
mod changing;
mod follow;
mod leaving;
mod pace;
mod pauses;
mod permits;
mod put_off;
mod scope;
mod shared;
mod wanted;
mod window;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use book::{Book, Denied, Limit};
use changing::Changed;
use dispatch_schemas::{api::limits::Windows, ids::CampaignId};
pub use pauses::Pause;
use pauses::Pauses;
pub use permits::{Permits, Share};
pub use scope::{Scope, UnknownScope};
use shared::Shared;
pub use shared::{LimitRow, LimitStore, PauseRow};
use tokio::sync::Notify;

use crate::{clock::Clock, delivery::LedgerUnavailable};

/// Past permits of a scope, for windows that outlive a process: `(age, permits)`.
pub type Past = Vec<(Duration, u64)>;

/// All limits, as this process knows them.
pub struct Limits {
    clock: Arc<dyn Clock>,
    /// The truth for one process; what was last seen of it for several.
    book: Mutex<Book>,
    shared: Option<Shared>,
    pauses: Pauses,
    /// Campaigns with recipients that wait for their domain's or country's limit, and until when at the latest.
    put_off: Mutex<HashMap<CampaignId, Duration>>,
    changed: Notify,
    /// Limits that have counted ahead of the clock, and since when on the monotonic one.
    ahead: Mutex<HashMap<Scope, Duration>>,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Limits")
    }
}

/// The longest a wait for permits sleeps before it looks again at pauses and changed limits.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How long limits that have counted ahead of the clock are left alone: longer than a process takes to notice that the
/// clock was set back.
const SET_BACK_AFTER: Duration = Duration::from_secs(15);

impl Limits {
    /// No limits, kept in this process.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            book: Mutex::default(),
            shared: None,
            pauses: Pauses::default(),
            put_off: Mutex::default(),
            changed: Notify::new(),
            ahead: Mutex::default(),
        }
    }

    /// The limits that several processes keep in `store`. Their clock must be the same for all of them.
    #[must_use]
    pub fn shared(clock: Arc<dyn Clock>, store: Arc<dyn LimitStore>) -> Self {
        Self { shared: Some(Shared::new(store)), ..Self::new(clock) }
    }

    /// Sets the windows of a scope, at once and for everyone. Windows that stay keep what they have counted; new ones
    /// of a second or a minute start used up, longer ones start with `past`.
    ///
    /// # Errors
    /// When shared limits cannot be reached.
    pub async fn set(&self, scope: &Scope, limits: Windows, past: &Past) -> Result<(), LedgerUnavailable> {
        if limits.is_unlimited() {
            return self.remove(scope).await;
        }
        let (of, past) = (scope.clone(), past.clone());
        self.change(vec![scope.clone()], move |book, now| {
            let old = book.0.remove(&of);
            if old.as_ref().is_some_and(|old| old.limits == limits) {
                book.0.extend(old.map(|old| (of.clone(), old)));
                return ((), Changed::No);
            }
            book.0.insert(of.clone(), Limit::new(limits, old, &past, now));
            ((), Changed::Yes)
        })
        .await?;
        self.changed.notify_waiters();
        Ok(())
    }

    /// Forgets a scope that has ended.
    ///
    /// # Errors
    /// When shared limits cannot be reached.
    pub async fn remove(&self, scope: &Scope) -> Result<(), LedgerUnavailable> {
        self.forget_put_off(scope);
        match &self.shared {
            None => drop(self.book().0.remove(scope)),
            Some(shared) => {
                let _turn = shared.turn.lock().await;
                // Whether this process has seen it or not: others may have.
                shared.store.remove(scope).await?;
                shared.forget(|known| known == scope, &mut self.book());
            }
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Pauses an account for all workers. A refusal is not shortened by a wait, nor a long wait by a short one.
    pub async fn pause(&self, account: &Arc<str>, pause: Pause) {
        let now = self.clock.monotonic();
        if !self.pauses.set(account, &pause, now) {
            return;
        }
        if let Some(shared) = &self.shared {
            let row = PauseRow::new(account, &pause, now, self.clock.now_ms());
            match shared.store.pause(&row).await {
                Ok(()) => self.pauses.told(account, &pause, self.clock.monotonic()),
                Err(error) => tracing::warn!(%account, %error, "other workers do not hear of the account's pause"),
            }
        }
    }

    /// Ends any pause of an account.
    pub async fn resume(&self, account: &str) {
        if let Some(shared) = &self.shared
            && let Err(error) = shared.store.resume(account).await
        {
            tracing::warn!(account, %error, "the account's pause cannot be ended yet");
            return;
        }
        self.pauses.end(account);
        self.changed.notify_waiters();
    }

    /// The pause an account is under now, if any.
    #[must_use]
    pub fn paused(&self, account: &str) -> Option<Pause> {
        self.pauses.of(account, self.clock.monotonic())
    }

    /// Takes permits for up to `wanted` sends that pass all of `scopes`, waiting at most `patience` for the first.
    ///
    /// Grants between 1 and `wanted`, counted in every window of every scope at the moment they are good for; none when
    /// `patience` ran out.
    ///
    /// # Errors
    /// When shared limits cannot be reached.
    pub async fn permits(
        &self,
        scopes: &[Scope],
        wanted: usize,
        patience: Duration,
    ) -> Result<Permits, LedgerUnavailable> {
        self.wait_for(scopes, 1, wanted, patience).await
    }

    /// Takes permits for exactly `wanted` sends, or none: for a request that can't be cut.
    ///
    /// # Errors
    /// When shared limits cannot be reached.
    pub async fn permits_for_all(
        &self,
        scopes: &[Scope],
        wanted: usize,
        patience: Duration,
    ) -> Result<Permits, LedgerUnavailable> {
        self.wait_for(scopes, wanted, wanted, patience).await
    }

    /// The most sends per second these scopes let through over time; `None` when nothing limits them.
    #[must_use]
    pub fn per_second(&self, scopes: &[Scope]) -> Option<f64> {
        self.book().per_second(scopes)
    }

    /// Takes permits of several destinations without waiting: `(destination, wanted)`. For those without any: when to
    /// ask again.
    ///
    /// # Errors
    /// When shared limits cannot be reached.
    pub async fn destination_permits(
        &self,
        wanted: Vec<(i64, usize)>,
    ) -> Result<Vec<Result<Permits, Duration>>, LedgerUnavailable> {
        let scopes: Vec<Scope> = wanted.iter().map(|(destination, _)| Scope::Destination(*destination)).collect();
        let mut paced = vec![None; wanted.len()];
        let set_back = self.to_set_back(&scopes);
        self.change(scopes, move |book, now| {
            let mut changed = book.set_back(&set_back, now);
            let grant = |((destination, wanted), paced): (&(i64, usize), &mut Option<u64>)| {
                let granted = book.grant(&[Scope::Destination(*destination)], 1, *wanted as u64, now, paced);
                match &granted {
                    Ok(_) => changed = Changed::Yes,
                    Err((_, scope)) => {
                        metrics::counter!("dispatch_permits_denied_total", "scope" => *scope).increment(1);
                    }
                }
                granted.map_err(|(wait, _)| wait)
            };
            (wanted.iter().zip(&mut paced).map(grant).collect(), changed)
        })
        .await
    }

    /// Whether any destination has a limit: when none has, nobody needs to look a recipient's up.
    #[must_use]
    pub fn limits_destinations(&self) -> bool {
        self.book().0.keys().any(|scope| matches!(scope, Scope::Destination(_)))
    }

    async fn wait_for(
        &self,
        scopes: &[Scope],
        least: usize,
        wanted: usize,
        patience: Duration,
    ) -> Result<Permits, LedgerUnavailable> {
        let give_up_at = self.clock.monotonic() + patience;
        let (least, wanted) = (least as u64, wanted as u64);
        loop {
            let changed = self.changed.notified();
            let (wait, scope) = match self.take(scopes, least, wanted).await? {
                Ok(permits) => {
                    metrics::counter!("dispatch_permits_granted_total").increment(permits.count);
                    return Ok(permits);
                }
                Err(denied) => denied,
            };
            let now = self.clock.monotonic();
            if now >= give_up_at {
                metrics::counter!("dispatch_permits_denied_total", "scope" => scope).increment(1);
                return Ok(Permits::none());
            }
            let wait = wait.min(LOOK_AGAIN).min(give_up_at.saturating_sub(now));
            metrics::histogram!("dispatch_permit_wait_seconds").record(wait.as_secs_f64());
            // A changed limit ends the wait early.
            let _ = tokio::time::timeout(wait, changed).await;
        }
    }

    /// Grants at least `least` and at most `wanted`, or says how long to wait and for which kind of limit.
    async fn take(
        &self,
        scopes: &[Scope],
        least: u64,
        wanted: u64,
    ) -> Result<Result<Permits, Denied>, LedgerUnavailable> {
        let (of, mut paced) = (scopes.to_vec(), None);
        let set_back = self.to_set_back(scopes);
        self.change(scopes.to_vec(), move |book, now| {
            let set_back = book.set_back(&set_back, now);
            match book.grant(&of, least, wanted, now, &mut paced) {
                Ok(permits) => (Ok(permits), Changed::Yes),
                Err(denied) => (Err(denied), set_back),
            }
        })
        .await
    }

    /// Those of these limits that would let nothing through for as long as the clock they share was set back by. Not
    /// before all processes go by it: one that is still ahead would find the others' counts long past.
    fn to_set_back(&self, scopes: &[Scope]) -> Vec<Scope> {
        let ahead = self.book().ahead(scopes, self.now());
        let now = self.clock.monotonic();
        let mut known = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|scope, _| ahead.contains(scope) || !scopes.contains(scope));
        let mut is_long = |scope: &Scope| now >= *known.entry(scope.clone()).or_insert(now) + SET_BACK_AFTER;
        ahead.into_iter().filter(|scope| is_long(scope)).collect()
    }

    /// The moment that windows count by: this process's own clock, or the one it shares.
    fn now(&self) -> Duration {
        match self.shared {
            None => self.clock.monotonic(),
            Some(_) => Duration::from_millis(u64::try_from(self.clock.now_ms()).unwrap_or(0)),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
