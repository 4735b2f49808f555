use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    message::{Body, Mailbox, Piece, Skeleton, Slots},
    providers::{
        Code, Signal, Verdict,
        http::{answer_bytes_max, test_server::*},
    },
};

async fn email_answer(recipient_count: u8, raw: Vec<u8>) -> Answer {
    let server = Server::answering([raw]).await;
    let recipients = recipients(Channel::Email, recipient_count);
    account("brevo", &server.url()).send(&request(&message(Channel::Email), &recipients)).await
}

async fn sms_answer(raw: Vec<u8>) -> Answer {
    let server = Server::answering([raw]).await;
    account("brevo_sms", &server.url()).send(&request(&message(Channel::Sms), &recipients(Channel::Sms, 1))).await
}

fn http(status: u32) -> Code {
    Code::numbered("http", status)
}

fn accepted(id: &str) -> Verdict {
    Verdict::Accepted { provider_id: Some(id.to_owned()) }
}

fn complaint(code: &str) -> String {
    json!({"code": code, "message": "canary@example.org is wrong"}).to_string()
}

#[tokio::test]
async fn ids_are_given_out_in_the_order_of_the_versions() {
    let body = r#"{"messageIds":["<1@smtp-relay.mailin.fr>","<2@smtp-relay.mailin.fr>"]}"#;
    let answer_of_two = email_answer(2, answer(201, "", body)).await;
    assert_eq!(answer_of_two.verdicts, [accepted("<1@smtp-relay.mailin.fr>"), accepted("<2@smtp-relay.mailin.fr>")]);
    for one in [r#"{"messageId":"<1@x>"}"#, r#"{"messageIds":["<1@x>"]}"#] {
        assert_eq!(email_answer(1, answer(201, "", one)).await.verdicts, [accepted("<1@x>")]);
    }
}

#[tokio::test]
async fn nobody_is_given_anothers_id() {
    let huge = json!({"messageIds": vec!["x".repeat(1_000); 70]}).to_string();
    let deep = "[".repeat(60_000);
    for body in [
        "",
        "{",
        "[]",
        r#"{"messageId":"<1@x>"}"#,
        r#"{"messageIds":["a","b","c"]}"#,
        r#"{"messageIds":7}"#,
        &deep,
        &huge,
    ] {
        assert_eq!(
            email_answer(2, answer(201, "", body)).await,
            Answer::all(&Verdict::Accepted { provider_id: None }, 2)
        );
    }
    let odd = json!({"messageIds": ["a b", "x".repeat(300)]}).to_string();
    assert_eq!(email_answer(2, answer(202, "", &odd)).await, Answer::all(&Verdict::Accepted { provider_id: None }, 2));
}

#[tokio::test]
async fn a_repeated_key_is_a_duplicate_for_everybody() {
    let answer = email_answer(3, answer(400, "", &complaint("duplicate_parameter"))).await;
    assert_eq!(answer, Answer::all(&Verdict::Duplicate, 3));
}

#[tokio::test]
async fn a_400_refuses_one_recipient_and_sends_many_one_by_one() {
    for code in ["invalid_parameter", "missing_parameter", "something_new"] {
        let raw = answer(400, "", &complaint(code));
        assert_eq!(email_answer(1, raw.clone()).await, Answer::all(&Verdict::Refused(http(400)), 1));
        assert_eq!(email_answer(3, raw.clone()).await, Answer::all(&Verdict::Deferred(http(400)), 3));
        assert_eq!(sms_answer(raw).await, Answer::all(&Verdict::Refused(http(400)), 1));
    }
}

#[tokio::test]
async fn a_refused_account_stops_and_burns_nobody() {
    for (status, code, why) in [
        (401, "unauthorized", "unauthorized"),
        (401, "key_not_found", "unauthorized"),
        (402, "not_enough_credits", "credits_exceeded"),
        (400, "not_enough_credits", "credits_exceeded"),
        (403, "permission_denied", "forbidden"),
        (404, "document_not_found", "http_404"),
        (405, "method_not_allowed", "http_405"),
        (406, "not_acceptable", "http_406"),
        (415, "x", "http_415"),
    ] {
        let why = Code::known(why);
        let raw = answer(status, "", &complaint(code));
        let expected =
            |count| Answer::all(&Verdict::AccountRefused(why.clone()), count).with_signal(Signal::Stop(why.clone()));
        assert_eq!(email_answer(2, raw.clone()).await, expected(2), "{status} {code}");
        assert_eq!(sms_answer(raw).await, expected(1), "{status} {code}");
    }
}

#[tokio::test]
async fn a_429_waits_the_seconds_that_are_left() {
    for (headers, seconds) in [("x-sib-ratelimit-reset: 12\r\n", 12), ("retry-after: 7\r\n", 7)] {
        let answer = email_answer(2, answer(429, headers, &complaint("too_many_requests"))).await;
        let expected = Answer::all(&Verdict::Throttled(http(429)), 2);
        assert_eq!(answer, expected.with_signal(Signal::Wait(Duration::from_secs(seconds))));
    }
}

#[tokio::test]
async fn what_may_have_been_taken_is_unknown() {
    for status in [408, 409, 425, 499, 500, 502, 503, 504] {
        let raw = answer(status, "", &complaint("x"));
        let unknown = Verdict::Unknown(http(u32::from(status)));
        assert_eq!(email_answer(2, raw.clone()).await, Answer::all(&unknown, 2), "{status}");
        assert_eq!(sms_answer(raw).await, Answer::all(&unknown, 1), "{status}");
    }
}

#[tokio::test]
async fn a_refusal_in_anybody_elses_words_is_no_refusal() {
    let deep = format!(r#"{{"code":{}"#, "[".repeat(60_000));
    let huge = format!(r#"{{"code":"x","x":"{}"}}"#, "x".repeat(answer_bytes_max(1)));
    for body in ["", "{}", "[]", r#"{"code":7}"#, r#"{"errors":[]}"#, &deep, &huge] {
        let answer = email_answer(1, answer(400, "", body)).await;
        assert_eq!(answer.verdicts, [Verdict::Unknown(Code::known("not_the_providers_answer"))]);
    }
}

#[tokio::test]
async fn no_text_of_an_answer_gets_into_a_verdict() {
    for status in [400, 401, 404, 413, 429, 500] {
        let answer = email_answer(2, answer(status, "", &complaint("canary"))).await;
        assert!(!format!("{answer:?}").contains("canary"), "{answer:?}");
    }
}

#[tokio::test]
async fn an_sms_id_keeps_all_its_digits() {
    for id in ["1511882900176220", "9007199254740993", "18446744073709551615"] {
        let answer = sms_answer(answer(201, "", &format!(r#"{{"messageId":{id}}}"#))).await;
        assert_eq!(answer.verdicts, [accepted(id)]);
    }
    for body in ["", r#"{"messageId":1e300}"#, r#"{"messageId":"x"}"#, r#"{"messageId":-1}"#] {
        assert_eq!(sms_answer(answer(201, "", body)).await.verdicts, [Verdict::Accepted { provider_id: None }]);
    }
}

fn written(request: &Request<'_>) -> Value {
    serde_json::from_slice(&email_body(request)).unwrap()
}

const BATCH_KEY: &str = "cdcdcdcd-cdcd-cdcd-cdcd-cdcdcdcdcdcd";

#[test]
fn many_share_one_page_and_each_brings_what_differs() {
    let mail = written(&request(&message(Channel::Email), &recipients(Channel::Email, 2)));
    assert_eq!(mail["sender"], json!({"email": "news@example.com", "name": "Example"}));
    assert_eq!(mail["replyTo"], json!({"email": "reply@example.com"}));
    assert_eq!(mail["headers"], json!({"idempotencyKey": BATCH_KEY}));
    assert_eq!(mail["tags"], json!([BATCH_KEY]));
    assert_eq!(mail.get("to"), None);
    assert_eq!(mail["subject"], "Hi {{params.t0}}, {{params.t1}}!");
    assert_eq!(mail["htmlContent"], "{% autoescape off %}Hi {{params.h0}}, {{params.h1}}!{% endautoescape %}");
    let versions = mail["messageVersions"].as_array().unwrap();
    assert_eq!(
        versions[1],
        json!({
            "to": [{"email": "person2@example.org"}],
            "subject": "Hi Ann 2, <b>&amp;</b>!",
            "params": {"h0": "Ann 2", "h1": "<b>&amp;</b>", "t0": "Ann 2", "t1": "<b>&amp;</b>"},
        })
    );
}

#[test]
fn one_alone_gets_finished_parts_its_key_and_its_way_out() {
    let mut recipients = recipients(Channel::Email, 1);
    recipients[0].list_unsubscribe = Some("https://u.example.com/x".to_owned());
    let mail = written(&request(&message(Channel::Email), &recipients));
    assert_eq!(
        mail["headers"],
        json!({
            "idempotencyKey": BATCH_KEY,
            "X-Mailin-custom": key(1).to_string(),
            "List-Unsubscribe": "<https://u.example.com/x>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        })
    );
    assert_eq!(mail["to"], json!([{"email": "person1@example.org"}]));
    assert_eq!(mail["htmlContent"], "Hi Ann 1, <b>&amp;</b>!");
    assert_eq!(mail.get("messageVersions"), None);
}

#[test]
fn a_subject_for_all_is_written_once() {
    let mut message = message(Channel::Email);
    if let Body::Email { subject, html, .. } = &mut message.body {
        *subject = Skeleton::fixed("News {{7*7}}");
        *html = None;
    }
    let mail = written(&request(&message, &recipients(Channel::Email, 2)));
    assert_eq!(mail["subject"], "News {\u{200b}{7*7}}");
    assert_eq!(mail.get("htmlContent"), None);
    assert_eq!(mail["messageVersions"][0].get("subject"), None);
}

#[test]
fn who_needs_a_header_or_much_room_travels_alone() {
    let provider = account("brevo", "http://127.0.0.1:1");
    let message = message(Channel::Email);
    let [recipient] = <[Recipient; 1]>::try_from(recipients(Channel::Email, 1)).unwrap();
    assert!(provider.fits_batch(&message, &recipient));
    let with_header = Recipient { list_unsubscribe: Some("https://u.example.com".to_owned()), ..recipient.clone() };
    assert!(!provider.fits_batch(&message, &with_header));
    // 100 together may have 1,000 KB; the value goes into the page and into the text.
    let of = |bytes: usize| Recipient { slots: slots(["x".repeat(bytes).as_str(), ""]), ..recipient.clone() };
    assert!(provider.fits_batch(&message, &of(4_900)));
    assert!(!provider.fits_batch(&message, &of(5_000)));
}

#[test]
fn a_text_message_carries_its_key_as_its_tag() {
    let recipients = recipients(Channel::Sms, 1);
    let sms: Value = serde_json::from_slice(&sms_body(&message(Channel::Sms), &recipients[0])).unwrap();
    assert_eq!(
        sms,
        json!({
            "sender": "Example",
            "recipient": "385910000001",
            "content": "Hi Ann 1, <b>&amp;</b>!",
            "type": "marketing",
            "unicodeEnabled": true,
            "tag": key(1).to_string(),
        })
    );
}

#[tokio::test]
async fn it_cannot_tell_what_became_of_a_text_message() {
    let findings = account("brevo_sms", "http://127.0.0.1:1").look_up(&questions([key(1)])).await;
    assert_eq!(findings, Ok(vec![Finding::CannotTell]));
}

/// What Brevo makes of a part: parameters are put in, escaped unless that is switched off; whatever else begins
/// something of the language disappears. Done twice, because values have been seen to be run as well.
fn rendered(part: &str, params: &Value) -> String {
    let mut out = String::new();
    let mut rest = part;
    let mut escapes = true;
    while let Some(at) =
        rest.match_indices('{').map(|(at, _)| at).find(|at| rest[at + 1..].starts_with(['{', '%', '#']))
    {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let close = match &rest[..2] {
            "{{" => "}}",
            "{%" => "%}",
            _ => "#}",
        };
        let Some(end) = rest.find(close) else { return format!("{out}(error)") };
        let inside = rest[2..end].trim();
        match inside {
            "autoescape off" => escapes = false,
            "endautoescape" => escapes = true,
            _ => {
                let value =
                    inside.strip_prefix("params.").and_then(|name| params[name].as_str()).unwrap_or("(nothing)");
                let escaped = value.replace('&', "&amp;").replace('<', "&lt;");
                out.push_str(if escapes { &escaped } else { value });
            }
        }
        rest = &rest[end + 2..];
    }
    out.push_str(rest);
    out
}

fn seen_in_page(html: &str) -> String {
    html.replace("&#123;", "{")
}

fn seen_in_text(text: &str) -> String {
    text.replace('\u{200b}', "")
}

fn text() -> impl Strategy<Value = String> {
    "([a-z<>&\"'\\\\}% ]|\\{|#|\\{\\{params\\.h0\\}\\}|\\{% endautoescape %\\}|\\{\\{7\\*7\\}\\}|🎉|é|\n){0,10}"
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
    fn what_a_reader_sees_of_brevos_mail_is_the_whole_rendering(
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
        let alone = [Value::Null];
        let versions = mail["messageVersions"].as_array().map_or(alone.as_slice(), Vec::as_slice);
        for (slots, version) in of_each.iter().zip(versions) {
            let made = |name: &str| {
                let part = version[name].as_str().or(mail[name].as_str()).unwrap_or("");
                let once = rendered(part, &version["params"]);
                let twice = rendered(&once, &version["params"]);
                assert_eq!(once, twice, "nothing is left to run");
                once
            };
            prop_assert_eq!(seen_in_text(&made("subject")), seen_in_text(&subject.spliced(slots)));
            prop_assert_eq!(seen_in_page(&made("htmlContent")), seen_in_page(&html.spliced(slots)));
            prop_assert_eq!(seen_in_text(&made("textContent")), seen_in_text(&plain.spliced(slots)));
        }
    }
}
