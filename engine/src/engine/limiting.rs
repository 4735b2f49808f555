//! The limits of accounts and destinations: the settings', and over them those an operator set in the ledger.
//!
//! Every process that sends looks for changes, so that one made on any machine holds for all within a moment, and what
//! a process missed it finds with its next look. A limit that is there already is not counted anew
//! ([`Limits::set`]), so it does not matter how many of them set it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use dispatch_schemas::api::limits::Windows;
use dispatch_workers::{
    delivery::LedgerUnavailable,
    limits::{LimitStore, Limits, Past, Scope},
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

/// Limits by what they are of.
type InForce = BTreeMap<LimitTarget, Windows>;

/// Keeps the limits of accounts and destinations as they should be.
pub(super) struct Limiting {
    ledger: Arc<dyn Ledger>,
    limits: Arc<Limits>,
    plans: Arc<PlanBook>,
    master: MasterKey,
    /// The settings' own.
    of_settings: InForce,
    in_force: InForce,
}

impl Limiting {
    /// Sets all of them.
    pub(super) async fn begin(
        settings: &Settings,
        opened: &Opened,
        limits: Arc<Limits>,
        plans: Arc<PlanBook>,
    ) -> Result<Self, LedgerError> {
        let (ledger, master) = (opened.ledger.clone(), opened.master.clone());
        let of_settings = of_settings(settings);
        let mut limiting = Self { ledger, limits, plans, master, of_settings, in_force: InForce::new() };
        if let Some(shared) = &opened.shared {
            limiting.remove_left(shared.limits.as_ref()).await?;
        }
        limiting.look().await?;
        Ok(limiting)
    }

    /// Removes what is shared and should not be there: it was cleared, or left out of the settings, while nobody ran.
    async fn remove_left(&self, shared: &dyn LimitStore) -> Result<(), LedgerError> {
        let unavailable = |error: LedgerUnavailable| LedgerError::Unavailable(error.0);
        let limited = self.wanted().await?.into_iter().filter(|(_, windows)| !windows.is_unlimited());
        let wanted: HashSet<Scope> = limited.map(|(of, _)| self.scope(&of)).collect();
        for scope in shared.scopes().await.map_err(unavailable)? {
            let is_ours = match &scope {
                Scope::Destination(_) => true,
                Scope::Account(name) => self.of_settings.contains_key(&LimitTarget::Account(name.to_string())),
                Scope::Tenant(_) | Scope::Campaign(_) => false,
            };
            if is_ours && !wanted.contains(&scope) {
                shared.remove(&scope).await.map_err(unavailable)?;
            }
        }
        Ok(())
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
        wanted.extend(known.map(|limit| (limit.of, limit.limits)));
        Ok(wanted)
    }

    /// Sets what is not as it should be.
    async fn look(&mut self) -> Result<(), LedgerError> {
        let wanted = self.wanted().await?;
        let gone = self.in_force.keys().filter(|of| !wanted.contains_key(of)).cloned();
        let changes: InForce = wanted
            .iter()
            .filter(|(of, windows)| self.in_force.get(of) != Some(windows))
            .map(|(of, windows)| (of.clone(), *windows))
            .chain(gone.map(|of| (of, Windows::default())))
            .collect();
        for (of, windows) in changes {
            self.set(&of, windows).await?;
            // What was done is not done again when the next one fails.
            if wanted.contains_key(&of) {
                self.in_force.insert(of, windows);
            } else {
                self.in_force.remove(&of);
            }
        }
        Ok(())
    }

    async fn set(&self, of: &LimitTarget, windows: Windows) -> Result<(), LedgerError> {
        if let LimitTarget::Account(name) = of {
            return self.plans.limit_account(&name.as_str().into(), windows).await;
        }
        let set = self.limits.set(&self.scope(of), windows, &Past::new()).await;
        set.map_err(|error| LedgerError::Unavailable(error.0))
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
    let of = |map: &BTreeMap<String, Windows>, target: fn(String) -> LimitTarget| -> InForce {
        map.iter().map(|(name, windows)| (target(name.clone()), *windows)).collect()
    };
    accounts
        .chain(of(&settings.limits.domains, LimitTarget::Domain))
        .chain(of(&settings.limits.countries, LimitTarget::Country))
        .collect()
}
