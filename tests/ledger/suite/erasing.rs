//! People who are erased, and stay so.

use dispatch_engine::ledger::Verdict;
use dispatch_schemas::states::{Channel, DeliveryState, StopReason};
use dispatch_workers::delivery::Outcome;

use super::{
    Fixture,
    people::{address, crowd, email, phone},
    sending::{accepted, numbers, throttled, to},
    world::World,
};

const ANNA: &str = "anna@example.org";
const ANNAS_PHONE: &str = "+33612345678";

impl World {
    async fn erase_email(&self, address: &str) -> u64 {
        self.ledger.erase(self.tenant, &[(Channel::Email, self.email(address))]).await.unwrap().in_flight
    }
}

pub(crate) async fn an_erased_person_is_gone_and_their_deliveries_stop(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(3)).await;
    let sending = world.running(&to(&[list])).await;
    let waiting = sending.claim_all(&[1]).await;
    sending.record_all(waiting, &[1], &throttled(world.now_ms())).await;
    let hash = world.email(&address(0));
    assert!(world.place.holds(world.tenant, &hash.0).await);
    for number in [0, 1] {
        assert_eq!(world.erase_email(&address(number)).await, 0);
    }
    assert_eq!(world.place.contacts(list).await, 1);
    assert!(!world.place.holds(world.tenant, &hash.0).await);
    world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap();
    assert_eq!(numbers(&sending.claim(&[0, 1, 2]).await), [2]);
    for seq in [0, 1] {
        sending.assert_stands(seq, DeliveryState::Stopped, "erased").await;
        let recipient = sending.recipient(seq).await;
        assert_eq!((recipient.address_hash, recipient.address_masked), (None, None));
    }
    assert!(world.ledger.evidence(sending.id, Channel::Email, -1, 1).await.unwrap()[0].contact.is_none());
}

pub(crate) async fn an_erasure_closes_the_persons_other_address(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &[email(ANNA).with_phone(ANNAS_PHONE)]).await;
    let other = world.list_of("other", &[phone(ANNAS_PHONE), phone("+33600000001")]).await;
    let text = world.running(&to(&[other]).by_sms()).await;
    world.erase_email(ANNA).await;
    let gates = world.ledger.suppressions(world.tenant, None, 10).await.unwrap();
    let mut closed: Vec<_> = gates.iter().map(|gate| (gate.channel, gate.reason)).collect();
    closed.sort_unstable();
    assert_eq!(closed, [(Channel::Email, StopReason::Erased), (Channel::Sms, StopReason::Erased)]);
    assert_eq!(numbers(&text.claim(&[0, 1]).await), [1]);
    text.assert_stands(0, DeliveryState::Stopped, "erased").await;
    assert_eq!(world.place.contacts(list).await, 0);
}

pub(crate) async fn an_erased_person_does_not_come_back_with_an_upload(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &[email(ANNA).with_phone(ANNAS_PHONE)]).await;
    world.erase_email(ANNA).await;
    let people = [email(ANNA), email(ANNA).with_phone(ANNAS_PHONE), phone(ANNAS_PHONE), email("ben@example.org")];
    let totals = world.add(list, &people).await.totals;
    assert_eq!((totals.blocked, totals.added, totals.duplicate), (3, 1, 0));
    assert_eq!(world.place.contacts(list).await, 1);
    let other = world.list_of("other", &people).await;
    assert_eq!(world.place.contacts(other).await, 1);
    for hash in [world.email(ANNA), world.phone(ANNAS_PHONE)] {
        assert!(!world.place.holds(world.tenant, &hash.0).await);
    }
}

pub(crate) async fn an_erasure_while_claimed_is_reported_and_the_outcome_still_recorded(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let attempt = sending.claim_all(&[0, 1, 2]).await;
    assert_eq!(world.erase_email(&address(0)).await, 1);
    assert_eq!(world.erase_email(&address(1)).await, 1);
    sending.assert_states(&[(DeliveryState::Claimed, 3)]).await;
    sending.record(attempt, &[(0, accepted()), (1, Outcome::Released { alone: false }), (2, accepted())]).await;
    sending.assert_stands(0, DeliveryState::Accepted, "answer").await;
    assert!(sending.claim(&[1]).await.attempt.is_none());
    sending.assert_stands(1, DeliveryState::Stopped, "erased").await;
}

pub(crate) async fn an_erasure_counts_the_list_down(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let anna = email(ANNA).with_phone(ANNAS_PHONE);
    let one = world.list_of("one", &[anna.clone(), email("ben@example.org")]).await;
    let two = world.list_of("two", &[anna, phone("+33600000001"), phone("+33600000002")]).await;
    let addresses = [(Channel::Email, world.email(ANNA)), (Channel::Sms, world.phone(ANNAS_PHONE))];
    world.ledger.erase(world.tenant, &addresses).await.unwrap();
    for (list, expected) in [(one, 1), (two, 2)] {
        assert_eq!(world.ledger.list(world.tenant, list).await.unwrap().contacts, expected);
        assert_eq!(world.place.contacts(list).await, expected);
    }
}

pub(crate) async fn an_erasure_during_an_upload_keeps_the_count_of_the_list(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(3)).await;
    for completes in [false, true] {
        let mut upload = world.upload(list).await;
        let suffix = if completes { "com" } else { "net" };
        upload.store(&[email(format!("anna@example.{suffix}")), email(format!("ben@example.{suffix}"))]).await;
        world.erase_email(&format!("anna@example.{suffix}")).await;
        if completes {
            upload.complete().await;
        } else {
            upload.roll_back().await;
        }
        let counted = world.ledger.list(world.tenant, list).await.unwrap().contacts;
        assert_eq!(counted, world.place.contacts(list).await);
        assert_eq!(counted, if completes { 4 } else { 3 });
    }
}

pub(crate) async fn an_erasure_reaches_the_values_that_wait_for_an_upload(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &[email(ANNA), email("ben@example.org")]).await;
    let mut upload = world.upload(list).await;
    upload.store(&[email(ANNA).named("Anna"), email("ben@example.org").with_phone(ANNAS_PHONE)]).await;
    assert_eq!(world.place.changes().await, 2);
    world.erase_email(ANNA).await;
    assert_eq!(world.place.changes().await, 1);
    let number = world.phone(ANNAS_PHONE);
    world.ledger.erase(world.tenant, &[(Channel::Sms, number)]).await.unwrap();
    upload.complete().await;
    assert!(!world.place.holds(world.tenant, &number.0).await);
    assert_eq!(world.place.contacts(list).await, 1);
}

pub(crate) async fn what_may_have_been_sent_to_an_erased_person_stays_undecided(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.lose_all(&[0]).await;
    assert_eq!(world.erase_email(&address(0)).await, 0);
    sending.settle_all(attempt, &[0], &Verdict::Resend).await;
    assert!(sending.claim(&[0]).await.attempt.is_none());
    sending.assert_stands(0, DeliveryState::UnknownFinal, "erased").await;
}

pub(crate) async fn erasing_an_unknown_person_tells_nothing(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    let list = world.list_of("crowd", &[email(ANNA)]).await;
    let hash = world.email(ANNA);
    world.become_tenant("second").await;
    assert_eq!(world.erase_email("nobody@example.org").await, 0);
    // Another tenant's person is unknown too, even by their hash.
    assert_eq!(world.ledger.erase(world.tenant, &[(Channel::Email, hash)]).await.unwrap().in_flight, 0);
    assert_eq!(world.place.contacts(list).await, 1);
}
