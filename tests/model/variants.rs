//! The providers and policies that must hold, each explored to its last state.

use dispatch_schemas::states::UnknownPolicy;
use stateright::{Model, Property};

use super::{
    actions::{self, Action},
    checking::must_hold,
    mutants::Flaw,
    properties,
    state::State,
    steps,
};

/// One model: a provider, a policy, and what is wrong with the engine, if anything is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    pub(crate) provider: Provider,
    pub(crate) policy: UnknownPolicy,
    pub(crate) storage: Storage,
    pub(crate) flaw: Option<Flaw>,
}

/// What a provider knows of what it was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Provider {
    pub(crate) memory: Memory,
    pub(crate) refusals: Refusals,
    pub(crate) log: Log,
    /// Whether it calls back with our key about every message it took over. Callbacks come late and in any order.
    pub(crate) calls_back: bool,
}

/// For how long it remembers a key and refuses a repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    None,
    ForAWhile,
    ForGood,
}

/// What a refused request does to its key, at a provider that remembers keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusals {
    LeaveTheKey,
    /// The next request with it is told that the key was used; but this happens only to refusals that are recorded. No
    /// provider is like this: it shows what the ledger makes of what it knows.
    UseTheKeyUpIfRecorded,
    /// The next request with it is told that the key was used, whether we heard of the refusal or not.
    UseTheKeyUp,
}

/// Whether the engine can ask it for what it took over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    None,
    Asked,
}

/// What the ledger's storage may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    KeepsAll,
    /// It may be set back once: a restored backup, a replica that had not heard of the last commits.
    IsRestored,
}

/// A: remembers the key of a request for a while (Brevo e-mail).
const A: Provider =
    Provider { memory: Memory::ForAWhile, refusals: Refusals::LeaveTheKey, log: Log::None, calls_back: true };
/// A with the log that the engine asks once the key can't be asked with any more.
const A_WITH_LOG: Provider = Provider { log: Log::Asked, ..A };
/// B: takes our id for good, and has a log (Infobip).
const B: Provider =
    Provider { memory: Memory::ForGood, refusals: Refusals::LeaveTheKey, log: Log::Asked, calls_back: true };
/// C: echoes our id in its callbacks (SendGrid, Brevo SMS).
const C: Provider =
    Provider { memory: Memory::None, refusals: Refusals::LeaveTheKey, log: Log::None, calls_back: true };
/// C with a log that the engine asks.
const C_WITH_LOG: Provider =
    Provider { memory: Memory::None, refusals: Refusals::LeaveTheKey, log: Log::Asked, calls_back: true };
/// D: nothing (SMTP).
const D: Provider =
    Provider { memory: Memory::None, refusals: Refusals::LeaveTheKey, log: Log::None, calls_back: false };

const fn variant(provider: Provider, policy: UnknownPolicy) -> Variant {
    Variant { provider, policy, storage: Storage::KeepsAll, flaw: None }
}

/// The variants, by what is said of them.
impl Variant {
    pub(crate) const KEY_FOR_A_WHILE: Self = variant(A, UnknownPolicy::Verify);
    const KEY_AND_LOG: Self = variant(A_WITH_LOG, UnknownPolicy::Verify);
    const KEY_AND_LOG_AT_LEAST_ONCE: Self = variant(A_WITH_LOG, UnknownPolicy::AtLeastOnce);
    pub(crate) const CLIENT_ID: Self = variant(B, UnknownPolicy::Verify);
    pub(crate) const ECHO_AT_MOST_ONCE: Self = variant(C, UnknownPolicy::AtMostOnce);
    pub(crate) const ECHO_AT_LEAST_ONCE: Self = variant(C, UnknownPolicy::AtLeastOnce);
    pub(crate) const ECHO_AND_LOG: Self = variant(C_WITH_LOG, UnknownPolicy::Verify);
    pub(crate) const RESTORED: Self = Self { storage: Storage::IsRestored, ..Self::ECHO_AND_LOG };
    const ECHO_VERIFY: Self = variant(C, UnknownPolicy::Verify);
    pub(crate) const CLIENT_ID_AT_LEAST_ONCE: Self = variant(B, UnknownPolicy::AtLeastOnce);
    const KEY_AT_LEAST_ONCE: Self = variant(A, UnknownPolicy::AtLeastOnce);
    pub(crate) const NOTHING_AT_MOST_ONCE: Self = variant(D, UnknownPolicy::AtMostOnce);
    const NOTHING_AT_LEAST_ONCE: Self = variant(D, UnknownPolicy::AtLeastOnce);

    /// The same with a provider that treats keys of refused requests like this.
    pub(crate) const fn whose(self, refusals: Refusals) -> Self {
        Self { provider: Provider { refusals, ..self.provider }, ..self }
    }

    pub(crate) const fn with(self, flaw: Flaw) -> Self {
        Self { flaw: Some(flaw), ..self }
    }

    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    pub(crate) fn restores(&self) -> bool {
        self.storage == Storage::IsRestored
    }
}

impl Model for Variant {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions::possible(self, state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        Some(steps::after(self, state, action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::properties(self)
    }
}

#[test]
fn a_key_that_is_remembered_for_a_while_is_asked_again() {
    must_hold("A, verify", Variant::KEY_FOR_A_WHILE, 454_040);
}

#[test]
fn a_log_that_shows_a_request_is_believed() {
    must_hold("A with a log, verify", Variant::KEY_AND_LOG, 469_146);
    must_hold("A with a log, at least once", Variant::KEY_AND_LOG_AT_LEAST_ONCE, 653_664);
}

#[test]
fn a_key_that_is_too_old_is_sent_again_where_the_campaign_wants_it() {
    must_hold("A, at least once", Variant::KEY_AT_LEAST_ONCE, 798_170);
}

#[test]
fn an_id_of_ours_is_looked_up_and_a_repeat_of_it_refused() {
    must_hold("B, verify", Variant::CLIENT_ID, 103_560);
    must_hold("B, at least once", Variant::CLIENT_ID_AT_LEAST_ONCE, 158_670);
}

#[test]
fn an_echo_is_waited_for_and_nothing_is_sent_again() {
    must_hold("C, at most once", Variant::ECHO_AT_MOST_ONCE, 7_698);
    must_hold("C, verify", Variant::ECHO_VERIFY, 7_698);
}

#[test]
fn what_is_sent_again_without_knowing_is_counted() {
    must_hold("C, at least once", Variant::ECHO_AT_LEAST_ONCE, 70_870);
}

#[test]
fn a_log_that_never_had_it_is_believed_once_it_has_settled() {
    must_hold("C with a log, verify", Variant::ECHO_AND_LOG, 51_618);
}

#[test]
fn a_ledger_that_forgets_is_quarantined() {
    must_hold("C with a log, verify, restored", Variant::RESTORED, 119_254);
}

#[test]
fn a_provider_that_tells_nothing_leaves_outcomes_unknown() {
    must_hold("D, at most once", Variant::NOTHING_AT_MOST_ONCE, 6_246);
    must_hold("D, at least once", Variant::NOTHING_AT_LEAST_ONCE, 47_632);
}
