//! What Brevo's answers mean.

use serde::Deserialize;

use crate::providers::{
    Answer, Verdict,
    http::{Client, Complaint, Dialect, Meaning, Reply, Reset, bounded_id, stranger},
};

/// Statuses by the vendor's page on how the API works. A 409 and a 425 are not told apart there from "being worked
/// on", and a 5xx does not say whether mail went out, so they are not here.
pub(super) const DIALECT: Dialect = Dialect {
    statuses: &[
        (400, Meaning::Content),
        (401, Meaning::Account("unauthorized")),
        (402, Meaning::Account("credits_exceeded")),
        (403, Meaning::Account("forbidden")),
        (404, Meaning::Account("http_404")),
        (405, Meaning::Account("http_405")),
        (406, Meaning::Account("http_406")),
        (413, Meaning::Content),
        (415, Meaning::Account("http_415")),
        (422, Meaning::Content),
        (429, Meaning::TooFast),
        (503, Meaning::Away),
    ],
    reset: Some(Reset::In("x-sib-ratelimit-reset")),
    complaint,
};

/// Error codes that say more than the status they come with.
const ACCOUNT_CODES: &[(&str, &str)] = &[
    ("not_enough_credits", "credits_exceeded"),
    ("unauthorized", "unauthorized"),
    ("permission_denied", "forbidden"),
    ("account_under_validation", "forbidden"),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    #[serde(default)]
    message_id: Option<String>,
    #[serde(default)]
    message_ids: Option<Vec<String>>,
}

/// A 2xx takes all recipients. Their ids come in the order of the request; when there are not as many, nobody is
/// given another's.
pub(super) fn email_verdicts(reply: &Reply, client: &Client, recipients: usize) -> Answer {
    if !reply.is_success() {
        return client.refusal(reply, &DIALECT, recipients);
    }
    if reply.is_web_page() {
        return stranger(recipients);
    }
    let ids = reply
        .json()
        .map_or_else(Vec::new, |sent: Sent| sent.message_ids.unwrap_or_else(|| sent.message_id.into_iter().collect()));
    if ids.len() != recipients {
        return Answer::all(&Verdict::Accepted { provider_id: None }, recipients);
    }
    let verdicts = ids.iter().map(|id| Verdict::Accepted { provider_id: bounded_id(id) }).collect();
    Answer { verdicts, signal: None }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SmsSent {
    message_id: u64,
}

/// A 2xx takes the message; its id is a whole number of up to 64 bits.
pub(super) fn sms_verdict(reply: &Reply, client: &Client) -> Answer {
    if !reply.is_success() {
        return client.refusal(reply, &DIALECT, 1);
    }
    if reply.is_web_page() {
        return stranger(1);
    }
    let provider_id = reply.json().map(|sent: SmsSent| sent.message_id.to_string());
    Answer::all(&Verdict::Accepted { provider_id }, 1)
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<serde::de::IgnoredAny>,
}

/// `{"code":"invalid_parameter","message":"…"}`. The message is for people and changes; only the code counts.
fn complaint(body: &[u8]) -> Option<Complaint> {
    let error: Error = serde_json::from_slice(body).ok()?;
    if error.code.is_none() && error.message.is_none() {
        return None;
    }
    let code = error.code.as_deref().unwrap_or("");
    Some(Complaint {
        culprits: Vec::new(),
        duplicate: code == "duplicate_parameter",
        account: ACCOUNT_CODES.iter().find(|(known, _)| *known == code).map(|(_, why)| *why),
    })
}
