use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    clock::{Entropy, SystemEntropy},
    message::{Body, Mailbox, Piece, Skeleton, Slots},
    providers::{
        Code, Signal, Verdict,
        http::{answer_bytes_max, test_server::*},
    },
};

async fn answer_to(recipient_count: u8, raw: Vec<u8>) -> Answer {
    let server = Server::answering([raw]).await;
    let recipients = recipients(Channel::Email, recipient_count);
    account("sendgrid", &server.url()).send(&request(&message(Channel::Email), &recipients)).await
}

fn http(status: u32) -> Code {
    Code::numbered("http", status)
}

const BAD: &str = r#"{"errors":[{"message":"no","field":null,"help":null}]}"#;

#[tokio::test]
async fn a_202_takes_everybody_under_the_requests_id() {
    let answer = answer_to(3, answer(202, "x-message-id: Ab_1-x\r\n", "")).await;
    assert_eq!(answer, Answer::all(&Verdict::Accepted { provider_id: Some("Ab_1-x".to_owned()) }, 3));
}

#[tokio::test]
async fn an_id_that_cannot_be_kept_is_left_out() {
    for id in [String::new(), "a b".to_owned(), "x".repeat(201)] {
        let answer = answer_to(1, answer(202, &format!("x-message-id: {id}\r\n"), "")).await;
        assert_eq!(answer.verdicts, [Verdict::Accepted { provider_id: None }]);
    }
}

#[tokio::test]
async fn a_202_counts_whatever_its_body_is() {
    let huge = "x".repeat(answer_bytes_max(1) + 1);
    let truncated = b"HTTP/1.1 202 Accepted\r\ncontent-length: 100\r\n\r\n{".to_vec();
    for raw in [answer(202, "", &huge), answer(202, "", "{{{"), truncated] {
        assert_eq!(answer_to(1, raw).await.verdicts, [Verdict::Accepted { provider_id: None }]);
    }
}

#[tokio::test]
async fn a_400_refuses_one_recipient_and_sends_many_one_by_one() {
    assert_eq!(answer_to(1, answer(400, "", BAD)).await, Answer::all(&Verdict::Refused(http(400)), 1));
    assert_eq!(answer_to(3, answer(400, "", BAD)).await, Answer::all(&Verdict::Deferred(http(400)), 3));
}

#[tokio::test]
async fn a_400_that_names_a_recipient_refuses_that_one() {
    let body = r#"{"errors":[
        {"message":"no","field":"personalizations.1.to.0.email","help":"x"},
        {"message":"no","field":"personalizations.9.to"},
        {"message":"no","field":"personalizations.x.to"},
        {"message":"no","field":"personalizations"},
        {"message":"no","field":"null"},
        {"message":"no"}],"id":"abc"}"#;
    let answer = answer_to(3, answer(400, "", body)).await;
    let again = Verdict::Deferred(http(400));
    assert_eq!(answer.verdicts, [again.clone(), Verdict::Refused(http(400)), again]);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_sent_in_parts() {
    assert_eq!(answer_to(2, answer(413, "", BAD)).await, Answer::all(&Verdict::Deferred(http(413)), 2));
    assert_eq!(answer_to(1, answer(413, "", BAD)).await, Answer::all(&Verdict::Refused(http(413)), 1));
}

#[tokio::test]
async fn a_refused_account_stops_and_burns_nobody() {
    for (status, why) in [
        (401, "unauthorized"),
        (402, "payment_required"),
        (403, "forbidden"),
        (404, "http_404"),
        (405, "http_405"),
        (406, "http_406"),
        (415, "http_415"),
    ] {
        let why = Code::known(why);
        let expected = Answer::all(&Verdict::AccountRefused(why.clone()), 2).with_signal(Signal::Stop(why));
        assert_eq!(answer_to(2, answer(status, "", BAD)).await, expected, "{status}");
    }
}

#[tokio::test]
async fn a_401_can_mean_that_the_credit_is_used_up() {
    let body = r#"{"errors":[{"message":"Maximum credits exceeded","field":null,"help":null}]}"#;
    let why = Code::known("credits_exceeded");
    let expected = Answer::all(&Verdict::AccountRefused(why.clone()), 1).with_signal(Signal::Stop(why));
    assert_eq!(answer_to(1, answer(401, "", body)).await, expected);
}

#[tokio::test]
async fn a_429_waits_until_the_limit_opens() {
    let reset = format!("x-ratelimit-reset: {}\r\n", NOW_MS / 1000 + 20);
    for (headers, seconds) in [(reset.as_str(), 20), ("retry-after: 7\r\n", 7), ("retry-after: 999999\r\n", 3_600)] {
        let answer = answer_to(2, answer(429, headers, "")).await;
        let expected = Answer::all(&Verdict::Throttled(http(429)), 2);
        assert_eq!(answer, expected.with_signal(Signal::Wait(Duration::from_secs(seconds))), "{headers}");
    }
    for headers in ["", "retry-after: -7\r\n", "retry-after: soon\r\n", "x-ratelimit-reset: never\r\n"] {
        let answer = answer_to(1, answer(429, headers, "")).await;
        assert_eq!(answer.verdicts, [Verdict::Throttled(http(429))]);
        let Some(Signal::Wait(wait)) = answer.signal else { panic!("{headers}: no wait") };
        assert!((1..5).contains(&wait.as_secs()), "{wait:?}");
    }
}

#[tokio::test]
async fn a_503_is_a_refusal_only_with_a_time_to_come_back() {
    let expected = Answer::all(&Verdict::Throttled(http(503)), 1).with_signal(Signal::Wait(Duration::from_secs(9)));
    assert_eq!(answer_to(1, answer(503, "retry-after: 9\r\n", "")).await, expected);
    for headers in ["", "retry-after: soon\r\n"] {
        assert_eq!(answer_to(1, answer(503, headers, BAD)).await, Answer::all(&Verdict::Unknown(http(503)), 1));
    }
}

#[tokio::test]
async fn other_statuses_tell_nothing() {
    for status in [408, 409, 418, 425, 499, 500, 501, 502, 504, 520, 529] {
        let expected = Answer::all(&Verdict::Unknown(http(u32::from(status))), 2);
        assert_eq!(answer_to(2, answer(status, "", BAD)).await, expected, "{status}");
    }
}

#[tokio::test]
async fn a_refusal_in_anybody_elses_words_is_no_refusal() {
    let deep = "[".repeat(50_000);
    let huge = format!(r#"{{"errors":[],"x":"{}"}}"#, "x".repeat(answer_bytes_max(1)));
    for body in ["", "{}", "[]", "null", r#"{"errors":7}"#, r#"{"error":"x"}"#, "\u{0}", &deep, &huge, &BAD[..20]] {
        let answer = answer_to(1, answer(400, "", body)).await;
        assert_eq!(answer.verdicts, [Verdict::Unknown(Code::known("not_the_providers_answer"))]);
    }
}

#[tokio::test]
async fn no_text_of_an_answer_gets_into_a_verdict() {
    let body = r#"{"errors":[{"message":"bad: canary@example.org","field":"personalizations.0.canary"}]}"#;
    for status in [400, 401, 403, 404, 413, 429, 500, 503] {
        let answer = answer_to(2, answer(status, "x-message-id: canary\r\n", body)).await;
        assert!(!format!("{answer:?}").contains("canary"), "{answer:?}");
    }
}

fn written(request: &Request<'_>) -> Value {
    serde_json::from_slice(&body(request, &SystemEntropy::default())).unwrap()
}

#[test]
fn many_share_one_page_and_each_brings_what_differs() {
    let mut recipients = recipients(Channel::Email, 2);
    recipients[1].list_unsubscribe = Some("https://u.example.com/x".to_owned());
    let mail = written(&request(&message(Channel::Email), &recipients));

    assert_eq!(mail["from"], json!({"email": "news@example.com", "name": "Example"}));
    assert_eq!(mail["reply_to"], json!({"email": "reply@example.com"}));
    let content = mail["content"].as_array().unwrap();
    assert_eq!(
        content.iter().map(|part| part["type"].as_str().unwrap()).collect::<Vec<_>>(),
        ["text/plain", "text/html"]
    );
    let people = mail["personalizations"].as_array().unwrap();
    assert_eq!(people.len(), 2);
    assert_eq!(people[0]["to"], json!([{"email": "person1@example.org"}]));
    assert_eq!(people[0]["custom_args"], json!({"k": key(1).to_string(), "t": "abababababababababababababababab"}));
    assert_eq!(people[0]["substitutions"].as_object().unwrap().len(), 2);
    assert_eq!(people[0].get("headers"), None);
    assert_eq!(
        people[1]["headers"],
        json!({"List-Unsubscribe": "<https://u.example.com/x>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"})
    );
}

#[test]
fn one_alone_gets_finished_parts() {
    let mail = written(&request(&message(Channel::Email), &recipients(Channel::Email, 1)));
    assert_eq!(mail["subject"], "Hi Ann 1, <b>&amp;</b>!");
    assert_eq!(mail["content"][1]["value"], "Hi Ann 1, <b>&amp;</b>!");
    assert_eq!(mail["personalizations"][0].get("substitutions"), None);
}

#[test]
fn nothing_watches_the_reader_and_no_suppression_is_passed_over() {
    let mail = written(&request(&message(Channel::Email), &recipients(Channel::Email, 2)));
    assert_eq!(
        mail["tracking_settings"],
        json!({
            "click_tracking": {"enable": false, "enable_text": false},
            "open_tracking": {"enable": false},
            "subscription_tracking": {"enable": false},
            "ganalytics": {"enable": false},
        })
    );
    assert_eq!(mail.get("mail_settings"), None);
    assert_eq!(mail.get("categories"), None);
}

#[test]
fn an_empty_part_is_left_out() {
    let mut message = message(Channel::Email);
    if let Body::Email { html, .. } = &mut message.body {
        *html = Some(Skeleton::default());
    }
    for count in [1, 2] {
        let mail = written(&request(&message, &recipients(Channel::Email, count)));
        assert_eq!(mail["content"].as_array().unwrap().len(), 1);
        assert_eq!(mail["content"][0]["type"], "text/plain");
    }
}

#[test]
fn a_recipient_whose_substitutions_pass_10_000_bytes_travels_alone() {
    let provider = account("sendgrid", "http://127.0.0.1:1");
    let message = message(Channel::Email);
    let fits = |value: &str| {
        let mut recipient = recipients(Channel::Email, 1).remove(0);
        recipient.slots = slots([value, ""]);
        let fits = provider.fits_batch(&message, &recipient);
        let two = [recipient.clone(), recipient];
        let mail = written(&request(&message, &two));
        assert_eq!(fits, mail["personalizations"][0]["substitutions"].to_string().len() <= 10_000);
        fits
    };
    assert!(fits("short"));
    assert!(fits(&"x".repeat(9_900)));
    assert!(!fits(&"x".repeat(10_000)));
    assert!(!fits(&"\"".repeat(5_000)), "as they are written, with their escapes");
}

/// Randomness that has been guessed: the same numbers again and again.
struct Guessed;

impl Entropy for Guessed {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

#[test]
fn a_tag_that_occurs_in_a_value_is_not_used() {
    let mut recipients = recipients(Channel::Email, 2);
    let message = message(Channel::Email);
    let tags_of = |recipients: &[Recipient]| {
        let mail: Value = serde_json::from_slice(&body(&request(&message, recipients), &Guessed)).unwrap();
        mail["personalizations"][0]["substitutions"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let guessed = tags_of(&recipients);
    recipients[1].slots = slots([format!("--{}", guessed[1]).as_str(), ""]);
    let drawn = tags_of(&recipients);
    assert_eq!(drawn.len(), 2);
    assert!(guessed.iter().all(|tag| !drawn.contains(tag)));
}

#[tokio::test]
async fn it_cannot_tell_what_became_of_a_request() {
    let findings = account("sendgrid", "http://127.0.0.1:1").look_up(&questions([key(1), key(2)])).await;
    assert_eq!(findings, Ok(vec![Finding::CannotTell; 2]));
}

/// What SendGrid makes of a part: every substitution replaced wherever it stands, one after the other.
fn substituted(part: &str, person: &Value) -> String {
    let none = serde_json::Map::new();
    let substitutions = person["substitutions"].as_object().unwrap_or(&none);
    substitutions.iter().fold(part.to_owned(), |text, (tag, value)| text.replace(tag, value.as_str().unwrap()))
}

fn text() -> impl Strategy<Value = String> {
    "([a-z<>&\"'\\\\{}%# -]|-[0-9a-f]{16}:[0-9]-|\\{\\{params\\.s0\\}\\}|🎉|é|\n){0,12}"
}

fn part() -> impl Strategy<Value = Skeleton> {
    proptest::collection::vec(
        prop_oneof![text().prop_map(|text| Piece::Fixed(text.into())), (0..4_u16).prop_map(Piece::Slot)],
        0..8,
    )
    .prop_map(|pieces| Skeleton { pieces })
}

fn filled() -> impl Strategy<Value = Slots> {
    proptest::collection::vec(text(), 0..5).prop_map(|values| slots(values.iter().map(String::as_str)))
}

proptest! {
    #[test]
    fn what_sendgrid_makes_of_a_request_is_the_whole_rendering(
        subject in part(), html in part(), plain in part(), of_each in proptest::collection::vec(filled(), 1..4)
    ) {
        let from = Mailbox { address: "news@example.com".to_owned(), name: None };
        let message = Message {
            body: Body::Email {
                from, reply_to: None, subject: subject.clone(), html: Some(html.clone()), text: Some(plain.clone())
            },
        };
        let mut recipients = recipients(Channel::Email, u8::try_from(of_each.len()).unwrap());
        for (recipient, slots) in recipients.iter_mut().zip(&of_each) {
            recipient.slots = slots.clone();
        }
        let mail = written(&request(&message, &recipients));
        let value = |kind: &str| {
            let parts = mail["content"].as_array().unwrap();
            parts.iter().find(|part| part["type"] == kind).map_or("", |part| part["value"].as_str().unwrap())
        };
        for (slots, person) in of_each.iter().zip(mail["personalizations"].as_array().unwrap()) {
            prop_assert_eq!(substituted(mail["subject"].as_str().unwrap(), person), subject.spliced(slots));
            prop_assert_eq!(substituted(value("text/html"), person), html.spliced(slots));
            prop_assert_eq!(substituted(value("text/plain"), person), plain.spliced(slots));
        }
    }
}
