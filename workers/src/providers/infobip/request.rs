//! The request: one message for each recipient, because content belongs to a message and the id to its destination.

use serde::{Serialize, Serializer};

use crate::{
    message::{Body, Recipient, Skeleton, Slots},
    providers::{
        Request,
        http::{Finished, KeyText, write},
    },
};

/// What a recipient adds to a request beside its text.
const RECIPIENT_BYTES: usize = 160;

/// Writes the request. There is no `tracking` object in it: its defaults would shorten and follow links.
#[must_use]
pub fn body(request: &Request<'_>) -> Vec<u8> {
    let Body::Sms { sender, text } = &request.message.body else { return Vec::new() };
    let fixed = text.spliced(&Slots::default()).len();
    let capacity = request.recipients.iter().map(|one| fixed + one.slots.total_bytes() + RECIPIENT_BYTES).sum();
    write(&Submission { messages: Messages { sender, text, recipients: request.recipients } }, capacity)
}

#[derive(Serialize)]
struct Submission<'a> {
    messages: Messages<'a>,
}

struct Messages<'a> {
    sender: &'a str,
    text: &'a Skeleton,
    recipients: &'a [Recipient],
}

impl Serialize for Messages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.recipients.iter().map(|recipient| Sms {
            sender: self.sender,
            destinations: [Destination {
                to: recipient.to.trim_start_matches('+'),
                message_id: KeyText::new(recipient.key),
            }],
            content: Content { text: Finished(self.text, &recipient.slots) },
        }))
    }
}

#[derive(Serialize)]
struct Sms<'a> {
    sender: &'a str,
    destinations: [Destination<'a>; 1],
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Destination<'a> {
    to: &'a str,
    message_id: KeyText,
}

#[derive(Serialize)]
struct Content<'a> {
    text: Finished<'a>,
}
