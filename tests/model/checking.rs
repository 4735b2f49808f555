//! Running the checker, and the one question it cannot answer: whether every delivery can still end.

use std::collections::{HashMap, VecDeque};

use dispatch_schemas::states::DeliveryState;
use stateright::{Checker as _, HasDiscoveries, Model as _};

use super::{
    actions::Action,
    state::{CLAIMS_MAX, State},
    variants::Variant,
};

/// Longer than the longest shortest counter-example, by far: a bound for the search.
const STEPS_MAX: usize = 40;

/// Explores a variant to its last state: no property is broken, each thing that should be possible is, every delivery
/// can end by the engine's own doing, and there are as many states as there were when the model was last understood.
pub(crate) fn must_hold(name: &str, variant: Variant, states: usize) {
    let checker = variant.checker().spawn_bfs().join();
    report(name, "holds", checker.unique_state_count(), checker.max_depth() - 1);
    assert!(checker.is_done(), "{name}: not explored to its end");
    checker.assert_properties();
    let explored = Explored::new(&variant);
    if let Some(stuck) = explored.stuck() {
        panic!("{name}: a delivery that never ends: {stuck:#?}");
    }
    assert_eq!(explored.states.len(), checker.unique_state_count(), "{name}: two states were taken for one");
    assert_eq!(checker.unique_state_count(), states, "{name}: the model has changed; is every change meant?");
}

/// Finds the shortest counter-example of a property, by looking one step further each time.
pub(crate) fn must_break(name: &str, variant: Variant, property: &'static str) {
    for steps in 1..=STEPS_MAX {
        let finish = HasDiscoveries::AnyOf([property].into());
        // The checker's depth counts states, and those of the last are not looked at.
        let checker = variant.checker().target_max_depth(steps + 2).finish_when(finish).spawn_bfs().join();
        if let Some(path) = checker.discovery(property) {
            let actions = path.into_actions();
            report(name, property, checker.unique_state_count(), actions.len());
            assert_eq!(actions.len(), steps, "{name}: not the shortest");
            report_steps(&actions);
            return;
        }
    }
    panic!("{name}: no counter-example of \"{property}\" in {STEPS_MAX} steps: the model does not see this flaw");
}

/// Finds a delivery that stays in a state for ever, whatever the engine does.
pub(crate) fn must_get_stuck(name: &str, variant: Variant, state: DeliveryState) {
    let explored = Explored::new(&variant);
    let stuck = explored.stuck().map(|stuck| stuck.ledger.delivery);
    assert_eq!(stuck, Some(state), "{name}: the model does not see this flaw");
}

#[expect(clippy::print_stdout, reason = "what a run of the checker came to is its result")]
fn report(name: &str, result: &str, states: usize, steps: usize) {
    println!("{name:34} {states:8} states, {steps:3} steps: {result}");
}

#[expect(clippy::print_stdout, reason = "a counter-example is read")]
fn report_steps(actions: &[Action]) {
    println!("    {actions:?}");
}

/// All states, with the way back along the steps that no fault and no person makes.
struct Explored {
    states: Vec<State>,
    before: Vec<Vec<usize>>,
}

impl Explored {
    fn new(variant: &Variant) -> Self {
        let mut numbers: HashMap<State, usize> = HashMap::new();
        let mut explored = Self { states: variant.init_states(), before: vec![Vec::new()] };
        numbers.insert(explored.states[0], 0);
        let mut actions = Vec::new();
        let mut at = 0;
        while at < explored.states.len() {
            let state = explored.states[at];
            variant.actions(&state, &mut actions);
            for action in actions.drain(..) {
                let Some(next) = variant.next_state(&state, action) else { continue };
                let number = *numbers.entry(next).or_insert_with(|| {
                    explored.states.push(next);
                    explored.before.push(Vec::new());
                    explored.states.len() - 1
                });
                if !action.is_optional() {
                    explored.before[number].push(at);
                }
            }
            at += 1;
        }
        explored
    }

    /// A state from which no end is reached.
    fn stuck(&self) -> Option<&State> {
        let mut can_end: Vec<bool> = self.states.iter().map(has_ended).collect();
        let mut todo: VecDeque<usize> = (0..can_end.len()).filter(|at| can_end[*at]).collect();
        while let Some(at) = todo.pop_front() {
            for before in &self.before[at] {
                if !can_end[*before] {
                    can_end[*before] = true;
                    todo.push_back(*before);
                }
            }
        }
        self.states.iter().zip(can_end).find(|(_, can_end)| !can_end).map(|(state, _)| state)
    }
}

/// Final, or ready for a claim that is one more than the model makes.
fn has_ended(state: &State) -> bool {
    let delivery = state.ledger.delivery;
    let waits = matches!(delivery, DeliveryState::Ready | DeliveryState::RetryWait);
    delivery.is_final() || (waits && usize::from(state.claims) == CLAIMS_MAX)
}
