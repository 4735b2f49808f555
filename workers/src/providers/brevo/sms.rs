//! The request for a text message.

use serde::Serialize;

use crate::{
    message::{Body, Message, Recipient},
    providers::http::{Finished, KeyText, write},
};

/// What a request holds beside its text.
const REQUEST_BYTES: usize = 200;

/// Writes the request for one recipient.
///
/// Its type is always `marketing`: Brevo then keeps the hours in which the law of the recipient's country allows
/// advertising, which a message wrongly called transactional would break.
#[must_use]
pub fn body(message: &Message, recipient: &Recipient) -> Vec<u8> {
    let Body::Sms { sender, text } = &message.body else { return Vec::new() };
    let sms = Sms {
        sender,
        recipient: recipient.to.trim_start_matches('+'),
        content: Finished(text, &recipient.slots),
        kind: "marketing",
        unicode_enabled: true,
        tag: KeyText::new(recipient.key),
    };
    write(&sms, REQUEST_BYTES + recipient.slots.total_bytes())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sms<'a> {
    sender: &'a str,
    recipient: &'a str,
    content: Finished<'a>,
    #[serde(rename = "type")]
    kind: &'static str,
    unicode_enabled: bool,
    tag: KeyText,
}
