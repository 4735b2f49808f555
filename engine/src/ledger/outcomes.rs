//! What becomes of claimed deliveries, by the outcome of their request and by what is known of earlier ones.
//!
//! "Duplicate" says that the provider has had the key, not what it made of it then. Vendors do not say whether a request
//! that they refuse uses its key up. So it proves an acceptance only while every earlier request with the key went
//! without an answer ([`Earlier::duplicate_proves`]). A refusal that leaves nothing in doubt makes a new key, so none of
//! that comes up; a refused repeat keeps its key, and from then on only a 2xx, a log or a late answer is believed. What
//! remains is a refusal that nobody heard: where such a one uses keys up, a repeat's "duplicate" is taken for proof.

use std::collections::HashMap;

use dispatch_schemas::states::{DeliveryState, StopReason};
use dispatch_workers::{
    delivery::{Counts, Outcome},
    providers::Class,
};

/// What a claimed delivery becomes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next<'a> {
    pub(super) state: DeliveryState,
    pub(super) detail: &'a str,
    pub(super) next_at_ms: Option<i64>,
    /// Added to the attempts that count.
    pub(super) attempts: i16,
    pub(super) key: Key,
    /// Whether it must travel alone from now on.
    pub(super) alone: bool,
}

/// How a request of several recipients is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// Whole, under its one key (class A).
    Whole,
    /// Recipient by recipient: each has a key of its own.
    Each,
}

impl Repeats {
    pub(super) const fn of(class: Class) -> Self {
        match class {
            Class::KeyWithTtl { .. } => Self::Whole,
            Class::ClientId | Class::EchoOnly | Class::Nothing => Self::Each,
        }
    }
}

/// How long a delivery waits whose repeat was refused, before anything else is tried.
const REFUSED_REPEAT_WAITS_MS: i64 = 5_000;

/// How long a delivery with a key of its own waits whose repeat got a "duplicate" that proves nothing: until a log that
/// did not have the message before must have settled.
const UNPROVEN_DUPLICATE_WAITS_MS: i64 = 15 * 60_000;

/// The detail of a delivery whose repeat got a "duplicate" that proves nothing.
pub(super) const UNPROVEN_DUPLICATE: &str = "duplicate";

/// What is known of earlier requests with the key that a delivery has now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Earlier {
    /// Whether one of them may have been accepted.
    pub(super) doubted: bool,
    /// Whether "duplicate" would prove that one was: none is known to have been refused.
    pub(super) duplicate_proves: bool,
}

/// The evidence of a delivery that its provider took over in its answer.
const ANSWER: &str = "answer";

/// What becomes of the send key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// It stays as it is.
    Same,
    /// It may have been accepted.
    Doubted,
    /// A repeat with it was refused: the doubt stays, and "duplicate" proves nothing any more.
    RepeatRefused,
    /// It was never used.
    Unused,
    /// It was definitely refused: the next try has another, so that a provider that remembers the keys of refused
    /// requests can't make us believe in an acceptance.
    Refused,
}

impl Key {
    /// The word statements know it by.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Doubted => "doubted",
            Self::RepeatRefused => "repeat_refused",
            Self::Unused => "unused",
            Self::Refused => "refused",
        }
    }
}

impl<'a> Next<'a> {
    const fn new(state: DeliveryState, detail: &'a str) -> Self {
        Self { state, detail, next_at_ms: None, attempts: 0, key: Key::Same, alone: false }
    }

    /// Whether it still tells the truth when its attempt was given up before. A "duplicate" does not: what it proves
    /// depends on what was known of its key then.
    pub(super) fn proves_late(&self) -> bool {
        self.state == DeliveryState::Accepted && self.detail == ANSWER
    }

    /// Whether nothing was sent: it does not count in the day's limit then.
    pub(super) fn is_unsent(&self) -> bool {
        self.state == DeliveryState::Ready || self.key == Key::Unused
    }
}

/// One delivery of a group with the same outcome.
pub(super) struct Member<'a> {
    pub(super) seq: i64,
    pub(super) provider_id: Option<&'a str>,
}

/// Deliveries that become the same.
pub(super) struct Group<'a> {
    pub(super) next: Next<'a>,
    pub(super) members: Vec<Member<'a>>,
}

/// The outcomes of a batch, grouped by what they come to. Almost always a whole batch comes to the same; a batch that
/// does not is written in as many statements as it has kinds of outcome.
pub(super) fn grouped<'a>(
    outcomes: &'a [(i64, Outcome)],
    earlier: &HashMap<i64, Earlier>,
    repeats: Repeats,
    now_ms: i64,
) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (seq, outcome) in outcomes {
        let earlier = earlier.get(seq).copied().unwrap_or_default();
        let next = match (outcome, earlier) {
            // Also where the log did not have the earlier one: then the log was wrong, not the provider.
            (Outcome::Duplicate, Earlier { duplicate_proves: true, .. }) => proven_by_duplicate(),
            (_, Earlier { doubted: true, .. }) => next_when_doubted(outcome, repeats, now_ms),
            _ => next(outcome),
        };
        let provider_id = match outcome {
            Outcome::Accepted { provider_id } => provider_id.as_deref(),
            _ => None,
        };
        let member = Member { seq: *seq, provider_id };
        match groups.iter_mut().find(|group| group.next == next) {
            Some(group) => group.members.push(member),
            None => groups.push(Group { next, members: vec![member] }),
        }
    }
    groups
}

/// The deliveries for whose outcome it matters what became of earlier attempts.
pub(super) fn to_be_asked_for_earlier(outcomes: &[(i64, Outcome)]) -> Vec<i64> {
    outcomes
        .iter()
        .filter(|(_, outcome)| !matches!(outcome, Outcome::Accepted { .. } | Outcome::Unknown { .. }))
        .map(|(seq, _)| *seq)
        .collect()
}

fn proven_by_duplicate() -> Next<'static> {
    Next { attempts: 1, ..Next::new(DeliveryState::Accepted, "dup_key") }
}

fn next(outcome: &Outcome) -> Next<'_> {
    match outcome {
        Outcome::Accepted { .. } => Next { attempts: 1, ..Next::new(DeliveryState::Accepted, ANSWER) },
        Outcome::Duplicate => {
            tracing::error!("a provider refused a key as used that was never used before; the delivery is failed");
            Next { attempts: 1, key: Key::Refused, ..Next::new(DeliveryState::Failed, "key_collision") }
        }
        Outcome::Failed(code) => {
            Next { attempts: 1, key: Key::Refused, ..Next::new(DeliveryState::Failed, code.as_str()) }
        }
        Outcome::Unsendable(code) => Next { key: Key::Unused, ..Next::new(DeliveryState::Failed, code.as_str()) },
        Outcome::Retry { at_ms, code, counts, alone } => Next {
            next_at_ms: Some(*at_ms),
            attempts: i16::from(*counts == Counts::AsAttempt),
            key: Key::Refused,
            alone: *alone,
            ..Next::new(DeliveryState::RetryWait, code.as_str())
        },
        Outcome::Released { alone } => Next { alone: *alone, key: Key::Unused, ..Next::new(DeliveryState::Ready, "") },
        Outcome::Unknown { code, look_at_ms } => Next {
            next_at_ms: Some(*look_at_ms),
            attempts: 1,
            key: Key::Doubted,
            ..Next::new(DeliveryState::Unknown, code.as_str())
        },
        Outcome::Erased => Next::new(DeliveryState::Stopped, StopReason::Erased.as_str()),
    }
}

/// The same for a delivery that an earlier attempt with this key may have got accepted. A refusal of the repeat says
/// nothing about that attempt, so the doubt and the key stay.
fn next_when_doubted(outcome: &Outcome, repeats: Repeats, now_ms: i64) -> Next<'_> {
    // A delivery whose request has one key for all can't leave it; with a key of its own it may travel alone.
    let alone = |wants_alone: bool| wants_alone && repeats == Repeats::Each;
    match outcome {
        // An earlier repeat was refused: this may be that one's key as well as the key of what may have been accepted.
        Outcome::Duplicate => Next {
            next_at_ms: Some(now_ms.saturating_add(match repeats {
                Repeats::Each => UNPROVEN_DUPLICATE_WAITS_MS,
                Repeats::Whole => REFUSED_REPEAT_WAITS_MS,
            })),
            attempts: 1,
            ..Next::new(DeliveryState::Unknown, UNPROVEN_DUPLICATE)
        },
        // Even what was not tried now counts, so that asking again comes to an end.
        Outcome::Failed(code) | Outcome::Unsendable(code) => Next {
            next_at_ms: Some(now_ms.saturating_add(REFUSED_REPEAT_WAITS_MS)),
            attempts: 1,
            key: if matches!(outcome, Outcome::Failed(_)) { Key::RepeatRefused } else { Key::Same },
            ..Next::new(DeliveryState::Unknown, code.as_str())
        },
        Outcome::Retry { at_ms, code, counts, alone: wants_alone } => Next {
            next_at_ms: Some(match repeats {
                Repeats::Each => *at_ms,
                Repeats::Whole => (*at_ms).max(now_ms.saturating_add(REFUSED_REPEAT_WAITS_MS)),
            }),
            attempts: i16::from(*counts == Counts::AsAttempt),
            key: Key::RepeatRefused,
            alone: alone(*wants_alone),
            ..Next::new(DeliveryState::RetryWait, code.as_str())
        },
        Outcome::Released { alone: wants_alone } => {
            Next { alone: alone(*wants_alone), ..Next::new(DeliveryState::Ready, "") }
        }
        Outcome::Erased => Next::new(DeliveryState::UnknownFinal, StopReason::Erased.as_str()),
        Outcome::Accepted { .. } | Outcome::Unknown { .. } => next(outcome),
    }
}
