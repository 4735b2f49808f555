//! What becomes of a ledger that has forgotten its last commits.

use std::sync::Arc;

use dispatch_engine::{
    ledger::{Doubted, Release, Verdict},
    quarantine::{Standing, Warden},
    second_place::{Claimed, Hash},
};
use dispatch_schemas::{ids::AttemptId, states::DeliveryState};
use dispatch_workers::delivery::{Outcome, Timing};

use super::{
    Fixture,
    people::crowd,
    sending::{Sending, accepted, deferred, failed, numbers, throttled, to},
    world::World,
};

/// A claim nobody wrote into this ledger.
pub(super) fn claimed(sending: &Sending<'_>, attempt: i64, ranges: &[(i64, i64)]) -> Claimed {
    Claimed {
        tenant: sending.world.tenant,
        campaign: sending.id,
        attempt: AttemptId(attempt),
        token: Hash(sending.world.token().0),
        root: AttemptId(attempt),
        ranges: ranges.to_vec(),
        epochs: Vec::new(),
        alone: Vec::new(),
    }
}

impl World {
    async fn quarantine(&self) -> i64 {
        self.ledger.enter_quarantine("a test").await.unwrap().id
    }

    pub(super) fn warden(&self) -> (Warden, Arc<Standing>) {
        let standing = Arc::new(Standing::default());
        (Warden::new(self.ledger.clone(), self.clock.clone(), Timing::default(), standing.clone()), standing)
    }

    async fn recall(&self, quarantine: i64, claim: &Claimed) -> u64 {
        self.ledger.recall(quarantine, claim, self.now_ms(), self.now_ms() + 1_000).await.unwrap()
    }
}

pub(crate) async fn a_quarantine_gives_nothing_to_claim(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let earlier = sending.claim_all(&[0]).await;
    let quarantine = world.quarantine().await;
    assert!(numbers(&sending.claim(&[1, 2]).await).is_empty());
    sending.record_all(earlier, &[0], &accepted()).await;
    sending.assert_states(&[(DeliveryState::Accepted, 1), (DeliveryState::Ready, 2)]).await;
    world.ledger.release(quarantine, 0, &Release::Settled).await.unwrap();
    sending.claim_all(&[1, 2]).await;
}

pub(crate) async fn a_quarantine_is_begun_once_and_ends_once(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let first = world.ledger.enter_quarantine("a failover").await.unwrap();
    let second = world.ledger.enter_quarantine("another").await.unwrap();
    assert_eq!((first.id, first.reason.as_str()), (second.id, second.reason.as_str()));
    assert_eq!(world.ledger.epoch().await.unwrap().quarantine.unwrap().reason, "a failover");
    assert!(world.ledger.release(first.id, 7, &Release::Settled).await.unwrap());
    assert!(!world.ledger.release(first.id, 90, &Release::Settled).await.unwrap());
    let epoch = world.ledger.epoch().await.unwrap();
    assert_eq!((epoch.head, epoch.released_at_ms, epoch.quarantine), (7, Some(world.now_ms()), None));
    let third = world.ledger.enter_quarantine("another").await.unwrap();
    assert!(third.id != first.id && third.reason == "another");
}

pub(crate) async fn the_head_moves_on_but_for_a_quarantine(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    assert_eq!(world.ledger.move_head().await.unwrap(), 1);
    world.clock.advance(5);
    assert_eq!(world.ledger.move_head().await.unwrap(), 2);
    world.quarantine().await;
    world.clock.advance(5);
    assert_eq!(world.ledger.move_head().await.unwrap(), 2, "until all is told, it knows no more than it did");
    let world = world.reopened().await;
    let epoch = world.ledger.epoch().await.unwrap();
    assert_eq!((epoch.head, epoch.moved_at_ms), (2, world.now_ms() - 5));
    assert!(epoch.is_held(), "a quarantine outlives the process that began it");
}

pub(crate) async fn a_claim_that_is_not_known_is_told_from_one_that_is(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let known = sending.claim_all(&[0]).await;
    let asked = [claimed(&sending, 5, &[(1, 1)]), claimed(&sending, known.0, &[(0, 0)]), claimed(&sending, 6, &[])];
    assert_eq!(world.ledger.forgotten(&asked).await.unwrap(), [true, false, true]);
}

pub(crate) async fn a_forgotten_claim_is_made_again_with_its_keys(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(6).await;
    let waits = sending.claim_all(&[4]).await;
    sending.record_all(waits, &[4], &deferred(world.now_ms() + 9_000)).await;
    let quarantine = world.quarantine().await;
    let claimed_at_ms = world.now_ms();
    let claim =
        Claimed { epochs: vec![(3, 2), (4, 1)], alone: vec![(1, 1)], ..claimed(&sending, 5, &[(0, 1), (3, 4)]) };
    assert_eq!(world.recall(quarantine, &claim).await, 4);
    assert_eq!(world.recall(quarantine, &claim).await, 0, "once");
    assert_eq!(world.ledger.epoch().await.unwrap().quarantine.unwrap().doubted, 4);
    sending.assert_states(&[(DeliveryState::Unknown, 4), (DeliveryState::Ready, 2)]).await;
    sending.assert_stands(4, DeliveryState::Unknown, "forgotten").await;

    world.clock.advance(999);
    assert!(sending.unknown_due().await.is_empty());
    world.clock.advance(1);
    let due = sending.unknown_due().await;
    let group = &due[0];
    assert_eq!((due.len(), group.attempt, group.claimed_at_ms), (1, AttemptId(5), claimed_at_ms));
    assert!(group.token == claim.token() && group.root_token == claim.token() && !group.is_forgotten);
    let seen: Vec<_> = group.deliveries.iter().map(|d| (d.seq, d.key_epoch, d.attempts)).collect();
    assert_eq!(seen, [(0, 0, 1), (1, 0, 1), (3, 2, 1), (4, 1, 2)]);

    // Sent under its old key, which its provider knows already: that is proof.
    world.ledger.release(quarantine, 0, &Release::Settled).await.unwrap();
    sending.settle_all(AttemptId(5), &[3], &Verdict::Absent).await;
    let again = sending.claim(&[3]).await;
    assert_eq!(again.deliveries[0].key_epoch, 2);
    sending.record_all(again.attempt.unwrap(), &[3], &Outcome::Duplicate).await;
    sending.assert_stands(3, DeliveryState::Accepted, "dup_key").await;
}

pub(crate) async fn a_forgotten_repeat_keeps_the_first_ones_key(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await.with_keys_remembered();
    let first = sending.lose_all(&[0, 1]).await;
    let root_token = sending.unknown_due().await[0].root_token;
    let quarantine = world.quarantine().await;
    let repeat = Claimed { root: first, ..claimed(&sending, 5, &[(0, 1)]) };
    assert_eq!(world.recall(quarantine, &repeat).await, 2);
    world.clock.advance(1_000);
    let due = sending.unknown_due().await;
    assert!(due.len() == 1 && due[0].attempt == AttemptId(5) && due[0].root_token == root_token);
}

pub(crate) async fn a_forgotten_claim_takes_over_from_an_earlier_one(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let earlier = sending.claim_all(&[0, 1]).await;
    let quarantine = world.quarantine().await;
    assert_eq!(world.recall(quarantine, &claimed(&sending, 5, &[(1, 1)])).await, 1);
    // Its worker lives, and tells what it was told before the failover.
    sending.record_all(earlier, &[0, 1], &throttled(world.now_ms() + 1)).await;
    sending.assert_states(&[(DeliveryState::RetryWait, 1), (DeliveryState::Unknown, 1)]).await;
    // And what the one told that is forgotten.
    sending.record_all(AttemptId(5), &[1], &accepted()).await;
    sending.assert_stands(1, DeliveryState::Accepted, "late_answer").await;
}

pub(crate) async fn what_is_final_is_not_doubted(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let attempt = sending.claim_all(&[0, 1]).await;
    sending.record(attempt, &[(0, accepted()), (1, failed())]).await;
    let quarantine = world.quarantine().await;
    assert_eq!(world.recall(quarantine, &claimed(&sending, 5, &[(0, 2)])).await, 1);
    let doubted = Doubted { campaign: sending.id, from: 0, span: 10 };
    assert_eq!(world.ledger.doubt(quarantine, doubted, 0, 0).await.unwrap(), (0, None));
    sending
        .assert_states(&[(DeliveryState::Accepted, 1), (DeliveryState::Failed, 1), (DeliveryState::Unknown, 1)])
        .await;
}

pub(crate) async fn nothing_is_marked_when_the_quarantine_is_over(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let quarantine = world.quarantine().await;
    world.ledger.release(quarantine, 0, &Release::Settled).await.unwrap();
    // Of two processes that work it off, the slower one.
    assert_eq!(world.recall(quarantine, &claimed(&sending, 5, &[(0, 1)])).await, 0);
    let doubted = Doubted { campaign: sending.id, from: 0, span: 2 };
    assert_eq!(world.ledger.doubt(quarantine, doubted, 0, 0).await.unwrap(), (0, None));
    sending.claim_all(&[0, 1, 2]).await;
}

pub(crate) async fn where_nobody_noted_all_that_could_be_sent_is_doubted(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(1_200)).await;
    let sending = world.launched(&to(&[list])).await;
    world.ledger.expand(sending.id, 600, world.now_ms()).await.unwrap();
    let attempt = sending.claim_all(&[0, 1, 2]).await;
    sending.record(attempt, &[(0, accepted()), (1, throttled(world.now_ms() + 1))]).await;
    let paused = world.launched(&to(&[list])).await;
    world.ledger.pause(world.tenant, paused.id, "for now").await.unwrap();
    let (warden, standing) = world.warden();
    world.quarantine().await;
    warden.look().await.unwrap();
    assert!(standing.quarantine().is_some());
    warden.beat().await.unwrap();
    assert_eq!(standing.quarantine(), None);
    sending.assert_states(&[(DeliveryState::Accepted, 1), (DeliveryState::Unknown, 1_199)]).await;
    paused.assert_states(&[(DeliveryState::Unknown, 1_200)]).await;
    assert!(numbers(&sending.claim(&[5, 700]).await).is_empty());
    world.clock.advance(i64::try_from(Timing::default().settle_ms()).unwrap());
    let due = sending.unknown_due().await;
    assert_eq!(due.iter().map(|group| group.deliveries.len()).sum::<usize>(), 2_399);
    assert!(due.iter().all(|group| group.is_forgotten && group.deliveries.len() <= 500));
}

pub(crate) async fn recipients_of_a_paused_campaign_are_found_when_it_may_have_run(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(4)).await;
    let sending = world.launched(&to(&[list])).await;
    world.ledger.pause(world.tenant, sending.id, "for now").await.unwrap();
    assert_eq!(world.ledger.expand(sending.id, 10, world.now_ms()).await.unwrap(), 0);
    assert_eq!(world.ledger.expand_held(sending.id, 10).await.unwrap(), 4);
    sending.assert_states(&[(DeliveryState::Ready, 4)]).await;
    world.ledger.cancel(world.tenant, sending.id).await.unwrap();
    assert_eq!(world.ledger.expand_held(sending.id, 10).await.unwrap(), 0);
}
