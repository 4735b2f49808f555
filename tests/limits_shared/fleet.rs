//! One process that answers and schedules, three that send, and a campaign that lasts.

use std::{fs::File, process::Stdio, time::Duration};

use dispatch_engine::{
    engine::{Opened, open_ledger},
    operator::{Answer, Order, keys::NewKey},
    settings::Settings,
};
use dispatch_schemas::{api::keys::Permission, ids::CampaignId};
use dispatch_tests::support::{
    engine_process::EngineProcess,
    given_services::GivenServices,
    people::People,
    platform::Platform,
    program,
    stage::{Account, Stage},
    wait,
};
use tokio::sync::{Mutex, MutexGuard};

use crate::machine::Machine;

/// The account all of it goes through.
pub(crate) const ACCOUNT: &str = "sendgrid";
/// How long anything may take.
pub(crate) const WITHIN: Duration = Duration::from_secs(120);
const TENANT: &str = "shop";
/// One fleet at a time: what is measured is the limit, not how many processes the machine can run.
static ALONE: Mutex<()> = Mutex::const_new(());
const WORKERS: usize = 3;

/// Everything that runs.
pub(crate) struct Fleet {
    pub(crate) stage: Stage,
    pub(crate) campaign: CampaignId,
    pub(crate) machine: Machine,
    key: String,
    desk: EngineProcess,
    workers: Vec<Option<EngineProcess>>,
    variables: Vec<(String, String)>,
    opened: Opened,
    // Gone last, in this order.
    _services: GivenServices,
    _alone: MutexGuard<'static, ()>,
}

impl Fleet {
    /// A campaign to so many people, at most so many a second, and all processes at work.
    pub(crate) async fn at_work(per_second: u32, people: usize, faults: &str) -> Self {
        let alone = ALONE.lock().await;
        let account = Account { batch: 50, per_second: Some(per_second), ..Account::new(ACCOUNT) };
        let stage = Stage::new(&[account], faults, 1);
        let services = GivenServices::new().await;
        let variables = vec![
            ("DISPATCH_LEDGER__URL".to_owned(), services.ledger_url(None)),
            ("DISPATCH_QUEUE__URL".to_owned(), services.queue_url()),
        ];
        let settings = Settings::load(Some(&stage.settings_file), variables.iter().cloned()).unwrap();
        let opened = open_ledger(&settings).await.unwrap();
        let platform = Platform::new(&opened, TENANT).await;
        let campaign = platform.campaign_to(People::by_email("reader", people), ACCOUNT, |_| {}).await;
        platform.launch(campaign).await;
        let new = NewKey {
            tenant: TENANT.to_owned(),
            label: "limits".to_owned(),
            permissions: Permission::ALL.to_vec(),
            days: 1,
        };
        let key = match Order::CreateKey(new).carry_out(&opened).await {
            Ok(Answer::Created(key)) => key.key,
            other => unreachable!("a key can be made: {other:?}"),
        };
        let desk = start(&stage, "api,scheduler", &variables, "desk");
        let mut fleet = Self {
            stage,
            campaign,
            machine: Machine::watch(),
            key,
            desk,
            workers: Vec::new(),
            variables,
            opened,
            _services: services,
            _alone: alone,
        };
        for nth in 0..WORKERS {
            fleet.workers.push(Some(fleet.worker(nth)));
        }
        for process in fleet.workers.iter().flatten().chain([&fleet.desk]) {
            process.ready().await;
        }
        wait::until("the first second has passed", WITHIN, async || {
            (fleet.stage.sandbox.accepted() >= per_second as usize).then_some(())
        })
        .await;
        fleet
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, nth: usize) {
        self.workers[nth].take().expect("it runs").kill();
    }

    /// Starts one that was killed.
    pub(crate) fn start_again(&mut self, nth: usize) {
        self.workers[nth] = Some(self.worker(nth));
    }

    /// What a worker has sent since it started, by its own count.
    pub(crate) async fn sent_by(&self, nth: usize) -> f64 {
        let url = self.workers[nth].as_ref().expect("it runs").url("/metrics");
        let page = reqwest::get(url).await.unwrap().text().await.unwrap();
        let sends = page.lines().filter(|line| line.starts_with("dispatch_sends_total"));
        sends.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until so many messages were accepted.
    pub(crate) async fn accepted(&self, messages: usize) {
        let what = format!("{messages} messages are accepted");
        wait::until(&what, WITHIN, async || (self.stage.sandbox.accepted() >= messages).then_some(())).await;
    }

    /// Waits until this moment, milliseconds since 1970, while everything goes on.
    pub(crate) async fn until(&self, moment_ms: i64) {
        wait::until("time passes", WITHIN, async || (wait::now_ms() >= moment_ms).then_some(())).await;
    }

    /// Changes a limit as operators do.
    pub(crate) async fn limits(&self, line: &[&str]) {
        let mut command = tokio::process::Command::new(program::dispatch());
        command.arg("limits").args(line).arg("--config").arg(&self.stage.settings_file);
        command.envs(self.variables.iter().cloned()).stdin(Stdio::null());
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Sets something by the API.
    pub(crate) async fn put(&self, path: &str, body: &'static str) {
        let request = reqwest::Client::new().put(self.desk.url(path)).bearer_auth(&self.key);
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{path}: {status} {}", answer.text().await.unwrap());
    }

    /// Ends all of it.
    pub(crate) async fn end(self) {
        drop((self.workers, self.desk));
        self.opened.ledger.close().await;
    }

    fn worker(&self, nth: usize) -> EngineProcess {
        let mut variables = self.variables.clone();
        let journal = self.stage.folder().join(format!("journal-{nth}")).display().to_string();
        variables.push(("DISPATCH_WORKERS__JOURNAL_FOLDER".to_owned(), journal));
        start(&self.stage, "worker", &variables, &format!("worker-{nth}"))
    }
}

fn start(stage: &Stage, roles: &str, variables: &[(String, String)], name: &str) -> EngineProcess {
    let log = File::options().create(true).append(true).open(stage.folder().join(format!("{name}.log"))).unwrap();
    EngineProcess::start_as(&stage.settings_file, roles, variables, log)
}
