//! No address, name or field value leaves the sealed columns: not into the files, the log, the metrics or an answer.
//!
//! People with unmistakable data go through everything an engine does with people. Then every byte that was written
//! anywhere is searched for them, in the forms in which bytes like to hide.

#![expect(clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

mod canaries;
mod client;
mod needles;

use std::{collections::BTreeMap, fs::File, os::unix::fs::FileTypeExt as _, path::Path, time::Duration};

use canaries::{Canary, PEOPLE};
use client::Client;
use dispatch_tests::support::{
    engine_process::{EngineProcess, free_address},
    stage::{Account, Stage},
    wait,
};
use needles::Needles;
use serde_json::{Value, json};

/// One in three is refused, so that there are failures to speak of; the rest goes wrong in ways that are logged.
const FAULTS: &str = "refuse=0.3, throttle=0.02, fail_before=0.05, accept_then_drop=0.05, half_answer=0.05";
/// Much is told of people, some of it by forgers.
const REPORTS: &str = "bounced_hard=0.2, rejected=0.2, complained=0.1, unsubscribed=0.2, doubled=0.3, forged=0.5";
const COMPLETES_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_personal_is_found_outside_the_sealed_columns() {
    let accounts = [Account { batch: 5, ..Account::new("sendgrid") }, Account { batch: 5, ..Account::new("infobip") }];
    let stage = Stage::new(&accounts, FAULTS, 1);
    let key = client::make_key(&stage.settings_file);
    let log = stage.folder().join("engine.log");
    let address = free_address();
    let variables = stage.callback_variables(&["sendgrid", "infobip"], address);
    stage.sandbox.call_back(&format!("http://{address}/callbacks"), REPORTS).await;
    let file = File::create(&log).expect("a log can be made");
    let engine = EngineProcess::start_with(&stage.settings_file, Some(file), &[], &variables);
    engine.ready().await;
    let client = Client::new(&engine, key);

    let answers = live_through_everything(&client).await;
    wait::until("every callback is taken", COMPLETES_WITHIN, async || {
        let told = stage.sandbox.told().await;
        (told.pending == 0 && told.taken > 0 && told.refused > 0).then_some(())
    })
    .await;
    let needles = Needles::of(&canaries::all());
    let mut found = needles.found_in("an answer of the API", answers.join("\n").as_bytes());
    // Once while the write-ahead log is full, once after the engine has tidied up.
    found.extend(files(stage.folder(), &["dispatch.db-wal", "dispatch.db-shm"], &needles));
    assert!(engine.terminate().success());
    found.extend(files(stage.folder(), &[], &needles));
    assert!(found.is_empty(), "personal data was found:\n{}", found.join("\n"));

    let log = std::fs::read_to_string(&log).expect("the log is there");
    assert!(log.contains("\"TRACE\"") && log.contains("\"DEBUG\""), "the log holds everything there is to say");
}

/// Searches every file of the stage, these among them.
fn files(folder: &Path, these: &[&str], needles: &Needles) -> Vec<String> {
    let mut seen = BTreeMap::new();
    for file in std::fs::read_dir(folder).expect("the folder is there") {
        let file = file.expect("the folder can be read");
        // The operator's socket cannot be read, and keeps nothing.
        if file.file_type().expect("the folder can be read").is_socket() {
            continue;
        }
        if file.path().is_dir() {
            for waiting in std::fs::read_dir(file.path()).expect("the spool is there") {
                let waiting = waiting.expect("the spool can be read").path();
                // One that was applied meanwhile is gone.
                seen.extend(std::fs::read(&waiting).ok().map(|bytes| (waiting.display().to_string(), bytes)));
            }
            continue;
        }
        let (name, bytes) = (file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path()));
        seen.insert(name, bytes.expect("the file can be read"));
    }
    for expected in ["dispatch.db", "dispatch.db.lock", "witness.jsonl", "engine.log"].iter().chain(these) {
        assert!(seen.contains_key(*expected), "{expected} is not among {:?}", seen.keys());
    }
    seen.iter().flat_map(|(name, bytes)| needles.found_in(name, bytes)).collect()
}

/// Import, suppression, erasure, campaigns, a single message, and every refusal that could quote somebody. Returns all
/// answers of the API.
async fn live_through_everything(client: &Client<'_>) -> Vec<String> {
    let source = client
        .made(
            "/v1/sources",
            json!({
                "name": "Shop", "kind": "customer_list", "legal_basis": "consent",
            }),
        )
        .await;
    let source = source["id"].clone();
    let list = client.made("/v1/lists", json!({ "name": "Customers", "source": source })).await;
    let imports = format!("/v1/lists/{}/imports?field.town=town", text(&list["id"]));
    let import = client.upload(&imports, canaries::csv()).await;
    assert_eq!(import["totals"]["added"], PEOPLE, "{}", import["totals"]);
    assert!(import["totals"]["rejected"].as_u64() >= Some(4), "{}", import["totals"]);

    for nth in 0..3 {
        let person = Canary::number(nth);
        client.done("/v1/suppressions", json!({ "channel": "email", "addresses": [person.email()] })).await;
        let person = Canary::number(nth + 3);
        client.done("/v1/erasures", json!({ "email": person.email() })).await;
    }
    for (path, body) in refusals(&source) {
        client.refused(path, body).await;
    }
    client.refused_upload(&imports, canaries::broken_csv()).await;

    let mut campaigns = Vec::new();
    for content in contents() {
        let campaign = json!({ "name": "News", "lists": [list["id"]], "content": content, "purpose": "marketing" });
        let campaign = client.made("/v1/campaigns", campaign).await;
        client.done(&format!("/v1/campaigns/{}/launch", text(&campaign["id"])), json!({})).await;
        campaigns.push(text(&campaign["id"]).to_owned());
    }
    single_message(client, &source).await;
    let (mut accepted, mut failed) = (0, 0);
    for campaign in &campaigns {
        let end = wait::until("the campaign completes", COMPLETES_WITHIN, async || {
            let progress = client.get(&format!("/v1/campaigns/{campaign}/progress")).await;
            (progress["state"] == "completed").then_some(progress)
        })
        .await;
        accepted += end["states"]["accepted"].as_u64().unwrap_or(0);
        failed += end["states"]["failed"].as_u64().unwrap_or(0);
        client.get(&format!("/v1/campaigns/{campaign}/recipients?limit=1000")).await;
    }
    assert!(accepted > 0 && failed > 0, "{accepted} are accepted and {failed} fail");
    let person = Canary::number(9);
    client.done("/v1/erasures", json!({ "email": person.email(), "phone": person.phone() })).await;
    client.get("/v1/suppressions").await;
    let metrics = client.text("/metrics").await;
    assert!(metrics.contains("dispatch_sends_total"), "{metrics}");
    client.answers()
}

/// One by each channel. The e-mail wants a variable that one person does not have.
fn contents() -> [Value; 2] {
    [
        json!({
            "channel": "email", "from": { "address": "news@shop.example" }, "subject": "News for {{ first_name }}",
            "html": "<p>Dear {{ first_name }} {{ last_name }} in {{ town }}</p>",
        }),
        json!({ "channel": "sms", "sender": "Shop", "text": "Dear {{ first_name }}, there is news." }),
    ]
}

async fn single_message(client: &Client<'_>, source: &Value) {
    let template = client
        .made(
            "/v1/templates",
            json!({
                "name": "Receipt", "channel": "email", "from": { "address": "shop@shop.example" },
                "subject": "Your order", "text": "Dear {{ name }}, thank you.",
            }),
        )
        .await;
    let person = Canary::number(10);
    let body = json!({
        "template": template["id"], "source": source, "to": person.email(),
        "variables": { "name": person.last_name() },
    });
    let message = client.made("/v1/messages", body).await;
    let path = format!("/v1/messages/{}", text(&message["id"]));
    wait::until("the message is final", COMPLETES_WITHIN, async || {
        let state = client.get(&path).await["state"].clone();
        ["accepted", "failed"].iter().any(|end| state == *end).then_some(())
    })
    .await;
    client.refused("/v1/messages", json!({
        "template": template["id"], "source": source, "to": person.email(), "variables": { "nom": person.last_name() },
    })).await;
    client
        .refused("/v1/messages", json!({ "template": template["id"], "source": source, "to": person.broken_email() }))
        .await;
}

/// What is refused, and might be quoted in the refusal.
fn refusals(source: &Value) -> Vec<(&'static str, Value)> {
    let person = Canary::number(11);
    vec![
        ("/v1/suppressions", json!({ "channel": "email", "addresses": [person.broken_email(), person.phone()] })),
        ("/v1/suppressions", json!({ "channel": "sms", "addresses": [person.email()] })),
        ("/v1/suppressions", json!({ "channel": person.email(), "addresses": [] })),
        ("/v1/erasures", json!({ "email": person.broken_email() })),
        ("/v1/erasures", json!({ "phone": person.email() })),
        ("/v1/messages", json!({ "template": person.email(), "source": source, "to": person.email() })),
        ("/v1/lists", json!({ "name": "Other", "source": person.last_name() })),
    ]
}

fn text(value: &Value) -> &str {
    value.as_str().expect("it is text")
}
