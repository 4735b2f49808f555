//! Providers: who takes a message over and delivers it.
//!
//! Every provider is one file with the same parts in the same order: its contract (limits and class), the request,
//! the verdicts, the look-up. What they share is in [`http`] and [`verdict`]; what differs is data. A provider
//! answers for each recipient with a [`Verdict`]: the delivery loop knows nothing else of it.
//!
//! Adding one: its file, its fake in [`crate::sandbox`], and its line in [`REGISTRY`].

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use dispatch_schemas::states::Channel;
use secrecy::SecretString;
use serde::Deserialize;

use crate::{
    clock::Clock,
    message::{Message, Recipient, SendKey, Token},
};

pub mod brevo;
pub mod callbacks;
pub mod http;
pub mod infobip;
pub mod sendgrid;
pub mod smtp;
pub mod verdict;

pub use verdict::{Answer, Code, Signal, Verdict};

/// What a provider can do about a request whose outcome we do not know. The classes are named A to D.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A: it remembers a key of ours for a while and refuses a repeat. Asking again with the same key inside
    /// `safe_for` (counted from the first request with that key) is harmless and tells.
    KeyWithTtl {
        /// How long after the first request a repeat is safe.
        safe_for: Duration,
    },
    /// B: our id is the message's id; a repeat is refused, and its log can be asked by it.
    ClientId,
    /// C: it echoes our id in its callbacks; nothing else.
    EchoOnly,
    /// D: nothing at all.
    Nothing,
}

/// The fixed facts of one provider account, asked by the delivery loop before it claims.
#[derive(Debug, Clone)]
pub struct Contract {
    /// Which kind of provider, as in the settings and in metrics: `sendgrid`, `brevo`, ….
    pub kind: &'static str,
    /// The channel it serves.
    pub channel: Channel,
    /// What it knows about repeats.
    pub class: Class,
    /// Most recipients in one request; at least 1.
    pub recipients_per_request: usize,
}

/// One provider request.
#[derive(Debug)]
pub struct Request<'a> {
    /// The campaign's part.
    pub message: &'a Message,
    /// At most [`Contract::recipients_per_request`], no address twice.
    pub recipients: &'a [Recipient],
    /// Names this request.
    pub token: Token,
    /// The idempotency key for providers that take one per request; the same when an unknown request is asked again.
    pub batch_key: SendKey,
    /// The first byte must leave before this moment of [`Clock::monotonic`]; after it the request is not made and
    /// every verdict is [`Verdict::NotSent`].
    pub send_by: Duration,
}

/// A question about one delivery whose outcome is unknown.
#[derive(Debug, Clone)]
pub struct Question {
    /// The delivery's key.
    pub key: SendKey,
    /// The key of the request it was in.
    pub batch_key: SendKey,
    /// The token of the request it was in.
    pub token: Token,
    /// When that request was claimed, milliseconds since 1970.
    pub claimed_at_ms: i64,
}

/// What a provider's log says about a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It took the message.
    Accepted {
        /// Its own id for it.
        provider_id: Option<String>,
    },
    /// It refused the message for good.
    Refused(Code),
    /// It never had it, as far as its log goes.
    Absent,
    /// It keeps no log we can ask.
    CannotTell,
}

/// A look-up that could not be answered now; ask again later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the provider's log could not be asked: {0}")]
pub struct LookUpError(pub Code);

/// A provider account, ready to send.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The fixed facts.
    fn contract(&self) -> &Contract;

    /// Whether this recipient may travel in one request with others; one that may not is sent in a request of its own.
    fn fits_batch(&self, message: &Message, recipient: &Recipient) -> bool {
        let _ = (message, recipient);
        true
    }

    /// Makes one request and classifies its answer. Never fails: what goes wrong is a verdict. Exactly one verdict
    /// per recipient, in their order.
    async fn send(&self, request: &Request<'_>) -> Answer;

    /// How many questions its log answers in one request; at least 1.
    fn questions_per_request(&self) -> usize {
        1
    }

    /// Asks the provider's log about deliveries. One finding per question, in their order. More questions than
    /// [`Self::questions_per_request`] are asked in several requests, one right after the other.
    ///
    /// # Errors
    /// When the log did not answer; nothing is known then.
    async fn look_up(&self, questions: &[Question]) -> Result<Vec<Finding>, LookUpError>;
}

/// Settings of one provider account.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSettings {
    /// Which provider: a `kind` of [`REGISTRY`].
    pub kind: String,
    /// Where it is reached: `https://…` for HTTP providers, `smtp://host:port` or `smtps://host:port` for a relay.
    /// Plain `http://` and SMTP without TLS are taken for loopback addresses only.
    pub url: Option<String>,
    /// The user name, where the provider has one (SMTP).
    pub user: Option<String>,
    /// File that holds the API key or password (mode 0600); read by the engine, not here.
    pub key_file: Option<std::path::PathBuf>,
    /// Most recipients in one request; the provider's own default when absent.
    pub recipients_per_request: Option<usize>,
    /// Most requests open at once.
    #[serde(default = "default_requests_open_max")]
    pub requests_open_max: usize,
    /// Time to connect, seconds.
    #[serde(default = "default_connect_timeout_s")]
    pub connect_timeout_s: u64,
    /// Time from the first byte out to the last byte in, seconds.
    #[serde(default = "default_answer_timeout_s")]
    pub answer_timeout_s: u64,
    /// PEM file with a certificate authority to trust beside the system's, for a relay or proxy of one's own.
    pub ca_file: Option<std::path::PathBuf>,
}

fn default_requests_open_max() -> usize {
    16
}

fn default_connect_timeout_s() -> u64 {
    5
}

fn default_answer_timeout_s() -> u64 {
    30
}

/// Why an account cannot be built from its settings.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No provider of this kind.
    #[error("no provider is called `{kind}`; there are: {known}")]
    Kind {
        /// What the settings say.
        kind: String,
        /// What there is.
        known: String,
    },
    /// A setting is missing or out of range.
    #[error("{0}")]
    Setting(String),
}

/// What every provider is built from.
pub struct Ingredients {
    /// Its settings.
    pub settings: AccountSettings,
    /// Its API key or password.
    pub secret: SecretString,
    /// The clock for deadlines and for dates in answers.
    pub clock: Arc<dyn Clock>,
    /// Random bytes, for tags and boundaries.
    pub entropy: Arc<dyn crate::clock::Entropy>,
}

impl fmt::Debug for Ingredients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingredients").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// One line per provider.
pub struct Entry {
    /// The word in the settings.
    pub kind: &'static str,
    /// The channel it serves.
    pub channel: Channel,
    /// Where it is reached when the settings do not say.
    pub default_url: Option<&'static str>,
    /// Makes the account.
    pub build: fn(Ingredients) -> Result<Arc<dyn Provider>, AccountError>,
    /// How it calls back, where it does.
    pub callbacks: Option<&'static callbacks::Callbacks>,
}

/// The providers there are.
pub const REGISTRY: &[Entry] = &[
    Entry {
        kind: "sendgrid",
        channel: Channel::Email,
        default_url: Some(sendgrid::DEFAULT_URL),
        build: sendgrid::build,
        callbacks: Some(&sendgrid::CALLBACKS),
    },
    Entry {
        kind: "brevo",
        channel: Channel::Email,
        default_url: Some(brevo::DEFAULT_URL),
        build: brevo::build_email,
        callbacks: Some(&brevo::EMAIL_CALLBACKS),
    },
    Entry {
        kind: "brevo_sms",
        channel: Channel::Sms,
        default_url: Some(brevo::DEFAULT_URL),
        build: brevo::build_sms,
        callbacks: Some(&brevo::SMS_CALLBACKS),
    },
    Entry {
        kind: "infobip",
        channel: Channel::Sms,
        default_url: None,
        build: infobip::build,
        callbacks: Some(&infobip::CALLBACKS),
    },
    Entry { kind: "smtp", channel: Channel::Email, default_url: None, build: smtp::build, callbacks: None },
];

/// The entry of a kind.
#[must_use]
pub fn entry(kind: &str) -> Option<&'static Entry> {
    REGISTRY.iter().find(|entry| entry.kind == kind)
}

/// Builds the account that `ingredients` describe.
///
/// # Errors
/// [`AccountError`] when the kind is unknown or a setting is out of range.
pub fn build(ingredients: Ingredients) -> Result<Arc<dyn Provider>, AccountError> {
    match entry(&ingredients.settings.kind) {
        Some(entry) => (entry.build)(ingredients),
        None => Err(AccountError::Kind {
            kind: ingredients.settings.kind.clone(),
            known: REGISTRY.iter().map(|entry| entry.kind).collect::<Vec<_>>().join(", "),
        }),
    }
}
