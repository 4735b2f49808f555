//! The fakes of Brevo: `POST /v3/smtp/email`, `POST /v3/transactionalSMS/send`, and their statistics.
//!
//! E-mail knows the idempotency key of a request for a while and refuses a repeat; text messages know no repeats.
//! Both can be asked by tag. Sources: the types and comments of Brevo's own client (`@getbrevo/brevo`), and its guides
//! on batch sending, on idempotency and on limits.

mod check;
mod events;
mod sms;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use events::Events;
use hyper::{HeaderMap, StatusCode, header::HeaderName};
use serde::{Deserialize, Serialize};
pub(super) use sms::BrevoSms;

use super::{
    Witness,
    callbacks::Taken,
    fake::{ApiAnswer, Fake, Now, Refusal, Seen, header, mark_all},
    json::{ObjectSize, Pairs, Text},
    memory::ExpiringIds,
    witness::{WitnessRecipient, WitnessVerdict},
};

/// The fake for e-mail.
pub(super) struct BrevoEmail {
    memory: Mutex<Memory>,
}

struct Memory {
    keys: ExpiringIds,
    events: Events,
}

#[derive(Deserialize)]
pub(super) struct Email<'a> {
    #[serde(borrow)]
    sender: Option<Sender<'a>>,
    subject: Option<Text<'a>>,
    #[serde(rename = "htmlContent")]
    html: Option<Text<'a>>,
    #[serde(rename = "textContent")]
    text: Option<Text<'a>>,
    #[serde(rename = "replyTo")]
    reply_to: Option<Mailbox<'a>>,
    to: Option<Vec<Mailbox<'a>>>,
    cc: Option<Vec<Mailbox<'a>>>,
    bcc: Option<Vec<Mailbox<'a>>>,
    headers: Option<Pairs<'a>>,
    tags: Option<Vec<Text<'a>>>,
    params: Option<ObjectSize>,
    #[serde(rename = "messageVersions")]
    versions: Option<Vec<Version<'a>>>,
    #[serde(rename = "templateId")]
    template_id: Option<i64>,
    #[serde(rename = "scheduledAt")]
    _scheduled_at: Option<Text<'a>>,
    #[serde(rename = "batchId")]
    batch_id: Option<Text<'a>>,
    attachment: Option<Vec<Attachment<'a>>>,
}

#[derive(Deserialize)]
struct Sender<'a> {
    #[serde(borrow)]
    email: Option<Text<'a>>,
    name: Option<Text<'a>>,
    id: Option<i64>,
}

#[derive(Deserialize)]
struct Mailbox<'a> {
    #[serde(borrow)]
    email: Option<Text<'a>>,
    name: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Version<'a> {
    #[serde(borrow)]
    to: Option<Vec<Mailbox<'a>>>,
    cc: Option<Vec<Mailbox<'a>>>,
    bcc: Option<Vec<Mailbox<'a>>>,
    #[serde(rename = "replyTo")]
    reply_to: Option<Mailbox<'a>>,
    subject: Option<Text<'a>>,
    #[serde(rename = "htmlContent")]
    html: Option<Text<'a>>,
    #[serde(rename = "textContent")]
    text: Option<Text<'a>>,
    params: Option<ObjectSize>,
}

#[derive(Deserialize)]
struct Attachment<'a> {
    #[serde(borrow)]
    content: Option<Text<'a>>,
    name: Option<Text<'a>>,
    url: Option<Text<'a>>,
}

impl<'a> Email<'a> {
    /// The lists of recipients: those of each version, or the request's own where it has no versions.
    fn recipients(&self) -> impl Iterator<Item = &Mailbox<'a>> {
        let own = match &self.versions {
            None => [&self.to, &self.cc, &self.bcc].map(Option::as_deref),
            Some(_) => [None; 3],
        };
        let of_versions = self.versions.iter().flatten().flat_map(Version::lists);
        own.into_iter().chain(of_versions).flatten().flatten()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let headers = self.headers.as_ref()?;
        headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl<'a> Version<'a> {
    fn lists(&self) -> [Option<&[Mailbox<'a>]>; 3] {
        [&self.to, &self.cc, &self.bcc].map(Option::as_deref)
    }
}

impl BrevoEmail {
    /// A fake that remembers idempotency keys for `key_ttl`.
    pub(super) fn new(key_ttl: Duration) -> Self {
        Self { memory: Mutex::new(Memory { keys: ExpiringIds::new(key_ttl), events: Events::default() }) }
    }

    /// `GET /v3/smtp/statistics/events`.
    pub(super) fn events(&self, query: &str) -> ApiAnswer {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).events.of_email(query)
    }
}

impl Fake for BrevoEmail {
    const PROVIDER: &'static str = "brevo";
    /// A whole mail with its attachments is at most 20 MB.
    const BODY_BYTES_MAX: usize = 20_000_000;
    type Send<'a> = Email<'a>;

    fn key(headers: &HeaderMap) -> Option<&str> {
        header(headers, "api-key")
    }

    fn seen(send: &Email<'_>, witness: &dyn Witness) -> Seen {
        let mut seen = Seen { batch_key: send.header("idempotencyKey").map(str::to_owned), ..Seen::default() };
        let alone = send.versions.as_ref().is_none_or(|versions| versions.len() == 1);
        let key = send.header("X-Mailin-custom").filter(|_| alone);
        for mailbox in send.recipients() {
            seen.push(key, mailbox.email.as_deref().unwrap_or(""), witness);
        }
        seen
    }

    fn check(send: &Email<'_>, _: Now) -> Result<(), ApiAnswer> {
        check::check(send)
    }

    fn accept(&self, send: &Email<'_>, recipients: &mut [WitnessRecipient], now: Now) -> ApiAnswer {
        let versions = send.versions.as_ref().map(Vec::len);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = send.header("idempotencyKey")
            && !memory.keys.insert_new(key, now.monotonic)
        {
            mark_all(recipients, WitnessVerdict::Duplicate);
            return wrong("duplicate_parameter", "The idempotencyKey has been used already");
        }
        let sandboxed = send.header("X-Sib-Sandbox").is_some_and(|word| word == "drop");
        let ids = memory.events.remember(send.tags.iter().flatten().map(|tag| &**tag), versions.unwrap_or(1), now);
        if sandboxed {
            // The vendor's own sandbox answers as always, but delivers nothing and keeps no log of it.
            memory.events.forget_last();
        } else {
            mark_all(recipients, WitnessVerdict::Accepted);
        }
        drop(memory);
        ApiAnswer::json(
            StatusCode::CREATED,
            &match versions {
                None => Created { message_id: ids.into_iter().next(), message_ids: None },
                Some(_) => Created { message_id: None, message_ids: Some(ids) },
            },
        )
    }

    fn sent(send: &Email<'_>, answer: &ApiAnswer) -> Vec<Taken> {
        let Created { message_id, message_ids } = serde_json::from_slice(&answer.body).unwrap_or_default();
        let ids: Vec<String> = message_id.into_iter().chain(message_ids.into_iter().flatten()).collect();
        let one = |mailbox: &Mailbox<'_>, id: Option<&String>| Taken {
            key: send.header("X-Mailin-custom").map(str::to_owned),
            tag: send.tags.iter().flatten().next().map(|tag| tag.to_string()),
            message_id: id.cloned(),
            address: mailbox.email.as_deref().unwrap_or("").to_owned(),
            ..Taken::default()
        };
        match &send.versions {
            None => send.recipients().map(|mailbox| one(mailbox, ids.first())).collect(),
            Some(versions) => (versions.iter().zip(0..))
                .flat_map(|(version, nth): (_, usize)| {
                    version.lists().into_iter().flatten().flatten().map(move |mailbox| (mailbox, nth))
                })
                .map(|(mailbox, nth)| one(mailbox, ids.get(nth)))
                .collect(),
        }
    }

    fn refuse(refusal: Refusal, _: Now) -> ApiAnswer {
        refuse(refusal)
    }
}

#[derive(Serialize, Deserialize, Default)]
struct Created {
    #[serde(rename = "messageId", skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(rename = "messageIds", skip_serializing_if = "Option::is_none")]
    message_ids: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'a str,
    message: &'a str,
}

/// Brevo's 400.
fn wrong(code: &str, message: &str) -> ApiAnswer {
    ApiAnswer::json(StatusCode::BAD_REQUEST, &Error { code, message })
}

fn invalid(message: &str) -> ApiAnswer {
    wrong("invalid_parameter", message)
}

fn missing(message: &str) -> ApiAnswer {
    wrong("missing_parameter", message)
}

fn refuse(refusal: Refusal) -> ApiAnswer {
    let (code, message) = match refusal {
        Refusal::Key => ("unauthorized", "Key not found"),
        Refusal::Path => ("document_not_found", "Resource not found"),
        Refusal::Method => ("method_not_allowed", "Method not allowed"),
        Refusal::MediaType => ("invalid_parameter", "Content-Type must be application/json"),
        Refusal::TooLarge => ("invalid_parameter", "Payload too large"),
        Refusal::Unreadable => ("bad_request", "Input must be a valid JSON object"),
        Refusal::Drawn => ("invalid_parameter", "email is not valid in to"),
        Refusal::Throttled => ("too_many_requests", "Too many requests"),
        Refusal::Unavailable => ("unavailable", "Service unavailable"),
        Refusal::Internal => ("internal_error", "Internal error"),
    };
    let answer = refusal.answer(&Error { code, message });
    if refusal != Refusal::Throttled {
        return answer;
    }
    // The reset is in seconds from now, not a date.
    answer
        .with(HeaderName::from_static("x-sib-ratelimit-limit"), 1000)
        .with(HeaderName::from_static("x-sib-ratelimit-remaining"), 0)
        .with(HeaderName::from_static("x-sib-ratelimit-reset"), 1)
}
