//! A running engine: ledger, queue, scheduler and workers, wired together in one process.

mod control;

use std::{path::Path, sync::Arc, time::Duration};

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{Channel, Lane},
};
use dispatch_workers::{
    clock::{Clock, Entropy, SystemClock, SystemEntropy},
    delivery::{Account, Jobs, Plane, Plans, work},
    limits::{Limits, Past, Pause, Scope},
    providers::{self, Ingredients},
    sealing::{KeyFileError, MasterKey},
};
use tokio::{sync::Mutex, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use control::EngineControl;

use crate::{
    import::loading::{Loader, country_number},
    ledger::{Ledger, LedgerError, sqlite::SqliteLedger},
    plans::PlanBook,
    queue::{InProcessQueue, Queue},
    scheduler::{Desk, Reconciler, Scheduler},
    settings::Settings,
};

/// A scheduler that has not finished a round for this long is not ready.
const SCHEDULER_SILENT_MAX: Duration = Duration::from_secs(10);
/// Workers per channel that serve single messages only.
const TRANSACTIONAL_RUNS: usize = 2;

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger cannot be opened.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The master key cannot be read or made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The ledger is there, its key is not.
    #[error(
        "the ledger {ledger} exists, but its key file {key_file} does not; put the key back or set ledger.key_file \
         (without that key its contacts cannot be read by anyone)"
    )]
    KeyMissing {
        /// The ledger.
        ledger: String,
        /// Where its key should be.
        key_file: String,
    },
    /// A provider account cannot be used.
    #[error("the account `{name}` in [providers] cannot be used: {why}")]
    Account {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// An open ledger and what opens it.
#[derive(Clone)]
pub struct Opened {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// The key that opens everything in it.
    pub master: MasterKey,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Whether the key was made just now: somebody must be told where it is.
    pub made_key: bool,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened")
    }
}

/// Opens the ledger of the settings, making it and its key at the first start.
///
/// # Errors
/// [`StartError`] with what to do.
pub async fn open_ledger(settings: &Settings) -> Result<Opened, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::default());
    let path = settings.ledger.url.file();
    let (master, made_key) = master_key(path, &settings.ledger.key_file, entropy.as_ref())?;
    let ledger = SqliteLedger::open(path, master.clone(), clock.clone(), entropy.clone()).await?;
    Ok(Opened { ledger: Arc::new(ledger), master, clock, entropy, made_key })
}

fn master_key(ledger: &Path, key_file: &Path, entropy: &dyn Entropy) -> Result<(MasterKey, bool), StartError> {
    if key_file.exists() {
        return Ok((MasterKey::read(key_file)?, false));
    }
    if std::fs::metadata(ledger).is_ok_and(|file| file.len() > 0) {
        return Err(StartError::KeyMissing {
            ledger: ledger.display().to_string(),
            key_file: key_file.display().to_string(),
        });
    }
    let key = MasterKey::generate(entropy);
    key.write_new(key_file)?;
    Ok((key, true))
}

/// A running engine.
pub struct Engine {
    /// The ledger and its keys.
    pub opened: Opened,
    /// The queue.
    pub queue: Arc<InProcessQueue>,
    /// The limits.
    pub limits: Arc<Limits>,
    /// The plans of running campaigns.
    pub plans: Arc<PlanBook>,
    /// Where to wake the scheduler and ask about stalls.
    pub desk: Arc<Desk>,
    /// Loads contact files.
    pub loader: Loader,
    tasks: Mutex<JoinSet<()>>,
    stop: CancellationToken,
    drain_within: Duration,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    /// Starts scheduler and workers over an open ledger.
    ///
    /// # Errors
    /// When an account cannot be built or the ledger fails.
    pub async fn start(settings: &Settings, opened: Opened) -> Result<Self, StartError> {
        let Opened { ledger, master, clock, entropy, .. } = opened.clone();
        recover(ledger.as_ref(), clock.as_ref(), settings).await?;

        let limits = Arc::new(Limits::new(clock.clone()));
        let accounts = accounts(settings, &clock, &entropy)?;
        let plans = Arc::new(PlanBook::new(
            ledger.clone(),
            accounts.iter().map(|account| (account.name.to_string(), account.clone())).collect(),
            limits.clone(),
            clock.clone(),
            settings.workers.attempts_max,
            settings.tenants.defaults.limits,
        ));
        set_limits(settings, &limits, &plans, &master).await?;

        let queue = Arc::new(InProcessQueue::new(settings.queue.capacity));
        let desk = Arc::new(Desk::default());
        let send_keys = Arc::new(master.send_keys());
        let stop = CancellationToken::new();
        let scheduler = Scheduler {
            ledger: ledger.clone(),
            queue: queue.clone(),
            plans: plans.clone(),
            limits: limits.clone(),
            clock: clock.clone(),
            timing: settings.timing,
            window: settings.queue,
            desk: desk.clone(),
        };
        let reconciler = Reconciler {
            ledger: ledger.clone(),
            queue: queue.clone(),
            plans: plans.clone(),
            clock: clock.clone(),
            timing: settings.timing,
            send_keys: send_keys.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(scheduler.run(stop.clone().cancelled_owned()));
        tasks.spawn(reconciler.run(stop.clone().cancelled_owned()));

        let plane = Arc::new(Plane {
            claims: ledger.clone(),
            limits: limits.clone(),
            clock,
            entropy: entropy.clone(),
            send_keys,
            timing: settings.timing,
        });
        for (channel, runs) in
            [(Channel::Email, settings.workers.email_runs), (Channel::Sms, settings.workers.sms_runs)]
        {
            let lanes = std::iter::repeat_n(Lane::Bulk, runs)
                .chain(std::iter::repeat_n(Lane::Transactional, TRANSACTIONAL_RUNS));
            for lane in lanes {
                let jobs: Arc<dyn Jobs> = queue.clone();
                let plans: Arc<dyn Plans> = plans.clone();
                tasks.spawn(work(channel, lane, jobs, plans, plane.clone()));
            }
        }
        let drain_within = Duration::from_millis(settings.timing.reap_after_ms()) + Duration::from_secs(60);
        let loader = Loader::new(ledger, master, entropy);
        Ok(Self { opened, queue, limits, plans, desk, loader, tasks: Mutex::new(tasks), stop, drain_within })
    }

    /// A campaign was launched, paused, resumed, cancelled or retried: closes its plan at once, so that nothing more
    /// is sent by an old one, and wakes the scheduler.
    pub fn campaign_changed(&self, campaign: CampaignId) {
        self.plans.close(campaign);
        self.desk.restart(campaign);
    }

    /// A tenant was closed or opened: closes its plans at once, and wakes the scheduler.
    pub fn tenant_changed(&self, tenant: TenantId) {
        self.plans.close_tenant(tenant);
        self.desk.wake();
    }

    /// Stops: lets workers finish what they hold, so that no outcome stays unknown.
    pub async fn drain(&self) {
        self.stop.cancel();
        self.queue.close();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().await);
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain_within, all).await.is_err() {
            tracing::error!("some requests were not answered in time; their outcomes are settled at the next start");
        }
    }

    /// The roles of this process, and what is wrong with each.
    #[must_use]
    pub fn readiness(&self) -> Vec<(&'static str, Result<(), String>)> {
        let now = self.opened.clock.monotonic();
        let scheduler = match self.desk.last_beat() {
            Some(beat) if now.saturating_sub(beat) <= SCHEDULER_SILENT_MAX => Ok(()),
            Some(_) => Err("the ledger does not answer the scheduler; see the log".to_owned()),
            None => Err("it has not finished its first round yet".to_owned()),
        };
        let refused = self.plans.accounts().find_map(|account| match self.limits.paused(&account.name) {
            Some(Pause::Refused(code)) => Some(format!("the provider refuses the account `{}` ({code})", account.name)),
            _ => None,
        });
        vec![("scheduler", scheduler), ("worker", refused.map_or(Ok(()), Err))]
    }
}

/// What a process that died left behind. The ledger's lock says that it is dead, so nobody else will record.
async fn recover(ledger: &dyn Ledger, clock: &dyn Clock, settings: &Settings) -> Result<(), StartError> {
    let imports = ledger.recover_imports().await?;
    if imports > 0 {
        tracing::warn!(imports, "unfinished uploads of the last run were finished or removed");
    }
    let now_ms = clock.now_ms();
    let mut reaped = 0;
    loop {
        let step = ledger.reap(i64::MAX, now_ms, &settings.timing).await?;
        reaped += step;
        if step == 0 {
            break;
        }
    }
    if reaped > 0 {
        tracing::warn!(
            deliveries = reaped,
            "the last run ended in the middle of requests; their outcomes are being settled"
        );
    }
    Ok(())
}

fn accounts(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Vec<Arc<Account>>, StartError> {
    settings
        .providers
        .iter()
        .map(|(name, provider)| {
            let wrong = |why: String| StartError::Account { name: name.clone(), why };
            let secret = provider.secret(name).map_err(|error| wrong(error.to_string()))?;
            let built = providers::build(Ingredients {
                settings: provider.account(),
                secret,
                clock: clock.clone(),
                entropy: entropy.clone(),
            })
            .map_err(|error| wrong(error.to_string()))?;
            Ok(Arc::new(Account::new(name.as_str().into(), built, provider.requests_open_max)))
        })
        .collect()
}

async fn set_limits(
    settings: &Settings,
    limits: &Limits,
    plans: &PlanBook,
    master: &MasterKey,
) -> Result<(), StartError> {
    for (name, provider) in &settings.providers {
        plans.limit_account(&name.as_str().into(), provider.limits).await?;
    }
    let domains = settings.limits.domains.iter().map(|(name, windows)| (master.domain_hashes().hash(name), windows));
    let countries = settings.limits.countries.iter().map(|(name, windows)| (country_number(name), windows));
    for (destination, windows) in domains.chain(countries) {
        limits.set(&Scope::Destination(destination), *windows, &Past::new());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path) -> Settings {
        let mut settings = Settings::default();
        settings.ledger.url = crate::settings::LedgerUrl::sqlite(folder.join("ledger.db"));
        settings.ledger.key_file = folder.join("ledger.key");
        settings
    }

    #[tokio::test]
    async fn the_first_start_makes_a_key_and_the_next_one_uses_it() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        assert!(open_ledger(&settings).await.unwrap().made_key);
        assert!(!reopened(&settings).await.made_key);
    }

    #[tokio::test]
    async fn a_ledger_whose_key_file_is_gone_is_refused_and_no_new_key_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        drop(open_ledger(&settings).await.unwrap());
        std::fs::remove_file(&settings.ledger.key_file).unwrap();
        let refused = open_ledger(&settings).await.unwrap_err();
        assert!(matches!(refused, StartError::KeyMissing { .. }), "{refused}");
        assert!(!settings.ledger.key_file.exists());
    }

    /// The lock of a ledger that was dropped goes when its writer has ended.
    async fn reopened(settings: &Settings) -> Opened {
        loop {
            match open_ledger(settings).await {
                Ok(opened) => return opened,
                Err(StartError::Ledger(LedgerError::Open(why))) if why.contains("open in another process") => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
