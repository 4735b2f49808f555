//! The vendors' forms of a report.

use serde_json::{Value, json};

use super::{Report, Told};
use crate::sandbox::timestamp;

/// Most reports in one call, by provider.
pub(super) fn together_max(provider: &str) -> usize {
    match provider {
        "sendgrid" => 500,
        "brevo" => 200,
        "infobip" => 100,
        _ => 1,
    }
}

/// Whether a provider tells such a thing at all.
pub(super) fn has_a_form(provider: &str, told: Told) -> bool {
    match provider {
        "sendgrid" | "brevo" => true,
        "infobip" => !matches!(told, Told::Deferred | Told::Complained),
        "brevo_sms" => !matches!(told, Told::Deferred | Told::Complained),
        _ => false,
    }
}

/// The body of a call.
pub(super) fn body(reports: &[Report]) -> Vec<u8> {
    let provider = reports.first().map_or("", |report| report.provider);
    let body = match provider {
        "sendgrid" => Value::Array(reports.iter().map(sendgrid).collect()),
        "brevo" => Value::Array(reports.iter().map(brevo).collect()),
        "infobip" => json!({ "results": reports.iter().map(infobip).collect::<Vec<_>>() }),
        _ => reports.first().map_or(Value::Null, brevo_sms),
    };
    let mut body = body.to_string();
    if provider == "sendgrid" {
        body.push_str("\r\n");
    }
    body.into_bytes()
}

/// The name of a report: a false one has one of its own.
fn id(report: &Report) -> String {
    format!("sandbox-{}{:012}", if report.forged { "f" } else { "" }, report.number)
}

fn sendgrid(report: &Report) -> Value {
    let message = &report.message;
    let (event, more) = match report.told {
        Told::Accepted => ("processed", json!({})),
        Told::Deferred => ("deferred", json!({"response": "451 try later", "attempt": "1"})),
        Told::Delivered => ("delivered", json!({"response": "250 OK", "tls": 1})),
        Told::BouncedSoft => ("bounce", json!({"type": "blocked", "status": "5.7.1", "reason": "550 policy"})),
        Told::BouncedHard => ("bounce", json!({"type": "bounce", "status": "5.1.1", "reason": "550 unknown user"})),
        Told::Rejected => ("dropped", json!({"reason": "Spam Content", "status": "5.0.0"})),
        Told::Complained => ("spamreport", json!({})),
        Told::Unsubscribed => ("unsubscribe", json!({})),
    };
    let mut value = json!({
        "email": message.address, "timestamp": report.at_ms / 1_000, "event": event, "sg_event_id": id(report),
        "sg_message_id": message.message_id.as_ref().map(|id| format!("{id}.filter-sandbox.0")),
        "k": message.key, "t": message.token,
    });
    if let (Some(fields), Value::Object(more)) = (value.as_object_mut(), more) {
        fields.extend(more);
        fields.retain(|_, field| !field.is_null());
    }
    value
}

fn brevo(report: &Report) -> Value {
    let message = &report.message;
    let (event, reason) = match report.told {
        Told::Accepted => ("request", None),
        Told::Deferred => ("deferred", Some("451 try later")),
        Told::Delivered => ("delivered", None),
        Told::BouncedSoft => ("soft_bounce", Some("452 mailbox full")),
        Told::BouncedHard => ("hard_bounce", Some("550 5.1.1 unknown user")),
        Told::Rejected => ("blocked", None),
        Told::Complained => ("spam", None),
        Told::Unsubscribed => ("unsubscribed", None),
    };
    let mut value = json!({
        "event": event, "email": message.address, "id": 26_224, "ts_epoch": report.at_ms, "ts_event": report.at_ms / 1_000,
        "message-id": message.message_id, "tags": message.tag.iter().collect::<Vec<_>>(), "reason": reason,
        "X-Mailin-custom": message.key, "subject": "…",
    });
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

fn brevo_sms(report: &Report) -> Value {
    let message = &report.message;
    let status = match report.told {
        Told::Accepted | Told::Deferred => "sent",
        Told::Delivered => "delivered",
        Told::BouncedSoft => "soft_bounce",
        Told::BouncedHard => "hard_bounce",
        Told::Rejected | Told::Complained => "rejected",
        Told::Unsubscribed => "unsubscription",
    };
    json!({
        "id": 26_570, "to": message.address, "sms_count": 1, "messageId": message.message_id, "msg_status": status,
        "date": timestamp::utc(report.at_ms), "type": "marketing", "tag": message.key, "ts_event": report.at_ms / 1_000,
    })
}

fn infobip(report: &Report) -> Value {
    let message = &report.message;
    let at = timestamp::utc(report.at_ms) + "+0000";
    if report.told == Told::Unsubscribed {
        return json!({
            "messageId": id(report), "from": message.address, "to": "385920000000", "text": "STOP", "cleanText": "STOP",
            "keyword": "", "receivedAt": at, "smsCount": 1,
        });
    }
    let (group, name, status, error) = match report.told {
        Told::Accepted => (1, "PENDING", 7, 0),
        Told::BouncedSoft => (2, "UNDELIVERABLE", 9, 6),
        Told::BouncedHard => (2, "UNDELIVERABLE", 9, 1),
        Told::Rejected => (5, "REJECTED", 20, 0),
        Told::Delivered | Told::Deferred | Told::Complained | Told::Unsubscribed => (3, "DELIVERED", 5, 0),
    };
    json!({
        "bulkId": "sandbox", "messageId": message.key, "to": message.address, "sentAt": at, "doneAt": at, "messageCount": 1,
        "price": {"pricePerMessage": 0.01, "currency": "EUR"},
        "status": {"groupId": group, "groupName": name, "id": status, "name": name, "description": name},
        "error": {"groupId": i32::from(error != 0), "id": error, "name": "…", "permanent": error == 1},
    })
}
