//! Processes of the engine over one ledger and one queue, and the providers they send through.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use dispatch_engine::{
    engine::{Opened, open_ledger},
    settings::Settings,
};
use dispatch_schemas::{ids::CampaignId, states::DeliveryState};
use dispatch_tests::support::{
    checker::{self, Books, Claims, Faults},
    engine_process::EngineProcess,
    people::People,
    platform::{Platform, api_key},
    sandbox::Sandbox,
    server_look::{Look, Window},
    stage::{Account, Stage},
    wait,
};
use serde_json::Value;

/// Two processes that answer the API and schedule, three that send.
pub(crate) const ROLES: [&str; 5] = ["api,scheduler", "api,scheduler", "worker", "worker", "worker"];
/// How long anything may take on a machine that does much else.
pub(crate) const WITHIN: Duration = Duration::from_secs(180);
/// The tenant whose key the calls are made with.
pub(crate) const TENANT: &str = "shop";

/// The services and providers of some processes, and the settings they start with.
pub(crate) struct Ground {
    pub(crate) stage: Stage,
    variables: Vec<(String, String)>,
    ledger_url: String,
}

/// One process, running or not.
struct Process {
    roles: &'static str,
    log: PathBuf,
    variables: Vec<(String, String)>,
    engine: Option<EngineProcess>,
}

/// All of them, and this test's own look into their ledger.
pub(crate) struct Fleet {
    pub(crate) ground: Ground,
    pub(crate) window: Window,
    pub(crate) platform: Platform,
    pub(crate) opened: Opened,
    key: String,
    processes: Vec<Process>,
}

impl Ground {
    pub(crate) fn new(accounts: &[Account], ledger_url: &str, queue_url: &str) -> Self {
        Self::on(Stage::new(accounts, "", 1), ledger_url, queue_url)
    }

    /// The same with providers that take so long for each answer, milliseconds: they set the pace, and not the machine.
    pub(crate) fn slow(accounts: &[Account], ledger_url: &str, queue_url: &str, answers_ms: u64) -> Self {
        let start = |folder: &Path| Sandbox::start_slow(folder, "accept_slow=1", 1, answers_ms);
        Self::on(Stage::with(accounts, start), ledger_url, queue_url)
    }

    fn on(stage: Stage, ledger_url: &str, queue_url: &str) -> Self {
        let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let variables = vec![
            of("DISPATCH_LEDGER__URL", ledger_url),
            of("DISPATCH_QUEUE__URL", queue_url),
            // Longer than anything is away.
            of("DISPATCH_TIMING__EVIDENCE_WINDOW_MS", "60000"),
        ];
        Self { stage, variables, ledger_url: ledger_url.to_owned() }
    }

    /// The settings as this process has them.
    pub(crate) fn settings(&self) -> Settings {
        Settings::load(Some(&self.stage.settings_file), self.variables.iter().cloned()).unwrap()
    }

    /// Starts the nth process.
    pub(crate) fn start(&self, nth: usize, roles: &str) -> EngineProcess {
        self.start_with(&self.variables_of(nth), &self.log(nth), roles)
    }

    fn start_with(&self, variables: &[(String, String)], log: &PathBuf, roles: &str) -> EngineProcess {
        let log = File::options().create(true).append(true).open(log).unwrap();
        EngineProcess::start_as(&self.stage.settings_file, roles, variables, log)
    }

    fn variables_of(&self, nth: usize) -> Vec<(String, String)> {
        let journal = self.stage.folder().join(format!("journal-{nth}")).display().to_string();
        let own = ("DISPATCH_WORKERS__JOURNAL_FOLDER".to_owned(), journal);
        self.variables.iter().cloned().chain([own]).collect()
    }

    fn log(&self, nth: usize) -> PathBuf {
        self.stage.folder().join(format!("process-{nth}.log"))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // The folder goes, and with it what they had to say.
        for nth in 0..ROLES.len() {
            let log = std::fs::read_to_string(self.log(nth)).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(25).collect();
            eprintln!("--- process {nth}:");
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Fleet {
    /// These processes, started and ready.
    pub(crate) async fn at_work(ground: Ground, roles: &[&'static str]) -> Self {
        let opened = open_ledger(&ground.settings()).await.unwrap();
        let platform = Platform::new(&opened, TENANT).await;
        let key = api_key(&opened, TENANT).await;
        let window = Window::new(ground.ledger_url.clone());
        let mut fleet = Self { window, platform, opened, key, processes: Vec::new(), ground };
        for (nth, roles) in roles.iter().enumerate() {
            let (log, variables) = (fleet.ground.log(nth), fleet.ground.variables_of(nth));
            let engine = Some(fleet.ground.start_with(&variables, &log, roles));
            fleet.processes.push(Process { roles, log, variables, engine });
        }
        for process in &fleet.processes {
            process.running().ready().await;
        }
        fleet
    }

    /// One of the processes.
    pub(crate) fn process(&self, nth: usize) -> &EngineProcess {
        self.processes[nth].running()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, nth: usize) {
        self.processes[nth].engine.take().expect("it runs").kill();
    }

    /// Ends a process in order and starts it again.
    pub(crate) async fn restart(&mut self, nth: usize) {
        let engine = self.processes[nth].engine.take().expect("it runs");
        let status = tokio::task::block_in_place(|| engine.terminate());
        assert!(status.success(), "process {nth} ended with {status}");
        self.start(nth).await;
    }

    /// Starts a process that does not run.
    pub(crate) async fn start(&mut self, nth: usize) {
        let process = &self.processes[nth];
        let engine = self.ground.start_with(&process.variables, &process.log, process.roles);
        engine.ready().await;
        self.processes[nth].engine = Some(engine);
    }

    /// A campaign to new people, launched by the API.
    pub(crate) async fn launch(&self, people: People, account: &str) -> CampaignId {
        let campaign = self.platform.campaign_to(people, account, |_| {}).await;
        self.post(0, &format!("/v1/campaigns/{campaign}/launch"), "{}").await;
        campaign
    }

    /// A call to the nth process.
    pub(crate) async fn post(&self, nth: usize, path: &str, body: &str) -> Value {
        let request = reqwest::Client::new().post(self.process(nth).url(path)).bearer_auth(&self.key);
        let request = request.header("content-type", "application/json");
        // A launch wants one.
        let request = request.header("idempotency-key", format!("{path}-{}", wait::now_ms()));
        answered(path, request.body(body.to_owned())).await
    }

    /// What the nth process answers.
    pub(crate) async fn get(&self, nth: usize, path: &str) -> Value {
        answered(path, reqwest::Client::new().get(self.process(nth).url(path)).bearer_auth(&self.key)).await
    }

    /// The key the calls are made with.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Waits until so many messages were accepted.
    pub(crate) async fn accepted(&self, messages: usize) {
        let what = format!("{messages} messages are accepted");
        wait::until(&what, WITHIN, async || (self.ground.stage.sandbox.accepted() >= messages).then_some(())).await;
    }

    /// Waits until so much time of the wall clock has passed, while everything goes on.
    pub(crate) async fn until(&self, moment_ms: i64) {
        wait::until("time passes", WITHIN, async || (wait::now_ms() >= moment_ms).then_some(())).await;
    }

    /// How many messages a process has sent since it started, by its own count.
    pub(crate) async fn sent_by(&self, nth: usize) -> f64 {
        let page = reqwest::get(self.process(nth).url("/metrics")).await.unwrap().text().await.unwrap();
        let sends = page.lines().filter(|line| line.starts_with("dispatch_sends_total"));
        sends.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// A campaign as it stands.
    pub(crate) async fn look(&self, campaign: CampaignId) -> Look {
        let looks = self.window.campaigns().await.unwrap();
        let look = looks.into_iter().find(|look| look.id == campaign.0).expect("the campaign is there");
        assert_eq!(look.wrong(), None, "the states add up");
        look
    }

    /// Waits until every recipient of a campaign is final.
    pub(crate) async fn ended(&self, campaign: CampaignId) -> Look {
        wait::until("the campaign ends", WITHIN, async || {
            let look = self.look(campaign).await;
            look.ended.then_some(look)
        })
        .await
    }

    /// The attempts of all campaigns.
    pub(crate) async fn claims(&self) -> Claims {
        let attempts = self.window.attempts().await;
        Claims::new(attempts.iter().map(|attempt| (attempt.token, attempt.claimed_at_ms)))
    }

    /// Compares a tenant's campaigns with what the providers saw.
    pub(crate) async fn faults(&self, campaigns: &[CampaignId]) -> Faults {
        let tokens: Vec<_> = self.window.attempts().await.iter().map(|attempt| attempt.token).collect();
        let ledger = self.opened.ledger.as_ref();
        let books = Books::read_with(ledger, &tokens, self.platform.tenant, campaigns).await;
        checker::check(&books, &self.ground.stage.sandbox.lines()).faults
    }

    /// Of each of the campaigns there are, so many recipients were accepted, each once, and the providers agree.
    pub(crate) async fn assert_everyone_once(&self, campaigns: &[CampaignId], recipients: usize) {
        for campaign in campaigns {
            let look = self.look(*campaign).await;
            assert_eq!(look.count(DeliveryState::Accepted), i64::try_from(recipients).unwrap(), "{look:?}");
        }
        assert_eq!(self.faults(campaigns).await, Faults::default());
    }

    /// Ends all of it, in order.
    pub(crate) async fn end(mut self) {
        for (nth, process) in self.processes.iter_mut().enumerate() {
            let Some(engine) = process.engine.take() else { continue };
            let status = tokio::task::block_in_place(|| engine.terminate());
            assert!(status.success(), "process {nth} ended with {status}");
        }
        self.opened.ledger.close().await;
    }
}

impl Process {
    fn running(&self) -> &EngineProcess {
        self.engine.as_ref().expect("it runs")
    }
}

async fn answered(path: &str, request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).unwrap()
}
