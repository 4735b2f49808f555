//! What SendGrid's answers mean.

use serde::Deserialize;

use crate::providers::{
    Answer, Verdict,
    http::{Client, Complaint, Dialect, Meaning, Reply, Reset, bounded_id, stranger},
};

/// The id of a request; every recipient's message id begins with it.
const REQUEST_ID: &str = "x-message-id";

/// Statuses by the vendor's table of errors. A 500 is declared without saying whether mail went out, so it is not
/// here.
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
    reset: Some(Reset::At("x-ratelimit-reset")),
    complaint,
};

/// A 2xx takes all recipients; who is suppressed or invalid comes later, as a `dropped` event.
pub(super) fn verdicts(reply: &Reply, client: &Client, recipients: usize) -> Answer {
    if !reply.is_success() {
        return client.refusal(reply, &DIALECT, recipients);
    }
    if reply.is_web_page() {
        return stranger(recipients);
    }
    let provider_id = reply.headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).and_then(bounded_id);
    Answer::all(&Verdict::Accepted { provider_id }, recipients)
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Error>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    field: Option<String>,
}

/// `{"errors":[{"message":"…","field":"personalizations.3.to","help":null}]}`
fn complaint(body: &[u8]) -> Option<Complaint> {
    let Errors { errors } = serde_json::from_slice(body).ok()?;
    let no_credit = errors
        .iter()
        .filter_map(|error| error.message.as_deref())
        .any(|message| message.to_ascii_lowercase().contains("maximum credits exceeded"));
    Some(Complaint {
        culprits: errors.iter().filter_map(|error| place(error.field.as_deref()?)).collect(),
        account: no_credit.then_some("credits_exceeded"),
        duplicate: false,
    })
}

/// The `3` of `personalizations.3.to` and of `personalizations.3`.
fn place(field: &str) -> Option<usize> {
    field.strip_prefix("personalizations.")?.split('.').next()?.parse().ok()
}
