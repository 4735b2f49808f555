//! `dispatch serve` as a process: what it says when it cannot start, what others may do while it runs, and what it
//! leaves when it stops.

use std::{
    fs::File,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use dispatch_engine::engine::open_ledger;
use dispatch_schemas::{
    api::keys::TenantStopped,
    states::{CampaignState, Channel, StopReason},
};
use dispatch_tests::support::{
    checker::{self, Books, Faults},
    engine_process::EngineProcess,
    people::People,
    platform::Platform,
    program,
    stage::{Account, Stage},
    wait,
};

use crate::rig::accepted_after;

/// How long something that takes milliseconds may take.
const WITHIN: Duration = Duration::from_secs(60);

fn stage() -> Stage {
    Stage::new(&[Account::new("sendgrid"), Account::new("infobip")], "", 1)
}

/// Runs a command line on the settings of the stage, in its folder.
fn dispatch(stage: &Stage, line: &[&str]) -> Output {
    let mut command = Command::new(program::dispatch());
    command.args(line).arg("--config").arg(&stage.settings_file).current_dir(stage.folder());
    command.stdin(Stdio::null()).output().expect("the program can be started")
}

/// What a command printed, that must have succeeded.
fn printed(stage: &Stage, line: &[&str]) -> String {
    let output = dispatch(stage, line);
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text").trim().to_owned()
}

/// Why a command failed.
fn told(stage: &Stage, line: &[&str]) -> String {
    let output = dispatch(stage, line);
    assert!(!output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("it prints text")
}

async fn status_with(engine: &EngineProcess, key: &str) -> u16 {
    let client = reqwest::Client::new();
    let answer = client.get(engine.url("/v1/lists")).bearer_auth(key).send().await.expect("the engine answers");
    answer.status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_made_listed_and_revoked_while_the_engine_runs() {
    let stage = stage();
    let engine = EngineProcess::start(&stage.settings_file, None);
    engine.ready().await;
    let key = printed(&stage, &["keys", "create", "--tenant", "shop", "--label", "crm"]);
    assert_eq!(status_with(&engine, &key).await, 200);
    let listed = printed(&stage, &["keys", "list"]);
    let line = listed.lines().find(|line| line.contains("crm")).expect("the key is listed");
    assert!(line.contains("shop") && line.contains("good"), "{listed}");
    let wrong = told(&stage, &["keys", "list", "--tenant", "nobody"]);
    assert!(wrong.contains("there is no tenant `nobody`"), "{wrong}");

    let id = line.split_whitespace().next().expect("its id");
    printed(&stage, &["keys", "revoke", id]);
    assert_eq!(status_with(&engine, &key).await, 401, "it is refused from the answer on");

    assert!(engine.terminate().success());
    assert!(!stage.folder().join("dispatch.db.sock").exists());
    let listed = printed(&stage, &["keys", "list"]);
    assert!(listed.lines().any(|line| line.contains(id) && line.contains("revoked")), "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_closed_and_opened_while_the_engine_sends_its_campaign() {
    const RECIPIENTS: usize = 1_000;
    let stage = Stage::new(&[Account { batch: 10, per_minute: Some(60 * 300), ..Account::new("sendgrid") }], "", 1);
    let opened = open_ledger(&stage.settings()).await.expect("the ledger opens");
    let platform = Platform::new(&opened, "shop").await;
    let campaign = platform.campaign_to(People::by_email("customer", RECIPIENTS), "sendgrid", |_| {}).await;
    platform.launch(campaign).await;
    opened.ledger.close().await;
    let engine = EngineProcess::start(&stage.settings_file, None);
    wait::until("the campaign is under way", WITHIN, async || {
        (stage.sandbox.accepted() >= RECIPIENTS / 4).then_some(())
    })
    .await;

    let closed = printed(&stage, &["tenants", "close", "shop", "--reason", "unpaid", "--json"]);
    let answered_ms = wait::now_ms();
    let closed: TenantStopped = serde_json::from_str(&closed).expect("it prints JSON");
    assert_eq!(closed.tenant.closed.map(|closure| closure.reason).as_deref(), Some("unpaid"));
    let listed = printed(&stage, &["tenants", "list"]);
    assert!(listed.lines().any(|line| line.contains("shop") && line.contains("closed")), "{listed}");
    wait::until("a while has passed", WITHIN, async || (wait::now_ms() > answered_ms + 1_500).then_some(())).await;
    let late = accepted_after(&stage.sandbox.lines(), answered_ms);
    assert!(late <= closed.in_flight, "{late} after the answer, which reported {}", closed.in_flight);
    assert_eq!(accepted_after(&stage.sandbox.lines(), answered_ms + 1_000), 0);
    assert!(stage.sandbox.accepted() < RECIPIENTS, "it was closed in the middle");

    assert_eq!(printed(&stage, &["tenants", "open", "shop"]), "shop is open.");
    wait::until("the rest is sent", WITHIN, async || (stage.sandbox.accepted() >= RECIPIENTS).then_some(())).await;
    assert!(engine.terminate().success());
    let opened = open_ledger(&stage.settings()).await.expect("the ledger is free again");
    let platform = Platform::new(&opened, "shop").await;
    let books = Books::read(platform.ledger(), &stage.ledger_file(), platform.tenant, &[campaign]).await;
    assert_eq!(checker::check(&books, &stage.sandbox.lines()).faults, Faults::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stop_the_ledgers_file_alone_is_whole() {
    let stage = stage();
    let engine = EngineProcess::start(&stage.settings_file, None);
    engine.ready().await;
    let key = printed(&stage, &["keys", "create", "--tenant", "shop"]);
    let client = reqwest::Client::new();
    let suppressed = client
        .post(engine.url("/v1/suppressions"))
        .bearer_auth(&key)
        .header("content-type", "application/json")
        .body(r#"{"channel": "email", "addresses": ["anna@shop.example"]}"#)
        .send()
        .await;
    assert!(suppressed.expect("the engine answers").status().is_success());
    assert!(engine.terminate().success());

    // Another place with the file and its key, and nothing else.
    let elsewhere = tempfile::tempdir().expect("a folder");
    for file in ["dispatch.db", "dispatch.key"] {
        std::fs::copy(stage.folder().join(file), elsewhere.path().join(file)).expect("a file is copied");
    }
    let mut settings = stage.settings();
    settings.ledger.url = format!("sqlite:{}", elsewhere.path().join("dispatch.db").display()).parse().expect("a file");
    settings.ledger.key_file = elsewhere.path().join("dispatch.key");
    let opened = open_ledger(&settings).await.expect("the copy opens");
    let platform = Platform::new(&opened, "shop").await;
    let hash = platform.address_hash(Channel::Email, "anna@shop.example").await;
    let closed = platform.ledger().close_gates(platform.tenant, Channel::Email, &[hash], StopReason::Suppressed).await;
    assert_eq!(closed.expect("the ledger works").already_closed, 1);
    assert_eq!(opened.ledger.keys(None).await.expect("the keys").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_engine_is_told_of_the_ledger_and_one_without_a_port_leaves_nothing() {
    let stage = stage();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("its address").to_string();
    let no_port = told(&stage, &["serve", "--listen", &taken]);
    assert!(no_port.contains("the port is in use") && no_port.contains("--listen"), "{no_port}");
    for file in ["dispatch.key", "dispatch.db"] {
        assert!(!stage.folder().join(file).exists(), "{file} is left behind");
    }

    let engine = EngineProcess::start(&stage.settings_file, None);
    engine.ready().await;
    let second = told(&stage, &["serve", "--listen", &taken]);
    assert!(second.contains("is open in another process") && !second.contains("the port"), "{second}");
    let checked = printed(&stage, &["config", "check"]);
    assert!(checked.contains("All is well: 2 provider accounts."), "{checked}");
    assert!(engine.terminate().success());
    let name = told(&stage, &["serve", "--listen", "localhost:8025"]);
    assert!(name.contains("an IP address and a port") && name.contains("localhost is 127.0.0.1"), "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_account_is_logged_once_and_leaves_the_engine_ready() {
    let stage = stage();
    let opened = open_ledger(&stage.settings()).await.expect("the ledger opens");
    let platform = Platform::new(&opened, "shop").await;
    let people = [People::by_email("first", 300), People::by_email("second", 300)];
    let mut campaigns = Vec::new();
    for people in people {
        let campaign = platform.campaign_to(people, "sendgrid", |_| {}).await;
        platform.launch(campaign).await;
        campaigns.push(campaign);
    }
    opened.ledger.close().await;
    stage.sandbox.refuse_key("sendgrid").await;

    let log = stage.folder().join("engine.log");
    let engine = EngineProcess::start(&stage.settings_file, Some(File::create(&log).expect("a log")));
    let body = wait::until("the account is refused", WITHIN, async || {
        let answer = reqwest::get(engine.url("/readyz")).await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.text().await.ok()?;
        body.contains("worker: degraded").then_some((status, body))
    })
    .await;
    assert_eq!(body.0, 200, "{}", body.1);
    assert!(
        body.1.contains("worker: degraded: 1 of 2 accounts are refused by their providers: `sendgrid`"),
        "{body:?}"
    );
    wait::until("its requests have ended", WITHIN, async || {
        logged(&log, "the provider refuses this account").first().map(|_| ())
    })
    .await;
    assert!(engine.terminate().success());

    let lines = logged(&log, "refuse");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("mend the key in the file of `providers.sendgrid.key_file` and restart"), "{lines:?}");
    let opened = open_ledger(&stage.settings()).await.expect("the ledger opens");
    let platform = Platform::new(&opened, "shop").await;
    for campaign in campaigns {
        assert_eq!(platform.progress(campaign).await.state, CampaignState::Paused);
    }
}

/// Lines of the program's own in a log, at `info` or worse, with this in them.
fn logged(log: &Path, text: &str) -> Vec<String> {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let loud = |line: &&str| ["INFO", "WARN", "ERROR"].iter().any(|level| line.contains(level));
    log.lines().filter(loud).filter(|line| line.contains(text)).map(str::to_owned).collect()
}
