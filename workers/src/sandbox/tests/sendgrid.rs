use serde_json::{Value, json};

use super::{KEY, Sandbox, WitnessVerdict, keys, verdicts, witness_key};

const PATH: &str = "/v3/mail/send";
const AUTH: (&str, &str) = ("authorization", "Bearer a-key");

fn personalization(number: usize) -> Value {
    json!({
        "to": [{"email": format!("reader{number}@example.org"), "name": "Reader"}],
        "headers": {"List-Unsubscribe": "<https://u.example.com/x>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},
        "substitutions": {"-name-": format!("Reader {number}")},
        "custom_args": {"k": format!("key-{number}"), "t": "token-1"},
    })
}

fn mail(recipients: usize) -> Value {
    json!({
        "personalizations": (0..recipients).map(personalization).collect::<Vec<_>>(),
        "from": {"email": "news@example.com", "name": "Example"},
        "reply_to": {"email": "reply@example.com"},
        "subject": "Your offer, -name-",
        "content": [
            {"type": "text/plain", "value": "Hello -name-"},
            {"type": "text/html", "value": "<p>Hello \"-name-\"</p>\n"},
        ],
        "categories": ["campaign"],
        "tracking_settings": {
            "click_tracking": {"enable": false, "enable_text": false},
            "open_tracking": {"enable": false},
        },
    })
}

#[tokio::test]
async fn a_batch_is_accepted_and_logged_recipient_by_recipient() {
    let sandbox = Sandbox::start("").await;
    let answer = sandbox.post(PATH, AUTH, &mail(1000)).await;
    assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    assert_eq!(answer.header("x-message-id").len(), 22);
    let line = sandbox.last_line();
    assert_eq!((line.provider.as_str(), line.mode.as_str(), line.status, line.seq), ("sendgrid", "ok", 202, 0));
    assert_eq!((line.token.as_deref(), line.batch_key.as_deref()), (Some("token-1"), None));
    assert_eq!(verdicts(&line), [WitnessVerdict::Accepted; 1000]);
    assert_eq!(keys(&line)[999], Some("key-999"));
    assert_eq!(line.recipients[999].to, witness_key().hash("reader999@example.org"));
    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    assert!(!log.contains("example.org") && !log.contains("Reader"), "neither addresses nor content are kept");
}

#[tokio::test]
async fn a_repeat_is_accepted_again_because_sendgrid_knows_none() {
    let sandbox = Sandbox::start("").await;
    let first = sandbox.post(PATH, AUTH, &mail(1)).await;
    let again = sandbox.post(PATH, AUTH, &mail(1)).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_ne!(first.header("x-message-id"), again.header("x-message-id"));
    assert_eq!(sandbox.lines().iter().flat_map(verdicts).collect::<Vec<_>>(), [WitnessVerdict::Accepted; 2]);
}

#[tokio::test]
async fn sandbox_mode_validates_and_delivers_nothing() {
    let sandbox = Sandbox::start("").await;
    let mut body = mail(1);
    body["mail_settings"] = json!({"sandbox_mode": {"enable": true}});
    assert_eq!(sandbox.post(PATH, AUTH, &body).await.status, 200);
    assert_eq!(verdicts(&sandbox.last_line()), [WitnessVerdict::Refused]);
}

/// Sets a field of a good mail of two recipients by its JSON pointer; `null` stands for a field that is missing.
fn mail_with(pointer: &str, value: &Value) -> Value {
    let mut body = mail(2);
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap();
    match (parent, name.parse::<usize>()) {
        (Value::Array(list), Ok(at)) => list[at] = value.clone(),
        (parent, _) => parent[name] = value.clone(),
    }
    body
}

#[tokio::test]
async fn what_the_vendor_refuses_is_refused_with_its_field_and_nobody_is_accepted() {
    let sandbox = Sandbox::start("").await;
    let many = |count: usize| (0..count).map(personalization).collect::<Vec<_>>();
    let five_hundred_and_one: Vec<_> = (0..501).map(|at| json!({"email": format!("cc{at}@example.org")})).collect();
    let long_args: Value = json!({"k": "x".repeat(10_000)});
    for (pointer, value, field) in [
        ("/personalizations", json!(null), "personalizations"),
        ("/personalizations", json!([]), "personalizations"),
        ("/personalizations", json!(many(1001)), "personalizations"),
        ("/personalizations/0/cc", json!(five_hundred_and_one), ""),
        ("/personalizations/1/to", json!([]), "personalizations.1.to"),
        ("/personalizations/1/to/0/email", json!("not an address"), "personalizations.1.to"),
        ("/personalizations/1/to/0/email", json!(null), "personalizations.1.to"),
        ("/personalizations/1/to/0/name", json!("Reader; Second"), "personalizations.1.to.0.name"),
        ("/personalizations/1/to/0/email", json!("READER0@example.org"), "personalizations"),
        ("/personalizations/1/bcc", json!([{"email": "reader0@example.org"}]), "personalizations"),
        ("/personalizations/1/cc", json!([{"email": "x"}]), "personalizations.1.cc.0.email"),
        ("/personalizations/1/from", json!({"email": "x"}), "personalizations.1.from.email"),
        ("/personalizations/1/substitutions", json!({"-a-": "x".repeat(10_000)}), "personalizations.1.substitutions"),
        ("/personalizations/1/custom_args", long_args.clone(), "personalizations.1.custom_args"),
        ("/personalizations/1/headers", json!({"Subject": "x"}), "personalizations.1.headers.Subject"),
        ("/personalizations/1/headers", json!({"X-A": "a\r\nBcc: v@example.org"}), "personalizations.1.headers"),
        ("/personalizations/1/send_at", json!(9_999_999_999_i64), "personalizations.1.send_at"),
        ("/template_id", json!("d-1"), "personalizations.0.substitutions"),
        ("/from", json!(null), "from"),
        ("/from/email", json!("ü@example.com"), "from.email"),
        ("/reply_to_list", json!([{"email": "a@example.com"}]), "reply_to"),
        ("/reply_to/email", json!("x"), "reply_to.email"),
        ("/subject", json!(null), "subject"),
        ("/subject", json!(""), "subject"),
        ("/content", json!(null), "content"),
        ("/content/0/value", json!(""), "content.0.value"),
        ("/content/1/type", json!("text/plain; x"), ""),
        ("/content/0/type", json!("text/calendar"), "content.1.type"),
        ("/attachments", json!([{"content": "eA=="}]), "attachments.0.filename"),
        ("/headers", json!({"DKIM-Signature": "x"}), "headers.DKIM-Signature"),
        ("/custom_args", long_args, "custom_args"),
        ("/categories", json!(vec!["a"; 2]), "categories"),
        ("/categories", json!((0..11).map(|at| at.to_string()).collect::<Vec<_>>()), "categories"),
        ("/categories", json!(["a".repeat(256)]), "categories.0"),
        ("/asm", json!({"groups_to_display": [1]}), "asm.group_id"),
        ("/asm", json!({"group_id": 1, "groups_to_display": vec![1; 26]}), "asm.groups_to_display"),
        ("/ip_pool_name", json!("a"), "ip_pool_name"),
    ] {
        let answer = sandbox.post(PATH, AUTH, &mail_with(pointer, &value)).await;
        if field.is_empty() {
            // As many as the vendor takes: the limit itself is no fault.
            assert_eq!(answer.status, 202, "{pointer}: {}", answer.body);
            continue;
        }
        assert_eq!(answer.status, 400, "{pointer}: {}", answer.body);
        assert_eq!(answer.json()["errors"][0]["field"], field, "{pointer}: {}", answer.body);
        let line = sandbox.last_line();
        assert_eq!((line.status, line.mode.as_str()), (400, "ok"));
        assert!(verdicts(&line).iter().all(|verdict| *verdict == WitnessVerdict::Refused), "{pointer}");
    }
}

#[tokio::test]
async fn more_than_a_thousand_recipients_in_all_are_refused() {
    let sandbox = Sandbox::start("").await;
    let mut body = mail(500);
    let copies: Vec<_> = (0..501).map(|at| json!({"email": format!("cc{at}@example.org")})).collect();
    body["personalizations"][0]["cc"] = json!(copies);
    assert_eq!(sandbox.post(PATH, AUTH, &body).await.status, 400);
    assert_eq!(sandbox.last_line().recipients.len(), 1001);
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_a_bad_request_without_a_field() {
    let sandbox = Sandbox::start("").await;
    for (pointer, value) in [
        ("/personalizations/0/custom_args/k", json!(1234)),
        ("/personalizations/0/substitutions", json!(["a"])),
        ("/mail_settings", json!({"sandbox_mode": {"enable": "true"}})),
        ("/tracking_settings/open_tracking/enable", json!("false")),
        ("/from", json!("news@example.com")),
    ] {
        let answer = sandbox.post(PATH, AUTH, &mail_with(pointer, &value)).await;
        assert_eq!(answer.status, 400, "{pointer}");
        assert_eq!(answer.json(), json!({"errors": [{"message": "Bad Request", "field": null, "help": null}]}));
    }
    let body = json!({"unknown": {"deep": [1, 2]}});
    let mut mail = mail(1);
    mail["not_in_the_documentation"] = body;
    assert_eq!(sandbox.post(PATH, AUTH, &mail).await.status, 202);
}

#[tokio::test]
async fn the_door_checks_key_method_media_type_and_size() {
    let sandbox = Sandbox::start("").await;
    let body = mail(1).to_string();
    let post = |key: &str| sandbox.client.post(sandbox.url(PATH)).header("authorization", format!("Bearer {key}"));
    for (request, status) in [
        (post("wrong").header("content-type", "application/json").body(body.clone()), 401),
        (sandbox.client.post(sandbox.url(PATH)).header("content-type", "application/json").body(body.clone()), 401),
        (sandbox.client.put(sandbox.url(PATH)).header(AUTH.0, AUTH.1).body(body.clone()), 405),
        (post(KEY).body(body.clone()), 415),
        (post(KEY).header("content-type", "text/plain").body(body.clone()), 415),
        (post(KEY).header("content-type", "application/json").header("content-encoding", "gzip").body("x"), 415),
        (post(KEY).header("content-type", "application/json").body("{"), 400),
        (post(KEY).header("content-type", "application/json").body(&b"\"\xff\""[..]), 400),
        (post(KEY).header("content-type", "application/json").body(" ".repeat(30_000_001)), 413),
        (post(KEY).header("content-type", "application/json; charset=utf-8").body(body), 202),
    ] {
        let answer = sandbox.send(request).await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(sandbox.last_line().status, status);
        if status != 202 {
            assert!(answer.json()["errors"][0]["message"].is_string());
        }
    }
    assert_eq!(sandbox.post("/v3/mail/batch", AUTH, &json!({})).await.status, 404);
}
