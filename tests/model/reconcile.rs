//! What the reconciler does about an unknown outcome, by what the provider can tell and by the campaign's policy.
//!
//! The engine's decision stands in `scheduler::reconcile`, its effect in `ledger::sqlite::schedule::unknown`.

use dispatch_schemas::states::{DeliveryState, UnknownPolicy};

use super::{
    mutants::Flaw,
    state::{Attempt, Closing, Ledger, State, TRIES_MAX},
    variants::{Log, Memory, Variant},
};

/// What is to become of an unknown delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The same request again with the same key: its provider knows whether it had it.
    AskAgain,
    /// The provider's log has it.
    Found,
    /// The provider's log has it as refused.
    Refused,
    /// The provider's log never had it.
    Absent,
    /// Nobody can tell, and the campaign wants it sent again.
    Resend,
    /// Nobody can tell.
    GiveUp,
}

/// None while it is too early to decide.
pub(crate) fn decide(variant: &Variant, state: &State) -> Option<Decision> {
    let ledger = &state.ledger;
    let has_settled = state.has_settled();
    // The log is asked by the key; where the provider looks at none, by the delivery.
    let asked = ledger.key.map(|key| key.first);
    let rows = || state.made().iter().filter(|attempt| attempt.has_used_key(asked));
    if variant.provider.memory == Memory::ForAWhile {
        let is_safe = !ledger.has_old_key() || variant.has(Flaw::KeyOutlivesItsTime);
        if ledger.closing != Closing::Campaign && is_safe {
            return Some(Decision::AskAgain);
        }
        // How late this log is nobody says, so that it shows nothing proves nothing.
        if variant.provider.log == Log::Asked && rows().any(Attempt::is_taken) {
            return Some(Decision::Found);
        }
    } else if variant.provider.log == Log::Asked && !ledger.has_old_key() {
        let may_look = has_settled || variant.has(Flaw::AbsentBelievedEarly);
        let finding = if rows().any(Attempt::is_taken) {
            Decision::Found
        } else if rows().next().is_some() {
            Decision::Refused
        } else {
            Decision::Absent
        };
        return may_look.then_some(finding);
    }
    let resends =
        variant.policy == UnknownPolicy::AtLeastOnce && ledger.tries < TRIES_MAX && ledger.closing != Closing::Campaign;
    // The evidence window is longer than settling takes; a callback that comes after its end is still proof.
    has_settled.then_some(if resends { Decision::Resend } else { Decision::GiveUp })
}

impl Ledger {
    /// T12, T14 to T18.
    pub(crate) fn settle(&mut self, decision: Decision, memory: Memory) {
        match decision {
            Decision::AskAgain => self.enter(DeliveryState::Ready),
            Decision::Found => self.enter(DeliveryState::Accepted),
            Decision::Refused => self.fail(),
            Decision::Absent if self.tries >= TRIES_MAX => self.fail(),
            Decision::Absent if self.closing != Closing::Open => self.enter(DeliveryState::Stopped),
            Decision::Absent => {
                // None of the claims with the key was taken over, so nothing is in doubt; the key stays all the same.
                (self.doubted, self.duplicate_proves) = (false, true);
                self.enter(DeliveryState::Ready);
            }
            Decision::Resend => {
                self.resends += 1;
                if memory == Memory::ForAWhile {
                    // A request of its own. A permanent id stays: the provider refuses a repeat of it.
                    (self.key, self.duplicate_proves) = (None, true);
                }
                self.enter(DeliveryState::Ready);
            }
            Decision::GiveUp => self.enter(DeliveryState::UnknownFinal),
        }
    }

    fn fail(&mut self) {
        self.drop_key();
        self.enter(DeliveryState::Failed);
    }
}
