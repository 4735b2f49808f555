//! A running engine: ledger, queue, scheduler and workers, wired together in one process.

mod calling_back;
mod control;
mod ledger_clock;
mod limiting;
mod opening;
mod readiness;
mod roles;

use std::{collections::HashMap, sync::Arc, time::Duration};

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{Channel, Lane},
};
use dispatch_workers::{
    clock::{Clock, Entropy, random},
    delivery::{Account, Jobs, Journal, NoJournal, Plane, Plans, Recording, Timing, work},
    limits::Limits,
    providers::{self, Ingredients},
};
use tokio::{sync::Mutex, task::JoinSet};
use tokio_util::sync::CancellationToken;

use limiting::Limiting;

pub use calling_back::CallbackDesk;
pub use control::EngineControl;
pub use ledger_clock::LedgerClock;
pub use opening::{ClaimedLedger, Opened, SharedLedger, StartError, check_ledger, claim_ledger, open_ledger};
pub use roles::{Role, Roles, UnknownRole};

use crate::{
    import::loading::Loader,
    journal::OutcomeJournal,
    ledger::Ledger,
    plans::PlanBook,
    quarantine::{Standing, Warden},
    queue::{
        InProcessQueue, Queue,
        rabbitmq::{self, Link, RabbitQueue, Side},
    },
    scheduler::{Desk, Reconciler, Scheduler, look_after_uploads},
    settings::Settings,
};

/// Workers per channel that serve single messages only.
const TRANSACTIONAL_RUNS: usize = 2;

/// What a drain may take beyond the time in which every request has its answer: records that wait for the ledger.
const RECORDS_WITHIN: Duration = Duration::from_secs(60);

/// How long a process may take to finish what it holds when it is stopped. Whoever kills it earlier leaves outcomes to
/// be settled.
#[must_use]
pub const fn drain_within(timing: &Timing) -> Duration {
    Duration::from_millis(timing.reap_after_ms()).saturating_add(RECORDS_WITHIN)
}

/// A running engine.
pub struct Engine {
    /// The ledger and its keys.
    pub opened: Opened,
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// The limits.
    pub limits: Arc<Limits>,
    /// The plans of running campaigns.
    pub plans: Arc<PlanBook>,
    /// Where to wake the scheduler.
    pub desk: Arc<Desk>,
    /// Loads contact files.
    pub loader: Loader,
    /// Where callbacks are taken, if they are.
    pub callbacks: Option<CallbackDesk>,
    roles: Roles,
    standing: Arc<Standing>,
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
    /// Starts what the roles say over an open ledger.
    ///
    /// # Errors
    /// When an account cannot be built, the queue's password cannot be read, roles are missing a queue to share, or the
    /// ledger fails.
    pub async fn start(settings: &Settings, opened: Opened, roles: Roles) -> Result<Self, StartError> {
        let Opened { ledger, master, clock, entropy, .. } = opened.clone();
        if settings.queue.url.is_none() && roles.need_a_shared_queue() {
            return Err(StartError::QueueNotShared { roles: roles.to_string() });
        }
        // Before anything of it is believed, and long before anything is claimed.
        let standing = Arc::new(Standing::default());
        let warden = Warden::new(ledger.clone(), clock.clone(), settings.timing, standing.clone());
        warden.look().await?;
        if roles.has(Role::Scheduler) {
            recover(ledger.as_ref(), clock.as_ref(), settings).await?;
        }
        let limits = Arc::new(match &opened.shared {
            None => Limits::new(clock.clone()),
            Some(shared) => Limits::shared(clock.clone(), shared.limits.clone()),
        });
        // Who neither sends nor asks providers needs none of their keys.
        let accounts = if roles.has(Role::Scheduler) || roles.has(Role::Worker) {
            accounts(settings, &clock, &entropy)?
        } else {
            Vec::new()
        };
        let plans = Arc::new(PlanBook::new(
            ledger.clone(),
            accounts.iter().map(|account| (account.name.to_string(), account.clone())).collect(),
            limits.clone(),
            clock.clone(),
            settings.workers.attempts_max,
            settings.tenants.defaults.limits,
        ));
        let limiting = if roles.has(Role::Scheduler) || roles.has(Role::Worker) {
            Some(Limiting::begin(settings, &opened, limits.clone(), plans.clone()).await?)
        } else {
            None
        };

        let mut engine = Self {
            queue: queue(settings, &roles, &clock)?,
            loader: Loader::new(ledger, master, entropy),
            desk: Arc::new(Desk::default()),
            callbacks: None,
            tasks: Mutex::new(JoinSet::new()),
            stop: CancellationToken::new(),
            drain_within: drain_within(&settings.timing),
            opened,
            limits,
            plans,
            roles,
            standing,
        };
        let stop = engine.stop.clone();
        engine.tasks.get_mut().spawn(async move { warden.keep_up(stop.cancelled_owned()).await });
        engine.keep_up();
        if let Some(limiting) = limiting {
            let stop = engine.stop.clone();
            engine.tasks.get_mut().spawn(async move { limiting.keep_up(stop.cancelled_owned()).await });
        }
        if engine.roles.has(Role::Scheduler) {
            engine.start_scheduler(settings);
        }
        if engine.roles.has(Role::Worker) {
            engine.start_workers(settings)?;
        }
        if engine.roles.has(Role::Callbacks) {
            let tasks = engine.tasks.get_mut();
            engine.callbacks = CallbackDesk::start(settings, &engine.opened, tasks, &engine.stop).await?;
        }
        Ok(engine)
    }

    /// Keeps up with what processes that share the ledger have in common.
    fn keep_up(&mut self) {
        let Some(shared) = self.opened.shared.clone() else { return };
        let (limits, ledger, tasks) = (self.limits.clone(), self.opened.ledger.clone(), self.tasks.get_mut());
        let (followed, told) = (self.stop.clone(), self.stop.clone());
        tasks.spawn(async move { limits.follow(followed.cancelled_owned()).await });
        tasks.spawn(async move { shared.clock.keep_up(ledger.as_ref(), told.cancelled_owned()).await });
    }

    fn start_scheduler(&mut self, settings: &Settings) {
        let Opened { ledger, master, clock, entropy, .. } = &self.opened;
        let id = i64::from_le_bytes(random(entropy.as_ref()));
        let scheduler = Scheduler {
            id,
            ledger: ledger.clone(),
            queue: self.queue.clone(),
            plans: self.plans.clone(),
            limits: self.limits.clone(),
            clock: clock.clone(),
            timing: settings.timing,
            window: settings.queue.clone(),
            desk: self.desk.clone(),
            key_places: key_places(settings),
        };
        let reconciler = Reconciler {
            scheduler: id,
            desk: self.desk.clone(),
            ledger: ledger.clone(),
            queue: self.queue.clone(),
            plans: self.plans.clone(),
            clock: clock.clone(),
            timing: settings.timing,
            send_keys: Arc::new(master.send_keys()),
        };
        let tasks = self.tasks.get_mut();
        tasks.spawn(scheduler.run(self.stop.clone().cancelled_owned()));
        tasks.spawn(reconciler.run(self.stop.clone().cancelled_owned()));
        if ledger.is_shared() {
            tasks.spawn(look_after_uploads(ledger.clone(), self.stop.clone().cancelled_owned()));
        }
    }

    fn start_workers(&mut self, settings: &Settings) -> Result<(), StartError> {
        let Opened { ledger, master, clock, entropy, shared, .. } = &self.opened;
        let journal: Arc<dyn Journal> = match &settings.workers.journal_folder {
            // A ledger on this machine's own disk fails with it.
            Some(folder) if shared.is_some() => {
                let (journal, left) = OutcomeJournal::open(folder)
                    .map_err(|why| StartError::Folder { setting: "workers.journal_folder", why })?;
                let (plans, claims, replayed) = (self.plans.clone(), ledger.clone(), journal.clone());
                self.tasks.get_mut().spawn(async move { replayed.replay(left, plans.as_ref(), claims.as_ref()).await });
                journal
            }
            _ => Arc::new(NoJournal),
        };
        let plane = Arc::new(Plane {
            claims: ledger.clone(),
            limits: self.limits.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            send_keys: Arc::new(master.send_keys()),
            timing: settings.timing,
            journal,
            recording: Recording::default(),
        });
        let tasks = self.tasks.get_mut();
        for (channel, runs) in
            [(Channel::Email, settings.workers.email_runs), (Channel::Sms, settings.workers.sms_runs)]
        {
            let lanes = std::iter::repeat_n(Lane::Bulk, runs)
                .chain(std::iter::repeat_n(Lane::Transactional, TRANSACTIONAL_RUNS));
            for lane in lanes {
                // The queue is the workers' source of jobs, whichever it is.
                let jobs: Arc<dyn Jobs> = self.queue.clone();
                let plans: Arc<dyn Plans> = self.plans.clone();
                tasks.spawn(work(channel, lane, jobs, plans, plane.clone()));
            }
        }
        Ok(())
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
        self.queue.finish().await;
    }
}

/// The queue of the settings: RabbitMQ, or one inside this process.
fn queue(settings: &Settings, roles: &Roles, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Queue>, StartError> {
    let Some(url) = &settings.queue.url else {
        return Ok(Arc::new(InProcessQueue::new(settings.queue.capacity)));
    };
    let (password, authority) = (settings.queue.password()?, settings.queue.authority()?);
    Ok(Arc::new(RabbitQueue::start(rabbitmq::Options {
        link: Link::new(url, password.as_ref(), authority),
        side: if roles.has(Role::Scheduler) { Side::Scheduler } else { Side::Worker },
        capacity: settings.queue.capacity,
        runs: settings.workers.email_runs.max(settings.workers.sms_runs),
        clock: clock.clone(),
    })))
}

/// Where the key of each account comes from, for whoever has to mend one.
fn key_places(settings: &Settings) -> HashMap<String, String> {
    let places = settings.providers.iter().filter_map(|(name, account)| Some((name.clone(), account.key_place(name)?)));
    places.collect()
}

/// What a process that died left behind. The lock of a ledger that is not shared says that it is dead, so nobody else
/// will record.
async fn recover(ledger: &dyn Ledger, clock: &dyn Clock, settings: &Settings) -> Result<(), StartError> {
    if ledger.is_shared() {
        // What is open may be a living process's; what is not is reaped and looked after in its time.
        return Ok(());
    }
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
