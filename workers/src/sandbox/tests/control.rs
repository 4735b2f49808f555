use std::sync::Arc;

use serde_json::json;

use super::{Sandbox, SandboxSettings, WitnessVerdict, run, settings, verdicts};
use crate::{
    clock::SystemClock,
    sandbox::{SandboxError, witness::read_lines},
};

const PATH: &str = "/v3/transactionalSMS/send";
const AUTH: (&str, &str) = ("api-key", "a-key");

fn sms() -> serde_json::Value {
    json!({"sender": "Example", "recipient": "33600000000", "content": "Hello", "tag": "key-1"})
}

#[tokio::test]
async fn faults_change_while_requests_come_in() {
    let sandbox = Sandbox::start("").await;
    assert_eq!(sandbox.post(PATH, AUTH, &sms()).await.status, 201);
    assert_eq!(sandbox.control("/sandbox/faults", "unavailable=1").await.status, 200);
    assert_eq!(sandbox.post(PATH, AUTH, &sms()).await.status, 503);
    let wrong = sandbox.control("/sandbox/faults", "unavailble=1").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.starts_with("there is no fault `unavailble`"), "{}", wrong.body);
    assert_eq!(sandbox.post(PATH, AUTH, &sms()).await.status, 503, "a plan that cannot be read changes nothing");
}

#[tokio::test]
async fn a_key_can_be_refused_in_the_middle_of_a_run() {
    let sandbox = Sandbox::start("").await;
    assert_eq!(sandbox.control("/sandbox/refuse-key", "brevo_sms, sendgrid").await.status, 200);
    let refused = sandbox.post(PATH, AUTH, &sms()).await;
    assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("unauthorized")));
    let events = "/v3/smtp/statistics/events";
    assert_eq!(sandbox.get(events, AUTH).await.status, 200, "the key of the others is taken");
    sandbox.control("/sandbox/refuse-key", "all").await;
    assert_eq!(sandbox.get(events, AUTH).await.status, 401);
    sandbox.control("/sandbox/refuse-key", "none").await;
    assert_eq!(sandbox.post(PATH, AUTH, &sms()).await.status, 201);
    assert_eq!(sandbox.control("/sandbox/refuse-key", "mailgun").await.status, 400);
    assert_eq!(sandbox.control("/sandbox/refuse-key", "").await.status, 400);
}

#[tokio::test]
async fn the_sandbox_says_that_it_is_there_and_what_it_can_be_told() {
    let sandbox = Sandbox::start("").await;
    assert_eq!(sandbox.get("/sandbox/healthz", AUTH).await.body, "ok\n");
    assert_eq!(sandbox.control("/sandbox/healthz", "").await.status, 404);
    assert_eq!(sandbox.control("/sandbox/faults", &"x".repeat(20_000)).await.status, 413);
    assert!(sandbox.lines().is_empty(), "the log is of requests to providers alone");
}

#[tokio::test]
async fn each_of_many_requests_at_once_is_in_the_log_before_its_answer() {
    let sandbox = Arc::new(Sandbox::start("").await);
    let senders: Vec<_> = (0..64)
        .map(|sender| {
            let sandbox = sandbox.clone();
            tokio::spawn(async move {
                for number in 0..10 {
                    let mut body = sms();
                    let key = format!("key-{sender}-{number}");
                    body["tag"] = json!(key);
                    assert_eq!(sandbox.post(PATH, AUTH, &body).await.status, 201);
                    let logged = std::fs::read_to_string(sandbox.log()).unwrap();
                    assert!(logged.contains(&format!("\"{key}\"")), "{key} was answered before it was logged");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let lines = sandbox.lines();
    assert!(lines.iter().zip(0..).all(|(line, seq)| line.seq == seq));
    assert_eq!(lines.iter().flat_map(verdicts).collect::<Vec<_>>(), [WitnessVerdict::Accepted; 640]);
}

#[tokio::test]
async fn a_sandbox_that_is_shut_down_leaves_its_log() {
    let sandbox = Sandbox::start("").await;
    sandbox.post(PATH, AUTH, &sms()).await;
    let (url, log) = (sandbox.url("/sandbox/healthz"), sandbox.log());
    let Sandbox { running, client, directory } = sandbox;
    running.shut_down().await;
    assert!(client.get(url).send().await.unwrap_err().is_connect());
    assert_eq!(read_lines(&log).unwrap().count(), 1);
    let again = run(settings(&directory, ""), Arc::new(SystemClock::new())).await;
    assert!(matches!(again, Err(SandboxError::Witness { .. })), "a log is never written over");
}

#[tokio::test]
async fn the_sandbox_serves_this_machine_alone() {
    let directory = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let settings = SandboxSettings { http: address.parse().unwrap(), ..settings(&directory, "") };
        let refused = run(settings, Arc::new(SystemClock::new())).await;
        assert!(matches!(refused, Err(SandboxError::NotLoopback(_))), "{address}");
    }
}
