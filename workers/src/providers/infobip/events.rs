//! Delivery reports and inbound messages: `{"results": […]}`, signed.
//!
//! The vendor offers several signatures; HMAC-SHA-256 is taken, and none that is weaker. It does not document the header,
//! so the settings name it. A report's id of a message is the one we gave it. Wire contract: the vendor's OpenAPI
//! documents of its SMS and Subscriptions APIs.

use dispatch_schemas::states::{FactKind, StopReason};
use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;

use super::statuses::Status;
use crate::{
    clock::TimestampMs,
    providers::{
        Verdict,
        callbacks::{Callbacks, Event, Events, Fields, SignedBody, Traces, Unreadable, event_id},
    },
    sms::is_opt_out,
};

/// It comes again after whatever is no 2xx.
pub(in crate::providers) const CALLBACKS: Callbacks = Callbacks { verifier: SignedBody::build, read, come_again: 503 };

/// Errors that say that the number is dead, by the vendor's table. Its `permanent` is a hint for the message, not for
/// the person: it stands beside expired messages too.
const DEAD: [i64; 3] = [
    1,    // EC_UNKNOWN_SUBSCRIBER
    9,    // EC_ILLEGAL_SUBSCRIBER
    3041, // a deactivated number
];
/// Errors that say that the person opted out, at the vendor or at their operator.
const OPTED_OUT: [i64; 4] = [573, 603, 2050, 2052];
/// Statuses that say so: REJECTED_DND, REJECTED_DESTINATION_BLOCKLISTED.
const OPTED_OUT_STATUSES: [i64; 2] = [10, 14];

fn read(account: &str, body: &[u8]) -> Result<Events, Unreadable> {
    let body: Value = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    let results = body.get("results").and_then(Value::as_array).ok_or(Unreadable)?;
    let mut events = Events::default();
    for result in results {
        let Some(fields) = result.as_object().map(Fields) else {
            events.unreadable += 1;
            continue;
        };
        match fields.object("status") {
            Some(status) => report(account, &fields, &status, &mut events),
            None if fields.0.contains_key("text") => inbound(account, &fields, &mut events),
            None => events.unreadable += 1,
        }
    }
    Ok(events)
}

fn report(account: &str, fields: &Fields<'_>, status: &Fields<'_>, events: &mut Events) {
    let error = fields.object("error").and_then(|error| error.number("id")).unwrap_or(0);
    let (id, group) = (status.number("id").unwrap_or(-1), status.number("groupId").unwrap_or(-1));
    let is_dead = DEAD.contains(&error);
    let has_opted_out = OPTED_OUT.contains(&error) || OPTED_OUT_STATUSES.contains(&id);
    let kind = match (id, group) {
        // Says that a message with the id came before, nothing about that one.
        (23, _) => FactKind::Other,
        // Passed on; whether it arrived is not known.
        (2 | 29, _) | (_, 0 | 1) => FactKind::Accepted,
        (_, 3) => FactKind::Delivered,
        (_, 2) if is_dead => FactKind::BouncedHard,
        (_, 2) => FactKind::BouncedSoft,
        (_, 4) => FactKind::ExpiredAtProvider,
        (_, 5) => FactKind::RejectedByProvider,
        _ => FactKind::Other,
    };
    let closes = match (is_dead, has_opted_out) {
        (true, _) => Some(StopReason::HardBounced),
        (_, true) => Some(StopReason::Unsubscribed),
        _ => None,
    };
    let verdict = Status::deserialize(status.0).map(Status::verdict);
    let parts = ["messageId", "doneAt"].map(|name| fields.text(name));
    let at_ms = time(&parts[1]);
    events.events.push(Event {
        id: event_id(account, at_ms, &[&parts[0], &id.to_string(), &error.to_string(), &parts[1]]),
        kind,
        at_ms,
        // As the same status in an answer.
        proves_acceptance: matches!(verdict, Ok(Verdict::Accepted { .. })),
        closes,
        traces: Traces { key: fields.key("messageId"), request_key: None, provider_id: None },
        address: fields.address("to"),
    });
}

/// What a person wrote to one of our numbers. The text is read for an opt-out and goes no further.
fn inbound(account: &str, fields: &Fields<'_>, events: &mut Events) {
    let text = fields.text("text");
    if !is_opt_out(&text) && !is_opt_out(&fields.text("cleanText")) {
        events.not_kept += 1;
        return;
    }
    let at_ms = time(&fields.text("receivedAt"));
    events.events.push(Event {
        id: event_id(account, at_ms, &["inbound", &fields.text("messageId"), &fields.text("receivedAt")]),
        kind: FactKind::Unsubscribed,
        at_ms,
        proves_acceptance: false,
        closes: Some(StopReason::Unsubscribed),
        traces: Traces::default(),
        address: fields.address("from"),
    });
}

/// `2030-01-01T09:00:04.000+0000`: an offset without a colon.
fn time(text: &str) -> Option<TimestampMs> {
    Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", text).ok().map(Timestamp::as_millisecond)
}
