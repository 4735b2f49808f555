//! What must hold in every state, and what must be possible so that this means something.

use dispatch_schemas::states::DeliveryState;
use stateright::Property;

use super::{
    state::{State, Taken, Worker},
    variants::{Log, Memory, Variant},
};

pub(crate) const ONCE: &str = "nobody is sent to twice, but for resends that are counted";
pub(crate) const NO_PHANTOM: &str = "accepted means that the provider took it over";
pub(crate) const NO_GUESS: &str = "stopped and failed mean that the provider has nothing";
pub(crate) const TRUTH: &str = "what a provider took over and called back about ends as accepted";
pub(crate) const NO_CLAIM_AFTER_CLOSING: &str = "no claim after a committed closing";
pub(crate) const NOTHING_LATE: &str = "nothing is taken over after its claim has settled";
pub(crate) const BOOKS: &str = "the counts of the states add up to the audience";

pub(crate) fn properties(variant: &Variant) -> Vec<Property<Variant>> {
    let mut properties = vec![
        Property::always(ONCE, |_, state: &State| state.copies() <= 1 + usize::from(state.ledger.resends)),
        Property::always(NO_PHANTOM, |_, state: &State| {
            state.ledger.delivery != DeliveryState::Accepted || state.copies() > 0
        }),
        Property::always(NO_GUESS, |_, state: &State| {
            !matches!(state.ledger.delivery, DeliveryState::Stopped | DeliveryState::Failed) || state.copies() == 0
        }),
        Property::always(TRUTH, |variant: &Variant, state: &State| {
            let is_due = variant.provider.calls_back && state.copies() > 0 && state.ledger.delivery.is_final();
            !is_due || is_something_pending(state) || state.ledger.delivery == DeliveryState::Accepted
        }),
        Property::always(NO_CLAIM_AFTER_CLOSING, |_, state: &State| {
            state.made().iter().all(|attempt| !attempt.after_closing)
        }),
        Property::always(NOTHING_LATE, |_, state: &State| {
            state.made().iter().all(|attempt| attempt.taken != Taken::TooLate)
        }),
        Property::always(BOOKS, |_, state: &State| state.ledger.books.say(state.ledger.delivery)),
        Property::sometimes("a delivery can be accepted", |_, state: &State| is(state, DeliveryState::Accepted)),
        Property::sometimes("a delivery can fail", |_, state: &State| is(state, DeliveryState::Failed)),
        Property::sometimes("a delivery can be stopped", |_, state: &State| is(state, DeliveryState::Stopped)),
    ];
    // A log that is always there leaves nothing undecided; that of a provider with keys is asked while the key is young.
    if variant.provider.log == Log::None || variant.provider.memory != Memory::None {
        let stays = |_: &Variant, state: &State| is(state, DeliveryState::UnknownFinal);
        properties.push(Property::sometimes("an outcome can stay unknown", stays));
    }
    properties
}

fn is(state: &State, delivery: DeliveryState) -> bool {
    state.ledger.delivery == delivery
}

/// Whether a worker, the wire or a callback may still change something.
fn is_something_pending(state: &State) -> bool {
    state.made().iter().any(|attempt| attempt.worker != Worker::Gone || attempt.on_wire || attempt.callback)
}
