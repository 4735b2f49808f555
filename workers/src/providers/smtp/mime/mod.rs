//! The mail: one message for one recipient, as it goes over the wire.
//!
//! Headers and structure are built by lettre (RFC 5322, RFC 2047); bodies are encoded here, because they are most of
//! the bytes. Nothing of a recipient can become a header, a command or the end of the mail: header values with a
//! control character are refused, bodies are quoted-printable or base64, and dots are stuffed (RFC 5321 §4.5.2).

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lettre::{
    Address,
    address::Envelope,
    message::{
        self as built, Body as EncodedBody, MessageBuilder, MultiPart, SinglePart,
        header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue},
    },
};
use memchr::memmem;

use crate::{
    clock::TimestampMs,
    message::{Body, Mailbox, Message, Recipient, SendKey, Skeleton},
    providers::Code,
};

mod quoted_printable;
#[cfg(test)]
mod tests;

/// RFC 5322 §2.1.1: no line is longer, without its CRLF.
const LINE_MAX: usize = 998;

/// Longest unsubscribe URL: with its header's name it must stay on one line, for it cannot be folded.
const UNSUBSCRIBE_URL_MAX: usize = 900;

/// Longest word of a subject that is written as it is; a longer one could not be folded at 78 octets.
const SUBJECT_WORD_MAX: usize = 60;

/// Octets of text in one encoded word: 45 make 60 of base64, and 72 with the frame (RFC 2047 §2 allows 75).
const ENCODED_WORD_TEXT_MAX: usize = 45;

/// Above this share of octets outside ASCII, base64 is shorter than quoted-printable (3 octets for one against 4/3).
const BASE64_FROM_ONE_IN: usize = 6;

/// A mail, ready for one transaction. Personal data: has no readable `Debug`.
pub struct Mail {
    /// `MAIL FROM`: the sender's address.
    pub(super) from: Address,
    /// `RCPT TO`: the recipient's address.
    pub(super) to: Address,
    /// What follows `DATA`: dots stuffed, with the line that ends it.
    pub(super) content: Vec<u8>,
}

impl Mail {
    /// Whether the recipient's address goes beyond ASCII, so that the relay must know SMTPUTF8 (RFC 6531).
    pub(super) fn needs_utf8(&self) -> bool {
        let to: &str = self.to.as_ref();
        !to.is_ascii()
    }

    /// Octets that go over the wire after `DATA`.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        self.content.len()
    }
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mail({} bytes)", self.content.len())
    }
}

/// Why no mail can be made for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unmailable {
    /// The message is for another channel.
    #[error("the message is not an e-mail, or has no content")]
    NotAnEmail,
    /// A header would hold a control character, or a line longer than 998 octets.
    #[error("a header value holds a control character, or is too long")]
    Header,
    /// The recipient's address cannot stand in a mail.
    #[error("the recipient's address is not one that mail can be sent to")]
    Address,
}

impl Unmailable {
    /// The reason, for a verdict.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::NotAnEmail => Code::known("not_an_email"),
            Self::Header => Code::known("header_invalid"),
            Self::Address => Code::known("address_invalid"),
        }
    }
}

/// Makes the mail of one recipient. Its `Message-ID` is the send key at the sender's domain: the same for every
/// attempt, so that a receiver can tell a repeat.
///
/// # Errors
/// [`Unmailable`] when it cannot be made; it never will be then, for this recipient.
pub fn compose(message: &Message, recipient: &Recipient, now_ms: TimestampMs) -> Result<Mail, Unmailable> {
    let Body::Email { from, reply_to, subject, html, text } = &message.body else {
        return Err(Unmailable::NotAnEmail);
    };
    let sender = mailbox(from)?;
    let to = recipient_address(&recipient.to)?;
    let envelope = Envelope::new(Some(sender.email.clone()), vec![to.clone()]).map_err(|_| Unmailable::Address)?;

    let mut builder = built::Message::builder()
        .envelope(envelope)
        .message_id(Some(format!("<{}@{}>", recipient.key, sender.email.domain())))
        .date(SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or(0)))
        .from(sender.clone())
        .to(built::Mailbox::new(None, to.clone()));
    if let Some(reply_to) = reply_to {
        builder = builder.reply_to(mailbox(reply_to)?);
    }
    builder = with_subject(builder, &subject.spliced(&recipient.slots))?;
    if let Some(url) = &recipient.list_unsubscribe {
        builder = with_one_click_unsubscribe(builder, url)?;
    }

    let part = |skeleton: &Skeleton, kind| encoded_part(&skeleton.spliced(&recipient.slots), kind);
    let mail = match (text, html) {
        (Some(text), Some(html)) => builder.multipart(
            MultiPart::alternative()
                .boundary(boundary(recipient.key))
                .singlepart(part(text, ContentType::TEXT_PLAIN))
                .singlepart(part(html, ContentType::TEXT_HTML)),
        ),
        (Some(text), None) => builder.singlepart(part(text, ContentType::TEXT_PLAIN)),
        (None, Some(html)) => builder.singlepart(part(html, ContentType::TEXT_HTML)),
        (None, None) => return Err(Unmailable::NotAnEmail),
    }
    .map_err(|_| Unmailable::Header)?
    .formatted();
    if !header_lines_fit(&mail) {
        return Err(Unmailable::Header);
    }
    Ok(Mail { from: sender.email, to, content: stuffed(mail) })
}

/// A sender or reply address with its name.
fn mailbox(mailbox: &Mailbox) -> Result<built::Mailbox, Unmailable> {
    if !mailbox.address.is_ascii() || mailbox.name.as_deref().is_some_and(has_control) {
        return Err(Unmailable::Header);
    }
    let address = mailbox.address.parse().map_err(|_| Unmailable::Header)?;
    Ok(built::Mailbox::new(mailbox.name.clone(), address))
}

fn recipient_address(address: &str) -> Result<Address, Unmailable> {
    if has_control(address) {
        return Err(Unmailable::Address);
    }
    let address: Address = address.parse().map_err(|_| Unmailable::Address)?;
    if address.domain().is_ascii() { Ok(address) } else { Err(Unmailable::Address) }
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn with_subject(builder: MessageBuilder, subject: &str) -> Result<MessageBuilder, Unmailable> {
    if has_control(subject) {
        return Err(Unmailable::Header);
    }
    // An encoded word that a recipient's data brings along must be shown as it is, not decoded.
    let plain = subject.is_ascii()
        && !subject.contains("=?")
        && subject.split(' ').all(|word| word.len() <= SUBJECT_WORD_MAX)
        && subject.trim() == subject;
    if plain {
        return Ok(builder.subject(subject));
    }
    const SUBJECT: HeaderName = HeaderName::new_from_ascii_str("Subject");
    Ok(builder.raw_header(HeaderValue::dangerous_new_pre_encoded(SUBJECT, subject.to_owned(), encoded_words(subject))))
}

/// The text as encoded words (RFC 2047 §2), one a line; no character is cut in two.
fn encoded_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while !rest.is_empty() {
        let (word, later) = rest.split_at(rest.floor_char_boundary(ENCODED_WORD_TEXT_MAX));
        if !out.is_empty() {
            out.push_str("\r\n ");
        }
        out.push_str("=?utf-8?B?");
        STANDARD.encode_string(word, &mut out);
        out.push_str("?=");
        rest = later;
    }
    out
}

/// `List-Unsubscribe` (RFC 2369) and the header that makes it one-click (RFC 8058).
fn with_one_click_unsubscribe(builder: MessageBuilder, url: &str) -> Result<MessageBuilder, Unmailable> {
    const UNSUBSCRIBE: HeaderName = HeaderName::new_from_ascii_str("List-Unsubscribe");
    const UNSUBSCRIBE_POST: HeaderName = HeaderName::new_from_ascii_str("List-Unsubscribe-Post");
    let fits = url.len() <= UNSUBSCRIBE_URL_MAX
        && url.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b','));
    if !fits {
        return Err(Unmailable::Header);
    }
    let unsubscribe = format!("<{url}>");
    let post = "List-Unsubscribe=One-Click".to_owned();
    Ok(builder
        .raw_header(HeaderValue::dangerous_new_pre_encoded(UNSUBSCRIBE, unsubscribe.clone(), unsubscribe))
        .raw_header(HeaderValue::dangerous_new_pre_encoded(UNSUBSCRIBE_POST, post.clone(), post)))
}

/// Begins with `=_`, which neither encoding of a body ever writes (RFC 2045 §6.7 suggests it).
fn boundary(key: SendKey) -> String {
    format!("=_{key}")
}

fn encoded_part(text: &str, kind: ContentType) -> SinglePart {
    let beyond_ascii = text.bytes().filter(|byte| !byte.is_ascii()).count();
    let body = if beyond_ascii > text.len() / BASE64_FROM_ONE_IN {
        let encoded = lines_of_base64(&with_crlf(text));
        EncodedBody::dangerous_pre_encoded(encoded, ContentTransferEncoding::Base64)
    } else {
        let mut encoded = Vec::with_capacity(text.len() + text.len() / 4);
        quoted_printable::encode(text, &mut encoded);
        EncodedBody::dangerous_pre_encoded(encoded, ContentTransferEncoding::QuotedPrintable)
    };
    SinglePart::builder().content_type(kind).body(body)
}

/// Text is encoded with CRLF line endings (RFC 2046 §4.1.1).
fn with_crlf(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 32);
    let mut rest = text;
    while let Some(at) = rest.find(['\r', '\n']) {
        let (line, ending) = rest.split_at(at);
        out.push_str(line);
        out.push_str("\r\n");
        rest = ending.strip_prefix("\r\n").unwrap_or_else(|| ending.get(1..).unwrap_or_default());
    }
    out.push_str(rest);
    out
}

/// Base64 in lines of 76 (RFC 2045 §6.8): 57 octets make one.
fn lines_of_base64(text: &str) -> Vec<u8> {
    const LINE_TEXT: usize = 57;
    let mut out = String::with_capacity(text.len() * 3 / 2);
    for line in text.as_bytes().chunks(LINE_TEXT) {
        STANDARD.encode_string(line, &mut out);
        out.push_str("\r\n");
    }
    out.into_bytes()
}

/// Whether every line of the header section may stand in a mail.
fn header_lines_fit(mail: &[u8]) -> bool {
    let end = memmem::find(mail, b"\r\n\r\n").unwrap_or(mail.len());
    mail.get(..end).unwrap_or_default().split(|byte| *byte == b'\n').all(|line| line.len() <= LINE_MAX + 1)
}

/// The mail with its dots stuffed and its last line (RFC 5321 §4.1.1.4).
fn stuffed(mail: Vec<u8>) -> Vec<u8> {
    let mut out = match memmem::find(&mail, b"\n.") {
        None => mail,
        Some(_) => {
            let mut stuffed = Vec::with_capacity(mail.len() + 64);
            let mut copied = 0;
            for newline in memmem::find_iter(&mail, b"\n.") {
                stuffed.extend_from_slice(mail.get(copied..=newline).unwrap_or_default());
                stuffed.push(b'.');
                copied = newline + 1;
            }
            stuffed.extend_from_slice(mail.get(copied..).unwrap_or_default());
            stuffed
        }
    };
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}
