//! What becomes of unknown deliveries, by what was found out about them.

use dispatch_schemas::states::{DeliveryState, StopReason};

use super::Verdict;

/// What an unknown delivery becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled<'a> {
    pub(super) state: DeliveryState,
    /// Empty: as it was.
    pub(super) detail: &'a str,
    /// The word it is counted under.
    pub(super) how: &'static str,
    pub(super) next_at_ms: Option<i64>,
    /// Sent again without knowing: counted.
    pub(super) resent: bool,
    pub(super) key: KeyAfter,
}

/// What becomes of the key of an unknown delivery, and of what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyAfter {
    /// As it was.
    Same,
    /// No request with it was taken over. The log is asked only after the last of them has settled and while it shows
    /// them all, so nothing is in doubt any more: a gate that closes now stops the delivery, and a refusal of the next
    /// request is a plain refusal. The key stays nonetheless, as a second line: should the log be wrong, the provider
    /// refuses the repeat, and nobody is sent to twice.
    Absent,
    /// The next request is one of its own, whatever the provider remembers of the first.
    Renewed,
    /// It was refused: the next try has another, for the provider may remember the old one.
    Refused,
}

impl KeyAfter {
    const fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Absent => Self::Absent,
            Verdict::Resend => Self::Renewed,
            Verdict::Refused(_) => Self::Refused,
            Verdict::Accepted { .. }
            | Verdict::AskAgain
            | Verdict::ResendWithSameKey
            | Verdict::Later(_)
            | Verdict::Final => Self::Same,
        }
    }

    /// The word statements know it by.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Absent => "absent",
            Self::Renewed => "renewed",
            Self::Refused => "refused",
        }
    }
}

/// What a verdict makes of an unknown delivery; `stopped` says why it may not be sent any more.
pub(super) fn settled(verdict: &Verdict, stopped: Option<StopReason>) -> Settled<'_> {
    let (state, detail, how): (_, &str, _) = match verdict {
        Verdict::Accepted { evidence, .. } => (DeliveryState::Accepted, evidence, "log"),
        Verdict::Refused(code) => (DeliveryState::Failed, code, "refused"),
        Verdict::Absent => match stopped {
            Some(reason) => (DeliveryState::Stopped, reason.as_str(), "absent"),
            None => (DeliveryState::Ready, "absent", "absent"),
        },
        Verdict::AskAgain => (DeliveryState::Ready, "ask_again", "asked_again"),
        Verdict::Resend | Verdict::ResendWithSameKey => (DeliveryState::Ready, "resend", "resend"),
        Verdict::Later(_) => (DeliveryState::Unknown, "", "later"),
        Verdict::Final => (DeliveryState::UnknownFinal, "undecided", "final"),
    };
    let next_at_ms = match verdict {
        Verdict::Later(at_ms) => Some(*at_ms),
        _ => None,
    };
    Settled {
        state,
        detail,
        how,
        next_at_ms,
        resent: matches!(verdict, Verdict::Resend | Verdict::ResendWithSameKey),
        key: KeyAfter::of(verdict),
    }
}

/// The provider's id that came with a verdict.
pub(super) fn provider_id(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Accepted { provider_id, .. } => provider_id.as_deref(),
        _ => None,
    }
}
