//! The fake for text messages.

use std::sync::{Mutex, PoisonError};

use hyper::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::{events::Events, invalid, missing, refuse};
use crate::sandbox::{
    Witness,
    addresses::is_phone,
    callbacks::Taken,
    fake::{ApiAnswer, Fake, Now, Refusal, Seen, header, mark_all},
    json::{Object, Text},
    witness::{WitnessRecipient, WitnessVerdict},
};

const TAGS_MAX: usize = 10;

/// The fake.
#[derive(Default)]
pub(in crate::sandbox) struct BrevoSms {
    events: Mutex<Events>,
}

#[derive(Deserialize)]
pub(in crate::sandbox) struct Sms<'a> {
    #[serde(borrow)]
    sender: Option<Text<'a>>,
    recipient: Option<Text<'a>>,
    content: Option<Text<'a>>,
    #[serde(rename = "templateId")]
    template_id: Option<i64>,
    r#type: Option<Text<'a>>,
    tag: Option<Tags<'a>>,
    #[serde(rename = "unicodeEnabled")]
    _unicode_enabled: Option<bool>,
    #[serde(rename = "organisationPrefix")]
    _organisation_prefix: Option<Text<'a>>,
    #[serde(rename = "params")]
    _params: Option<Object>,
    #[serde(rename = "webUrl")]
    web_url: Option<Text<'a>>,
}

/// One tag or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Tags<'a> {
    One(#[serde(borrow)] Text<'a>),
    Several(Vec<Text<'a>>),
}

impl<'a> Tags<'a> {
    fn as_slice(&self) -> &[Text<'a>] {
        match self {
            Self::One(tag) => std::slice::from_ref(tag),
            Self::Several(tags) => tags,
        }
    }
}

impl Sms<'_> {
    fn tags(&self) -> impl Iterator<Item = &str> {
        self.tag.iter().flat_map(Tags::as_slice).map(|tag| &**tag)
    }
}

impl BrevoSms {
    /// `GET /v3/transactionalSMS/statistics/events`.
    pub(in crate::sandbox) fn events(&self, query: &str) -> ApiAnswer {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).of_sms(query)
    }
}

impl Fake for BrevoSms {
    const PROVIDER: &'static str = "brevo_sms";
    /// The vendor names none; a text of 25 segments with its parameters is far smaller.
    const BODY_BYTES_MAX: usize = 1_000_000;
    type Send<'a> = Sms<'a>;

    fn key(headers: &HeaderMap) -> Option<&str> {
        header(headers, "api-key")
    }

    fn seen(send: &Sms<'_>, witness: &dyn Witness) -> Seen {
        let mut seen = Seen::default();
        seen.push(send.tags().next(), send.recipient.as_deref().unwrap_or(""), witness);
        seen
    }

    fn check(send: &Sms<'_>, _: Now) -> Result<(), ApiAnswer> {
        let sender = send.sender.as_deref().ok_or_else(|| missing("sender is missing"))?;
        let digits = sender.bytes().all(|byte| byte.is_ascii_digit());
        let letters_and_digits = sender.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let chars_max = if digits { 15 } else { 11 };
        if !letters_and_digits || !(1..=chars_max).contains(&sender.len()) {
            return Err(invalid("sender is not valid"));
        }
        let recipient = send.recipient.as_deref().ok_or_else(|| missing("recipient is missing"))?;
        if !is_phone(recipient, 6..=15) {
            return Err(invalid("Invalid telephone number"));
        }
        if send.template_id.is_none() && send.content.as_deref().is_none_or(str::is_empty) {
            return Err(missing("content is missing"));
        }
        if send.r#type.as_deref().is_some_and(|kind| !matches!(kind, "transactional" | "marketing")) {
            return Err(invalid("type is not valid"));
        }
        if send.tags().count() > TAGS_MAX || send.tags().any(str::is_empty) {
            return Err(invalid("tag must have at most 10 tags, none of them empty"));
        }
        if send.web_url.as_deref().is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
            return Err(invalid("webUrl is not valid"));
        }
        Ok(())
    }

    fn accept(&self, send: &Sms<'_>, recipients: &mut [WitnessRecipient], now: Now) -> ApiAnswer {
        mark_all(recipients, WitnessVerdict::Accepted);
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let message_id = events.remember_sms(send.tags(), now);
        drop(events);
        ApiAnswer::json(StatusCode::CREATED, &Created { message_id })
    }

    fn sent(send: &Sms<'_>, answer: &ApiAnswer) -> Vec<Taken> {
        let created: Option<Created> = serde_json::from_slice(&answer.body).ok();
        vec![Taken {
            key: send.tags().next().map(str::to_owned),
            message_id: created.map(|created| created.message_id.to_string()),
            address: send.recipient.as_deref().unwrap_or("").to_owned(),
            ..Taken::default()
        }]
    }

    fn refuse(refusal: Refusal, _: Now) -> ApiAnswer {
        refuse(refusal)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    message_id: u64,
}
