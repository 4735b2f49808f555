//! What a provider's answer means for one recipient.

use std::{borrow::Cow, fmt, time::Duration};

/// A short machine-readable reason: lower-case letters, digits, `_`, `.`, `:` and `-`, at most 64 bytes. After a `:` a name
/// out of the tenant's template may stand, such as `template_variable_missing:plan`.
///
/// Never holds text from a provider: such text may quote an address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Code(Cow<'static, str>);

/// The longest code.
const BYTES_MAX: usize = 64;

impl Code {
    /// A code known when the program is written.
    #[must_use]
    pub const fn known(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }

    /// A code with a number from the provider in it, such as `http_503` or `infobip_52`.
    #[must_use]
    pub fn numbered(prefix: &'static str, number: u32) -> Self {
        Self(Cow::Owned(format!("{prefix}_{number}")))
    }

    /// A code about something that the tenant's template names; a name that is too long is cut.
    #[must_use]
    pub fn about(code: &'static str, name: &str) -> Self {
        let room = BYTES_MAX.saturating_sub(code.len() + 1);
        Self(Cow::Owned(format!("{code}:{}", &name[..name.floor_char_boundary(room)])))
    }

    /// A code that this program wrote down before; `None` for a text that is no code.
    #[must_use]
    pub fn written(text: &str) -> Option<Self> {
        let is_code = (1..=BYTES_MAX).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c == ' ');
        is_code.then(|| Self(Cow::Owned(text.to_owned())))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The outcome of one request for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The provider took responsibility.
    Accepted {
        /// Its own id for the message, when the answer gave one.
        provider_id: Option<String>,
    },
    /// The provider says it has had this key already. Proof of acceptance when an earlier attempt with the key was
    /// unknown, a fault otherwise.
    Duplicate,
    /// Definitely not accepted, and never will be.
    Refused(Code),
    /// Definitely not accepted now; may be tried again. Counts as an attempt.
    Deferred(Code),
    /// Definitely not accepted because we are too fast. Does not count as an attempt.
    Throttled(Code),
    /// Definitely not accepted because the account itself is refused (key, credit, sender). Does not count as an
    /// attempt and says nothing about the recipient.
    AccountRefused(Code),
    /// No byte of the request left this machine. Does not count as an attempt.
    NotSent(Code),
    /// May or may not have been accepted.
    Unknown(Code),
}

impl Verdict {
    /// The bounded word for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Duplicate => "duplicate",
            Self::Refused(_) => "refused",
            Self::Deferred(_) => "deferred",
            Self::Throttled(_) => "throttled",
            Self::AccountRefused(_) => "account_refused",
            Self::NotSent(_) => "not_sent",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// What an answer says about the account as a whole; obeyed by every worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Send nothing through this account for this long (Retry-After, quota headers); 1 s to 1 h.
    Wait(Duration),
    /// The account is refused: send nothing until an operator has mended it.
    Stop(Code),
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// One per recipient, in the request's order.
    pub verdicts: Vec<Verdict>,
    /// What it says about the account, if anything.
    pub signal: Option<Signal>,
}

impl Answer {
    /// The same verdict for every recipient.
    #[must_use]
    pub fn all(verdict: &Verdict, recipients: usize) -> Self {
        Self { verdicts: vec![verdict.clone(); recipients], signal: None }
    }

    /// With a signal about the account.
    #[must_use]
    pub fn with_signal(mut self, signal: Signal) -> Self {
        self.signal = Some(signal);
        self
    }
}
