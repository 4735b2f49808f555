//! The fake of Infobip: `POST /sms/3/messages`, `GET /sms/3/logs` and `GET /sms/3/reports`.
//!
//! The caller's message id is the message's id: a repeat is refused, and the log can be asked by it. The vendor does
//! not say for how long it remembers ids, nor whether those of refused messages; the fake remembers all of them for
//! as long as it runs. Sources: Infobip's OpenAPI description of the SMS API and its page on statuses and error codes.

mod check;
mod logs;
mod parts;

use std::{
    borrow::Cow,
    sync::{Mutex, PoisonError},
};

use hyper::{HeaderMap, StatusCode, header::AUTHORIZATION};
use logs::{Fate, Logs};
use serde::{Deserialize, Serialize};

use super::{
    Witness,
    addresses::is_phone,
    callbacks::Taken,
    fake::{ApiAnswer, Fake, Now, Refusal, Seen, header},
    faults::mixed,
    json::Text,
    witness::{WitnessRecipient, WitnessVerdict},
};

const TEXT_CHARS_MAX: usize = 4000;
const PARTS_MAX: usize = 25;

/// The fake.
pub(super) struct Infobip {
    logs: Mutex<Logs>,
}

#[derive(Deserialize)]
pub(super) struct Messages<'a> {
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    options: Option<RequestOptions<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    sender: Option<Text<'a>>,
    destinations: Option<Vec<Destination<'a>>>,
    content: Option<Content<'a>>,
    options: Option<MessageOptions<'a>>,
    webhooks: Option<Webhooks<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Destination<'a> {
    #[serde(borrow)]
    to: Option<Text<'a>>,
    message_id: Option<Text<'a>>,
    #[serde(rename = "networkId")]
    _network_id: Option<i32>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    hex: Option<Text<'a>>,
    transliteration: Option<Text<'a>>,
    language: Option<Language<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Language<'a> {
    #[serde(borrow)]
    language_code: Option<Text<'a>>,
    #[serde(rename = "singleShift")]
    _single_shift: Option<bool>,
    #[serde(rename = "lockingShift")]
    _locking_shift: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageOptions<'a> {
    #[serde(borrow)]
    platform: Option<Platform<'a>>,
    validity_period: Option<Amount<'a>>,
    delivery_time_window: Option<DeliveryTimeWindow<'a>>,
    campaign_reference_id: Option<Text<'a>>,
    #[serde(rename = "flash")]
    _flash: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Platform<'a> {
    #[serde(borrow)]
    entity_id: Option<Text<'a>>,
    application_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Amount<'a> {
    amount: Option<i32>,
    #[serde(borrow)]
    time_unit: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct DeliveryTimeWindow<'a> {
    #[serde(borrow)]
    days: Option<Vec<Text<'a>>>,
    from: Option<TimeOfDay>,
    to: Option<TimeOfDay>,
}

#[derive(Deserialize, Clone, Copy)]
struct TimeOfDay {
    hour: Option<i32>,
    minute: Option<i32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhooks<'a> {
    #[serde(borrow)]
    delivery: Option<DeliveryWebhook<'a>>,
    content_type: Option<Text<'a>>,
    callback_data: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct DeliveryWebhook<'a> {
    #[serde(borrow)]
    url: Option<Text<'a>>,
    #[serde(rename = "intermediateReport")]
    _intermediate_report: Option<bool>,
    #[serde(rename = "notify")]
    _notify: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestOptions<'a> {
    #[serde(borrow)]
    schedule: Option<Schedule<'a>>,
    #[serde(rename = "tracking")]
    _tracking: Option<Tracking>,
    include_sms_count_in_response: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schedule<'a> {
    #[serde(borrow)]
    bulk_id: Option<Text<'a>>,
    #[serde(rename = "sendAt")]
    _send_at: Option<Text<'a>>,
    sending_speed_limit: Option<Amount<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read for its types alone: a value of the wrong type is refused")]
struct Tracking {
    shorten_url: Option<bool>,
    track_clicks: Option<bool>,
    remove_protocol: Option<bool>,
}

impl Infobip {
    /// A fake whose log begins now.
    pub(super) fn new(now: Now) -> Self {
        Self { logs: Mutex::new(Logs::new(now)) }
    }

    /// `GET /sms/3/logs`, at most 120 times a minute.
    pub(super) fn logs(&self, query: &str, now: Now) -> ApiAnswer {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if logs.may_ask(now) { logs.logs(query, now) } else { Self::refuse(Refusal::Throttled, now) }
    }

    /// `GET /sms/3/reports`; each report is given once.
    pub(super) fn reports(&self, query: &str) -> ApiAnswer {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).take_reports(query)
    }
}

impl Fake for Infobip {
    const PROVIDER: &'static str = "infobip";
    /// The vendor names none; this is 2,500 messages at their longest.
    const BODY_BYTES_MAX: usize = 10_000_000;
    type Send<'a> = Messages<'a>;

    fn key(headers: &HeaderMap) -> Option<&str> {
        header(headers, AUTHORIZATION.as_str())?.strip_prefix("App ")
    }

    fn seen(send: &Messages<'_>, witness: &dyn Witness) -> Seen {
        let mut seen = Seen::default();
        for destination in destinations(send).map(|(_, destination)| destination) {
            seen.push(destination.message_id.as_deref(), destination.to.as_deref().unwrap_or(""), witness);
        }
        seen
    }

    fn check(send: &Messages<'_>, _: Now) -> Result<(), ApiAnswer> {
        check::check(send)
    }

    fn accept(&self, send: &Messages<'_>, recipients: &mut [WitnessRecipient], now: Now) -> ApiAnswer {
        let wants_count =
            send.options.as_ref().is_some_and(|options| options.include_sms_count_in_response == Some(true));
        let mut messages = Vec::with_capacity(recipients.len());
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        for ((message, destination), recipient) in destinations(send).zip(recipients) {
            let to = destination.to.as_deref().unwrap_or("");
            let text = message.content.as_ref().and_then(|content| content.text.as_deref()).unwrap_or("");
            let parts = parts::parts(text);
            let fate = if parts > PARTS_MAX || text.chars().count() > TEXT_CHARS_MAX {
                Fate::TooLong
            } else if !is_phone(to, 6..=15) {
                Fate::BadDestination
            } else {
                Fate::Delivered
            };
            let number = logs.next_number();
            let message_id = match destination.message_id.as_deref().filter(|id| !id.is_empty()) {
                Some(id) => Cow::Borrowed(id),
                None => Cow::Owned(format!("{:020}", mixed(number))),
            };
            let status = if !logs.remember(&message_id, fate, now) {
                recipient.verdict = WitnessVerdict::Duplicate;
                DUPLICATE
            } else if fate == Fate::Delivered {
                recipient.verdict = WitnessVerdict::Accepted;
                PENDING
            } else {
                fate.status()
            };
            let details = wants_count.then_some(Details { message_count: parts });
            messages.push(SentMessage { message_id, status, destination: to, details });
        }
        let number = logs.next_number();
        drop(logs);
        let bulk_id = send.options.as_ref().and_then(|options| options.schedule.as_ref()?.bulk_id.as_deref());
        let bulk_id = match bulk_id {
            Some(id) => Some(Cow::Borrowed(id)),
            None => (messages.len() > 1).then(|| Cow::Owned(format!("{:020}", mixed(number)))),
        };
        ApiAnswer::json(StatusCode::OK, &Sent { bulk_id, messages })
    }

    fn sent(send: &Messages<'_>, _: &ApiAnswer) -> Vec<Taken> {
        destinations(send)
            .map(|(_, destination)| Taken {
                key: destination.message_id.as_deref().map(str::to_owned),
                address: destination.to.as_deref().unwrap_or("").to_owned(),
                ..Taken::default()
            })
            .collect()
    }

    fn refuse(refusal: Refusal, _: Now) -> ApiAnswer {
        let (description, action) = match refusal {
            Refusal::Key => ("Invalid credentials provided.", "Check the API key."),
            Refusal::Path => ("Requested resource does not exist.", "Check the path."),
            Refusal::Method => ("Method is not supported.", "Check the method."),
            Refusal::MediaType => ("Content type is not supported.", "Send application/json."),
            Refusal::TooLarge => ("Request is too large.", "Send fewer messages."),
            Refusal::Unreadable | Refusal::Drawn => (BAD_REQUEST, CHECK_SYNTAX),
            Refusal::Throttled => ("Too many requests.", "Wait before the next request."),
            Refusal::Unavailable => ("Service is not available.", "Try again later."),
            Refusal::Internal => ("Something went wrong.", "Contact support."),
        };
        let code = format!("E{}", refusal.status().as_u16());
        refusal.answer(&ApiError { error_code: &code, description, action, violations: &[], resources: [] })
    }
}

fn destinations<'s, 'a>(send: &'s Messages<'a>) -> impl Iterator<Item = (&'s Message<'a>, &'s Destination<'a>)> {
    send.messages
        .iter()
        .flatten()
        .flat_map(|message| message.destinations.iter().flatten().map(move |destination| (message, destination)))
}

const BAD_REQUEST: &str = "Request cannot be processed.";
const CHECK_SYNTAX: &str = "Check the syntax, violations and adjust the request.";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiError<'a> {
    error_code: &'a str,
    description: &'a str,
    action: &'a str,
    violations: &'a [Violation],
    resources: [(); 0],
}

/// A field that is wrong, by its path.
#[derive(Serialize)]
struct Violation {
    property: String,
    violation: &'static str,
}

/// Infobip's 400.
fn violated(violations: &[Violation]) -> ApiAnswer {
    ApiAnswer::json(
        StatusCode::BAD_REQUEST,
        &ApiError { error_code: "E400", description: BAD_REQUEST, action: CHECK_SYNTAX, violations, resources: [] },
    )
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    bulk_id: Option<Cow<'a, str>>,
    messages: Vec<SentMessage<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SentMessage<'a> {
    message_id: Cow<'a, str>,
    status: Status,
    destination: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    message_count: usize,
}

#[derive(Serialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
struct Status {
    group_id: u8,
    group_name: &'static str,
    id: u8,
    name: &'static str,
    description: &'static str,
}

const PENDING: Status = Status {
    group_id: 1,
    group_name: "PENDING",
    id: 26,
    name: "PENDING_ACCEPTED",
    description: "Message sent to next instance",
};

const DUPLICATE: Status = rejected(23, "REJECTED_DUPLICATE_MESSAGE_ID", "Message id has been used already");

const fn rejected(id: u8, name: &'static str, description: &'static str) -> Status {
    Status { group_id: 5, group_name: "REJECTED", id, name, description }
}
