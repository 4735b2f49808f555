//! `dispatch limits`, while engines run.

use std::{path::Path, process::Output, time::Duration};

use dispatch_engine::{
    engine::{Engine, Roles, open_ledger},
    ledger::postgres::PostgresLedger,
    settings::Settings,
};
use dispatch_tests::support::{
    engine_process::EngineProcess,
    people::People,
    platform::Platform,
    stage::{Account, Stage},
    wait,
};
use dispatch_workers::limits::{LimitStore, Scope};
use serde_json::Value;

use crate::{database::Database, dispatch_in, said};

/// How long something that takes milliseconds may take.
const WITHIN: Duration = Duration::from_secs(60);

async fn printed(folder: &Path, line: &[&str], variables: &[(&str, &str)]) -> String {
    let output: Output = dispatch_in(folder, line, variables).await;
    assert!(output.status.success(), "{line:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What has a limit that processes share.
async fn limited(store: &dyn LimitStore) -> Vec<Scope> {
    store.versions().await.unwrap().into_iter().map(|(scope, _)| scope).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_wins_over_the_settings_outlives_a_restart_and_is_cleared_in_the_middle_of_a_campaign() {
    let stage = Stage::new(&[Account::new("smtp")], "", 1);
    let opened = open_ledger(&stage.settings()).await.unwrap();
    let platform = Platform::new(&opened, "shop").await;
    let campaign = platform.campaign_to(People::by_email("customer", 200), "smtp", |_| {}).await;
    platform.launch(campaign).await;
    opened.ledger.close().await;
    let settings = stage.settings_file.display().to_string();
    let limits =
        async |line: &[&str]| printed(stage.folder(), &[&["limits", "--config", &settings], line].concat(), &[]).await;
    // Nobody runs yet: the ledger itself is changed.
    assert_eq!(
        limits(&["set", "account", "smtp", "--per-minute", "0"]).await,
        "account smtp: 0 a minute, whatever the settings say."
    );
    let engine = EngineProcess::start(&stage.settings_file, None);
    engine.ready().await;
    let key = printed(stage.folder(), &["keys", "create", "--tenant", "shop", "--config", &settings], &[]).await;
    let progress = async || {
        let path = engine.url(&format!("/v1/campaigns/{campaign}/progress"));
        let answer = reqwest::Client::new().get(path).bearer_auth(&key).send().await.unwrap();
        serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap()
    };
    wait::until("it waits for the limit", WITHIN, async || (progress().await["stall"] == "limit").then_some(())).await;
    assert_eq!(progress().await["states"]["accepted"], 0);
    let listed = limits(&["list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        listed,
        serde_json::json!({"kind": "account", "name": "smtp", "limits": {"per_minute": 0}, "from": "operator"})
    );

    // The running engine does it, and goes on with the campaign.
    assert_eq!(limits(&["clear", "account", "smtp"]).await, "account smtp: no limit, as in the settings.");
    wait::until("the campaign completes", WITHIN, async || (progress().await["state"] == "completed").then_some(()))
        .await;
    assert_eq!(progress().await["states"]["accepted"], 200);
    assert!(engine.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_on_a_shared_ledger_takes_a_limit_over() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.ledger.url = database.url().parse().unwrap();
    settings.ledger.key_file = folder.path().join("dispatch.key");
    let few = dispatch_schemas::api::limits::Windows { per_second: Some(3), ..Default::default() };
    settings.limits.domains.insert("people.example".to_owned(), few);
    let now_ms = wait::now_ms();
    PostgresLedger::migrate(&settings.ledger.url.server().unwrap().unwrap(), now_ms).await.unwrap();
    let mut engines = Vec::new();
    for _ in 0..2 {
        let opened = open_ledger(&settings).await.unwrap();
        engines.push(Engine::start(&settings, opened, Roles::all()).await.unwrap());
    }
    let scope = [Scope::Destination(engines[0].opened.master.domain_hashes().hash("people.example"))];
    let all_have = async |wanted: Option<f64>| {
        wait::until("every process has the limit", WITHIN, async || {
            engines.iter().all(|engine| engine.limits.per_second(&scope) == wanted).then_some(())
        })
        .await;
    };
    all_have(Some(3.0)).await;
    let (url, key_file) = (database.url(), settings.ledger.key_file.display().to_string());
    let with = [("DISPATCH_LEDGER__URL", url.as_str()), ("DISPATCH_LEDGER__KEY_FILE", &key_file)];
    let limits = async |line: &[&str]| printed(folder.path(), &[&["limits"], line].concat(), &with).await;
    limits(&["set", "domain", "people.example", "--per-second", "50", "--per-hour", "90000"]).await;
    all_have(Some(25.0)).await;
    limits(&["set", "domain", "people.example", "--unlimited"]).await;
    all_have(None).await;
    limits(&["clear", "domain", "people.example"]).await;
    all_have(Some(3.0)).await;
    limits(&["set", "domain", "others.example", "--per-second", "9"]).await;
    let other = [Scope::Destination(engines[0].opened.master.domain_hashes().hash("others.example"))];
    wait::until("the last limit is there", WITHIN, async || {
        engines.iter().all(|engine| engine.limits.per_second(&other) == Some(9.0)).then_some(())
    })
    .await;
    for engine in engines {
        engine.drain().await;
        engine.opened.ledger.close().await;
    }

    // What is cleared while nobody runs does not come back with the next one who does.
    limits(&["clear", "domain", "others.example"]).await;
    let opened = open_ledger(&settings).await.unwrap();
    let store = opened.shared.as_ref().unwrap().limits.clone();
    let engine = Engine::start(&settings, opened, Roles::all()).await.unwrap();
    assert_eq!(limited(store.as_ref()).await, scope);
    engine.drain().await;
    engine.opened.ledger.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_settings_of_one_process_limit_is_not_lifted_by_others_that_do_not() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.ledger.url = database.url().parse().unwrap();
    settings.ledger.key_file = folder.path().join("dispatch.key");
    PostgresLedger::migrate(&settings.ledger.url.server().unwrap().unwrap(), wait::now_ms()).await.unwrap();
    let start = async |settings: &Settings| {
        let opened = open_ledger(settings).await.unwrap();
        Engine::start(settings, opened, Roles::all()).await.unwrap()
    };
    let mut limiting = settings.clone();
    let few = dispatch_schemas::api::limits::Windows { per_second: Some(3), ..Default::default() };
    limiting.limits.domains.insert("people.example".to_owned(), few);
    let one = start(&limiting).await;
    let store = one.opened.shared.as_ref().unwrap().limits.clone();
    let scope = limited(store.as_ref()).await;
    let made = store.rows(&scope).await.unwrap();
    assert_eq!(made.len(), 1);

    let other = start(&settings).await;
    assert_eq!(store.rows(&scope).await.unwrap(), made, "it is there, and was not made anew");
    let both_have = async |wanted: f64| {
        wait::until("both processes have the limit", WITHIN, async || {
            [&one, &other].iter().all(|engine| engine.limits.per_second(&scope) == Some(wanted)).then_some(())
        })
        .await;
    };
    both_have(3.0).await;
    let (url, key_file) = (database.url(), settings.ledger.key_file.display().to_string());
    let with = [("DISPATCH_LEDGER__URL", url.as_str()), ("DISPATCH_LEDGER__KEY_FILE", &key_file)];
    printed(folder.path(), &["limits", "set", "domain", "people.example", "--per-second", "50"], &with).await;
    both_have(50.0).await;
    printed(folder.path(), &["limits", "clear", "domain", "people.example"], &with).await;
    both_have(3.0).await;
    for engine in [one, other] {
        engine.drain().await;
        engine.opened.ledger.close().await;
    }
}

#[tokio::test]
async fn what_cannot_be_limited_is_refused_with_what_is_wanted() {
    let stage = Stage::new(&[Account::new("smtp")], "", 1);
    let settings = stage.settings_file.display().to_string();
    let none = dispatch_in(stage.folder(), &["limits", "list", "--config", &settings], &[]).await;
    assert_eq!(none.status.code(), Some(2), "{}", said(&none));
    assert!(!stage.ledger_file().exists(), "looking makes none");
    open_ledger(&stage.settings()).await.unwrap().ledger.close().await;
    for (line, words) in [
        (vec!["set", "account", "nobody", "--per-second", "1"], "there are: smtp"),
        (vec!["set", "account", "smtp"], "say how much"),
        (vec!["set", "domain", "Gmail.com", "--per-second", "1"], "lower-case"),
        (vec!["set", "country", "France", "--per-second", "1"], "two capital letters"),
        (vec!["set", "tenant", "acme", "--per-second", "1"], "possible values"),
        (vec!["set", "account", "smtp", "--per-second", "1", "--unlimited"], "cannot be used with"),
    ] {
        let output = dispatch_in(stage.folder(), &[&["limits", "--config", &settings][..], &line].concat(), &[]).await;
        assert_eq!(output.status.code(), Some(2), "{line:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{line:?}: {}", said(&output));
    }
}
