//! What the ledger does with a claim, an outcome, a lost worker and a cancelled campaign.
//!
//! The same as `ledger::sqlite::claims` (`claim_batch`, `record_batch`) and `ledger::sqlite::schedule` (`reap`, `end`)
//! do with a batch.

use dispatch_schemas::states::DeliveryState;

use super::{
    mutants::Flaw,
    state::{Age, Answer, Closing, Key, Ledger, State, TRIES_MAX, Token, Worker},
    variants::{Memory, Variant},
};

/// T5, or T3 where the person's gate is closed.
pub(crate) fn claim(variant: &Variant, state: &mut State) {
    let ledger = &mut state.ledger;
    let knows_keys_for_a_while = variant.provider.memory == Memory::ForAWhile;
    let looks_at_age = !(variant.has(Flaw::KeyOutlivesItsTime) || variant.has(Flaw::ClaimIgnoresKeyAge));
    if knows_keys_for_a_while && ledger.doubted && ledger.has_old_key() && looks_at_age {
        return ledger.enter(DeliveryState::Unknown);
    }
    if ledger.closing != Closing::Open && !variant.has(Flaw::ClaimIgnoresClosings) {
        let guesses = variant.has(Flaw::DoubtfulIsStopped);
        let state = if ledger.doubted && !guesses { DeliveryState::UnknownFinal } else { DeliveryState::Stopped };
        return ledger.enter(state);
    }
    if !state.has_room() {
        return;
    }
    let token = state.claims;
    let ledger = &mut state.ledger;
    ledger.attempt = Some(token);
    if variant.provider.memory != Memory::None {
        ledger.key = ledger.key.or(Some(Key { first: token, age: Age::Young }));
    }
    ledger.enter(DeliveryState::Claimed);
    let (key, after_closing) = (ledger.key.map(|key| key.first), state.closed);
    state.claims += 1;
    let attempt = state.attempt_mut(token);
    (attempt.worker, attempt.key, attempt.after_closing) = (Worker::Holding, key, after_closing);
}

/// What a delivery becomes by an outcome.
struct Next {
    state: DeliveryState,
    counts: bool,
    key: KeyNext,
}

enum KeyNext {
    /// Stays, and so does the doubt, if there is any.
    Same,
    /// Stays in doubt, and a repeat with it was refused.
    RepeatRefused,
    /// May have been accepted.
    Doubted,
    /// Stays, as old as it is, if an earlier claim has used it.
    Unused,
    /// The next claim has a new one, and nothing of the old is in doubt.
    Dropped,
}

/// T6 to T9, T13 and T21, by compare-and-set on the attempt.
pub(crate) fn record(variant: &Variant, ledger: &mut Ledger, token: Token, answer: Answer) {
    let answer = match answer {
        Answer::Nothing if variant.has(Flaw::TimeoutIsRefusal) => Answer::RefusedForNow,
        other => other,
    };
    let keeps_doubt = ledger.doubted && !variant.has(Flaw::RepeatRefusedIsRefused);
    let tries_left = ledger.tries + 1 < TRIES_MAX;
    let next = match answer {
        Answer::Duplicate if ledger.duplicate_proves => {
            Next { state: DeliveryState::Accepted, counts: true, key: KeyNext::Same }
        }
        _ if keeps_doubt => next_when_doubted(answer, tries_left),
        _ => next(answer, tries_left),
    };
    if ledger.holds(token) || variant.has(Flaw::RecordWithoutCompare) {
        ledger.enter(next.state);
        if next.counts {
            ledger.count_try();
        }
        match next.key {
            KeyNext::Same => {}
            KeyNext::RepeatRefused => {
                ledger.duplicate_proves = variant.has(Flaw::DuplicateAlwaysProves) && ledger.doubted;
            }
            KeyNext::Doubted => ledger.doubt(),
            KeyNext::Unused if ledger.duplicate_proves => {}
            KeyNext::Unused | KeyNext::Dropped => ledger.drop_key(),
        }
    } else if variant.has(Flaw::BooksWithoutRows) {
        ledger.books.moved(DeliveryState::Claimed, next.state);
    } else if answer == Answer::Accepted {
        prove(ledger);
    }
}

/// T13: proof beats everything.
pub(crate) fn prove(ledger: &mut Ledger) {
    if ledger.delivery != DeliveryState::Accepted {
        ledger.enter(DeliveryState::Accepted);
    }
}

fn next(answer: Answer, tries_left: bool) -> Next {
    let (state, counts, key) = match answer {
        Answer::Accepted => (DeliveryState::Accepted, true, KeyNext::Same),
        // A key that was never used before and yet is known: a collision.
        Answer::Duplicate | Answer::RefusedForGood => (DeliveryState::Failed, true, KeyNext::Dropped),
        Answer::RefusedForNow if !tries_left => (DeliveryState::Failed, true, KeyNext::Dropped),
        Answer::RefusedForNow => (DeliveryState::RetryWait, true, KeyNext::Dropped),
        Answer::Throttled => (DeliveryState::RetryWait, false, KeyNext::Dropped),
        Answer::NotSent => (DeliveryState::Ready, false, KeyNext::Unused),
        Answer::Nothing => (DeliveryState::Unknown, true, KeyNext::Doubted),
    };
    Next { state, counts, key }
}

/// The same where an earlier attempt may have been accepted: what happens to the repeat says nothing about that one.
fn next_when_doubted(answer: Answer, tries_left: bool) -> Next {
    let (state, counts, key) = match answer {
        Answer::Accepted => (DeliveryState::Accepted, true, KeyNext::Same),
        Answer::RefusedForNow if tries_left => (DeliveryState::RetryWait, true, KeyNext::RepeatRefused),
        Answer::Throttled => (DeliveryState::RetryWait, false, KeyNext::RepeatRefused),
        Answer::RefusedForNow | Answer::RefusedForGood => (DeliveryState::Unknown, true, KeyNext::RepeatRefused),
        Answer::Duplicate => (DeliveryState::Unknown, true, KeyNext::Same),
        Answer::Nothing => (DeliveryState::Unknown, true, KeyNext::Doubted),
        Answer::NotSent => (DeliveryState::Ready, false, KeyNext::Same),
    };
    Next { state, counts, key }
}

/// T10.
pub(crate) fn reap(variant: &Variant, ledger: &mut Ledger) {
    if variant.has(Flaw::ReapedIsReady) {
        return ledger.enter(DeliveryState::Ready);
    }
    ledger.count_try();
    ledger.doubt();
    ledger.enter(DeliveryState::Unknown);
}

/// T3 for what waits in a cancelled campaign, T4 for one that expired.
pub(crate) fn end(ledger: &mut Ledger) {
    ledger.enter(if ledger.doubted { DeliveryState::UnknownFinal } else { DeliveryState::Stopped });
}

/// The ledger goes back to the time before the first claim. In quarantine it takes what may have been claimed since for
/// unknown, and the closings are applied again from where they were written a second time.
pub(crate) fn restore(variant: &Variant, state: &mut State) {
    let closing = state.ledger.closing;
    state.ledger = Ledger::restored();
    state.restored = true;
    if !variant.has(Flaw::NoQuarantine) {
        state.ledger.closing = closing;
        state.ledger.doubt();
        state.ledger.enter(DeliveryState::Unknown);
    }
}
