//! A running engine: ledger, queue, scheduler and workers, wired together in one process.

mod control;
mod ledger_clock;
mod opening;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{Channel, Lane},
};
use dispatch_workers::{
    clock::{Clock, Entropy, random},
    delivery::{Account, Jobs, LedgerUnavailable, NoJournal, Plane, Plans, Recording, work},
    limits::{Limits, Past, Pause, Scope},
    providers::{self, Ingredients},
    sealing::MasterKey,
};
use tokio::{sync::Mutex, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use control::EngineControl;
pub use ledger_clock::LedgerClock;
pub use opening::{ClaimedLedger, Opened, StartError, check_ledger, claim_ledger, open_ledger};

use crate::{
    api::Health,
    import::loading::{Loader, country_number},
    ledger::{Ledger, LedgerError},
    plans::PlanBook,
    queue::{InProcessQueue, Queue},
    scheduler::{Desk, Reconciler, Scheduler},
    settings::Settings,
};

/// A scheduler that has not finished a round for this long is not ready.
const SCHEDULER_SILENT_MAX: Duration = Duration::from_secs(10);
/// Workers per channel that serve single messages only.
const TRANSACTIONAL_RUNS: usize = 2;

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
        let scheduler_id = i64::from_le_bytes(random(entropy.as_ref()));
        let scheduler = Scheduler {
            id: scheduler_id,
            ledger: ledger.clone(),
            queue: queue.clone(),
            plans: plans.clone(),
            limits: limits.clone(),
            clock: clock.clone(),
            timing: settings.timing,
            window: settings.queue.clone(),
            desk: desk.clone(),
            key_places: key_places(settings),
        };
        let reconciler = Reconciler {
            scheduler: scheduler_id,
            desk: desk.clone(),
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
            journal: Arc::new(NoJournal),
            recording: Recording::default(),
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
        let requests: usize = self
            .plans
            .accounts()
            .map(|account| account.requests_open_max.saturating_sub(account.requests.available_permits()))
            .sum();
        if requests > 0 {
            tracing::info!(requests, seconds_max = self.drain_within.as_secs(), "waiting for providers to answer");
        }
        let mut tasks = std::mem::take(&mut *self.tasks.lock().await);
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain_within, all).await.is_err() {
            tracing::error!("some requests were not answered in time; their outcomes are settled at the next start");
        }
    }

    /// The roles of this process and how each is. One refused account does not keep the others from working.
    #[must_use]
    pub fn readiness(&self) -> Vec<(&'static str, Health)> {
        let now = self.opened.clock.monotonic();
        let scheduler = match self.desk.last_beat() {
            Some(beat) if now.saturating_sub(beat) <= SCHEDULER_SILENT_MAX => Health::Well,
            Some(_) => Health::Down("the ledger does not answer the scheduler; see the log".to_owned()),
            None => Health::Down("it has not finished its first round yet".to_owned()),
        };
        let mut accounts = 0;
        let mut refused = BTreeSet::new();
        for account in self.plans.accounts() {
            accounts += 1;
            if let Some(Pause::Refused(code)) = self.limits.paused(&account.name) {
                refused.insert(format!("`{}` ({code})", account.name));
            }
        }
        let listed = || {
            let names: Vec<&str> = refused.iter().map(String::as_str).collect();
            format!("refused by their providers: {}", names.join(", "))
        };
        let worker = match refused.len() {
            0 => Health::Well,
            all if all == accounts => Health::Down(format!("all accounts are {}", listed())),
            some => Health::Impaired(format!("{some} of {accounts} accounts are {}", listed())),
        };
        vec![("scheduler", scheduler), ("worker", worker)]
    }
}

/// Where the key of each account comes from, for whoever has to mend one.
fn key_places(settings: &Settings) -> HashMap<String, String> {
    let places = settings.providers.iter().filter_map(|(name, account)| Some((name.clone(), account.key_place(name)?)));
    places.collect()
}

/// What a process that died left behind. The lock of a ledger that is not shared says that it is dead, so nobody else
/// will record.
async fn recover(ledger: &dyn Ledger, clock: &dyn Clock, settings: &Settings) -> Result<(), StartError> {
    let imports = ledger.recover_imports().await?;
    if imports > 0 {
        tracing::warn!(imports, "unfinished uploads of the last run were finished or removed");
    }
    if ledger.is_shared() {
        // What is open may be a living process's; what is not is reaped in its time.
        return Ok(());
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
        limits.set(&Scope::Destination(destination), *windows, &Past::new()).await.map_err(unavailable)?;
    }
    Ok(())
}

fn unavailable(error: LedgerUnavailable) -> StartError {
    StartError::Ledger(LedgerError::Unavailable(error.0))
}
