//! The request: the page once with a tag for each slot, and for each recipient what stands for the tags.

use serde::{Serialize, Serializer};

use crate::{
    clock::{Entropy, random},
    message::{Body, Mailbox, Message, Piece, Recipient, Skeleton},
    providers::{
        Request,
        http::{KeyText, TokenText, write},
    },
};

/// The vendor's limit on the substitutions of one recipient, counted here as they stand in the request: keys, quotes
/// and escapes with them.
const SUBSTITUTIONS_BYTES_MAX: usize = 10_000;

/// What a recipient adds to a request beside the values of its slots, roughly.
const RECIPIENT_BYTES: usize = 320;

/// A tag, its quotes, a colon and a comma: `"-0123456789abcdef:65535-":"",`.
const TAG_BYTES_MAX: usize = 32;

/// An escaped byte of JSON takes up to six: `\u001f`.
const ESCAPED_BYTES_MAX: usize = 6;

/// Writes the request.
#[must_use]
pub fn body(request: &Request<'_>, entropy: &dyn Entropy) -> Vec<u8> {
    let Body::Email { from, reply_to, subject, html, text } = &request.message.body else { return Vec::new() };
    let parts = Parts { subject, html: html.as_ref(), text: text.as_ref() };
    let tags = match request.recipients {
        [_] => Tags::default(),
        recipients => Tags::draw(&parts, recipients, entropy),
    };
    let fill = |part: &Skeleton| match request.recipients {
        [recipient] => part.spliced(&recipient.slots),
        _ => tags.in_place(part),
    };
    let mut content = Vec::with_capacity(2);
    for (kind, part) in [("text/plain", parts.text), ("text/html", parts.html)] {
        // An empty part is refused, and with it the request.
        content.extend(part.map(fill).filter(|value| !value.is_empty()).map(|value| Part { kind, value }));
    }
    let capacity = content.iter().map(|part| part.value.len()).sum::<usize>()
        + request.recipients.iter().map(|one| one.slots.total_bytes() + RECIPIENT_BYTES).sum::<usize>()
        + request.recipients.len() * tags.0.len() * TAG_BYTES_MAX;
    let mail = MailSend {
        personalizations: Personalizations { request, tags: &tags },
        from: Party::from(from),
        reply_to: reply_to.as_ref().map(Party::from),
        subject: fill(parts.subject),
        content,
        tracking_settings: Tracking::OFF,
    };
    write(&mail, capacity + capacity / 8)
}

/// Whether the recipient's substitutions stay within the vendor's limit.
pub(super) fn substitutions_fit(message: &Message, recipient: &Recipient) -> bool {
    let Body::Email { subject, html, text, .. } = &message.body else { return true };
    let most = recipient.slots.total_bytes() * ESCAPED_BYTES_MAX + recipient.slots.len() * TAG_BYTES_MAX;
    if most <= SUBSTITUTIONS_BYTES_MAX {
        return true;
    }
    let parts = Parts { subject, html: html.as_ref(), text: text.as_ref() };
    let tags = Tags::numbered(&parts, 0);
    write(&Substitutions { recipient, tags: &tags }, recipient.slots.total_bytes()).len() <= SUBSTITUTIONS_BYTES_MAX
}

/// The parts of a mail that have slots.
struct Parts<'a> {
    subject: &'a Skeleton,
    html: Option<&'a Skeleton>,
    text: Option<&'a Skeleton>,
}

impl<'a> Parts<'a> {
    fn each(&self) -> impl Iterator<Item = &'a Skeleton> {
        [Some(self.subject), self.html, self.text].into_iter().flatten()
    }
}

/// The tag of each slot that is used, ascending by slot.
///
/// SendGrid replaces the tags wherever they stand, one after the other, in values as well. So they are drawn for each
/// request after everybody's values are known, and drawn again if one occurs: no value can name a tag.
#[derive(Default)]
struct Tags(Vec<(u16, String)>);

impl Tags {
    fn draw(parts: &Parts<'_>, recipients: &[Recipient], entropy: &dyn Entropy) -> Self {
        let drawn = u64::from_be_bytes(random(entropy));
        // A text is finite, so a number that does not occur in it is found.
        (0..)
            .map(|nth| Self::numbered(parts, drawn.wrapping_add(nth)))
            .find(|tags| !tags.occur(parts, recipients))
            .unwrap_or_default()
    }

    fn numbered(parts: &Parts<'_>, number: u64) -> Self {
        let mut slots: Vec<u16> = parts.each().flat_map(Skeleton::slot_numbers).collect();
        slots.sort_unstable();
        slots.dedup();
        Self(slots.into_iter().map(|slot| (slot, format!("-{number:016x}:{slot}-"))).collect())
    }

    /// Whether what the tags begin with occurs in what is sent.
    fn occur(&self, parts: &Parts<'_>, recipients: &[Recipient]) -> bool {
        let Some((_, first)) = self.0.first() else { return false };
        let begin = first.split_inclusive(':').next().unwrap_or(first);
        let occurs = |text: &str| text.match_indices('-').any(|(at, _)| text[at..].starts_with(begin));
        parts.each().flat_map(|part| &part.pieces).any(|piece| match piece {
            Piece::Fixed(text) => occurs(text),
            Piece::Slot(_) => false,
        }) || recipients.iter().any(|one| self.0.iter().any(|(slot, _)| occurs(one.slots.get(*slot))))
    }

    fn in_place(&self, part: &Skeleton) -> String {
        part.tagged(|slot| match self.0.binary_search_by_key(&slot, |(known, _)| *known) {
            Ok(at) => self.0.get(at).map(|(_, tag)| tag.clone()).unwrap_or_default(),
            Err(_) => String::new(),
        })
    }
}

#[derive(Serialize)]
struct MailSend<'a> {
    personalizations: Personalizations<'a>,
    from: Party<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Party<'a>>,
    subject: String,
    content: Vec<Part>,
    tracking_settings: Tracking,
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
struct Part {
    #[serde(rename = "type")]
    kind: &'static str,
    value: String,
}

struct Personalizations<'a> {
    request: &'a Request<'a>,
    tags: &'a Tags,
}

impl Serialize for Personalizations<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let t = TokenText::new(self.request.token);
        serializer.collect_seq(self.request.recipients.iter().map(|recipient| Personalization {
            to: [Party { email: &recipient.to, name: None }],
            custom_args: CustomArgs { k: KeyText::new(recipient.key), t },
            substitutions: (!self.tags.0.is_empty()).then_some(Substitutions { recipient, tags: self.tags }),
            headers: recipient.list_unsubscribe.as_deref().map(|url| Headers {
                list_unsubscribe: format!("<{url}>"),
                list_unsubscribe_post: "List-Unsubscribe=One-Click",
            }),
        }))
    }
}

#[derive(Serialize)]
struct Personalization<'a> {
    to: [Party<'a>; 1],
    custom_args: CustomArgs,
    #[serde(skip_serializing_if = "Option::is_none")]
    substitutions: Option<Substitutions<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Headers>,
}

/// What comes back in every event: our key and the request's token. Kept for ever by the vendor, so random ids alone.
#[derive(Serialize)]
struct CustomArgs {
    k: KeyText,
    t: TokenText,
}

/// RFC 8058.
#[derive(Serialize)]
struct Headers {
    #[serde(rename = "List-Unsubscribe")]
    list_unsubscribe: String,
    #[serde(rename = "List-Unsubscribe-Post")]
    list_unsubscribe_post: &'static str,
}

struct Substitutions<'a> {
    recipient: &'a Recipient,
    tags: &'a Tags,
}

impl Serialize for Substitutions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.tags.0.iter().map(|(slot, tag)| (tag, self.recipient.slots.get(*slot))))
    }
}

/// Everything SendGrid would add to a mail to watch its reader, switched off whatever the account says.
#[derive(Serialize)]
struct Tracking {
    click_tracking: Clicks,
    open_tracking: Switch,
    subscription_tracking: Switch,
    ganalytics: Switch,
}

#[derive(Serialize)]
struct Clicks {
    enable: bool,
    enable_text: bool,
}

#[derive(Serialize)]
struct Switch {
    enable: bool,
}

impl Tracking {
    const OFF: Self = Self {
        click_tracking: Clicks { enable: false, enable_text: false },
        open_tracking: Switch { enable: false },
        subscription_tracking: Switch { enable: false },
        ganalytics: Switch { enable: false },
    };
}
