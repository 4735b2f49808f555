//! How many deliveries of a campaign stand where.
//!
//! Kept beside the deliveries and changed in the same transaction, so that a look at a campaign of 10 M costs nothing
//! and always adds up.

use std::marker::PhantomData;

use dispatch_schemas::states::DeliveryState;

/// Changes of one campaign's counts, gathered over a transaction's statements. Each database writes them in its way.
#[derive(Debug)]
pub(super) struct Moves<Database> {
    changes: Vec<(DeliveryState, String, i64)>,
    database: PhantomData<Database>,
}

impl<Database> Default for Moves<Database> {
    fn default() -> Self {
        Self { changes: Vec::new(), database: PhantomData }
    }
}

impl<Database> Moves<Database> {
    /// `count` deliveries left a state; `detail` only for those that are counted by it.
    pub(super) fn left(&mut self, state: DeliveryState, detail: &str, count: u64) {
        self.add(state, detail, -i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// `count` deliveries entered a state.
    pub(super) fn entered(&mut self, state: DeliveryState, detail: &str, count: u64) {
        self.add(state, detail, i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn add(&mut self, state: DeliveryState, detail: &str, change: i64) {
        // Only the reasons of an end are counted apart; the set of words in the table stays small.
        let detail = if matches!(state, DeliveryState::Stopped | DeliveryState::Failed) { detail } else { "" };
        match self.changes.iter_mut().find(|(known, word, _)| *known == state && word == detail) {
            Some((_, _, sum)) => *sum += change,
            None => self.changes.push((state, detail.to_owned(), change)),
        }
    }

    /// What changed: state, detail, by how much. Always in the same order, so that two writers of the same rows cannot
    /// wait for each other in a circle.
    pub(super) fn changes(self) -> Vec<(DeliveryState, String, i64)> {
        let mut changes = self.changes;
        changes.retain(|(.., change)| *change != 0);
        changes.sort_unstable_by(|(state, detail, _), (other, word, _)| {
            (state.as_str(), detail.as_str()).cmp(&(other.as_str(), word.as_str()))
        });
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_summed_and_those_that_cancel_out_are_left_away() {
        let mut moves = Moves::<()>::default();
        moves.left(DeliveryState::Ready, "", 3);
        moves.entered(DeliveryState::Stopped, "erased", 1);
        moves.entered(DeliveryState::Stopped, "cancelled", 2);
        moves.entered(DeliveryState::Accepted, "answer", 2);
        moves.left(DeliveryState::Accepted, "late_answer", 2);
        let changes = moves.changes();
        let expected = [("ready", "", -3), ("stopped", "cancelled", 2), ("stopped", "erased", 1)];
        let told: Vec<_> = changes.iter().map(|(state, detail, sum)| (state.as_str(), detail.as_str(), *sum)).collect();
        assert_eq!(told, expected);
    }
}
