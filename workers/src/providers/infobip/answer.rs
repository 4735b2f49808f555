//! What Infobip's answers to a request mean.

use std::collections::HashMap;

use serde::Deserialize;

use super::statuses::Status;
use crate::{
    message::{Recipient, SendKey},
    providers::{
        Answer, Code, Signal, Verdict,
        http::{Client, Complaint, Dialect, Meaning, Reply, stranger},
    },
};

/// Statuses by the vendor's OpenAPI document and its page on rate limits. A 500 does not say whether messages went
/// out, so it is not here.
pub(super) const DIALECT: Dialect = Dialect {
    statuses: &[
        (400, Meaning::Content),
        (401, Meaning::Account("unauthorized")),
        (402, Meaning::Account("payment_required")),
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
    reset: None,
    complaint,
};

#[derive(Deserialize)]
struct Submitted {
    messages: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    message_id: String,
    status: Status,
}

/// A verdict for each recipient by its own row. Without a row nothing is known: the vendor refuses in the body of a
/// 200 as well.
pub(super) fn verdicts(reply: &Reply, client: &Client, recipients: &[Recipient]) -> Answer {
    if !reply.is_success() {
        return client.refusal(reply, &DIALECT, recipients.len());
    }
    if reply.is_web_page() {
        return stranger(recipients.len());
    }
    let Some(Submitted { messages }) = reply.json() else {
        return Answer::all(&Verdict::Unknown(Code::known("unreadable_answer")), recipients.len());
    };
    let places: HashMap<SendKey, usize> = recipients.iter().zip(0..).map(|(one, place)| (one.key, place)).collect();
    let mut found: Vec<Option<Verdict>> = vec![None; recipients.len()];
    for row in messages {
        let place = row.message_id.parse().ok().and_then(|key| places.get(&key));
        let Some(slot) = place.and_then(|place| found.get_mut(*place)) else { continue };
        let verdict = row.status.verdict();
        match slot {
            Some(earlier) if *earlier != verdict => *earlier = Verdict::Unknown(Code::known("answered_twice")),
            _ => *slot = Some(verdict),
        }
    }
    let missing = || Verdict::Unknown(Code::known("missing_in_answer"));
    let verdicts: Vec<Verdict> = found.into_iter().map(|verdict| verdict.unwrap_or_else(missing)).collect();
    let refused = verdicts.iter().find_map(|verdict| match verdict {
        Verdict::AccountRefused(code) => Some(Signal::Stop(code.clone())),
        _ => None,
    });
    Answer { verdicts, signal: refused }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Errors {
    #[serde(default)]
    error_code: Option<String>,
    #[serde(default)]
    request_error: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    violations: Option<Vec<Violation>>,
}

#[derive(Deserialize)]
struct Violation {
    #[serde(default)]
    property: Option<String>,
}

/// `{"errorCode":"E400","violations":[{"property":"messages[1].content.text","violation":"…"}],…}`, or the older
/// `{"requestError":{"serviceException":{…}}}`.
fn complaint(body: &[u8]) -> Option<Complaint> {
    let errors: Errors = serde_json::from_slice(body).ok()?;
    if errors.error_code.is_none() && errors.request_error.is_none() {
        return None;
    }
    let violations = errors.violations.unwrap_or_default();
    let culprits = violations.iter().filter_map(|one| place(one.property.as_deref()?)).collect();
    Some(Complaint { culprits, ..Complaint::default() })
}

/// The `1` of `messages[1].content.text`.
fn place(property: &str) -> Option<usize> {
    property.strip_prefix("messages[")?.split(']').next()?.parse().ok()
}
