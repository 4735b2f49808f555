use std::time::Duration;

use serde_json::{Value, json};

use super::{Sandbox, WitnessVerdict, verdicts};
use crate::sandbox::Fault;

/// One good request to each HTTP fake: path, key, body.
fn good_requests() -> [(&'static str, (&'static str, &'static str), Value); 4] {
    [
        (
            "/v3/mail/send",
            ("authorization", "Bearer a-key"),
            json!({
                "personalizations": [{"to": [{"email": "anna@example.org"}], "custom_args": {"k": "key-1", "t": "t"}}],
                "from": {"email": "news@example.com"},
                "subject": "Your offer",
                "content": [{"type": "text/plain", "value": "Hello"}],
            }),
        ),
        (
            "/v3/smtp/email",
            ("api-key", "a-key"),
            json!({
                "sender": {"email": "news@example.com"},
                "subject": "Your offer",
                "textContent": "Hello",
                "to": [{"email": "anna@example.org"}],
            }),
        ),
        (
            "/v3/transactionalSMS/send",
            ("api-key", "a-key"),
            json!({"sender": "Example", "recipient": "33600000000", "content": "Hello"}),
        ),
        (
            "/sms/3/messages",
            ("authorization", "App a-key"),
            json!({"messages": [{
                "sender": "Example",
                "destinations": [{"to": "33600000000"}],
                "content": {"text": "Hello"},
            }]}),
        ),
    ]
}

async fn each_under(fault: Fault, check: impl Fn(&Sandbox, reqwest::Result<super::Answered>)) {
    let sandbox = Sandbox::start(&format!("{}=1", fault.mode())).await;
    for (path, auth, body) in good_requests() {
        let answer = sandbox.try_post(path, auth, &body).await;
        let line = sandbox.last_line();
        assert_eq!(line.mode, fault.mode(), "{path}");
        let verdict = if fault.accepts() { WitnessVerdict::Accepted } else { WitnessVerdict::Refused };
        assert_eq!(verdicts(&line), [verdict], "{path}");
        check(&sandbox, answer);
    }
    assert_eq!(sandbox.lines().len(), 4);
}

#[tokio::test]
async fn accepted_then_dropped_is_in_the_log_and_has_no_answer() {
    each_under(Fault::AcceptThenDrop, |sandbox, answer| {
        assert!(answer.is_err());
        assert_eq!(sandbox.last_line().status, 0);
    })
    .await;
}

#[tokio::test]
async fn dropped_before_acceptance_has_no_answer_either() {
    each_under(Fault::DropBefore, |sandbox, answer| {
        assert!(answer.is_err());
        assert_eq!(sandbox.last_line().status, 0);
    })
    .await;
}

#[tokio::test]
async fn half_an_answer_has_its_status_and_breaks_off() {
    let sandbox = Sandbox::start("half_answer=1").await;
    for (path, auth, body) in good_requests() {
        let request = sandbox.client.post(sandbox.url(path)).header(auth.0, auth.1);
        let request = request.header("content-type", "application/json").body(body.to_string());
        let mut response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{path}");
        let whole = response.content_length().unwrap();
        let first = response.chunk().await.unwrap().unwrap();
        assert!(!first.is_empty() && (first.len() as u64) < whole, "{path}: {} of {whole}", first.len());
        assert!(response.chunk().await.is_err(), "{path}");
        let line = sandbox.last_line();
        assert_eq!((line.mode.as_str(), line.status), ("half_answer", response.status().as_u16()));
        assert_eq!(verdicts(&line), [WitnessVerdict::Accepted]);
    }
}

#[tokio::test]
async fn a_slow_answer_comes_after_its_line_is_in_the_log() {
    let (path, auth, body) = &good_requests()[0];
    // So slow that it cannot come while this test runs.
    let sandbox = Sandbox::start_slow("accept_slow=1", 600_000).await;
    let logged = async {
        while sandbox.lines().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        answer = sandbox.post(path, *auth, body) => panic!("answered at once: {answer:?}"),
        () = logged => {}
    }
    assert_eq!(verdicts(&sandbox.last_line()), [WitnessVerdict::Accepted]);
    let sandbox = Sandbox::start_slow("accept_slow=1", 1).await;
    assert_eq!(sandbox.post(path, *auth, body).await.status, 202);
    assert_eq!(sandbox.last_line().mode, "accept_slow");
}

#[tokio::test]
async fn a_drawn_refusal_is_the_vendors_400() {
    each_under(Fault::Refuse, |sandbox, answer| {
        let answer = answer.unwrap();
        assert_eq!((answer.status, sandbox.last_line().status), (400, 400));
        let body = answer.json();
        assert!(body["errors"].is_array() || body["code"].is_string() || body["errorCode"].is_string());
    })
    .await;
}

#[tokio::test]
async fn a_throttled_request_is_told_when_to_come_back() {
    each_under(Fault::Throttle, |sandbox, answer| {
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (429, "1"));
        match sandbox.last_line().provider.as_str() {
            "sendgrid" => assert!(answer.header("x-ratelimit-reset").parse::<u64>().unwrap() > 1_700_000_000),
            "infobip" => assert_eq!(answer.json()["errorCode"], "E429"),
            _ => assert_eq!(answer.header("x-sib-ratelimit-reset"), "1"),
        }
    })
    .await;
}

#[tokio::test]
async fn an_unavailable_provider_says_when_to_come_back() {
    each_under(Fault::Unavailable, |_, answer| {
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    })
    .await;
}

#[tokio::test]
async fn an_internal_error_looks_the_same_whether_or_not_the_request_was_accepted() {
    for fault in [Fault::FailBefore, Fault::FailAfterAccept] {
        each_under(fault, |_, answer| {
            let answer = answer.unwrap();
            assert_eq!(answer.status, 500);
            assert!(!answer.headers.contains_key("retry-after"));
        })
        .await;
    }
}

#[tokio::test]
async fn garbage_is_a_200_that_is_not_the_vendors() {
    each_under(Fault::Garbage, |_, answer| {
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/html"));
        assert!(answer.body.starts_with("<html>"));
    })
    .await;
}
