use std::time::Duration;

use serde_json::{Value, json};

use super::{Sandbox, WitnessVerdict, keys, settings, verdicts, witness_key};
use crate::{clock::SystemClock, sandbox::run};

const EMAIL: &str = "/v3/smtp/email";
const SMS: &str = "/v3/transactionalSMS/send";
const AUTH: (&str, &str) = ("api-key", "a-key");
const BATCH_KEY: &str = "7f1c2c1e-3a54-4f0e-9d1c-1f4f2f6f9a10";

fn version(number: usize) -> Value {
    json!({
        "to": [{"email": format!("reader{number}@example.org"), "name": "Reader"}],
        "params": {"name": format!("Reader {number}")},
        "subject": "Your offer",
    })
}

fn email(key: &str, versions: usize) -> Value {
    json!({
        "sender": {"email": "news@example.com", "name": "Example"},
        "subject": "Your offer",
        "htmlContent": "<p>Hello {{params.name}}</p>",
        "textContent": "Hello {{params.name}}",
        "replyTo": {"email": "reply@example.com"},
        "headers": {"idempotencyKey": key, "X-Mailin-custom": "key-1"},
        "tags": ["batch-1"],
        "messageVersions": (0..versions).map(version).collect::<Vec<_>>(),
    })
}

fn sms() -> Value {
    json!({
        "sender": "Example",
        "recipient": "33600000000",
        "content": "Hello Anna. STOP: [STOP_CODE]",
        "type": "marketing",
        "unicodeEnabled": true,
        "tag": ["key-1", "campaign"],
        "webUrl": "https://hooks.example.com/brevo",
    })
}

#[tokio::test]
async fn a_batch_is_accepted_with_an_id_for_each_version() {
    let sandbox = Sandbox::start("").await;
    let answer = sandbox.post(EMAIL, AUTH, &email(BATCH_KEY, 1000)).await;
    assert_eq!(answer.status, 201);
    let body = answer.json();
    let mut ids: Vec<_> = body["messageIds"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 1000);
    let line = sandbox.last_line();
    assert_eq!((line.provider.as_str(), line.batch_key.as_deref()), ("brevo", Some(BATCH_KEY)));
    assert_eq!(verdicts(&line), [WitnessVerdict::Accepted; 1000]);
    assert_eq!(keys(&line)[0], None, "the custom header is the request's, not a version's");
    assert_eq!(line.recipients[7].to, witness_key().hash("reader7@example.org"));
}

#[tokio::test]
async fn a_single_message_carries_its_key_in_the_custom_header() {
    let sandbox = Sandbox::start("").await;
    let mut body = email(BATCH_KEY, 0);
    body.as_object_mut().unwrap().remove("messageVersions");
    body["to"] = json!([{"email": "anna@example.org"}]);
    let answer = sandbox.post(EMAIL, AUTH, &body).await;
    assert_eq!(answer.status, 201);
    assert!(answer.json()["messageId"].is_string());
    assert_eq!(keys(&sandbox.last_line()), [Some("key-1")]);
    let one_version = email("7f1c2c1e-3a54-4f0e-9d1c-1f4f2f6f9a11", 1);
    assert_eq!(sandbox.post(EMAIL, AUTH, &one_version).await.json()["messageIds"].as_array().unwrap().len(), 1);
    assert_eq!(keys(&sandbox.last_line()), [Some("key-1")]);
}

#[tokio::test]
async fn a_repeat_of_the_key_is_a_duplicate_even_when_the_first_answer_was_lost() {
    let sandbox = Sandbox::start("brevo.accept_then_drop=1").await;
    assert!(sandbox.try_post(EMAIL, AUTH, &email(BATCH_KEY, 2)).await.is_err());
    assert_eq!(verdicts(&sandbox.last_line()), [WitnessVerdict::Accepted; 2]);
    assert_eq!(sandbox.control("/sandbox/faults", "").await.status, 200);
    let answer = sandbox.post(EMAIL, AUTH, &email(BATCH_KEY, 2)).await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("duplicate_parameter")));
    assert_eq!(verdicts(&sandbox.last_line()), [WitnessVerdict::Duplicate; 2]);
    let other = sandbox.post(EMAIL, AUTH, &email("7f1c2c1e-3a54-4f0e-9d1c-1f4f2f6f9a11", 2)).await;
    assert_eq!(other.status, 201);
}

#[tokio::test]
async fn a_key_of_a_refused_request_is_not_remembered() {
    let sandbox = Sandbox::start("brevo.throttle=1").await;
    assert_eq!(sandbox.post(EMAIL, AUTH, &email(BATCH_KEY, 1)).await.status, 429);
    sandbox.control("/sandbox/faults", "").await;
    assert_eq!(sandbox.post(EMAIL, AUTH, &email(BATCH_KEY, 1)).await.status, 201);
}

#[tokio::test]
async fn a_key_is_forgotten_after_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let settings = super::SandboxSettings { brevo_key_ttl: Duration::ZERO, ..settings(&directory, "") };
    let running = run(settings, std::sync::Arc::new(SystemClock::new())).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let sandbox = Sandbox { running, client, directory };
    for _ in 0..2 {
        assert_eq!(sandbox.post(EMAIL, AUTH, &email(BATCH_KEY, 1)).await.status, 201);
    }
    assert_eq!(sandbox.lines().iter().flat_map(verdicts).collect::<Vec<_>>(), [WitnessVerdict::Accepted; 2]);
}

#[tokio::test]
async fn what_was_accepted_is_found_by_tag_and_by_message_id() {
    let sandbox = Sandbox::start("brevo.fail_after_accept=1").await;
    assert_eq!(sandbox.post(EMAIL, AUTH, &email(BATCH_KEY, 3)).await.status, 500);
    sandbox.control("/sandbox/faults", "brevo.refuse=1").await;
    let mut refused = email("7f1c2c1e-3a54-4f0e-9d1c-1f4f2f6f9a11", 1);
    refused["tags"] = json!(["batch-2"]);
    assert_eq!(sandbox.post(EMAIL, AUTH, &refused).await.status, 400);

    let events = "/v3/smtp/statistics/events";
    let found = sandbox.get(&format!("{events}?tags=batch-1&event=requests&limit=100"), AUTH).await.json();
    let found = found["events"].as_array().unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!((&found[0]["event"], &found[0]["tag"]), (&json!("requests"), &json!("batch-1")));
    assert!(found[0]["date"].as_str().unwrap().ends_with('Z'));
    let as_array = sandbox.get(&format!("{events}?tags=%5B%22batch-1%22%5D"), AUTH).await.json();
    assert_eq!(as_array["events"].as_array().unwrap().len(), 6, "each was requested and delivered");
    let id: String = form_urlencoded::byte_serialize(found[1]["messageId"].as_str().unwrap().as_bytes()).collect();
    let by_id = sandbox.get(&format!("{events}?messageId={id}&event=delivered"), AUTH).await.json();
    assert_eq!(by_id["events"].as_array().unwrap().len(), 1);
    assert_eq!(by_id["events"][0]["messageId"], found[1]["messageId"]);
    let nothing = json!({"events": []});
    assert_eq!(sandbox.get(&format!("{events}?tags=batch-2"), AUTH).await.json(), nothing);
    assert_eq!(sandbox.get(&format!("{events}?messageId=%3C1.0.9%40x%3E"), AUTH).await.json(), nothing);

    assert_eq!(sandbox.get(&format!("{events}?limit=0"), AUTH).await.status, 400);
    assert_eq!(sandbox.get(&format!("{events}?startDate=2030-01-01"), AUTH).await.status, 400);
    assert_eq!(sandbox.get(events, ("api-key", "wrong")).await.status, 401);
    assert_eq!(sandbox.post(events, AUTH, &json!({})).await.status, 405);
}

#[tokio::test]
async fn the_vendors_own_sandbox_delivers_nothing_and_logs_nothing() {
    let sandbox = Sandbox::start("").await;
    let mut body = email(BATCH_KEY, 1);
    body["headers"]["X-Sib-Sandbox"] = json!("drop");
    assert_eq!(sandbox.post(EMAIL, AUTH, &body).await.status, 201);
    assert_eq!(verdicts(&sandbox.last_line()), [WitnessVerdict::Refused]);
    let found = sandbox.get("/v3/smtp/statistics/events?tags=batch-1", AUTH).await.json();
    assert_eq!(found, json!({"events": []}));
}

#[tokio::test]
async fn what_the_vendor_refuses_of_an_email_is_refused() {
    let sandbox = Sandbox::start("").await;
    let long_list: Vec<_> = (0..100).map(|at| json!({"email": format!("a{at}@example.org")})).collect();
    let of_ninety: Vec<_> = (0..23)
        .map(|at| json!({"to": (0..90).map(|to| json!({"email": format!("a{at}-{to}@x.eu")})).collect::<Vec<_>>()}))
        .collect();
    let heavy: Vec<_> = (0..11)
        .map(|at| json!({"to": [{"email": format!("a{at}@x.eu")}], "params": {"p": "x".repeat(100_000)}}))
        .collect();
    for (name, value, code) in [
        ("sender", json!(null), "missing_parameter"),
        ("sender", json!({"name": "Example"}), "missing_parameter"),
        ("sender", json!({"email": "x"}), "invalid_parameter"),
        ("sender", json!({"email": "a@example.com", "name": "x".repeat(71)}), "invalid_parameter"),
        ("subject", json!(""), "missing_parameter"),
        ("replyTo", json!({"email": "x"}), "invalid_parameter"),
        ("headers", json!({"idempotencyKey": "not-a-uuid"}), "invalid_parameter"),
        ("headers", json!({"Subject": "x"}), "invalid_parameter"),
        ("headers", json!({"X-A": "é"}), "invalid_parameter"),
        ("headers", json!({"X-A": 1}), "bad_request"),
        ("batchId", json!("x"), "invalid_parameter"),
        ("tags", json!([""]), "invalid_parameter"),
        ("attachment", json!([{"content": "eA=="}]), "missing_parameter"),
        ("messageVersions", json!(null), "missing_parameter"),
        ("messageVersions", json!([]), "invalid_parameter"),
        ("messageVersions", json!((0..1001).map(version).collect::<Vec<_>>()), "invalid_parameter"),
        ("messageVersions", json!([{"params": {}}]), "missing_parameter"),
        ("messageVersions", json!([{"to": [{"email": "x"}]}]), "invalid_parameter"),
        ("messageVersions", json!([{"to": [{"email": "a@x.eu", "name": "x".repeat(71)}]}]), "invalid_parameter"),
        ("messageVersions", json!([{"to": ["a@x.eu"]}]), "bad_request"),
        ("messageVersions", json!([{"to": long_list}]), "invalid_parameter"),
        ("messageVersions", json!(of_ninety), "invalid_parameter"),
        (
            "messageVersions",
            json!([{"to": [{"email": "a@x.eu"}], "params": {"p": "x".repeat(103_000)}}]),
            "invalid_parameter",
        ),
        ("messageVersions", json!(heavy), "invalid_parameter"),
    ] {
        let mut body = email(BATCH_KEY, 2);
        body[name] = value;
        let answer = sandbox.post(EMAIL, AUTH, &body).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(code)), "{name}: {}", answer.body);
        assert!(verdicts(&sandbox.last_line()).iter().all(|verdict| *verdict == WitnessVerdict::Refused));
    }
    let mut empty = email(BATCH_KEY, 1);
    empty.as_object_mut().unwrap().retain(|name, _| !name.ends_with("Content"));
    assert_eq!(sandbox.post(EMAIL, AUTH, &empty).await.json()["code"], "missing_parameter");
    let unauthorised = sandbox.post(EMAIL, ("api-key", "wrong"), &email(BATCH_KEY, 1)).await;
    assert_eq!((unauthorised.status, &unauthorised.json()["code"]), (401, &json!("unauthorized")));
    assert_eq!(sandbox.post("/v3/smtp/nothing", AUTH, &json!({})).await.status, 404);
    assert_eq!(sandbox.post(EMAIL, AUTH, &email(BATCH_KEY, 1)).await.status, 201, "no refusal spent the key");
}

#[tokio::test]
async fn a_text_message_is_accepted_again_and_again_and_found_by_its_tag() {
    let sandbox = Sandbox::start("").await;
    let first = sandbox.post(SMS, AUTH, &sms()).await;
    assert_eq!(first.status, 201);
    assert!(first.json()["messageId"].as_u64().unwrap() > u64::from(u32::MAX));
    let mut again = sms();
    again["tag"] = json!("key-1");
    assert_ne!(sandbox.post(SMS, AUTH, &again).await.json(), first.json());
    let line = sandbox.last_line();
    assert_eq!((line.provider.as_str(), keys(&line)), ("brevo_sms", vec![Some("key-1")]));
    assert_eq!(line.recipients[0].to, witness_key().hash("+33600000000"));
    let events = "/v3/transactionalSMS/statistics/events";
    let found = sandbox.get(&format!("{events}?tags=key-1&event=sent"), AUTH).await.json();
    assert_eq!(found["events"].as_array().unwrap().len(), 2);
    let found = sandbox.get(&format!("{events}?tags=campaign&event=sent"), AUTH).await.json();
    assert_eq!(found["events"][0]["messageId"], first.json()["messageId"].to_string());
}

#[tokio::test]
async fn what_the_vendor_refuses_of_a_text_message_is_refused() {
    let sandbox = Sandbox::start("").await;
    for (name, value) in [
        ("sender", json!(null)),
        ("sender", json!("TwelveLetter")),
        ("sender", json!("1234567890123456")),
        ("sender", json!("Exam ple")),
        ("recipient", json!(null)),
        ("recipient", json!("12345")),
        ("recipient", json!("+33 6 00")),
        ("content", json!("")),
        ("type", json!("urgent")),
        ("tag", json!("")),
        ("tag", json!(vec!["a"; 11])),
        ("tag", json!(1)),
        ("webUrl", json!("javascript:x")),
    ] {
        let mut body = sms();
        body[name] = value;
        let answer = sandbox.post(SMS, AUTH, &body).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.body);
    }
}
