//! The request for e-mail: the page once with a parameter for each slot, and a version for each recipient.
//!
//! The parts stand inside `{% autoescape off %}`, by which Brevo documents that a parameter is put in as it is: values
//! come escaped for their place already. The subject is finished for each version, because nothing is documented about
//! escaping there. One recipient alone gets finished parts and no parameters.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::braces::{self, Page};
use crate::{
    message::{Body, Mailbox, Message, Piece, Recipient, SendKey, Skeleton, Slots},
    providers::{
        Request,
        http::{KeyText, write},
    },
};

/// The vendor's limits on parameters: of one version, and of all versions together.
const PARAMS_BYTES_MAX: usize = 100_000;
const PARAMS_TOGETHER_BYTES_MAX: usize = 1_000_000;

/// What a recipient adds to a request beside its values.
const RECIPIENT_BYTES: usize = 160;

const UNESCAPED: (&str, &str) = ("{% autoescape off %}", "{% endautoescape %}");

/// Writes the request.
#[must_use]
pub fn body(request: &Request<'_>) -> Vec<u8> {
    let Body::Email { from, reply_to, subject, html, text } = &request.message.body else { return Vec::new() };
    let parts = Parts { subject, html: html.as_ref(), text: text.as_ref() };
    let headers = Headers::new(request.batch_key);
    let (content, headers, to, message_versions) = match request.recipients {
        [one] => (Content::finished(&parts, &one.slots), headers.of_one(one), Some([Address { email: &one.to }]), None),
        recipients => {
            let versions = Versions { subject, fillers: Fillers::of(&parts), recipients };
            (Content::parameterised(&parts), headers, None, Some(versions))
        }
    };
    let mail = Mail {
        sender: Party::from(from),
        reply_to: reply_to.as_ref().map(Party::from),
        content,
        headers,
        tags: [KeyText::new(request.batch_key)],
        to,
        message_versions,
    };
    let fixed =
        [&mail.content.html_content, &mail.content.text_content].into_iter().flatten().map(String::len).sum::<usize>();
    let of_recipients: usize =
        request.recipients.iter().map(|one| one.slots.total_bytes() + RECIPIENT_BYTES).sum::<usize>();
    write(&mail, fixed + fixed / 8 + of_recipients + of_recipients / 4)
}

/// Whether the recipient's parameters leave room for those of `together_max` recipients like it.
pub(super) fn params_fit(message: &Message, recipient: &Recipient, together_max: usize) -> bool {
    let Body::Email { subject, html, text, .. } = &message.body else { return true };
    let room = PARAMS_BYTES_MAX.min(PARAMS_TOGETHER_BYTES_MAX / together_max.max(1));
    let fillers = Fillers::of(&Parts { subject, html: html.as_ref(), text: text.as_ref() });
    write(&Params { fillers: &fillers, slots: &recipient.slots }, recipient.slots.total_bytes()).len() <= room
}

/// The parts of a mail that have slots.
struct Parts<'a> {
    subject: &'a Skeleton,
    html: Option<&'a Skeleton>,
    text: Option<&'a Skeleton>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    html_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_content: Option<String>,
}

impl Content {
    /// For one recipient.
    fn finished(parts: &Parts<'_>, slots: &Slots) -> Self {
        let plain = |part: &Skeleton| braces::plain(&part.spliced(slots)).into_owned();
        let page = |part: &Skeleton| Page::default().neutral(&part.spliced(slots)).into_owned();
        Self {
            subject: plain(parts.subject),
            html_content: parts.html.map(page).filter(is_written),
            text_content: parts.text.map(plain).filter(is_written),
        }
    }

    /// For many recipients.
    fn parameterised(parts: &Parts<'_>) -> Self {
        let unescaped = |part: String| [UNESCAPED.0, &part, UNESCAPED.1].concat();
        let page = |part: &Skeleton| parameterised(part, &Reading::Page);
        let plain = |part: &Skeleton| parameterised(part, &Reading::Plain);
        Self {
            subject: plain(parts.subject),
            html_content: parts.html.map(page).filter(is_written).map(unescaped),
            text_content: parts.text.map(plain).filter(is_written).map(unescaped),
        }
    }
}

/// An empty part is refused, and with it the request.
#[expect(clippy::ptr_arg, reason = "filters an Option<String>")]
fn is_written(part: &String) -> bool {
    !part.is_empty()
}

/// How a part is read by those who read mail.
enum Reading {
    Plain,
    Page,
}

/// A part with a parameter in the place of each slot.
fn parameterised(part: &Skeleton, reading: &Reading) -> String {
    let mut out = String::new();
    let mut page = Page::default();
    for piece in &part.pieces {
        match piece {
            Piece::Fixed(text) => {
                let neutral = match reading {
                    Reading::Plain => braces::plain(text),
                    Reading::Page => page.neutral(text),
                };
                out.push_str(&neutral);
            }
            Piece::Slot(slot) => {
                let filler = Filler { slot: *slot, within: matches!(reading, Reading::Page).then_some(page) };
                out.push_str("{{params.");
                out.push_str(&filler.name());
                out.push_str("}}");
            }
        }
    }
    out
}

/// A slot in the place where it is used: the same value is made neutral differently in a text and in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Filler {
    slot: u16,
    /// Where the page stands there; `None` in plain text.
    within: Option<Page>,
}

impl Filler {
    fn name(self) -> String {
        let place = match self.within {
            None => "t",
            Some(page) if page == Page::default() => "h",
            Some(_) => "r",
        };
        format!("{place}{}", self.slot)
    }

    fn value(self, slots: &Slots) -> Cow<'_, str> {
        let value = slots.get(self.slot);
        match self.within {
            None => braces::plain(value),
            Some(mut page) => page.neutral(value),
        }
    }
}

/// Every slot that is used, once for each way it is read, with its parameter's name.
struct Fillers(Vec<(Filler, String)>);

impl Fillers {
    fn of(parts: &Parts<'_>) -> Self {
        let mut fillers = Vec::new();
        for part in [Some(parts.subject), parts.text].into_iter().flatten() {
            fillers.extend(part.slot_numbers().map(|slot| Filler { slot, within: None }));
        }
        let mut page = Page::default();
        for piece in parts.html.iter().flat_map(|part| &part.pieces) {
            match piece {
                Piece::Fixed(text) => page.read(text),
                Piece::Slot(slot) => fillers.push(Filler { slot: *slot, within: Some(page) }),
            }
        }
        let mut named: Vec<(Filler, String)> = fillers.into_iter().map(|filler| (filler, filler.name())).collect();
        named.sort_unstable_by(|one, other| one.1.cmp(&other.1));
        named.dedup_by(|one, other| one.1 == other.1);
        Self(named)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mail<'a> {
    sender: Party<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Party<'a>>,
    #[serde(flatten)]
    content: Content,
    headers: Headers,
    /// Comes back in every event, so that one of an open request can be told from others.
    tags: [KeyText; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<[Address<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_versions: Option<Versions<'a>>,
}

#[derive(Serialize)]
struct Party<'a> {
    email: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl<'a> From<&'a Mailbox> for Party<'a> {
    fn from(mailbox: &'a Mailbox) -> Self {
        Self { email: &mailbox.address, name: mailbox.name.as_deref() }
    }
}

#[derive(Serialize)]
struct Address<'a> {
    email: &'a str,
}

#[derive(Serialize)]
struct Headers {
    #[serde(rename = "idempotencyKey")]
    idempotency_key: KeyText,
    /// Comes back in every event and stands in the delivered mail: an opaque id.
    #[serde(rename = "X-Mailin-custom", skip_serializing_if = "Option::is_none")]
    custom: Option<KeyText>,
    #[serde(rename = "List-Unsubscribe", skip_serializing_if = "Option::is_none")]
    list_unsubscribe: Option<String>,
    #[serde(rename = "List-Unsubscribe-Post", skip_serializing_if = "Option::is_none")]
    list_unsubscribe_post: Option<&'static str>,
}

impl Headers {
    fn new(batch_key: SendKey) -> Self {
        Self {
            idempotency_key: KeyText::new(batch_key),
            custom: None,
            list_unsubscribe: None,
            list_unsubscribe_post: None,
        }
    }

    fn of_one(self, recipient: &Recipient) -> Self {
        let url = recipient.list_unsubscribe.as_deref();
        Self {
            custom: Some(KeyText::new(recipient.key)),
            list_unsubscribe: url.map(|url| format!("<{url}>")),
            list_unsubscribe_post: url.map(|_| "List-Unsubscribe=One-Click"),
            ..self
        }
    }
}

struct Versions<'a> {
    subject: &'a Skeleton,
    fillers: Fillers,
    recipients: &'a [Recipient],
}

impl Serialize for Versions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let personal_subject = self.subject.slot_numbers().next().is_some();
        let personal = !self.fillers.0.is_empty();
        serializer.collect_seq(self.recipients.iter().map(|recipient| Version {
            to: [Address { email: &recipient.to }],
            subject: personal_subject.then(|| braces::plain(&self.subject.spliced(&recipient.slots)).into_owned()),
            params: personal.then_some(Params { fillers: &self.fillers, slots: &recipient.slots }),
        }))
    }
}

#[derive(Serialize)]
struct Version<'a> {
    to: [Address<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Params<'a>>,
}

struct Params<'a> {
    fillers: &'a Fillers,
    slots: &'a Slots,
}

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.fillers.0.iter().map(|(filler, name)| (name, filler.value(self.slots))))
    }
}
