//! What the HTTP fakes have in common: the parts each of them has, in the order a request meets them.

use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};
use serde::{Deserialize, Serialize};

use super::{
    Witness,
    callbacks::Taken,
    witness::{WitnessRecipient, WitnessVerdict},
};

/// An answer before the fault plan has its way with it.
#[derive(Debug)]
pub(super) struct ApiAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

impl ApiAnswer {
    /// Without a body.
    pub(super) const fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        // The bodies are structs of strings and numbers, which always serialise.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { body: body.into(), ..Self::empty(status) }
            .with(CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Why a request is not taken, apart from what its fields say. Each vendor has its own body for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The API key is missing or wrong.
    Key,
    /// No such path.
    Path,
    /// Not this method on this path.
    Method,
    /// The body is not sent as plain JSON.
    MediaType,
    /// The body is too large.
    TooLarge,
    /// The body is not the JSON it should be.
    Unreadable,
    /// [`super::Fault::Refuse`].
    Drawn,
    /// Too fast; wait a second.
    Throttled,
    /// Not available; wait a second.
    Unavailable,
    /// Something broke.
    Internal,
}

impl Refusal {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::Key => StatusCode::UNAUTHORIZED,
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreadable | Self::Drawn => StatusCode::BAD_REQUEST,
            Self::Throttled => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer with `body` in the vendor's shape, and when to come back where that would help.
    pub(super) fn answer(self, body: &impl Serialize) -> ApiAnswer {
        let answer = ApiAnswer::json(self.status(), body);
        match self {
            Self::Throttled | Self::Unavailable => answer.with(RETRY_AFTER, 1),
            _ => answer,
        }
    }
}

/// What the witness's log says of a request.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) token: Option<String>,
    pub(super) batch_key: Option<String>,
    pub(super) recipients: Vec<WitnessRecipient>,
}

impl Seen {
    /// Adds a recipient, refused until it is accepted.
    pub(super) fn push(&mut self, key: Option<&str>, address: &str, witness: &dyn Witness) {
        self.recipients.push(WitnessRecipient {
            key: key.map(str::to_owned),
            to: witness.hash(address),
            verdict: WitnessVerdict::Refused,
        });
    }
}

/// When a request was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// [`crate::clock::Clock::now_ms`].
    pub(super) wall_ms: i64,
    /// [`crate::clock::Clock::monotonic`].
    pub(super) monotonic: std::time::Duration,
}

/// A fake of one provider's call to send.
pub(super) trait Fake: Send + Sync + 'static {
    /// One of [`super::PROVIDERS`].
    const PROVIDER: &'static str;

    /// Largest body taken.
    const BODY_BYTES_MAX: usize;

    /// The body of a request. Fields the vendor does not document are read over, as its specification allows them;
    /// every documented field has its type.
    type Send<'a>: Deserialize<'a>;

    /// The API key a request carries.
    fn key(headers: &HeaderMap) -> Option<&str>;

    /// What the log says of it; every recipient refused so far.
    fn seen(send: &Self::Send<'_>, witness: &dyn Witness) -> Seen;

    /// Refuses what the vendor would refuse.
    fn check(send: &Self::Send<'_>, now: Now) -> Result<(), ApiAnswer>;

    /// Takes the request, remembers it, and marks each recipient with what became of it. The answer may be lost on
    /// its way; what is remembered may not.
    fn accept(&self, send: &Self::Send<'_>, recipients: &mut [WitnessRecipient], now: Now) -> ApiAnswer;

    /// The messages of a request that was taken with this answer, one for each recipient the log names, in their order.
    fn sent(send: &Self::Send<'_>, answer: &ApiAnswer) -> Vec<Taken>;

    /// The vendor's words for a refusal.
    fn refuse(refusal: Refusal, now: Now) -> ApiAnswer;
}

/// Marks every recipient with one verdict.
pub(super) fn mark_all(recipients: &mut [WitnessRecipient], verdict: WitnessVerdict) {
    for recipient in recipients {
        recipient.verdict = verdict;
    }
}

/// A header's value as text.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
