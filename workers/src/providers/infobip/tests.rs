use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::{
    message::SendKey,
    providers::{
        Code, LookUpError, Signal, Verdict,
        http::{answer_bytes_max, test_server::*},
    },
};

async fn answer_to(recipient_count: u8, raw: Vec<u8>) -> Answer {
    let server = Server::answering([raw]).await;
    let recipients = recipients(Channel::Sms, recipient_count);
    account("infobip", &server.url()).send(&request(&message(Channel::Sms), &recipients)).await
}

fn http(status: u32) -> Code {
    Code::numbered("http", status)
}

fn row(key: SendKey, group: u32, id: u32) -> Value {
    json!({
        "messageId": key.to_string(),
        "status": {"groupId": group, "groupName": "X", "id": id, "name": "canary", "description": "canary"},
        "destination": "385910000000",
        "details": {"messageCount": 1},
    })
}

fn submitted(rows: &[Value]) -> Vec<u8> {
    answer(200, "", &json!({"bulkId": "b", "messages": rows}).to_string())
}

const ACCEPTED: Verdict = Verdict::Accepted { provider_id: None };

fn infobip(id: u32) -> Code {
    Code::numbered("infobip", id)
}

#[tokio::test]
async fn every_documented_status_has_its_verdict() {
    let refused = |id| Verdict::Refused(infobip(id));
    let deferred = |id| Verdict::Deferred(infobip(id));
    let account = |id| Verdict::AccountRefused(infobip(id));
    for (group, id, verdict) in [
        (3, 2, ACCEPTED),
        (1, 3, ACCEPTED),
        (2, 4, refused(4)),
        (3, 5, ACCEPTED),
        (5, 6, refused(6)),
        (1, 7, ACCEPTED),
        (5, 8, refused(8)),
        (2, 9, refused(9)),
        (5, 10, refused(10)),
        (5, 11, account(11)),
        (5, 12, account(12)),
        (5, 13, account(13)),
        (5, 14, refused(14)),
        (4, 15, refused(15)),
        (5, 17, account(17)),
        (5, 18, account(18)),
        (5, 19, account(19)),
        (5, 20, refused(20)),
        (5, 21, deferred(21)),
        (5, 23, Verdict::Duplicate),
        (5, 24, refused(24)),
        (5, 25, refused(25)),
        (1, 26, ACCEPTED),
        (4, 29, ACCEPTED),
        (2, 31, refused(31)),
        (5, 51, refused(51)),
        (5, 52, refused(52)),
        (5, 87, refused(87)),
        (2, 100, deferred(100)),
        // Ids nobody has heard of count by their group.
        (0, 900, ACCEPTED),
        (1, 900, ACCEPTED),
        (3, 900, ACCEPTED),
        (2, 900, refused(900)),
        (4, 900, refused(900)),
        (5, 900, refused(900)),
        (9, 900, Verdict::Unknown(Code::known("unreadable_answer"))),
    ] {
        let answer = answer_to(1, submitted(&[row(key(1), group, id)])).await;
        assert_eq!(answer.verdicts, std::slice::from_ref(&verdict), "status {id} of group {group}");
        let stops = matches!(verdict, Verdict::AccountRefused(_)).then(|| Signal::Stop(infobip(id)));
        assert_eq!(answer.signal, stops, "status {id}");
    }
}

#[tokio::test]
async fn each_recipient_has_the_verdict_of_its_own_row() {
    let rows = [row(key(3), 5, 52), row(key(9), 1, 26), row(key(1), 1, 26)];
    let answer = answer_to(3, submitted(&rows)).await;
    assert_eq!(
        answer.verdicts,
        [ACCEPTED, Verdict::Unknown(Code::known("missing_in_answer")), Verdict::Refused(infobip(52))]
    );
    assert_eq!(answer.signal, None);
}

#[tokio::test]
async fn two_rows_that_disagree_tell_nothing() {
    let answer = answer_to(1, submitted(&[row(key(1), 1, 26), row(key(1), 5, 52), row(key(1), 5, 52)])).await;
    assert_eq!(answer.verdicts, [Verdict::Unknown(Code::known("answered_twice"))]);
    let answer = answer_to(1, submitted(&[row(key(1), 1, 26), row(key(1), 1, 7)])).await;
    assert_eq!(answer.verdicts, [ACCEPTED]);
}

#[tokio::test]
async fn a_200_that_cannot_be_read_accepts_nobody_and_refuses_nobody() {
    let deep = format!(r#"{{"messages":{}"#, "[".repeat(60_000));
    let huge = format!(r#"{{"messages":[],"x":"{}"}}"#, "x".repeat(answer_bytes_max(2)));
    let truncated = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"messages\":[]}".to_vec();
    let texts = ["", "{}", "[]", "<messages/>", r#"{"messages":{}}"#, r#"{"messages":[{"status":{}}]}"#, &deep, &huge];
    for raw in texts.into_iter().map(|body| answer(200, "", body)).chain([truncated]) {
        let expected = Answer::all(&Verdict::Unknown(Code::known("unreadable_answer")), 2);
        assert_eq!(answer_to(2, raw).await, expected);
    }
}

const BAD: &str = r#"{"errorCode":"E400","description":"canary","action":"","violations":[],"resources":[]}"#;
const BAD_OLD: &str = r#"{"requestError":{"serviceException":{"messageId":"BAD_REQUEST","text":"canary"}}}"#;

#[tokio::test]
async fn a_400_refuses_one_recipient_and_sends_many_one_by_one() {
    for body in [BAD, BAD_OLD] {
        assert_eq!(answer_to(1, answer(400, "", body)).await, Answer::all(&Verdict::Refused(http(400)), 1));
        assert_eq!(answer_to(2, answer(400, "", body)).await, Answer::all(&Verdict::Deferred(http(400)), 2));
    }
}

#[tokio::test]
async fn a_400_that_names_a_message_refuses_that_one() {
    let body = json!({
        "errorCode": "E400", "description": "canary", "action": "", "resources": [],
        "violations": [
            {"property": "messages[1].content.text", "violation": "canary"},
            {"property": "messages[7].content.text", "violation": "canary"},
            {"property": "messages[x]", "violation": "canary"},
            {"property": "messages", "violation": "canary"},
            {"violation": "canary"},
        ],
    });
    let answer = answer_to(3, answer(400, "", &body.to_string())).await;
    let again = Verdict::Deferred(http(400));
    assert_eq!(answer.verdicts, [again.clone(), Verdict::Refused(http(400)), again]);
}

#[tokio::test]
async fn a_refused_account_stops_and_burns_nobody() {
    for (status, why) in [(401, "unauthorized"), (402, "payment_required"), (403, "forbidden"), (404, "http_404")] {
        let why = Code::known(why);
        let expected = Answer::all(&Verdict::AccountRefused(why.clone()), 2).with_signal(Signal::Stop(why));
        assert_eq!(answer_to(2, answer(status, "", BAD)).await, expected, "{status}");
    }
}

#[tokio::test]
async fn a_429_is_obeyed_and_a_500_tells_nothing() {
    let expected = Answer::all(&Verdict::Throttled(http(429)), 2).with_signal(Signal::Wait(Duration::from_secs(3)));
    assert_eq!(answer_to(2, answer(429, "retry-after: 3\r\n", BAD)).await, expected);
    for status in [408, 500, 502, 503] {
        let expected = Answer::all(&Verdict::Unknown(http(u32::from(status))), 2);
        assert_eq!(answer_to(2, answer(status, "", BAD)).await, expected);
    }
}

#[tokio::test]
async fn no_text_of_an_answer_gets_into_a_verdict() {
    for raw in [submitted(&[row(key(1), 5, 52)]), answer(400, "", BAD), answer(400, "", BAD_OLD)] {
        let answer = answer_to(1, raw).await;
        assert!(!format!("{answer:?}").contains("canary"), "{answer:?}");
    }
}

#[test]
fn each_recipient_is_a_message_with_our_id() {
    let recipients = recipients(Channel::Sms, 2);
    let sms: Value = serde_json::from_slice(&body(&request(&message(Channel::Sms), &recipients))).unwrap();
    let one = |number: u8| {
        json!({
            "sender": "Example",
            "destinations": [{"to": format!("3859100000{number:02}"), "messageId": key(number).to_string()}],
            "content": {"text": format!("Hi Ann {number}, <b>&amp;</b>!")},
        })
    };
    assert_eq!(sms, json!({"messages": [one(1), one(2)]}), "and no tracking");
}

fn log(rows: &[Value]) -> Vec<u8> {
    answer(200, "", &json!({"results": rows}).to_string())
}

#[tokio::test]
async fn the_log_settles_what_is_unknown() {
    let mut server = Server::answering([log(&[
        row(key(3), 5, 52),
        row(key(1), 3, 5),
        row(key(9), 3, 5),
        row(key(5), 5, 52),
        row(key(5), 1, 26),
        row(key(5), 5, 23),
        row(key(6), 5, 12),
        row(key(7), 9, 900),
    ])])
    .await;
    let asked = [1, 2, 3, 5, 6, 7].map(key);
    let findings = account("infobip", &server.url()).look_up(&questions(asked)).await.unwrap();
    let accepted = Finding::Accepted { provider_id: None };
    assert_eq!(
        findings,
        [
            accepted.clone(),
            Finding::Absent,
            Finding::Refused(infobip(52)),
            accepted,
            Finding::Refused(infobip(12)),
            Finding::CannotTell,
        ]
    );
    let ids = asked.map(|key| key.to_string()).join(",");
    let head = server.seen().await.unwrap().head;
    assert!(head.starts_with(&format!("GET /sms/3/logs?limit=1000&messageId={ids} HTTP/1.1\r\n")), "{head}");
}

#[tokio::test]
async fn a_row_is_believed_as_far_as_no_other_row_of_its_id_says_more() {
    let (taken, refused, duplicate, unreadable) = ((1, 26), (5, 12), (5, 23), (9, 900));
    let accepted = Finding::Accepted { provider_id: None };
    let of = [
        (vec![refused, taken, duplicate], accepted.clone()),
        (vec![unreadable, refused, taken], accepted),
        (vec![refused, duplicate], Finding::Refused(infobip(12))),
        (vec![refused, unreadable, refused], Finding::CannotTell),
        (vec![duplicate, unreadable], Finding::CannotTell),
        (vec![duplicate, duplicate], Finding::CannotTell),
    ];
    let rows =
        (0..).zip(&of).flat_map(|(id, (rows, _))| rows.iter().map(move |(group, code)| row(key(id), *group, *code)));
    let rows: Vec<Value> = rows.collect();
    for rows in [rows.clone(), rows.into_iter().rev().collect()] {
        let server = Server::answering([log(&rows)]).await;
        let findings =
            account("infobip", &server.url()).look_up(&questions([0, 1, 2, 3, 4, 5].map(key))).await.unwrap();
        assert_eq!(findings, of.each_ref().map(|(_, finding)| finding.clone()));
    }
}

#[tokio::test]
async fn many_questions_are_asked_in_several_requests() {
    let keys: Vec<SendKey> = (0..120).map(key).collect();
    let logs: Vec<Vec<u8>> = [0..55, 55..110, 110..120]
        .map(|asked| log(&keys[asked].iter().map(|key| row(*key, 1, 26)).collect::<Vec<_>>()))
        .to_vec();
    let mut server = Server::answering(logs).await;
    let findings = account("infobip", &server.url()).look_up(&questions(keys)).await.unwrap();
    assert_eq!(findings, vec![Finding::Accepted { provider_id: None }; 120]);
    while let Some(seen) = server.seen().await {
        let ids = seen.head.split_once("messageId=").unwrap().1.split_once(' ').unwrap().0;
        assert!(ids.len() <= 2_048);
        assert!(!seen.head.contains("reports"), "that would take the reports away from whoever waits for them");
    }
}

#[tokio::test]
async fn a_log_that_does_not_answer_tells_nothing() {
    for (raw, code) in [
        (answer(429, "", BAD), "http_429"),
        (answer(500, "", BAD), "http_500"),
        (answer(404, "", BAD), "http_404"),
        (answer(200, "", ""), "unreadable_answer"),
        (answer(200, "", "{}"), "unreadable_answer"),
        (typed_answer(200, "text/html", "", "<html>"), "unreadable_answer"),
        (Vec::new(), "connection_lost"),
    ] {
        let server = Server::answering([raw]).await;
        let answer = account("infobip", &server.url()).look_up(&questions([key(1)])).await;
        let Err(LookUpError(why)) = answer else { panic!("{code}: an answer") };
        assert_eq!(why.as_str(), code);
    }
}
