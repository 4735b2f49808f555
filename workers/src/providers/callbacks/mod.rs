//! Callbacks: what providers report of messages they took, by requests of their own.
//!
//! Two steps, apart from each other. A [`Verifier`] says from the raw bytes whether a request comes from the provider;
//! nothing of it is believed before. A [`Reader`] then makes [`Event`]s of its body, whose text may still be anything:
//! a recipient's mail server has words in it. Neither knows a ledger.

mod bearer;
mod count;
mod fields;
mod networks;
mod signed;

use std::{fmt, net::IpAddr};

use dispatch_schemas::states::{FactKind, StopReason};
use hyper::HeaderMap;
use secrecy::SecretString;

pub(super) use bearer::Bearer;
pub use count::events_in;
pub use fields::first_id_at;
pub(super) use fields::{Fields, event_id};
pub(super) use signed::{SignedBody, SignedWithTime};

use super::AccountError;
use crate::{clock::TimestampMs, message::SendKey};

/// What an account's callbacks are known by, from its settings.
#[derive(Default)]
pub struct Credentials {
    /// Public keys the provider signs with, as it shows them; two while one takes the other's place.
    pub public_keys: Vec<String>,
    /// Secrets shared with the provider; two while one takes the other's place.
    pub secrets: Vec<SecretString>,
    /// The header with the signature, where the provider lets its customers choose.
    pub signature_header: Option<String>,
    /// The networks the provider calls from, separated by commas; any when absent.
    pub networks: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

/// A request that claims to come from a provider.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, byte by byte as it came.
    pub body: &'a [u8],
    /// Where it came from.
    pub source: IpAddr,
    /// When, milliseconds since 1970.
    pub now_ms: TimestampMs,
}

impl<'a> Call<'a> {
    /// The value of a header that is there exactly once.
    fn header(&self, name: &str) -> Result<&'a [u8], Rejection> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value.as_bytes()),
            _ => Err(Rejection::Unsigned),
        }
    }
}

/// Why a request is not taken for the provider's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// What it should be known by is missing or there twice.
    #[error("it carries no signature or token, or several")]
    Unsigned,
    /// What it should be known by is wrong.
    #[error("its signature or token is wrong")]
    Forged,
    /// Its signature is too old, or of a time that has not come.
    #[error("its signature is of another time")]
    Stale,
    /// It comes from elsewhere.
    #[error("it comes from a network that is not the provider's")]
    Elsewhere,
}

impl Rejection {
    /// Its word in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Forged => "forged",
            Self::Stale => "stale",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// Knows a provider's requests from others'.
pub trait Verifier: Send + Sync + 'static {
    /// Whether this is one.
    ///
    /// # Errors
    /// [`Rejection`]; nothing of the request may be believed then.
    fn verify(&self, call: &Call<'_>) -> Result<(), Rejection>;
}

/// Names one report of a provider among all of an account: it is applied once.
pub type EventId = [u8; 16];

/// What a body reports.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// What is to be applied.
    pub events: Vec<Event>,
    /// Reports that are not kept: opened, clicked, an answer that is no opt-out. Nobody agreed to be watched.
    pub not_kept: u64,
    /// Parts of the body that are no report at all.
    pub unreadable: u64,
}

/// One report.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub id: EventId,
    /// Of what kind.
    pub kind: FactKind,
    /// When it happened by the provider's clock, milliseconds since 1970; `None` when it does not say or says nonsense.
    pub at_ms: Option<TimestampMs>,
    /// Whether it could not be said of a message that the provider never took over.
    pub proves_acceptance: bool,
    /// Why nothing more may be sent to this address, if so.
    pub closes: Option<StopReason>,
    /// What the message is found by.
    pub traces: Traces,
    /// The address it is about, as the provider writes it. Personal data.
    pub address: Option<String>,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({}, {:?})", self.kind, self.traces)
    }
}

/// What a report says about which message it is about; the first that leads to one counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traces {
    /// The delivery's own key.
    pub key: Option<SendKey>,
    /// The key of the request the message was in.
    pub request_key: Option<SendKey>,
    /// The provider's id of the message.
    pub provider_id: Option<String>,
}

/// A body that is no callback of the provider's at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not the JSON that this provider sends")]
pub struct Unreadable;

/// How a kind of provider calls back.
pub struct Callbacks {
    /// Makes what knows its requests from others'.
    pub verifier: fn(&Credentials) -> Result<Box<dyn Verifier>, AccountError>,
    /// Reads a body: the account's name, the body.
    pub read: fn(&str, &[u8]) -> Result<Events, Unreadable>,
    /// The HTTP status on which it comes again later.
    pub come_again: u16,
}

/// How an account is refused that is told nothing to know its provider by.
fn nothing_to_know_by(what: &str) -> AccountError {
    AccountError::Setting(format!("its callbacks could not be told from anybody's: set {what}"))
}

#[cfg(test)]
mod tests;
