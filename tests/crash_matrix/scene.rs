//! A campaign, the processes that send it, and looks at what they left.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt as _,
    time::Duration,
};

use dispatch_engine::{
    engine::{Opened, open_ledger},
    journal::OutcomeJournal,
    ledger::{Ledger, RecipientFilter},
    settings::Settings,
};
use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{CampaignState, DeliveryState, UnknownPolicy},
};
use dispatch_tests::support::{
    checker::Books,
    engine_process::EngineProcess,
    given_services::GivenServices,
    look,
    people::People,
    platform::Platform,
    sandbox::{Sandbox, accepted_in},
    stage::{Account, Stage, channel_of},
    wait,
};
use dispatch_workers::{abort::AbortPoint, sealing::AddressHash};

pub(crate) const TENANT: &str = "shop";
/// Recipients of a campaign.
pub(crate) const RECIPIENTS: usize = 24;
/// Recipients in a request, of providers that take several.
pub(crate) const BATCH: usize = 4;
/// Requests handed over at a time: a claim takes no more, so that a campaign is several claims.
const WINDOW_REQUESTS: usize = 2;
/// The protocol's timers beside those of the stage, shorter still because every play waits for them.
const TIMING: [(&str, &str); 3] = [
    ("DISPATCH_TIMING__REAPER_GRACE_MS", "300"),
    ("DISPATCH_TIMING__PROVIDER_LAG_MS", "200"),
    ("DISPATCH_TIMING__EVIDENCE_WINDOW_MS", "2800"),
];
/// How late a slow answer is: there is time to do something to who waits for it.
const SLOW_MS: u64 = 3_000;
/// How long anything may take.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);
/// The signal of `abort`.
pub(crate) const SIGABRT: i32 = 6;

/// How the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A scheduler and a worker as processes, with PostgreSQL and RabbitMQ between them.
    Production,
    /// One process and a file.
    Embedded,
}

/// One run of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Play {
    pub(crate) kind: &'static str,
    pub(crate) mode: Mode,
    pub(crate) policy: UnknownPolicy,
}

/// A process of the play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Finds recipients, fills the queue, settles what is unknown.
    Scheduler,
    /// Sends.
    Worker,
}

/// Everything a play needs.
pub(crate) struct Scene {
    pub(crate) play: Play,
    pub(crate) stage: Stage,
    pub(crate) services: Option<GivenServices>,
    pub(crate) variables: Vec<(String, String)>,
    /// A ledger of several processes is open here as well.
    pub(crate) opened: Option<Opened>,
    pub(crate) campaign: CampaignId,
}

impl Scene {
    /// A campaign that is launched, and no engine yet.
    pub(crate) async fn set(play: Play, faults: &str, change: &[(&str, &str)]) -> Self {
        Self::set_for(play, faults, change, RECIPIENTS, BATCH).await
    }

    /// The same for so many, so many in a request.
    pub(crate) async fn set_for(
        play: Play,
        faults: &str,
        change: &[(&str, &str)],
        recipients: usize,
        batch: usize,
    ) -> Self {
        let services = match play.mode {
            Mode::Production => Some(GivenServices::new().await),
            Mode::Embedded => None,
        };
        Self::set_on(services, play, (faults, change), (recipients, batch)).await
    }

    /// The same over services that are there.
    pub(crate) async fn set_on(
        services: Option<GivenServices>,
        play: Play,
        (faults, change): (&str, &[(&str, &str)]),
        (recipients, batch): (usize, usize),
    ) -> Self {
        let kind = play.kind;
        let batch = if kind == "smtp" { 1 } else { batch };
        // One request at a time, so that it is known what is open when a process dies.
        let account = Account { batch, requests_open: 1, ..Account::new(kind) };
        let stage = Stage::with(&[account], |folder| Sandbox::start_slow(folder, faults, 1, SLOW_MS));
        let window = (WINDOW_REQUESTS * batch.max(BATCH)).to_string();
        let runs = ["DISPATCH_WORKERS__EMAIL_RUNS", "DISPATCH_WORKERS__SMS_RUNS"].map(|name| (name, "1"));
        let mut variables = owned(&runs);
        variables.extend(owned(&[("DISPATCH_QUEUE__WINDOW_MAX", &window)]));
        let is_changed = |name: &str| change.iter().any(|(changed, _)| *changed == name);
        variables.extend(owned(&TIMING).into_iter().filter(|(name, _)| !is_changed(name)));
        if let Some(services) = &services {
            variables.push(("DISPATCH_LEDGER__URL".to_owned(), services.ledger_url(None)));
            variables.push(("DISPATCH_QUEUE__URL".to_owned(), services.queue_url()));
        }
        variables.extend(owned(change));
        let settings = settings(&stage, &variables);
        let opened = open_ledger(&settings).await.unwrap();
        let platform = Platform::new(&opened, TENANT).await;
        let people = match kind {
            "infobip" => People::by_sms("reader", recipients),
            _ => People::by_email("reader", recipients),
        };
        let campaign = platform.campaign_to(people, kind, |new| new.unknown_policy = Some(play.policy)).await;
        platform.launch(campaign).await;
        let opened = match play.mode {
            Mode::Production => Some(opened),
            Mode::Embedded => {
                opened.ledger.close().await;
                None
            }
        };
        Self { play, stage, services, variables, opened, campaign }
    }

    /// The channel of its account.
    pub(crate) fn channel(&self) -> &'static str {
        channel_of(self.play.kind)
    }

    /// The folder of a worker's journal.
    pub(crate) fn journal(&self) -> std::path::PathBuf {
        self.stage.folder().join("journal")
    }

    /// Starts the process of a part and waits until it works; in one process, all parts are one.
    pub(crate) async fn start(&self, part: Part, change: &[(&str, &str)]) -> EngineProcess {
        let process = self.spawn(part, change);
        process.ready().await;
        process
    }

    fn spawn(&self, part: Part, change: &[(&str, &str)]) -> EngineProcess {
        let roles = match (self.play.mode, part) {
            (Mode::Embedded, _) => "api,scheduler,worker",
            (Mode::Production, Part::Scheduler) => "api,scheduler",
            (Mode::Production, Part::Worker) => "worker",
        };
        let mut variables = self.variables.clone();
        variables.extend(owned(change));
        EngineProcess::start_with(&self.stage.settings_file, None, &["--roles", roles], &variables)
    }

    /// Starts what is needed beside a part.
    pub(crate) async fn start_other(&self, part: Part) -> Option<EngineProcess> {
        match (self.play.mode, part) {
            (Mode::Embedded, _) => None,
            (Mode::Production, Part::Worker) => Some(self.start(Part::Scheduler, &[]).await),
            (Mode::Production, Part::Scheduler) => Some(self.start(Part::Worker, &[]).await),
        }
    }

    /// Starts a part that dies when it comes to a place for the n-th time, and waits for that.
    pub(crate) async fn dies(&self, part: Part, point: AbortPoint, nth: u32, change: &[(&str, &str)]) {
        let place = format!("{}:{nth}", point.name());
        let mut change = change.to_vec();
        change.push(("DISPATCH_ABORT_AT", &place));
        let what = format!("{:?}: the process dies at {place}", self.play);
        let status = self.spawn(part, &change).ended(&what, WITHIN).await;
        assert_eq!(status.signal(), Some(SIGABRT), "{what}");
    }

    /// Waits for something the witness sees.
    pub(crate) async fn until_accepted(&self, messages: usize) {
        let what = format!("{:?}: {messages} messages are accepted", self.play);
        wait::until(&what, WITHIN, async || (self.stage.sandbox.accepted() >= messages).then_some(())).await;
    }

    /// How many deliveries are in a state, seen past the engines.
    pub(crate) async fn count(&self, state: DeliveryState) -> usize {
        let (rows, _) = self.look().await;
        rows.get(state.as_str()).copied().unwrap_or(0)
    }

    /// Waits until every recipient is final.
    pub(crate) async fn settled(&self) {
        let what = format!("{:?}: the campaign completes", self.play);
        wait::until(&what, WITHIN, async || self.look().await.1.then_some(())).await;
    }

    async fn look(&self) -> (BTreeMap<String, usize>, bool) {
        match &self.opened {
            Some(opened) => {
                let platform = Platform::new(opened, TENANT).await;
                let progress = platform.progress(self.campaign).await;
                let rows = progress.states.iter().map(|(state, count)| (state.clone(), *count as usize)).collect();
                (rows, progress.state == CampaignState::Completed)
            }
            None => {
                let looks = look::campaigns(&self.stage.ledger_file()).await;
                let look = looks.first().unwrap();
                look.check_sums();
                (look.rows.iter().map(|(state, count)| (state.clone(), *count as usize)).collect(), look.ended)
            }
        }
    }

    /// The tenant of the campaign in an open ledger: of its own where there is none.
    pub(crate) async fn with_ledger<T>(&self, act: impl AsyncFnOnce(&dyn Ledger, TenantId) -> T) -> T {
        match &self.opened {
            Some(opened) => act(opened.ledger.as_ref(), opened.ledger.tenant(TENANT).await.unwrap().id).await,
            None => {
                let opened = open_ledger(&settings(&self.stage, &self.variables)).await.unwrap();
                let done = act(opened.ledger.as_ref(), opened.ledger.tenant(TENANT).await.unwrap().id).await;
                opened.ledger.close().await;
                done
            }
        }
    }

    /// What the addresses of these recipients are looked up by, in their order.
    pub(crate) async fn address_hashes(&self, seqs: &[i64]) -> Vec<AddressHash> {
        self.with_ledger(async |ledger, tenant| {
            let mut hashes = Vec::new();
            for seq in seqs {
                let one = RecipientFilter { after: Some(seq - 1), limit: 1, state: None };
                let found = ledger.recipients(tenant, self.campaign, one).await.unwrap().remove(0);
                let hash = u128::from_str_radix(&found.address_hash.unwrap(), 16).unwrap();
                hashes.push(AddressHash(hash.to_be_bytes()));
            }
            hashes
        })
        .await
    }

    /// Copies the ledger; in one process, when no engine runs.
    pub(crate) async fn copy_ledger(&self) {
        match &self.services {
            Some(services) => services.copy_ledger().await,
            None => drop(std::fs::copy(self.stage.ledger_file(), self.copy_file()).unwrap()),
        }
    }

    /// Puts the copy in the ledger's place.
    pub(crate) async fn forget_since_copy(&self) {
        match &self.services {
            Some(services) => services.forget_since_copy().await,
            None => {
                let file = self.stage.ledger_file();
                std::fs::copy(self.copy_file(), &file).unwrap();
                // What its last process wrote and did not move into the file.
                for end in ["-wal", "-shm"] {
                    drop(std::fs::remove_file(format!("{}{end}", file.display())));
                }
            }
        }
    }

    fn copy_file(&self) -> std::path::PathBuf {
        self.stage.folder().join("copy.db")
    }

    /// The ledger's books; in one process, when no engine runs.
    pub(crate) async fn books(&self) -> Books {
        match (&self.opened, &self.services) {
            (Some(opened), Some(services)) => self.read(opened, &services.tokens().await).await,
            _ => {
                let tokens = look::tokens(&self.stage.ledger_file()).await;
                let opened = open_ledger(&settings(&self.stage, &self.variables)).await.unwrap();
                let books = self.read(&opened, &tokens).await;
                opened.ledger.close().await;
                books
            }
        }
    }

    async fn read(&self, opened: &Opened, tokens: &[[u8; 16]]) -> Books {
        let tenant = opened.ledger.tenant(TENANT).await.unwrap().id;
        Books::read_with(opened.ledger.as_ref(), tokens, tenant, &[self.campaign]).await
    }

    /// The deliveries whose outcomes are in the worker's journal. It is a copy that is read: the next worker wants the
    /// journal for itself.
    pub(crate) fn journalled(&self) -> BTreeSet<i64> {
        let copy = self.stage.folder().join("journal.copy");
        std::fs::create_dir(&copy).unwrap();
        for file in std::fs::read_dir(self.journal()).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
        let (_journal, left) = OutcomeJournal::open(&copy).unwrap();
        left.iter().flat_map(|entry| entry.outcomes().into_iter().map(|(seq, _)| seq).collect::<Vec<_>>()).collect()
    }

    /// Names of the recipients somebody was accepted for.
    pub(crate) fn taken(&self) -> BTreeSet<String> {
        let lines = self.stage.sandbox.lines();
        let took = lines.iter().filter(|line| accepted_in(line) > 0);
        took.flat_map(|line| line.recipients.iter().map(|recipient| recipient.to.clone())).collect()
    }

    /// Names of the recipients to whose request something happened, by the fault's name.
    pub(crate) fn hit_by(&self, mode: &str) -> BTreeSet<String> {
        let lines = self.stage.sandbox.lines();
        let hit = lines.iter().filter(|line| line.mode == mode);
        hit.flat_map(|line| line.recipients.iter().map(|recipient| recipient.to.clone())).collect()
    }
}

pub(crate) fn settings(stage: &Stage, variables: &[(String, String)]) -> Settings {
    Settings::load(Some(&stage.settings_file), variables.iter().cloned()).unwrap()
}

fn owned(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
