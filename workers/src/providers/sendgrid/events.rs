//! The Event Webhook: an array of events, signed.
//!
//! Custom arguments stand at the top level of each event, our key as `k`. Wire contract:
//! <https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event> and, for the signature,
//! <https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features>.

use dispatch_schemas::states::{FactKind, StopReason};
use serde_json::{Map, Value};

use crate::providers::{
    AccountError,
    callbacks::{
        Callbacks, Credentials, Event, Events, Fields, SignedWithTime, Traces, Unreadable, Verifier, event_id,
    },
};

const SIGNATURE: &str = "x-twilio-email-event-webhook-signature";
const TIME: &str = "x-twilio-email-event-webhook-timestamp";

/// It comes again for 24 hours after whatever is no 2xx.
pub(in crate::providers) const CALLBACKS: Callbacks = Callbacks { verifier, read, come_again: 503 };

fn verifier(credentials: &Credentials) -> Result<Box<dyn Verifier>, AccountError> {
    SignedWithTime::build(credentials, SIGNATURE, TIME)
}

fn read(account: &str, body: &[u8]) -> Result<Events, Unreadable> {
    let elements: Vec<Value> = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    let mut events = Events::default();
    for element in &elements {
        match element.as_object() {
            Some(fields) => event(account, fields, &mut events),
            None => events.unreadable += 1,
        }
    }
    Ok(events)
}

fn event(account: &str, fields: &Map<String, Value>, events: &mut Events) {
    let fields = Fields(fields);
    let (kind, closes) = match &*fields.text("event") {
        "processed" => (FactKind::Accepted, None),
        "deferred" => (FactKind::Deferred, None),
        "delivered" => (FactKind::Delivered, None),
        "bounce" => bounce(&fields.text("type")),
        "dropped" => (FactKind::RejectedByProvider, dropped(&fields.text("reason"))),
        "spamreport" => (FactKind::Complained, Some(StopReason::Complained)),
        "unsubscribe" | "group_unsubscribe" => (FactKind::Unsubscribed, Some(StopReason::Unsubscribed)),
        "open" | "click" => {
            events.not_kept += 1;
            return;
        }
        // Such as `group_resubscribe`: no report opens a gate.
        _ => (FactKind::Other, None),
    };
    let own = fields.text("sg_event_id");
    let whole = if own.is_empty() { fields.whole() } else { String::new() };
    let at_ms = fields.seconds("timestamp");
    events.events.push(Event {
        id: event_id(account, at_ms, &[&own, &whole]),
        kind,
        at_ms,
        proves_acceptance: kind != FactKind::Other,
        closes,
        traces: Traces { key: fields.key("k"), request_key: None, provider_id: fields.id("sg_message_id") },
        address: fields.address("email"),
    });
}

/// A `blocked` one is about the message or the sender, not the address.
fn bounce(kind: &str) -> (FactKind, Option<StopReason>) {
    match kind {
        "bounce" => (FactKind::BouncedHard, Some(StopReason::HardBounced)),
        "expired" => (FactKind::ExpiredAtProvider, None),
        _ => (FactKind::BouncedSoft, None),
    }
}

/// What the vendor's own lists hold against an address holds for ours. Other reasons are about our account or content.
fn dropped(reason: &str) -> Option<StopReason> {
    match reason {
        "Bounced Address" | "Invalid" => Some(StopReason::HardBounced),
        "Unsubscribed Address" => Some(StopReason::Unsubscribed),
        "Spam Reporting Address" => Some(StopReason::Complained),
        _ => None,
    }
}
