//! What is known of a message from its provider's reports: facts, in an order that does not matter.
//!
//! Reports come doubled, late and in any order. Of each kind a message keeps when it was first and last reported and how
//! often, and facts are merged by least, greatest and sum over distinct reports. So the same reports come to the same
//! facts whatever their order, and what became of the message ([`Facts::status`]) is a function of them and its state.

use std::collections::BTreeMap;

use crate::states::{DeliveryState, DeliveryStatus, FactKind};

/// One kind of report about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// When it was first reported by the provider's clock, milliseconds since 1970.
    pub first_at_ms: i64,
    /// When it was last reported.
    pub last_at_ms: i64,
    /// How many distinct reports there were.
    pub reports: u64,
}

impl Fact {
    /// Of one report.
    #[must_use]
    pub const fn once(at_ms: i64) -> Self {
        Self { first_at_ms: at_ms, last_at_ms: at_ms, reports: 1 }
    }

    /// With other reports of the same kind.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            first_at_ms: self.first_at_ms.min(other.first_at_ms),
            last_at_ms: self.last_at_ms.max(other.last_at_ms),
            reports: self.reports.saturating_add(other.reports),
        }
    }
}

/// All that was reported of one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts(BTreeMap<FactKind, Fact>);

impl Facts {
    /// Adds a fact to those of its kind.
    pub fn add(&mut self, kind: FactKind, fact: Fact) {
        self.0.entry(kind).and_modify(|known| *known = known.and(fact)).or_insert(fact);
    }

    /// The fact of a kind.
    #[must_use]
    pub fn get(&self, kind: FactKind) -> Option<&Fact> {
        self.0.get(&kind)
    }

    /// Each kind and its fact.
    pub fn iter(&self) -> impl Iterator<Item = (FactKind, &Fact)> {
        self.0.iter().map(|(kind, fact)| (*kind, fact))
    }

    /// Whether nothing was reported.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What became of the message. A dead address says most, even after a delivery: mail servers may bounce late. What a
    /// person did with it (complained, opted out) stands beside it and never in its place.
    #[must_use]
    pub fn status(&self, state: DeliveryState) -> DeliveryStatus {
        const BY_WEIGHT: [(FactKind, DeliveryStatus); 6] = [
            (FactKind::BouncedHard, DeliveryStatus::BouncedHard),
            (FactKind::Delivered, DeliveryStatus::Delivered),
            (FactKind::RejectedByProvider, DeliveryStatus::RejectedByProvider),
            (FactKind::ExpiredAtProvider, DeliveryStatus::ExpiredAtProvider),
            (FactKind::BouncedSoft, DeliveryStatus::BouncedSoft),
            (FactKind::Deferred, DeliveryStatus::Deferred),
        ];
        if let Some((_, status)) = BY_WEIGHT.iter().find(|(kind, _)| self.0.contains_key(kind)) {
            return *status;
        }
        match state {
            DeliveryState::Ready => DeliveryStatus::Ready,
            DeliveryState::Claimed => DeliveryStatus::Claimed,
            DeliveryState::Unknown => DeliveryStatus::Unknown,
            DeliveryState::RetryWait => DeliveryStatus::RetryWait,
            DeliveryState::Accepted => DeliveryStatus::Accepted,
            DeliveryState::Failed => DeliveryStatus::Failed,
            DeliveryState::Expired => DeliveryStatus::Expired,
            DeliveryState::Stopped => DeliveryStatus::Stopped,
            DeliveryState::UnknownFinal => DeliveryStatus::UnknownFinal,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As they are applied: a report whose id was seen before adds nothing.
    fn facts(reports: &[(u8, FactKind, i64)]) -> Facts {
        let mut seen = std::collections::HashSet::new();
        let mut facts = Facts::default();
        for (id, kind, at_ms) in reports {
            if seen.insert(*id) {
                facts.add(*kind, Fact::once(*at_ms));
            }
        }
        facts
    }

    fn reports() -> impl Strategy<Value = Vec<(u8, FactKind, i64)>> {
        let report = (prop::sample::select(FactKind::ALL), any::<i32>());
        prop::collection::vec(report, 0..12)
            .prop_map(|reports| (0_u8..).zip(reports).map(|(id, (kind, at_ms))| (id, kind, i64::from(at_ms))).collect())
    }

    proptest! {
        #[test]
        fn the_same_reports_in_any_order_and_any_number_of_times_come_to_the_same(
            (once, again) in reports().prop_flat_map(|reports| {
                let doubled = [reports.clone(), reports.clone()].concat();
                (Just(reports), Just(doubled).prop_shuffle())
            }),
            state in prop::sample::select(DeliveryState::ALL),
        ) {
            prop_assert_eq!(facts(&once), facts(&again));
            prop_assert_eq!(facts(&once).status(state), facts(&again).status(state));
        }

        #[test]
        fn facts_added_in_two_parts_are_the_facts_of_both(left in reports(), right in reports()) {
            let mut one_way = facts(&left);
            facts(&right).iter().for_each(|(kind, fact)| one_way.add(kind, *fact));
            let mut other_way = facts(&right);
            facts(&left).iter().for_each(|(kind, fact)| other_way.add(kind, *fact));
            prop_assert_eq!(one_way, other_way);
        }

        #[test]
        fn more_reports_never_take_a_status_back(reports in reports(), more in reports()) {
            let weight = |facts: &Facts| {
                DeliveryStatus::ALL.iter().position(|status| *status == facts.status(DeliveryState::Accepted))
            };
            let mut all = facts(&reports);
            let before = weight(&all);
            facts(&more).iter().for_each(|(kind, fact)| all.add(kind, *fact));
            prop_assert!(weight(&all) >= before);
        }
    }

    #[test]
    fn a_late_bounce_outweighs_a_delivery_and_a_complaint_stands_beside_it() {
        let mut facts = Facts::default();
        assert_eq!(facts.status(DeliveryState::Unknown), DeliveryStatus::Unknown);
        facts.add(FactKind::Complained, Fact::once(3));
        assert_eq!(facts.status(DeliveryState::Accepted), DeliveryStatus::Accepted);
        facts.add(FactKind::Delivered, Fact::once(2));
        facts.add(FactKind::Deferred, Fact::once(1));
        assert_eq!(facts.status(DeliveryState::Accepted), DeliveryStatus::Delivered);
        facts.add(FactKind::BouncedHard, Fact::once(4));
        assert_eq!(facts.status(DeliveryState::Accepted), DeliveryStatus::BouncedHard);
    }
}
