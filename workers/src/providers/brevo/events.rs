//! Brevo's webhooks: one event or several, with a bearer token and without a signature.
//!
//! An event of an e-mail names it by the request's tag, which is the request's key, and by the vendor's message id; a
//! request for one recipient has its key in a header of its own. Wire contract:
//! <https://developers.brevo.com/docs/transactional-webhooks>.

use dispatch_schemas::states::{FactKind, StopReason};
use serde_json::{Map, Value};

use crate::{
    message::SendKey,
    providers::callbacks::{Bearer, Callbacks, Event, Events, Fields, Traces, Unreadable, event_id},
};

/// After another 4xx or a 5xx it discards what it wanted to report.
const COME_AGAIN: u16 = 429;

pub(in crate::providers) const EMAIL_CALLBACKS: Callbacks =
    Callbacks { verifier: Bearer::build, read: read_email, come_again: COME_AGAIN };

pub(in crate::providers) const SMS_CALLBACKS: Callbacks =
    Callbacks { verifier: Bearer::build, read: read_sms, come_again: COME_AGAIN };

/// Milliseconds since 1970 are more, seconds are less, until the year 5138: the vendor's samples have both.
const SECONDS_MAX: i64 = 100_000_000_000;

fn read_email(account: &str, body: &[u8]) -> Result<Events, Unreadable> {
    read(account, body, email)
}

fn read_sms(account: &str, body: &[u8]) -> Result<Events, Unreadable> {
    read(account, body, sms)
}

/// An event alone, or an array of them.
fn read(account: &str, body: &[u8], one: fn(&str, &Fields<'_>, &mut Events)) -> Result<Events, Unreadable> {
    let mut events = Events::default();
    let mut take = |object: Option<&Map<String, Value>>| match object {
        Some(fields) => one(account, &Fields(fields), &mut events),
        None => events.unreadable += 1,
    };
    match serde_json::from_slice(body).map_err(|_| Unreadable)? {
        Value::Array(elements) => elements.iter().for_each(|element| take(element.as_object())),
        Value::Object(fields) => take(Some(&fields)),
        _ => return Err(Unreadable),
    }
    Ok(events)
}

fn email(account: &str, fields: &Fields<'_>, events: &mut Events) {
    let event = fields.text("event");
    let (kind, closes) = match &*event {
        "request" | "sent" => (FactKind::Accepted, None),
        "deferred" => (FactKind::Deferred, None),
        "delivered" => (FactKind::Delivered, None),
        "soft_bounce" => (FactKind::BouncedSoft, None),
        "hard_bounce" | "invalid_email" | "invalid" => (FactKind::BouncedHard, Some(StopReason::HardBounced)),
        // Why is told by another call only: a blocked address may have bounced, opted out, or be on a list of its own.
        "blocked" | "error" => (FactKind::RejectedByProvider, None),
        "spam" | "complaint" => (FactKind::Complained, Some(StopReason::Complained)),
        "unsubscribe" | "unsubscribed" => (FactKind::Unsubscribed, Some(StopReason::Unsubscribed)),
        "opened" | "unique_opened" | "proxy_open" | "unique_proxy_open" | "unique_proxy_opened" | "click" => {
            events.not_kept += 1;
            return;
        }
        _ => (FactKind::Other, None),
    };
    // Its `id` is the webhook's.
    let parts = ["message-id", "email", "ts_epoch", "ts_event", "link", "reason"].map(|name| fields.text(name));
    let parts: Vec<&str> = std::iter::once(&*event).chain(parts.iter().map(|part| &**part)).collect();
    let at_ms = fields.number("ts_epoch").map(milliseconds).or_else(|| fields.seconds("ts_event"));
    events.events.push(Event {
        id: event_id(account, at_ms, &parts),
        kind,
        at_ms,
        proves_acceptance: kind != FactKind::Other,
        closes,
        traces: Traces {
            key: fields.key("X-Mailin-custom"),
            request_key: tag(fields),
            provider_id: fields.id("message-id"),
        },
        address: fields.address("email"),
    });
}

const fn milliseconds(epoch: i64) -> i64 {
    if epoch < SECONDS_MAX { epoch.saturating_mul(1_000) } else { epoch }
}

/// The one tag of our requests: in a list, in a text with a list, or alone.
fn tag(fields: &Fields<'_>) -> Option<SendKey> {
    let first = |value: &Value| value.as_array()?.first()?.as_str()?.parse().ok();
    let in_list = fields.0.get("tags").and_then(first);
    in_list.or_else(|| {
        let text = fields.text("tag");
        text.parse().ok().or_else(|| first(&serde_json::from_str(&text).ok()?))
    })
}

fn sms(account: &str, fields: &Fields<'_>, events: &mut Events) {
    let status = match fields.text("msg_status") {
        status if status.is_empty() => fields.text("event"),
        status => status,
    };
    let (kind, closes) = match &*status {
        "accepted" | "sent" => (FactKind::Accepted, None),
        "delivered" => (FactKind::Delivered, None),
        "soft_bounce" | "softBounces" => (FactKind::BouncedSoft, None),
        "hard_bounce" | "hardBounces" => (FactKind::BouncedHard, Some(StopReason::HardBounced)),
        "blocked" | "rejected" | "skipped" => (FactKind::RejectedByProvider, None),
        "unsubscription" | "unsubscribe" => (FactKind::Unsubscribed, Some(StopReason::Unsubscribed)),
        "replies" | "reply" => {
            events.not_kept += 1;
            return;
        }
        _ => (FactKind::Other, None),
    };
    let parts = ["messageId", "to", "date"].map(|name| fields.text(name));
    let parts: Vec<&str> = std::iter::once(&*status).chain(parts.iter().map(|part| &**part)).collect();
    // `date` is in a time zone of the account's.
    let at_ms = fields.seconds("ts_event");
    events.events.push(Event {
        id: event_id(account, at_ms, &parts),
        kind,
        at_ms,
        proves_acceptance: kind != FactKind::Other,
        closes,
        traces: Traces { key: tag(fields), request_key: None, provider_id: fields.id("messageId") },
        address: fields.address("to"),
    });
}
