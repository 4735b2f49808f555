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
    /// Sent again on purpose: a request of its own, whatever its provider remembers of the first.
    pub(super) resent: bool,
    /// Refused: it has another key next time, for the provider may remember the old one.
    pub(super) refused: bool,
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
        Verdict::Resend => (DeliveryState::Ready, "resend", "resend"),
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
        resent: matches!(verdict, Verdict::Resend),
        refused: matches!(verdict, Verdict::Refused(_)),
    }
}

/// The provider's id that came with a verdict.
pub(super) fn provider_id(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Accepted { provider_id, .. } => provider_id.as_deref(),
        _ => None,
    }
}
