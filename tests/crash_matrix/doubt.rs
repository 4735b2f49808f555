//! What a death leaves in doubt, and what must have become of it in the end.
//!
//! Only deliveries that were open when their process died, or whose provider broke off, are in doubt. A provider that
//! remembers a key (A) or keeps a log (B) clears every doubt. Where nobody can be asked (C, D), the campaign's policy
//! does: each doubt is counted as `unknown_final` and nothing is sent twice, or each is sent again, counted as a
//! resend, and the copies are exactly those that had been accepted. Deliveries not in doubt are accepted once.

use std::collections::BTreeSet;

use dispatch_schemas::states::{DeliveryState, UnknownPolicy};
use dispatch_tests::support::checker::{self, Entry, Faults};

use crate::scene::Scene;

/// Deliveries in doubt, by number.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// All of them.
    pub(crate) open: BTreeSet<i64>,
    /// Those of them that the provider has accepted.
    pub(crate) taken: BTreeSet<i64>,
}

impl Doubt {
    /// What a process leaves that has just died: whatever it had claimed, and a quick scheduler has given up already.
    pub(crate) async fn left_claimed(scene: &Scene) -> Self {
        Self::of(scene, |entry| matches!(entry.state, DeliveryState::Claimed | DeliveryState::Unknown)).await
    }

    /// What a provider left that broke off in this way.
    pub(crate) async fn broken_off(scene: &Scene, mode: &str) -> Self {
        let hit = scene.hit_by(mode);
        Self::of(scene, |entry| entry.to.as_ref().is_some_and(|to| hit.contains(to))).await
    }

    /// What may have been sent and nobody can remember: whatever was claimed and is not known.
    pub(crate) async fn forgotten(scene: &Scene, known: &BTreeSet<i64>) -> Self {
        Self::of(scene, |entry| entry.state != DeliveryState::Ready && !known.contains(&entry.seq)).await
    }

    async fn of(scene: &Scene, is_open: impl Fn(&Entry) -> bool) -> Self {
        let taken = scene.taken();
        let mut doubt = Self::default();
        for entry in scene.books().await.entries.iter().filter(|entry| is_open(entry)) {
            doubt.open.insert(entry.seq);
            if entry.to.as_ref().is_some_and(|to| taken.contains(to)) {
                doubt.taken.insert(entry.seq);
            }
        }
        doubt
    }

    /// Without deliveries that are known about after all.
    pub(crate) fn without(mut self, known: &BTreeSet<i64>) -> Self {
        self.open.retain(|seq| !known.contains(seq));
        self.taken.retain(|seq| !known.contains(seq));
        self
    }

    /// With more.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.open.extend(other.open);
        self.taken.extend(other.taken);
        self
    }
}

/// Compares the ledger with the witness when everything has settled.
pub(crate) async fn judge(scene: &Scene, doubt: &Doubt, recipients: usize) {
    judge_all(scene, doubt, recipients, &BTreeSet::new()).await;
}

/// The same where some were stopped, and must not have been sent to.
pub(crate) async fn judge_all(scene: &Scene, doubt: &Doubt, recipients: usize, stopped: &BTreeSet<i64>) {
    let play = scene.play;
    let books = scene.books().await;
    let report = checker::check(&books, &scene.stage.sandbox.lines());
    let figures = report.of(play.kind);
    let what = format!("{play:?}, {doubt:?}: {figures:?}");
    assert_eq!(report.faults, Faults::default(), "{what}");
    assert_eq!(figures.recipients, recipients as u64, "{what}");
    let of = |is: fn(&Entry) -> bool| -> BTreeSet<i64> {
        books.entries.iter().filter(|entry| is(entry)).map(|entry| entry.seq).collect()
    };
    let undecided = of(|entry| entry.state == DeliveryState::UnknownFinal);
    let resent = of(|entry| entry.resends > 0);
    let none = BTreeSet::new();
    let can_be_asked = matches!(play.kind, "brevo" | "infobip");
    match play.policy {
        _ if can_be_asked => {
            assert_eq!((&undecided, figures.extra), (&none, 0), "{what}");
        }
        UnknownPolicy::AtLeastOnce => {
            assert_eq!(undecided, none, "{what}");
            assert_eq!(resent, doubt.open, "{what}");
            assert_eq!((figures.resends, figures.extra), (doubt.open.len() as u64, doubt.taken.len() as u64), "{what}");
        }
        UnknownPolicy::AtMostOnce | UnknownPolicy::Verify => {
            assert_eq!(undecided, doubt.open, "{what}");
            assert_eq!((&resent, figures.extra), (&none, 0), "{what}");
        }
    }
    assert_eq!(&of(|entry| entry.state == DeliveryState::Stopped), stopped, "{what}");
    assert_eq!(figures.accepted as usize + undecided.len() + stopped.len(), recipients, "{what}");
}
