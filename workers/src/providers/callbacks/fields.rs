//! Reading a report's fields, whatever stands in them.

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Map, Value};

use super::EventId;
use crate::{clock::TimestampMs, message::SendKey, providers::http::bounded_id};

/// A field that should hold a word or an id and is longer holds neither.
const TEXT_BYTES_MAX: usize = 1_024;

/// One report as it came.
pub(in crate::providers) struct Fields<'a>(pub(in crate::providers) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The field's text; a number's digits. Empty when it is neither or is not there.
    pub(in crate::providers) fn text(&self, name: &str) -> std::borrow::Cow<'a, str> {
        match self.0.get(name) {
            Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => text.as_str().into(),
            Some(Value::Number(number)) => number.to_string().into(),
            _ => "".into(),
        }
    }

    /// A whole number, also one in quotes.
    pub(in crate::providers) fn number(&self, name: &str) -> Option<i64> {
        match self.0.get(name)? {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// An object of its own.
    pub(in crate::providers) fn object(&self, name: &str) -> Option<Fields<'a>> {
        self.0.get(name)?.as_object().map(Fields)
    }

    /// A key of ours.
    pub(in crate::providers) fn key(&self, name: &str) -> Option<SendKey> {
        self.text(name).parse().ok()
    }

    /// An id of the provider's, if it can be kept.
    pub(in crate::providers) fn id(&self, name: &str) -> Option<String> {
        bounded_id(&self.text(name))
    }

    /// Seconds since 1970 as milliseconds.
    pub(in crate::providers) fn seconds(&self, name: &str) -> Option<TimestampMs> {
        self.number(name)?.checked_mul(1_000)
    }

    /// An address.
    pub(in crate::providers) fn address(&self, name: &str) -> Option<String> {
        let text = self.text(name);
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// All that makes this report another than the next: for one that has no id of its own.
    pub(in crate::providers) fn whole(&self) -> String {
        serde_json::to_string(self.0).unwrap_or_default()
    }
}

/// Bytes of an id that say when its report happened.
const TIME_BYTES: usize = 4;

/// The id of a report among all of its account: when it happened, in seconds, and a hash of what tells it from others. A
/// report that comes again says the same time again; and reports of one time have ids beside each other, so that storing
/// many of them touches few pages of an index.
pub(in crate::providers) fn event_id(account: &str, at_ms: Option<TimestampMs>, parts: &[&str]) -> EventId {
    let mut context = Context::new(&SHA256);
    for part in std::iter::once(&account).chain(parts) {
        // Each with its length, so that no two lists of parts look the same.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut id = first_id_at(at_ms.unwrap_or(0));
    id[TIME_BYTES..].copy_from_slice(&context.finish().as_ref()[..16 - TIME_BYTES]);
    id
}

/// Ids of reports from before that moment are less than this, milliseconds since 1970. A time that cannot be true is none,
/// and less than all others.
#[must_use]
pub fn first_id_at(at_ms: TimestampMs) -> EventId {
    let at_s = u32::try_from(at_ms / 1_000).unwrap_or(0);
    let mut id = [0; 16];
    id[..TIME_BYTES].copy_from_slice(&at_s.to_be_bytes());
    id
}
