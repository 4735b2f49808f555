//! A run: everything is made, the plan is carried out, all is healed, and the end is compared.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dispatch_engine::{
    engine::open_ledger,
    ledger::postgres::{PostgresLedger, connect_options},
    settings::Settings,
};
use dispatch_schemas::{ids::CampaignId, states::DeliveryState};
use dispatch_tests::support::{
    checker::{self, Books, Claims, Closing, Entry},
    engine_process::free_address,
    fault_proxy::Network,
    platform::{Platform, api_key},
    sandbox::name_of,
    server_look::{Look, Window},
    services::{Service, Services},
    stage::{Account, Stage},
    wait,
};
use dispatch_workers::clock::{Clock as _, SystemClock};
use tokio::task::JoinSet;

use crate::{
    audience::{Audience, accounts, audiences},
    fleet::{CALLBACKS, Fleet, Member, ROLES},
    plan::{Outage, Plan, What},
    platform_calls::Caller,
    report::{Heard, Pace, Report, Watched},
};

/// What the providers do wrong: about one request in ten. A request to wait, and a web page in place of an answer,
/// silence an account for a while, so they are rare where requests are many.
const FAULTS: &str = "accept_then_drop=0.02, accept_slow=0.01, throttle=0.002, unavailable=0.002, fail_before=0.02, \
    fail_after_accept=0.02, garbage=0.0005, drop_before=0.015, half_answer=0.015";
/// What they do wrong afterwards: all the same, but for the page.
const FAULTS_AFTERWARDS: &str = "accept_then_drop=0.02, accept_slow=0.01, throttle=0.001, unavailable=0.001, \
    fail_before=0.02, fail_after_accept=0.02, drop_before=0.015, half_answer=0.015";
/// What becomes of messages, and how it is told: much of it twice, late and in any order.
const CALLBACKS_TELL: &str = "doubled=0.2, reordered=0.3, late=0.1, forged=0.01";
/// How long an unknown outcome may be asked about: longer than anything that is away.
const EVIDENCE_WINDOW_MS: u64 = 20_000;
const TENANT: &str = "shop";
/// The share of its length after which a run's campaigns would be over if nothing failed, in hundredths.
const BUSY: u64 = 80;
/// How long all processes may take until they have begun to send.
const BEGUN_WITHIN: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(50);
/// How often the states of the deliveries are added up.
const LOOK_EVERY: Duration = Duration::from_millis(700);
/// How long it may take until everything is final after everything works again.
const DRAINED_WITHIN: Duration = Duration::from_secs(300);
/// A second's messages may arrive within this time, milliseconds: the way from a process to the provider takes one
/// request longer than another, on a machine that does much else. Two that each used the whole limit would bring more.
/// That no second is passed at all is shown by `tests/limits_shared`, where nothing else runs.
const SECOND_OF_TRAVEL_MS: i64 = 600;
/// Keeps the folder of a run: the processes' logs and the witness's.
const KEEP: &str = "DISPATCH_CHAOS_KEEP";

/// Everything there is in a run.
pub(crate) struct Run {
    seed: u64,
    length: Duration,
    services: Arc<Services>,
    stage: Stage,
    accounts: [Account; 3],
    audiences: Arc<[Audience]>,
    campaigns: Arc<[CampaignId]>,
    window: Arc<Window>,
    fleet: Fleet,
    caller: Caller,
}

impl Run {
    /// Starts the services and the providers, and launches the campaigns before any process runs.
    pub(crate) async fn new(seed: u64, length: Duration, people: u64) -> Self {
        let services = tokio::task::spawn_blocking(Services::start).await.expect("the services start");
        let seconds = length.as_secs();
        let audiences = audiences(usize::try_from(people).unwrap_or(usize::MAX));
        let accounts = accounts(&audiences, seconds * BUSY / 100);
        let stage = Stage::new(&accounts, FAULTS, seed);
        let url = services.url(Service::Postgres).to_string();
        let options = connect_options(&url).expect("the script's URL is right");
        PostgresLedger::migrate(&options, wait::now_ms()).await.expect("the tables can be made");

        let opened = open_ledger(&settings(&stage, &url)).await.expect("the ledger opens");
        let platform = Platform::new(&opened, TENANT).await;
        let mut campaigns = Vec::new();
        for audience in &audiences {
            let (list, import) = platform.import(audience.word, audience.csv()).await;
            assert_eq!(import.totals.added, audience.people as u64);
            let campaign = platform
                .campaign(list, audience.channel, audience.account, |new| new.unknown_policy = Some(audience.policy))
                .await;
            platform.launch(campaign).await;
            campaigns.push(campaign);
        }
        let key = api_key(&opened, TENANT).await;
        opened.ledger.close().await;

        let callbacks_address = free_address();
        stage.sandbox.call_back(&format!("http://{callbacks_address}/callbacks"), CALLBACKS_TELL).await;
        let mut members = Vec::new();
        for (nth, roles) in ROLES.into_iter().enumerate() {
            let folder = stage.folder().join(format!("process-{nth}"));
            std::fs::create_dir(&folder).expect("a folder can be made");
            let mut variables = shared_variables();
            let journal = folder.join("journal").display().to_string();
            variables.push(("DISPATCH_WORKERS__JOURNAL_FOLDER".to_owned(), journal));
            if roles == CALLBACKS {
                let kinds = accounts.map(|account| account.kind);
                variables.extend(stage.callback_variables(&kinds, callbacks_address));
            }
            let log = folder.join("log");
            members.push(Member::new(roles, stage.settings_file.clone(), variables, log, &services).await);
        }
        let fleet = Fleet::new(members);
        let caller = Caller::new(key, fleet.addresses.clone(), audiences.len());
        Self {
            seed,
            length,
            services: Arc::new(services),
            stage,
            accounts,
            audiences: audiences.into(),
            campaigns: campaigns.into(),
            window: Arc::new(Window::new(url)),
            fleet,
            caller,
        }
    }

    /// Plays it to its end.
    pub(crate) async fn play(mut self) -> Report {
        let plan = Plan::draw(self.seed, self.length, ROLES.len(), &self.audiences);
        self.begin().await;
        let clock = SystemClock::new();
        let stop = Arc::new(AtomicBool::new(false));
        let watching = tokio::spawn(watch(self.window.clone(), stop.clone()));
        let (closings, wished) = self.carry_out(&plan, &clock).await;
        let chaos_over = clock.monotonic();
        self.drain(&clock).await;
        let drained_in = clock.monotonic() - chaos_over;
        stop.store(true, Ordering::Relaxed);
        let watched = watching.await.expect("the watcher ends");
        let badly = tokio::task::block_in_place(|| self.fleet.end());
        let report = self.compare(&closings, &wished, watched).await;
        if std::env::var_os(KEEP).is_some() {
            let kept = PathBuf::from(format!("{}-kept", self.stage.folder().display()));
            std::fs::rename(self.stage.folder(), &kept).expect("the folder can be kept");
            eprintln!("kept in {}", kept.display());
        }
        Report { drained_in, badly, ..report }
    }

    /// Starts all processes and waits until they send.
    async fn begin(&mut self) {
        let clock = SystemClock::new();
        self.fleet.go_on(Duration::ZERO);
        let wanted = self.audiences.iter().map(|audience| audience.people).sum::<usize>() / 50;
        wait::until("the campaigns have begun", BEGUN_WITHIN, async || {
            self.fleet.go_on(clock.monotonic());
            (self.stage.sandbox.accepted() > wanted).then_some(())
        })
        .await;
    }

    /// Does what the plan says when its time has come, and heals everything in the end.
    async fn carry_out(&mut self, plan: &Plan, clock: &SystemClock) -> (Vec<Closing>, Vec<What>) {
        let mut wishes = JoinSet::new();
        let mut wished = Vec::new();
        let mut outages = JoinSet::new();
        let (mut strikes, mut weather) = (plan.strikes.iter().peekable(), plan.weather.iter().peekable());
        let (mut breaks, mut orders) = (plan.outages.iter().peekable(), plan.wishes.iter().peekable());
        let mut clearings: Vec<(Duration, usize, Service)> = Vec::new();
        loop {
            let now = clock.monotonic();
            self.fleet.go_on(now);
            if now >= self.length {
                break;
            }
            while let Some(strike) = strikes.next_if(|strike| strike.at <= now) {
                self.fleet.strike(strike, now);
            }
            while let Some(change) = weather.next_if(|change| change.at <= now) {
                self.fleet.member(change.member).weather(change.service, change.network);
                clearings.push((now + change.lasts, change.member, change.service));
            }
            clearings.retain(|(at, member, service)| {
                if *at <= now {
                    self.fleet.member(*member).weather(*service, Some(Network::Works));
                }
                *at > now
            });
            while let Some(outage) = breaks.next_if(|outage| outage.at <= now) {
                outages.spawn(away(self.services.clone(), *outage));
            }
            while let Some(wish) = orders.next_if(|wish| wish.at <= now) {
                let (caller, what) = (self.caller.clone(), wish.what);
                let (audiences, campaigns) = (self.audiences.clone(), self.campaigns.clone());
                wishes.spawn(async move { caller.wish(what, &audiences, &campaigns).await });
                wished.push(what);
            }
            tokio::time::sleep(TICK).await;
        }
        while let Some(back) = outages.join_next().await {
            back.expect("a service comes back");
        }
        self.stage.sandbox.set_faults(FAULTS_AFTERWARDS).await;
        self.fleet.heal(clock.monotonic());
        let mut closings = Vec::new();
        while !wishes.is_empty() {
            self.fleet.go_on(clock.monotonic());
            match tokio::time::timeout(TICK, wishes.join_next()).await {
                Ok(Some(done)) => closings.extend(done.expect("the API carries it out")),
                Ok(None) => break,
                Err(_) => {}
            }
        }
        (closings, wished)
    }

    /// Waits until everything is final, and all that providers tell is applied.
    async fn drain(&mut self, clock: &SystemClock) {
        let deadline = clock.monotonic() + DRAINED_WITHIN;
        loop {
            self.fleet.go_on(clock.monotonic());
            let looks = self.window.campaigns().await;
            let told = self.stage.sandbox.told().await;
            let is_heard = told.pending == 0 && self.stage.spool_is_empty();
            if is_heard && looks.as_ref().is_ok_and(|looks| looks.iter().all(|look| look.ended)) {
                return;
            }
            for look in looks.iter().flatten().filter(|look| look.paused) {
                // Later, if nobody answers now.
                let _ = tokio::time::timeout(TICK * 40, self.caller.go_on(CampaignId(look.id))).await;
            }
            if clock.monotonic() > deadline {
                // The comparison says who is lost.
                eprintln!("not drained: {looks:#?}, {told:?}");
                return;
            }
            tokio::time::sleep(TICK * 10).await;
        }
    }

    async fn compare(&self, closings: &[Closing], wished: &[What], watched: Watched) -> Report {
        let url = self.services.url(Service::Postgres).to_string();
        let opened = open_ledger(&settings(&self.stage, &url)).await.expect("the ledger opens");
        let tenant = opened.ledger.tenant(TENANT).await.expect("the tenant is there").id;
        let attempts = self.window.attempts().await;
        let tokens: Vec<_> = attempts.iter().map(|attempt| attempt.token).collect();
        let books = Books::read_with(opened.ledger.as_ref(), &tokens, tenant, &self.campaigns).await;
        let platform = Platform::new(&opened, TENANT).await;
        let mut heard = Heard { told: self.stage.sandbox.told().await, ..Heard::default() };
        for campaign in self.campaigns.iter() {
            for (kind, count) in platform.progress(*campaign).await.reported {
                *heard.applied.entry(kind).or_default() += count;
            }
        }
        opened.ledger.close().await;
        let witness = self.stage.sandbox.lines();
        let claims = Claims::new(attempts.iter().map(|attempt| (attempt.token, attempt.claimed_at_ms)));
        let erased = wished.iter().filter_map(|what| match what {
            What::Erase { audience, number } => Some(name_of(&self.audiences[*audience].address(*number))),
            _ => None,
        });
        let paces = self.accounts.iter().filter_map(|account| {
            let limit = account.per_second? as usize;
            let of_account = witness.iter().filter(|line| line.provider == account.kind);
            let of_account: Vec<_> = of_account.collect();
            let busiest = |within_ms| checker::busiest(of_account.iter().copied(), within_ms);
            Some(Pace {
                account: account.kind,
                limit,
                in_a_second: busiest(1_000),
                in_less: busiest(SECOND_OF_TRAVEL_MS),
            })
        });
        Report {
            seed: self.seed,
            length: self.length,
            people: self.audiences.iter().map(|audience| audience.people).sum(),
            compared: checker::check(&books, &witness),
            requests: witness.len(),
            faulty: witness.iter().filter(|line| line.mode != "ok").count(),
            early: claims.early(&witness),
            behind: checker::behind(closings, &witness, &claims),
            undecided: undecided(&books, closings),
            closings: closings.to_vec(),
            heard,
            erased: crate::report::Erased::of(&books, &witness, &erased.collect::<HashSet<_>>()),
            paces: paces.collect(),
            recovered: self.window.recovered().await.into_iter().collect(),
            blows: self.fleet.blows,
            watched,
            drained_in: Duration::ZERO,
            badly: 0,
        }
    }
}

/// The settings of the run, for this process.
fn settings(stage: &Stage, ledger: &str) -> Settings {
    let variables = [("DISPATCH_LEDGER__URL".to_owned(), ledger.to_owned())].into_iter().chain(shared_variables());
    Settings::load(Some(&stage.settings_file), variables).expect("the settings of the run are right")
}

/// What all processes have beside the settings file.
fn shared_variables() -> Vec<(String, String)> {
    vec![("DISPATCH_TIMING__EVIDENCE_WINDOW_MS".to_owned(), EVIDENCE_WINDOW_MS.to_string())]
}

/// Recipients without an outcome whose provider could have been asked. Brevo is asked by sending again, which nobody
/// may after a gate has closed.
fn undecided(books: &Books, closings: &[Closing]) -> Vec<String> {
    let is_closed = |to: &Option<String>| {
        let Some(to) = to else { return true };
        closings.iter().any(|closing| closing.until_ms.is_none() && closing.people.contains(to))
    };
    let wrong = |entry: &&Entry| match entry.provider.as_str() {
        _ if entry.state != DeliveryState::UnknownFinal => false,
        "infobip" => true,
        "brevo" => !is_closed(&entry.to),
        _ => false,
    };
    books.entries.iter().filter(wrong).map(|entry| format!("{} {}", entry.provider, entry.seq)).collect()
}

/// A service is away for a while.
async fn away(services: Arc<Services>, outage: Outage) {
    if outage.crash {
        services.kill(outage.service).await;
    } else {
        services.stop(outage.service).await;
    }
    tokio::time::sleep(outage.lasts).await;
    services.start_again(outage.service).await;
}

/// Adds up the states of the deliveries, as long as the run lasts.
async fn watch(window: Arc<Window>, stop: Arc<AtomicBool>) -> Watched {
    let mut watched = Watched::default();
    while !stop.load(Ordering::Relaxed) {
        // Without the server there is nothing to see.
        if let Ok(looks) = window.campaigns().await {
            watched.looks += 1;
            watched.wrong.extend(looks.iter().filter_map(Look::wrong));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    watched
}
