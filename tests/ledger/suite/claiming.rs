//! Claim before send.

use dispatch_schemas::states::{Channel, DeliveryState};
use dispatch_workers::sealing::Column;

use super::{
    Fixture,
    people::{address, crowd, email},
    sending::{ACCOUNT, accepted, numbers, to},
    world::World,
};

pub(crate) async fn a_claim_marks_ready_deliveries_and_says_what_to_send(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &[email("anna@example.org").named("Anna"), email("ben@example.org")]).await;
    let sending = world.running(&to(&[list])).await;
    sending.assert_states(&[(DeliveryState::Ready, 2)]).await;

    let token = world.token();
    let claimed = world.ledger.claim(&sending.claim_of(&[0, 1], token)).await.unwrap();

    sending.assert_states(&[(DeliveryState::Claimed, 2)]).await;
    assert!(claimed.attempt.is_some());
    assert!(claimed.root == token && claimed.again.is_empty());
    let first = &claimed.deliveries[0];
    assert_eq!((first.seq, first.key_epoch, first.attempt_no, first.alone), (0, 0, 1, false));
    let contact = first.contact.as_ref().unwrap();
    let key = world.keys.open_contact(contact.id, &contact.key).unwrap();
    assert_eq!(key.open(Column::Email, &contact.address).unwrap(), b"anna@example.org");
    let fields = key.open(Column::Fields, contact.fields.as_ref().unwrap()).unwrap();
    assert_eq!(fields, br#"{"first_name":"Anna"}"#);
    assert!(contact.message.is_none());
}

pub(crate) async fn what_is_claimed_cannot_be_claimed_again(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(5).await;
    let first = sending.claim(&[0, 1, 2]).await;
    let second = sending.claim(&[0, 1, 2]).await;
    assert!(second.attempt.is_none() && second.deliveries.is_empty());
    let third = sending.claim(&[1, 2, 3, 4, 77]).await;
    assert_eq!(numbers(&third), [3, 4]);
    assert_ne!(first.attempt, third.attempt);
    sending.assert_states(&[(DeliveryState::Claimed, 5)]).await;
}

pub(crate) async fn a_number_named_twice_is_claimed_once(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let gate = world.email(&address(1));
    let reason = dispatch_schemas::states::StopReason::Suppressed;
    world.ledger.close_gates(world.tenant, Channel::Email, &[gate], reason).await.unwrap();
    let claimed = sending.claim(&[0, 0, 1, 1, 2, 2]).await;
    assert_eq!(numbers(&claimed), [0, 2]);
    sending.assert_states(&[(DeliveryState::Claimed, 2), (DeliveryState::Stopped, 1)]).await;
}

pub(crate) async fn every_claim_has_a_token_of_its_own_and_is_counted_in_past_sends(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(10).await;
    let token = world.token();
    let first = world.ledger.claim(&sending.claim_of(&[0, 1, 2], token)).await.unwrap();
    assert_eq!(first.deliveries.len(), 3);
    assert!(world.ledger.claim(&sending.claim_of(&[3], token)).await.is_err(), "a token names one attempt");
    sending.assert_states(&[(DeliveryState::Claimed, 3), (DeliveryState::Ready, 7)]).await;
    world.clock.advance(60_000);
    sending.claim_all(&[3, 5]).await;

    let mut past = world.ledger.past_sends(super::world::START_MS).await.unwrap();
    past.sort_by_key(|sends| sends.minute_ms);
    let counted: Vec<_> =
        past.iter().map(|sends| (sends.tenant, sends.campaign, &*sends.account, sends.sends)).collect();
    assert_eq!(counted, [(world.tenant, sending.id, ACCOUNT, 3), (world.tenant, sending.id, ACCOUNT, 2)]);
    assert!(world.ledger.past_sends(world.now_ms() + 1).await.unwrap().is_empty());
}

pub(crate) async fn a_campaign_that_does_not_run_gives_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await.with_keys_remembered();
    let attempt = sending.lose_all(&[2]).await;
    sending.settle_all(attempt, &[2], &dispatch_engine::ledger::Verdict::AskAgain).await;

    world.ledger.pause(world.tenant, sending.id, "operator").await.unwrap();
    assert!(sending.claim(&[0, 1, 2]).await.attempt.is_none());
    assert!(sending.claim_again(attempt).await.attempt.is_none());
    world.ledger.resume(world.tenant, sending.id).await.unwrap();
    sending.claim_all(&[0]).await;
    world.ledger.cancel(world.tenant, sending.id).await.unwrap();
    let claimed = sending.claim(&[1, 2]).await;
    assert!(claimed.attempt.is_none() && claimed.again.is_empty());
    assert!(sending.claim_again(attempt).await.attempt.is_none());
    sending.assert_states(&[(DeliveryState::Claimed, 1), (DeliveryState::Ready, 2)]).await;
}

pub(crate) async fn a_campaign_past_its_end_gives_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(3)).await;
    let sending = world.running(&to(&[list]).not_after(world.now_ms() + 1_000)).await.with_keys_remembered();
    let root = sending.lose_all(&[2]).await;
    sending.settle_all(root, &[2], &dispatch_engine::ledger::Verdict::AskAgain).await;
    world.clock.advance(999);
    sending.claim_all(&[0]).await;
    world.clock.advance(1);
    assert!(sending.claim(&[1]).await.attempt.is_none());
    assert!(sending.claim_again(root).await.attempt.is_none());
    sending.assert_states(&[(DeliveryState::Claimed, 1), (DeliveryState::Ready, 2)]).await;
}

pub(crate) async fn a_campaign_outside_its_sending_window_gives_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(4)).await;
    // It is eight o'clock.
    let sending = world.running(&to(&[list]).between("08:00", "08:10")).await.with_keys_remembered();
    let root = sending.lose_all(&[3]).await;
    sending.settle_all(root, &[3], &dispatch_engine::ledger::Verdict::AskAgain).await;
    world.clock.advance(10 * 60_000 - 1);
    sending.claim_all(&[0]).await;
    world.clock.advance(1);
    assert!(sending.claim(&[1]).await.attempt.is_none());
    assert!(sending.claim_again(root).await.attempt.is_none());
    sending.assert_states(&[(DeliveryState::Claimed, 1), (DeliveryState::Ready, 3)]).await;
    world.clock.advance((24 * 60 - 10) * 60_000);
    sending.claim_all(&[1]).await;
}

pub(crate) async fn another_tenants_campaign_gives_nothing(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    let id = world.running_to_crowd(2).await.id;
    let owner = world.tenant;
    world.become_tenant("second").await;
    let mut sending = world.sending(id).await;
    sending.plan.tenant = world.tenant;
    assert!(sending.claim(&[0, 1]).await.attempt.is_none());
    sending.plan.campaign = dispatch_schemas::ids::CampaignId(1);
    assert!(sending.claim(&[0, 1]).await.attempt.is_none());
    assert_eq!(world.ledger.progress(owner, id).await.unwrap().states["ready"], 2);
}

pub(crate) async fn a_delivery_that_waits_for_its_destination_comes_back_in_time(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(4).await;
    sending.claim_all(&[3]).await;
    let now_ms = world.now_ms();
    world.ledger.defer(&sending.plan, &[(0, now_ms + 10), (2, now_ms + 20), (3, now_ms + 10)]).await.unwrap();
    let (ready, waiting) = (DeliveryState::Ready, DeliveryState::RetryWait);
    sending.assert_states(&[(ready, 1), (waiting, 2), (DeliveryState::Claimed, 1)]).await;
    assert!(sending.claim(&[0, 2]).await.attempt.is_none());

    world.clock.advance(10);
    let due = world.ledger.wake_waiting(world.now_ms(), 100).await.unwrap();
    assert_eq!((due.len(), due[0].campaign, &due[0].seqs[..]), (1, sending.id, &[0][..]));
    let claimed = sending.claim(&[0, 2]).await;
    assert_eq!(numbers(&claimed), [0]);
    let delivery = &claimed.deliveries[0];
    assert_eq!((delivery.key_epoch, delivery.attempt_no), (0, 1), "a wait is not an attempt");
    sending.record_all(claimed.attempt.unwrap(), &[0], &accepted()).await;
    sending.assert_states(&[(ready, 1), (waiting, 1), (DeliveryState::Claimed, 1), (DeliveryState::Accepted, 1)]).await;
}

pub(crate) async fn destinations_are_told_in_the_order_asked(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let people = [email("a@example.org"), email("b@example.com"), email("c@example.org")];
    let list = world.list_of("crowd", &people).await;
    let sending = world.running(&to(&[list])).await;
    let (org, com) =
        (world.master.domain_hashes().hash("example.org"), world.master.domain_hashes().hash("example.com"));
    let told = world.ledger.destinations(&sending.plan, &[2, 1, 9, 0]).await.unwrap();
    assert_eq!(told, [Some(org), Some(com), None, Some(org)]);
}
