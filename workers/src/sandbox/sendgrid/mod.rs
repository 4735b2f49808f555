//! The fake of SendGrid: `POST /v3/mail/send`.
//!
//! It knows no repeats and keeps no log to be asked: all it gives back is its own message id. Sources: SendGrid's
//! OpenAPI description of the call, and its pages on the limitations and errors of mail/send.

mod check;

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};

use super::{
    Witness,
    callbacks::Taken,
    fake::{ApiAnswer, Fake, Now, Refusal, Seen, header, mark_all},
    faults::mixed,
    json::{Object, Pairs, Text},
    witness::{WitnessRecipient, WitnessVerdict},
};

/// Its id of a request; those of its messages begin with it.
const MESSAGE_ID: &str = "x-message-id";

/// The fake.
#[derive(Default)]
pub(super) struct SendGrid {
    answers: AtomicU64,
}

#[derive(Deserialize)]
pub(super) struct MailSend<'a> {
    #[serde(borrow)]
    personalizations: Option<Vec<Personalization<'a>>>,
    from: Option<Mailbox<'a>>,
    reply_to: Option<Mailbox<'a>>,
    reply_to_list: Option<Vec<Mailbox<'a>>>,
    subject: Option<Text<'a>>,
    content: Option<Vec<Content<'a>>>,
    attachments: Option<Vec<Attachment<'a>>>,
    template_id: Option<Text<'a>>,
    headers: Option<Pairs<'a>>,
    categories: Option<Vec<Text<'a>>>,
    custom_args: Option<Pairs<'a>>,
    send_at: Option<i64>,
    #[serde(rename = "batch_id")]
    _batch_id: Option<Text<'a>>,
    asm: Option<Asm>,
    ip_pool_name: Option<Text<'a>>,
    mail_settings: Option<MailSettings>,
    #[serde(rename = "tracking_settings")]
    _tracking_settings: Option<TrackingSettings<'a>>,
}

#[derive(Deserialize)]
struct Personalization<'a> {
    #[serde(borrow)]
    from: Option<Mailbox<'a>>,
    #[serde(default)]
    to: Vec<Mailbox<'a>>,
    #[serde(default)]
    cc: Vec<Mailbox<'a>>,
    #[serde(default)]
    bcc: Vec<Mailbox<'a>>,
    subject: Option<Text<'a>>,
    headers: Option<Pairs<'a>>,
    substitutions: Option<Pairs<'a>>,
    #[serde(rename = "dynamic_template_data")]
    _dynamic_template_data: Option<Object>,
    custom_args: Option<Pairs<'a>>,
    send_at: Option<i64>,
}

impl<'a> Personalization<'a> {
    /// Each list of recipients with the name of its field.
    fn lists(&self) -> [(&'static str, &[Mailbox<'a>]); 3] {
        [("to", &self.to), ("cc", &self.cc), ("bcc", &self.bcc)]
    }
}

#[derive(Deserialize)]
struct Mailbox<'a> {
    #[serde(borrow)]
    email: Option<Text<'a>>,
    name: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    r#type: Option<Text<'a>>,
    value: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Attachment<'a> {
    #[serde(borrow)]
    content: Option<Text<'a>>,
    filename: Option<Text<'a>>,
    disposition: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Asm {
    group_id: Option<i64>,
    #[serde(default)]
    groups_to_display: Vec<i64>,
}

#[derive(Deserialize)]
struct MailSettings {
    sandbox_mode: Option<Switch>,
}

#[derive(Deserialize)]
struct Switch {
    enable: Option<bool>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read for its types alone: a value of the wrong type is refused")]
struct TrackingSettings<'a> {
    #[serde(borrow)]
    click_tracking: Option<Tracking<'a>>,
    open_tracking: Option<Tracking<'a>>,
    subscription_tracking: Option<Tracking<'a>>,
    ganalytics: Option<Tracking<'a>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read for its types alone: a value of the wrong type is refused")]
struct Tracking<'a> {
    enable: Option<bool>,
    enable_text: Option<bool>,
    #[serde(borrow)]
    substitution_tag: Option<Text<'a>>,
}

impl Fake for SendGrid {
    const PROVIDER: &'static str = "sendgrid";
    /// The whole message with its attachments is smaller than 30 MB.
    const BODY_BYTES_MAX: usize = 30_000_000;
    type Send<'a> = MailSend<'a>;

    fn key(headers: &HeaderMap) -> Option<&str> {
        header(headers, AUTHORIZATION.as_str())?.strip_prefix("Bearer ")
    }

    fn seen(send: &MailSend<'_>, witness: &dyn Witness) -> Seen {
        let mut seen = Seen::default();
        for personalization in send.personalizations.iter().flatten() {
            let args = personalization.custom_args.as_ref();
            if seen.token.is_none() {
                seen.token = args.and_then(|args| args.get("t")).map(str::to_owned);
            }
            let key = args.and_then(|args| args.get("k"));
            for mailbox in personalization.lists().into_iter().flat_map(|(_, list)| list) {
                seen.push(key, mailbox.email.as_deref().unwrap_or(""), witness);
            }
        }
        seen
    }

    fn check(send: &MailSend<'_>, now: Now) -> Result<(), ApiAnswer> {
        check::check(send, now)
    }

    fn accept(&self, send: &MailSend<'_>, recipients: &mut [WitnessRecipient], now: Now) -> ApiAnswer {
        let sandboxed = send.mail_settings.as_ref().and_then(|settings| settings.sandbox_mode.as_ref());
        if sandboxed.is_some_and(|mode| mode.enable == Some(true)) {
            // Validated only: nothing is delivered, and the answer is 200.
            return ApiAnswer::empty(StatusCode::OK);
        }
        mark_all(recipients, WitnessVerdict::Accepted);
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}{number:06x}", mixed(now.wall_ms.unsigned_abs() ^ mixed(number)));
        let answer = ApiAnswer::empty(StatusCode::ACCEPTED);
        // Hexadecimal digits are always a header's value.
        match HeaderValue::try_from(id) {
            Ok(id) => answer.with(HeaderName::from_static(MESSAGE_ID), id),
            Err(_) => answer,
        }
    }

    fn sent(send: &MailSend<'_>, answer: &ApiAnswer) -> Vec<Taken> {
        let id = answer.headers.iter().find(|(name, _)| name == MESSAGE_ID).and_then(|(_, id)| id.to_str().ok());
        let mut sent = Vec::new();
        for personalization in send.personalizations.iter().flatten() {
            let args = personalization.custom_args.as_ref();
            let arg = |name| args.and_then(|args| args.get(name)).map(str::to_owned);
            for mailbox in personalization.lists().into_iter().flat_map(|(_, list)| list) {
                sent.push(Taken {
                    key: arg("k"),
                    token: arg("t"),
                    message_id: id.map(str::to_owned),
                    address: mailbox.email.as_deref().unwrap_or("").to_owned(),
                    ..Taken::default()
                });
            }
        }
        sent
    }

    fn refuse(refusal: Refusal, now: Now) -> ApiAnswer {
        let answer = refusal.answer(&Errors::of(match refusal {
            Refusal::Key => "The provided authorization grant is invalid, expired, or revoked",
            Refusal::Path => "not found",
            Refusal::Method => "method not allowed",
            Refusal::MediaType => "Content-Type should be application/json.",
            Refusal::TooLarge => "content too large",
            Refusal::Unreadable | Refusal::Drawn => "Bad Request",
            Refusal::Throttled => "too many requests",
            Refusal::Unavailable => "service unavailable",
            Refusal::Internal => "internal server error",
        }));
        if refusal != Refusal::Throttled {
            return answer;
        }
        answer
            .with(HeaderName::from_static("x-ratelimit-limit"), 600)
            .with(HeaderName::from_static("x-ratelimit-remaining"), 0)
            .with(HeaderName::from_static("x-ratelimit-reset"), now.wall_ms / 1000 + 1)
    }
}

/// The vendor's 400 for one field.
fn wrong(field: impl Into<String>, message: &str) -> ApiAnswer {
    ApiAnswer::json(
        StatusCode::BAD_REQUEST,
        &Errors { errors: [Error { message, field: Some(field.into()), help: None }] },
    )
}

#[derive(Serialize)]
struct Errors<'a> {
    errors: [Error<'a>; 1],
}

#[derive(Serialize)]
struct Error<'a> {
    message: &'a str,
    field: Option<String>,
    help: Option<&'a str>,
}

impl<'a> Errors<'a> {
    const fn of(message: &'a str) -> Self {
        Self { errors: [Error { message, field: None, help: None }] }
    }
}
