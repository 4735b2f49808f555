//! The limits of accounts and destinations: the settings', and over them those an operator set in the ledger.
//!
//! Every process that sends looks for changes, so that one made on any machine holds for all within a moment, and what
//! a process missed it finds with its next look. A limit that is there already is not counted anew
//! ([`Limits::set`]), so it does not matter how many of them set it.
//!
//! Processes need not have the same settings. What an operator sets or lifts is for all; a limit that a process's
//! settings want is kept from the others, whose settings do not, for as long as it lives and a little longer.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use dispatch_schemas::api::limits::Windows;
use dispatch_workers::{
    clock::Clock,
    delivery::LedgerUnavailable,
    limits::{Limits, Past, Scope},
    sealing::MasterKey,
};

use super::Opened;
use crate::{
    import::loading::country_number,
    ledger::{Ledger, LedgerError, LimitTarget},
    plans::PlanBook,
    settings::Settings,
};

/// How often is looked for changes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often a process says which limits its settings want.
const WISHED_EVERY: Duration = Duration::from_secs(5);
/// How long it is believed: longer than a database takes to come back, mostly.
const WISHED_FOR: Duration = Duration::from_secs(20);

/// A limit as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    windows: Windows,
    /// An operator set it, and not the settings.
    by_operator: bool,
}

/// Limits by what they are of.
type InForce = BTreeMap<LimitTarget, Wanted>;

/// Keeps the limits of accounts and destinations as they should be.
pub(super) struct Limiting {
    ledger: Arc<dyn Ledger>,
    limits: Arc<Limits>,
    plans: Arc<PlanBook>,
    master: MasterKey,
    clock: Arc<dyn Clock>,
    /// The settings' own.
    of_settings: InForce,
    in_force: InForce,
    /// When it last said what its settings want, on the monotonic clock.
    wished_at: Option<Duration>,
}

impl Limiting {
    /// Sets all of them.
    pub(super) async fn begin(
        settings: &Settings,
        opened: &Opened,
        limits: Arc<Limits>,
        plans: Arc<PlanBook>,
    ) -> Result<Self, LedgerError> {
        let (ledger, master, clock) = (opened.ledger.clone(), opened.master.clone(), opened.clock.clone());
        let (of_settings, in_force) = (of_settings(settings), InForce::new());
        let mut limiting = Self { ledger, limits, plans, master, clock, of_settings, in_force, wished_at: None };
        limiting.look().await?;
        Ok(limiting)
    }

    /// Looks for changes until `stop` completes.
    pub(super) async fn keep_up(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "changed limits were not looked for");
            }
        }
    }

    /// All limits as they should be.
    async fn wanted(&self) -> Result<InForce, LedgerError> {
        let mut wanted = self.of_settings.clone();
        let set = self.ledger.operator_limits().await?;
        // An account of other processes' settings is theirs.
        let known = set.into_iter().filter(|limit| match &limit.of {
            LimitTarget::Account(_) => self.of_settings.contains_key(&limit.of),
            LimitTarget::Domain(_) | LimitTarget::Country(_) => true,
        });
        wanted.extend(known.map(|limit| (limit.of, Wanted { windows: limit.limits, by_operator: true })));
        Ok(wanted)
    }

    /// Sets what is not as it should be.
    async fn look(&mut self) -> Result<(), LedgerError> {
        let wanted = self.wanted().await?;
        let gone: Vec<LimitTarget> = self.in_force.keys().filter(|of| !wanted.contains_key(of)).cloned().collect();
        for of in gone {
            self.unset(&of).await?;
            self.in_force.remove(&of);
        }
        for (of, limit) in &wanted {
            // One that should be there and is not was removed by somebody who did not know.
            let is_lost = !limit.windows.is_unlimited() && !self.limits.is_limited(&self.scope(of));
            if self.in_force.get(of) != Some(limit) || is_lost {
                self.set(of, limit).await?;
                // What was done is not done again when the next one fails.
                self.in_force.insert(of.clone(), *limit);
            }
        }
        let now = self.clock.monotonic();
        if self.wished_at.is_none_or(|at| now >= at + WISHED_EVERY) {
            self.wish(&wanted).await?;
            self.wished_at = Some(now);
        }
        Ok(())
    }

    /// Says what the settings want, and removes what is there and nobody wants: it was cleared, or left out of the
    /// settings, while nobody ran who had it.
    async fn wish(&self, wanted: &InForce) -> Result<(), LedgerError> {
        let limited = |limits: &InForce| -> HashSet<Scope> {
            limits.iter().filter(|(_, limit)| !limit.windows.is_unlimited()).map(|(of, _)| self.scope(of)).collect()
        };
        let of_settings: Vec<Scope> = limited(&self.of_settings).into_iter().collect();
        self.limits.want(&of_settings, WISHED_FOR).await.map_err(unavailable)?;
        let wanted = limited(wanted);
        let is_left = |scope: &Scope| match scope {
            Scope::Destination(_) => !wanted.contains(scope),
            Scope::Account(name) => {
                !wanted.contains(scope) && self.of_settings.contains_key(&LimitTarget::Account(name.to_string()))
            }
            Scope::Tenant(_) | Scope::Campaign(_) => false,
        };
        let left: Vec<Scope> = self.limits.limited().await.map_err(unavailable)?.into_iter().filter(is_left).collect();
        self.limits.remove_unwanted(&left).await.map_err(unavailable)
    }

    async fn set(&self, of: &LimitTarget, limit: &Wanted) -> Result<(), LedgerError> {
        if limit.windows.is_unlimited() && !limit.by_operator {
            return self.unset(of).await;
        }
        if let LimitTarget::Account(name) = of {
            return self.plans.limit_account(&name.as_str().into(), limit.windows).await;
        }
        self.limits.set(&self.scope(of), limit.windows, &Past::new()).await.map_err(unavailable)
    }

    /// This process does not limit it any more.
    async fn unset(&self, of: &LimitTarget) -> Result<(), LedgerError> {
        self.limits.remove_unwanted(&[self.scope(of)]).await.map_err(unavailable)
    }

    fn scope(&self, of: &LimitTarget) -> Scope {
        match of {
            LimitTarget::Account(name) => Scope::Account(name.as_str().into()),
            LimitTarget::Domain(name) => Scope::Destination(self.master.domain_hashes().hash(name)),
            LimitTarget::Country(name) => Scope::Destination(country_number(name)),
        }
    }
}

/// The limits of the settings; every account is there, with or without any.
fn of_settings(settings: &Settings) -> InForce {
    let accounts =
        settings.providers.iter().map(|(name, account)| (LimitTarget::Account(name.clone()), account.limits));
    let of = |map: &BTreeMap<String, Windows>, target: fn(String) -> LimitTarget| -> Vec<(LimitTarget, Windows)> {
        map.iter().map(|(name, windows)| (target(name.clone()), *windows)).collect()
    };
    accounts
        .chain(of(&settings.limits.domains, LimitTarget::Domain))
        .chain(of(&settings.limits.countries, LimitTarget::Country))
        .map(|(of, windows)| (of, Wanted { windows, by_operator: false }))
        .collect()
}

fn unavailable(error: LedgerUnavailable) -> LedgerError {
    LedgerError::Unavailable(error.0)
}
