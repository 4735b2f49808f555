//! What each step does.

use dispatch_schemas::states::DeliveryState;

use super::{
    actions::{Action, Fate, Job},
    mutants::Flaw,
    recording::{claim, end, prove, reap, record, restore},
    state::{Age, Answer, Key, State, Taken, Token, Worker},
    variants::{Memory, Refusals, Variant},
};

pub(crate) fn after(variant: &Variant, before: &State, action: Action) -> State {
    let mut state = *before;
    match action {
        Action::Publish => state.queued = true,
        Action::LoseJob => state.queued = false,
        Action::Claim(job) => {
            state.queued = job == Job::Again;
            claim(variant, &mut state);
        }
        Action::Release(token) => {
            state.attempt_mut(token).worker = Worker::Gone;
            record(variant, &mut state.ledger, token, Answer::NotSent);
        }
        Action::Send(token) => send(variant, &mut state, token),
        Action::Arrive(token, fate) => arrive(variant, &mut state, token, fate),
        Action::TimeOut(token) => state.attempt_mut(token).worker = Worker::Heard(Answer::Nothing),
        Action::Record(token) => {
            if let Worker::Heard(answer) = state.attempt(token).worker {
                let is_refusal = matches!(answer, Answer::Throttled | Answer::RefusedForNow | Answer::RefusedForGood);
                let uses_key_up = variant.provider.refusals == Refusals::UseTheKeyUpIfRecorded;
                if uses_key_up && is_refusal && state.ledger.holds(token) {
                    state.attempt_mut(token).taken = Taken::Refused;
                }
                record(variant, &mut state.ledger, token, answer);
            }
            state.attempt_mut(token).worker = Worker::Gone;
        }
        Action::Crash(token) => state.attempt_mut(token).worker = Worker::Gone,
        Action::PassDeadline => state.late += 1,
        Action::Settle => state.settled += 1,
        Action::AgeKey => age_key(&mut state, Age::Old),
        Action::ForgetKey => age_key(&mut state, Age::Forgotten),
        Action::Wake => state.ledger.enter(DeliveryState::Ready),
        Action::Reap => reap(variant, &mut state.ledger),
        Action::Reconcile(decision) => state.ledger.settle(decision, variant.provider.memory),
        Action::CallBack(token) => {
            state.attempt_mut(token).callback = false;
            if !variant.has(Flaw::CallbacksIgnored) {
                prove(&mut state.ledger);
            }
        }
        Action::Close(closing) => {
            state.ledger.closing = closing;
            state.closed = true;
        }
        Action::End => end(&mut state.ledger),
        Action::Retry => {
            state.ledger.tries = 0;
            state.ledger.enter(DeliveryState::Ready);
        }
        Action::Restore => restore(variant, &mut state),
    }
    state
}

fn age_key(state: &mut State, age: Age) {
    if let Some(key) = &mut state.ledger.key {
        key.age = age;
    }
}

fn send(variant: &Variant, state: &mut State, token: Token) {
    if variant.has(Flaw::RecordedBeforeSent) {
        record(variant, &mut state.ledger, token, Answer::Accepted);
    }
    let attempt = state.attempt_mut(token);
    (attempt.worker, attempt.on_wire) = (Worker::Waiting, true);
}

fn arrive(variant: &Variant, state: &mut State, token: Token, fate: Fate) {
    let answer = match fate {
        Fate::Taken => Some(take_over(variant, state, token)),
        Fate::TakenUnheard => {
            take_over(variant, state, token);
            None
        }
        Fate::Throttled | Fate::RefusedForNow | Fate::RefusedForGood | Fate::RefusedUnheard => {
            refuse(variant, state, token, fate)
        }
        Fate::NeverLeft => Some(Answer::NotSent),
        Fate::Lost => None,
    };
    let attempt = state.attempt_mut(token);
    attempt.on_wire = false;
    if let Some(answer) = answer {
        attempt.worker = Worker::Heard(answer);
    }
}

/// The provider refuses the message. What the worker hears of it, if anything.
fn refuse(variant: &Variant, state: &mut State, token: Token, fate: Fate) -> Option<Answer> {
    if variant.provider.refusals == Refusals::UseTheKeyUp {
        state.attempt_mut(token).taken = Taken::Refused;
    }
    match fate {
        Fate::Throttled => Some(Answer::Throttled),
        Fate::RefusedForNow => Some(Answer::RefusedForNow),
        Fate::RefusedForGood => Some(Answer::RefusedForGood),
        Fate::RefusedUnheard | Fate::Taken | Fate::TakenUnheard | Fate::Lost | Fate::NeverLeft => None,
    }
}

/// The provider has the request in its hands: it takes the message over, unless it remembers the key.
fn take_over(variant: &Variant, state: &mut State, token: Token) -> Answer {
    if remembers(variant, state, token) {
        return Answer::Duplicate;
    }
    let taken = if token < state.settled { Taken::TooLate } else { Taken::InTime };
    let attempt = state.attempt_mut(token);
    (attempt.taken, attempt.callback) = (taken, variant.provider.calls_back);
    Answer::Accepted
}

fn remembers(variant: &Variant, state: &State, token: Token) -> bool {
    let Some(key) = state.attempt(token).key else { return false };
    let is_known = state.made().iter().any(|attempt| attempt.has_used_key(Some(key)));
    match variant.provider.memory {
        Memory::None => false,
        Memory::ForGood => is_known,
        Memory::ForAWhile => is_known && state.ledger.key != Some(Key { first: key, age: Age::Forgotten }),
    }
}
