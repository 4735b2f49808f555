//! Everything that can happen next.

use dispatch_schemas::states::DeliveryState;

use super::{
    mutants::Flaw,
    reconcile::{Decision, decide},
    state::{Age, Closing, State, Token, Worker},
    variants::{Memory, Refusals, Variant},
};

/// One step. Which worker makes it follows from the token: a claim is one worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The scheduler finds the delivery ready and puts a job into the queue.
    Publish,
    /// The queue loses the job: it was emptied, or the process died that had it.
    LoseJob,
    /// A worker takes the job and claims.
    Claim(Job),
    /// A worker gives its claim back unsent: too late, no permit left, the account paused, the process stopping.
    Release(Token),
    /// The first byte leaves.
    Send(Token),
    /// What the network and the provider make of a request.
    Arrive(Token, Fate),
    /// No answer came in time.
    TimeOut(Token),
    /// A worker records what it heard.
    Record(Token),
    /// A worker dies, wherever it stands; or could not reach the ledger for so long that it gives up.
    Crash(Token),
    /// The time to send is over for one more claim.
    PassDeadline,
    /// One more claim has settled.
    Settle,
    /// The key is so old that its provider, or its provider's log, may forget it from now on.
    AgeKey,
    /// The provider forgets the key.
    ForgetKey,
    /// A delivery that waited for its next try is ready.
    Wake,
    /// The reaper ends an attempt without an outcome.
    Reap,
    /// The reconciler settles an unknown outcome.
    Reconcile(Decision),
    /// The provider calls back with our key.
    CallBack(Token),
    /// A person's gate closes, or the campaign is cancelled.
    Close(Closing),
    /// The scheduler ends what waits in a cancelled campaign.
    End,
    /// A person has a failed delivery tried again.
    Retry,
    /// The ledger is restored to the time before the first claim.
    Restore,
}

/// What the queue does with a job that it hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    Once,
    /// It will hand it out again.
    Again,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The provider takes it over, or says that it has had the key, and its answer arrives.
    Taken,
    /// The same, and the answer is lost or tells nothing.
    TakenUnheard,
    Throttled,
    RefusedForNow,
    RefusedForGood,
    /// It is refused, the answer is lost, and the key is used up.
    RefusedUnheard,
    /// It never reaches the provider; or it does, is refused, and the answer is lost.
    Lost,
    /// No byte leaves, and the worker knows it.
    NeverLeft,
}

impl Action {
    /// Whether the delivery gets on without it: faults, and what people do. A delivery must come to its end without any
    /// of them.
    pub(crate) const fn is_optional(self) -> bool {
        matches!(self, Self::LoseJob | Self::Crash(_) | Self::Close(_) | Self::Retry | Self::Restore | Self::ForgetKey)
    }
}

pub(crate) fn possible(variant: &Variant, state: &State, actions: &mut Vec<Action>) {
    queue(variant, state, actions);
    for token in 0..state.claims {
        workers(variant, state, token, actions);
        network(variant, state, token, actions);
    }
    time(variant, state, actions);
    scheduler(variant, state, actions);
    people(variant, state, actions);
}

fn is_sending(state: &State) -> bool {
    state.ledger.closing != Closing::Campaign
}

fn queue(variant: &Variant, state: &State, actions: &mut Vec<Action>) {
    let is_ready = state.ledger.delivery == DeliveryState::Ready;
    if !state.queued {
        if is_ready && is_sending(state) {
            actions.push(Action::Publish);
        }
        return;
    }
    // A claim that finds nothing to do differs in nothing from a job that is lost.
    actions.push(Action::LoseJob);
    let may_claim = is_sending(state) || variant.has(Flaw::ClaimIgnoresClosings);
    let ends_it = state.ledger.closing == Closing::Gate || (state.ledger.doubted && state.ledger.has_old_key());
    if is_ready && may_claim && (ends_it || state.has_room()) {
        actions.extend([Action::Claim(Job::Once), Action::Claim(Job::Again)]);
    }
}

fn workers(variant: &Variant, state: &State, token: Token, actions: &mut Vec<Action>) {
    let worker = state.attempt(token).worker;
    match worker {
        Worker::Gone => return,
        Worker::Holding => {
            actions.push(Action::Release(token));
            if token >= state.late || variant.has(Flaw::NoSendDeadline) {
                actions.push(Action::Send(token));
            }
        }
        Worker::Waiting => actions.push(Action::TimeOut(token)),
        Worker::Heard(_) => actions.push(Action::Record(token)),
    }
    actions.push(Action::Crash(token));
}

fn network(variant: &Variant, state: &State, token: Token, actions: &mut Vec<Action>) {
    let attempt = state.attempt(token);
    if attempt.on_wire {
        actions.extend([Action::Arrive(token, Fate::TakenUnheard), Action::Arrive(token, Fate::Lost)]);
        if variant.provider.refusals == Refusals::UseTheKeyUp {
            actions.push(Action::Arrive(token, Fate::RefusedUnheard));
        }
        if attempt.worker == Worker::Waiting {
            let heard = [Fate::Taken, Fate::Throttled, Fate::RefusedForNow, Fate::RefusedForGood, Fate::NeverLeft];
            actions.extend(heard.map(|fate| Action::Arrive(token, fate)));
        }
    }
    if attempt.callback {
        actions.push(Action::CallBack(token));
    }
}

/// Deadlines pass in the order of the claims: D and settling are the same span for each.
fn time(variant: &Variant, state: &State, actions: &mut Vec<Action>) {
    if state.late < state.claims {
        actions.push(Action::PassDeadline);
    }
    if state.settled < state.late && !state.attempt(state.settled).on_wire {
        actions.push(Action::Settle);
    }
    let Some(key) = state.ledger.key else { return };
    // A key is remembered longer than it is used, and by more than a claim takes to settle.
    let mut unsettled = state.made().iter().skip(usize::from(state.settled));
    let is_over = unsettled.all(|attempt| attempt.key != Some(key.first));
    match key.age {
        Age::Young if key.first < state.settled => actions.push(Action::AgeKey),
        Age::Old if is_over && variant.provider.memory == Memory::ForAWhile => actions.push(Action::ForgetKey),
        Age::Young | Age::Old | Age::Forgotten => {}
    }
}

fn scheduler(variant: &Variant, state: &State, actions: &mut Vec<Action>) {
    match state.ledger.delivery {
        DeliveryState::RetryWait if is_sending(state) => actions.push(Action::Wake),
        DeliveryState::Ready | DeliveryState::RetryWait if !is_sending(state) => actions.push(Action::End),
        DeliveryState::Claimed => {
            // At a start the lock on the ledger says that the old process is gone; else its time must be over.
            let ended = |token: Token| token < state.late || state.attempt(token).worker == Worker::Gone;
            if state.ledger.attempt.is_some_and(ended) && !variant.has(Flaw::NobodyReaps) {
                actions.push(Action::Reap);
            }
        }
        DeliveryState::Unknown => actions.extend(decide(variant, state).map(Action::Reconcile)),
        DeliveryState::Ready
        | DeliveryState::RetryWait
        | DeliveryState::Accepted
        | DeliveryState::Failed
        | DeliveryState::Expired
        | DeliveryState::Stopped
        | DeliveryState::UnknownFinal => {}
    }
}

fn people(variant: &Variant, state: &State, actions: &mut Vec<Action>) {
    if state.ledger.closing == Closing::Open {
        actions.extend([Action::Close(Closing::Gate), Action::Close(Closing::Campaign)]);
    }
    if state.ledger.delivery == DeliveryState::Failed && is_sending(state) {
        actions.push(Action::Retry);
    }
    let is_new = state.ledger.delivery == DeliveryState::Ready && state.claims == 0 && !state.closed;
    if variant.restores() && !state.restored && !is_new {
        actions.push(Action::Restore);
    }
}
