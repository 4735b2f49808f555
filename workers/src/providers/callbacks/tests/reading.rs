//! Reading what they report.

use dispatch_schemas::states::{FactKind, StopReason};
use proptest::prelude::*;

use super::{super::*, VENDOR_BODY};
use crate::providers::entry;

fn read(kind: &str, body: &str) -> Events {
    (entry(kind).unwrap().callbacks.unwrap().read)("main", body.as_bytes()).unwrap()
}

/// What each report of a body is taken for.
fn told(kind: &str, body: &str) -> Vec<(FactKind, bool, Option<StopReason>)> {
    read(kind, body).events.iter().map(|event| (event.kind, event.proves_acceptance, event.closes)).collect()
}

const KEY: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";

#[test]
fn every_event_of_sendgrid_has_its_meaning() {
    use FactKind::{Accepted, BouncedHard, BouncedSoft, Complained, Deferred, Delivered, ExpiredAtProvider};
    use FactKind::{Other, RejectedByProvider, Unsubscribed};
    for (fields, expected) in [
        (r#""event":"processed""#, (Accepted, true, None)),
        (r#""event":"deferred","response":"451","attempt":"3""#, (Deferred, true, None)),
        (r#""event":"delivered","tls":1"#, (Delivered, true, None)),
        (r#""event":"bounce","type":"bounce""#, (BouncedHard, true, Some(StopReason::HardBounced))),
        (r#""event":"bounce","type":"blocked""#, (BouncedSoft, true, None)),
        (r#""event":"bounce","type":"expired""#, (ExpiredAtProvider, true, None)),
        (r#""event":"bounce""#, (BouncedSoft, true, None)),
        (r#""event":"dropped","reason":"Bounced Address""#, (RejectedByProvider, true, Some(StopReason::HardBounced))),
        (r#""event":"dropped","reason":"Invalid""#, (RejectedByProvider, true, Some(StopReason::HardBounced))),
        (
            r#""event":"dropped","reason":"Unsubscribed Address""#,
            (RejectedByProvider, true, Some(StopReason::Unsubscribed)),
        ),
        (
            r#""event":"dropped","reason":"Spam Reporting Address""#,
            (RejectedByProvider, true, Some(StopReason::Complained)),
        ),
        (r#""event":"dropped","reason":"Spam Content""#, (RejectedByProvider, true, None)),
        (r#""event":"dropped","reason":"Recipient List over Package Quota""#, (RejectedByProvider, true, None)),
        (r#""event":"spamreport""#, (Complained, true, Some(StopReason::Complained))),
        (r#""event":"unsubscribe""#, (Unsubscribed, true, Some(StopReason::Unsubscribed))),
        (r#""event":"group_unsubscribe","asm_group_id":1"#, (Unsubscribed, true, Some(StopReason::Unsubscribed))),
        (r#""event":"group_resubscribe","asm_group_id":1"#, (Other, false, None)),
        (r#""event":"account_status_change""#, (Other, false, None)),
        (r#""type":"event""#, (Other, false, None)),
        (r#""event":7"#, (Other, false, None)),
    ] {
        assert_eq!(told("sendgrid", &format!("[{{{fields}}}]")), [expected], "{fields}");
    }
    let watched =
        read("sendgrid", r#"[{"event":"open","sg_machine_open":true},{"event":"click","url":"https://x.eu"}]"#);
    assert_eq!((watched.not_kept, watched.events.len()), (2, 0), "nobody agreed to be watched");
}

#[test]
fn a_sendgrid_event_is_found_by_our_key_and_named_by_its_own_id_and_time() {
    let event = |id: &str, time: &str| {
        let body = format!(
            r#"[{{"email":"Anna@example.org","event":"delivered","k":"{KEY}","timestamp":{time},"sg_event_id":"{id}","sg_message_id":"m1.filter-1.0"}}]"#
        );
        read("sendgrid", &body).events.remove(0)
    };
    let one = event("ev-1", "1893456003");
    assert_eq!(one.traces.key.unwrap().to_string(), KEY);
    assert_eq!(one.traces.provider_id.as_deref(), Some("m1.filter-1.0"));
    assert_eq!((one.at_ms, one.address.as_deref()), (Some(1_893_456_003_000), Some("Anna@example.org")));
    assert_eq!(one.id, event("ev-1", "1893456003").id);
    assert_ne!(one.id, event("ev-1", "1893456004").id, "what comes again says the same time again");
    assert_ne!(one.id, event("ev-2", "1893456003").id);
    assert_eq!(event("ev-1", "\"1893456003\"").at_ms, Some(1_893_456_003_000));
    for time in ["null", "\"soon\"", "[]", "1e30"] {
        assert_eq!(event("ev-1", time).at_ms, None, "{time}");
    }
    assert!(!format!("{one:?}").contains("example"), "an address is shown nowhere");
    let other = (entry("sendgrid").unwrap().callbacks.unwrap().read)("other", VENDOR_BODY.as_bytes()).unwrap();
    assert_ne!(other.events[0].id, read("sendgrid", VENDOR_BODY).events[0].id, "each account has ids of its own");
}

#[test]
fn every_event_of_brevo_has_its_meaning() {
    use FactKind::{Accepted, BouncedHard, BouncedSoft, Complained, Deferred, Delivered, Other, RejectedByProvider};
    let (hard, out) = (Some(StopReason::HardBounced), Some(StopReason::Unsubscribed));
    for (event, expected) in [
        ("request", (Accepted, true, None)),
        ("sent", (Accepted, true, None)),
        ("deferred", (Deferred, true, None)),
        ("delivered", (Delivered, true, None)),
        ("soft_bounce", (BouncedSoft, true, None)),
        ("hard_bounce", (BouncedHard, true, hard)),
        ("invalid_email", (BouncedHard, true, hard)),
        ("blocked", (RejectedByProvider, true, None)),
        ("error", (RejectedByProvider, true, None)),
        ("spam", (Complained, true, Some(StopReason::Complained))),
        ("complaint", (Complained, true, Some(StopReason::Complained))),
        ("unsubscribe", (FactKind::Unsubscribed, true, out)),
        ("unsubscribed", (FactKind::Unsubscribed, true, out)),
        ("list_addition", (Other, false, None)),
    ] {
        assert_eq!(told("brevo", &format!(r#"{{"event":"{event}"}}"#)), [expected], "{event}");
    }
    for event in ["opened", "unique_opened", "proxy_open", "unique_proxy_open", "click"] {
        assert_eq!(read("brevo", &format!(r#"[{{"event":"{event}"}}]"#)).not_kept, 1, "{event}");
    }
    for (status, expected) in [
        ("sent", (Accepted, true, None)),
        ("accepted", (Accepted, true, None)),
        ("delivered", (Delivered, true, None)),
        ("soft_bounce", (BouncedSoft, true, None)),
        ("hard_bounce", (BouncedHard, true, hard)),
        ("blocked", (RejectedByProvider, true, None)),
        ("rejected", (RejectedByProvider, true, None)),
        ("skipped", (RejectedByProvider, true, None)),
        ("unsubscription", (FactKind::Unsubscribed, true, out)),
        ("new_word", (Other, false, None)),
    ] {
        assert_eq!(told("brevo_sms", &format!(r#"{{"msg_status":"{status}"}}"#)), [expected], "{status}");
    }
    assert_eq!(read("brevo_sms", r#"{"msg_status":"replies","reply":"hello"}"#).not_kept, 1);
}

#[test]
fn a_brevo_event_is_found_by_the_tag_of_its_request_in_every_form_it_may_have() {
    for tag in [
        format!(r#""tags":["{KEY}"]"#),
        format!(r#""tag":"[\"{KEY}\"]""#),
        format!(r#""tag":"{KEY}""#),
        format!(r#""tags":null,"tag":"{KEY}""#),
    ] {
        let events = read("brevo", &format!(r#"{{"event":"delivered","id":26224,"message-id":"<1@x>",{tag}}}"#));
        let traces = &events.events[0].traces;
        assert_eq!(traces.request_key.unwrap().to_string(), KEY, "{tag}");
        assert_eq!((traces.key, traces.provider_id.as_deref()), (None, Some("<1@x>")));
    }
    let single = read("brevo", &format!(r#"{{"event":"delivered","X-Mailin-custom":"{KEY}"}}"#));
    assert_eq!(single.events[0].traces.key.unwrap().to_string(), KEY);
    let time = |fields: &str| read("brevo", &format!(r#"{{"event":"delivered",{fields}}}"#)).events[0].at_ms;
    assert_eq!(time(r#""ts_epoch":1893456000000,"ts_event":5"#), Some(1_893_456_000_000));
    assert_eq!(time(r#""ts_epoch":1893456000"#), Some(1_893_456_000_000), "one of the vendor's samples has seconds");
    assert_eq!(time(r#""ts_event":1893456000"#), Some(1_893_456_000_000));
    assert_eq!(time(r#""date":"2030-01-01 10:00:00""#), None);
}

#[test]
fn an_id_begins_with_the_time_of_its_report() {
    let event = |at: u32| format!(r#"[{{"event":"delivered","sg_event_id":"e","timestamp":{at}}}]"#);
    let id = |at| read("sendgrid", &event(at)).events[0].id;
    assert!(id(1_893_456_001) > id(1_893_456_000), "later reports have greater ids");
    assert!(id(1_893_456_000) > first_id_at(1_893_456_000_000) && id(1_893_455_999) < first_id_at(1_893_456_000_000));
    for nonsense in [i64::MIN, -1, i64::MAX] {
        assert_eq!(first_id_at(nonsense), [0; 16]);
    }
}

#[test]
fn two_brevo_events_that_differ_in_anything_are_two() {
    let id = |fields: &str| read("brevo", &format!(r#"{{"id":26224,{fields}}}"#)).events[0].id;
    let same = r#""event":"deferred","message-id":"<1@x>","email":"a@x.eu","ts_epoch":1,"reason":"busy""#;
    assert_eq!(id(same), id(same));
    for other in [
        r#""event":"delivered","message-id":"<1@x>","email":"a@x.eu","ts_epoch":1,"reason":"busy""#,
        r#""event":"deferred","message-id":"<2@x>","email":"a@x.eu","ts_epoch":1,"reason":"busy""#,
        r#""event":"deferred","message-id":"<1@x>","email":"b@x.eu","ts_epoch":1,"reason":"busy""#,
        r#""event":"deferred","message-id":"<1@x>","email":"a@x.eu","ts_epoch":2,"reason":"busy""#,
        r#""event":"deferred","message-id":"<1@x>","email":"a@x.eu","ts_epoch":1,"reason":"busier""#,
    ] {
        assert_ne!(id(same), id(other), "{other}");
    }
}

fn report(status: &str, error: &str) -> String {
    format!(
        r#"{{"results":[{{"messageId":"{KEY}","to":"385910000000","status":{status},"error":{error},"doneAt":"2030-01-01T09:00:04.000+0000"}}]}}"#
    )
}

#[test]
fn every_status_of_infobip_has_its_meaning() {
    use FactKind::{Accepted, BouncedHard, BouncedSoft, Delivered, ExpiredAtProvider, Other, RejectedByProvider};
    let (hard, out) = (Some(StopReason::HardBounced), Some(StopReason::Unsubscribed));
    for (group, id, error, expected) in [
        (0, 0, 0, (Accepted, true, None)),
        (1, 26, 0, (Accepted, true, None)),
        (1, 7, 0, (Accepted, true, None)),
        (3, 2, 0, (Accepted, true, None)),
        (3, 5, 0, (Delivered, true, None)),
        (2, 9, 6, (BouncedSoft, false, None)),
        (2, 4, 1, (BouncedHard, false, hard)),
        (2, 9, 9, (BouncedHard, false, hard)),
        (2, 9, 3041, (BouncedHard, false, hard)),
        (4, 15, 4101, (ExpiredAtProvider, false, None)),
        (4, 29, 0, (Accepted, true, None)),
        (5, 12, 0, (RejectedByProvider, false, None)),
        (5, 10, 0, (RejectedByProvider, false, out)),
        (5, 14, 0, (RejectedByProvider, false, out)),
        (5, 6, 2050, (RejectedByProvider, false, out)),
        (5, 23, 0, (Other, false, None)),
        (9, 999, 0, (Other, false, None)),
    ] {
        let body =
            report(&format!(r#"{{"groupId":{group},"id":{id}}}"#), &format!(r#"{{"id":{error},"permanent":true}}"#));
        assert_eq!(told("infobip", &body), [expected], "group {group}, id {id}, error {error}");
    }
    let event = read("infobip", &report(r#"{"groupId":3,"id":5}"#, "null")).events.remove(0);
    assert_eq!((event.at_ms, event.traces.key.unwrap().to_string().as_str()), (Some(1_893_488_404_000), KEY));
    assert_eq!(told("infobip", &report(r#"{"groupId":"three","id":[]}"#, "7")), [(Other, false, None)]);
}

#[test]
fn an_inbound_stop_is_an_opt_out_and_other_texts_go_no_further() {
    let inbound = |text: &str| {
        let body = format!(
            r#"{{"results":[{{"messageId":"8","from":"385910000000","to":"385920000000","text":"{text}","receivedAt":"2030-01-01T09:10:00.000+0000"}}]}}"#
        );
        read("infobip", &body)
    };
    let stop = inbound("STOP").events.remove(0);
    assert_eq!((stop.kind, stop.closes), (FactKind::Unsubscribed, Some(StopReason::Unsubscribed)));
    assert_eq!((stop.address.as_deref(), &stop.traces), (Some("385910000000"), &Traces::default()));
    let other = inbound("what time do you open?");
    assert_eq!((other.events.len(), other.not_kept), (0, 1));
}

#[test]
fn what_is_no_report_is_counted_and_harms_no_other() {
    let body = r#"[null,7,"x",[],{"event":"delivered","email":null}]"#;
    for kind in ["sendgrid", "brevo"] {
        let events = read(kind, body);
        assert_eq!((events.events.len(), events.unreadable), (1, 4), "{kind}");
    }
    let events = read("infobip", r#"{"results":[null,7,{},{"status":{"groupId":3,"id":5}}]}"#);
    assert_eq!((events.events.len(), events.unreadable), (1, 3));
    for (kind, body) in [("sendgrid", "{}"), ("sendgrid", "["), ("brevo", "7"), ("infobip", "[]"), ("infobip", "{}")] {
        let read = entry(kind).unwrap().callbacks.unwrap().read;
        assert_eq!(read("main", body.as_bytes()), Err(Unreadable), "{kind} {body}");
    }
}

#[test]
fn reports_are_counted_without_being_read() {
    for (body, count) in [
        ("[]", Some(0)),
        (r#"[{"a":[1,2]},{},7]"#, Some(3)),
        (r#"{"results":[1,2],"messageCount":9}"#, Some(2)),
        (r#"{"event":"delivered"}"#, Some(1)),
        ("7", None),
        ("[1", None),
        ("", None),
    ] {
        assert_eq!(events_in(body.as_bytes()), count, "{body}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(events_in(deep.as_bytes()), None);
}

proptest! {
    /// Whatever a body holds, each provider reads it without harm and to the same end.
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), json in any_json()) {
        for body in [bytes, json.to_string().into_bytes(), format!("[{json}]").into_bytes(), format!("{{\"results\":[{json}]}}").into_bytes()] {
            prop_assert_eq!(events_in(&body), events_in(&body));
            for kind in ["sendgrid", "brevo", "brevo_sms", "infobip"] {
                let read = entry(kind).unwrap().callbacks.unwrap().read;
                prop_assert_eq!(read("main", &body), read("main", &body));
            }
        }
    }
}

/// JSON made of the names and values that reports have, in any place.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let names = prop::sample::select(vec![
        "event",
        "type",
        "timestamp",
        "email",
        "sg_event_id",
        "k",
        "tags",
        "tag",
        "message-id",
        "ts_epoch",
        "status",
        "id",
        "groupId",
        "error",
        "doneAt",
        "text",
        "messageId",
        "results",
        "msg_status",
    ]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        prop::sample::select(vec![
            "bounce",
            "delivered",
            "STOP",
            KEY,
            "2030-01-01T09:00:04.000+0000",
            "[\"x\"]",
            "\u{202e}"
        ])
        .prop_map(Into::into),
        ".{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::vec((names.clone(), inner), 0..6).prop_map(|fields| {
                serde_json::Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}
