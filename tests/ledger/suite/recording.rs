//! What a batch came to.

use dispatch_schemas::{
    api::campaigns::Retry,
    states::{Channel, DeliveryState, StopReason},
};
use dispatch_workers::{
    delivery::{Counts, Outcome},
    providers::Code,
};

use super::{
    Fixture,
    people::address,
    sending::{Sending, accepted, deferred, failed, throttled, unknown, unsendable},
    world::World,
};

/// A claim of one delivery, as it comes: its key's epoch, which try it is, and whether it must travel alone.
async fn next_try(sending: &Sending<'_>, seq: i64) -> (u8, u8, bool) {
    let claimed = sending.claim(&[seq]).await;
    let delivery = claimed.deliveries.first().expect("it can be claimed");
    (delivery.key_epoch, delivery.attempt_no, delivery.alone)
}

pub(crate) async fn an_accepted_delivery_is_done(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let attempt = sending.claim_all(&[0]).await;
    world.clock.advance(40);
    sending.record_all(attempt, &[0], &accepted()).await;
    sending.assert_stands(0, DeliveryState::Accepted, "answer").await;
    let recipient = sending.recipient(0).await;
    assert_eq!((recipient.attempts, recipient.updated_at.as_ms()), (1, world.now_ms()));
    assert!(sending.claim(&[0]).await.attempt.is_none());
}

pub(crate) async fn each_recipient_keeps_the_id_its_provider_gave_it(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(6).await;
    let own = |seq| (seq, Outcome::Accepted { provider_id: Some(format!("id-{seq}")) });
    let attempt = sending.claim_all(&[0, 1, 2]).await;
    sending.record(attempt, &[own(0), own(1), (2, accepted())]).await;
    let attempt = sending.claim_all(&[3, 4, 5]).await;
    sending.record_all(attempt, &[3, 4, 5], &Outcome::Accepted { provider_id: Some("batch".to_owned()) }).await;
    let mut ids = Vec::new();
    for seq in 0..6 {
        ids.push(sending.recipient(seq).await.provider_id);
    }
    let ids: Vec<_> = ids.iter().map(Option::as_deref).collect();
    assert_eq!(ids, [Some("id-0"), Some("id-1"), None, Some("batch"), Some("batch"), Some("batch")]);
    sending.assert_states(&[(DeliveryState::Accepted, 6)]).await;
}

pub(crate) async fn a_refused_delivery_is_failed_with_its_code(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &failed()).await;
    sending.assert_stands(0, DeliveryState::Failed, "bad_address").await;
    assert_eq!(sending.recipient(0).await.attempts, 1);
    assert_eq!(sending.progress().await.reasons["bad_address"], 1);
}

pub(crate) async fn a_delivery_that_could_not_be_made_fails_without_a_try(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let key = sending.recipient(0).await.send_key;
    let attempt = sending.claim_all(&[0, 1]).await;
    sending.record(attempt, &[(0, unsendable()), (1, failed())]).await;
    sending.assert_stands(0, DeliveryState::Failed, "template_variable_missing:plan").await;
    assert_eq!(sending.progress().await.reasons["template_variable_missing:plan"], 1);
    let recipient = sending.recipient(0).await;
    assert_eq!((recipient.attempts, recipient.send_key), (0, key));
    let past = world.ledger.past_sends(world.now_ms() - 60_000).await.unwrap();
    assert_eq!(past.iter().map(|minute| minute.sends).sum::<u64>(), 1, "what was not sent does not count in a limit");

    let which = Retry { code: Some("template_variable_missing:plan".to_owned()) };
    assert_eq!(world.ledger.retry(world.tenant, sending.id, &which).await.unwrap().retried, 1);
    sending.assert_stands(0, DeliveryState::Ready, "").await;
    assert_eq!(next_try(&sending, 0).await.1, 1);
}

pub(crate) async fn a_deferred_delivery_waits_and_tries_again_with_a_new_key(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let first_key = sending.recipient(0).await.send_key;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &deferred(world.now_ms() + 5_000)).await;
    sending.assert_stands(0, DeliveryState::RetryWait, "busy").await;
    assert_ne!(sending.recipient(0).await.send_key, first_key);

    world.clock.advance(4_999);
    assert!(world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap().is_empty());
    assert!(sending.claim(&[0]).await.attempt.is_none());
    world.clock.advance(1);
    assert_eq!(world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap()[0].seqs, [0]);
    sending.assert_states(&[(DeliveryState::Ready, 1)]).await;
    assert_eq!(next_try(&sending, 0).await, (1, 2, false));
}

pub(crate) async fn a_throttled_delivery_loses_no_attempt(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &throttled(world.now_ms())).await;
    assert_eq!(sending.recipient(0).await.attempts, 0);
    world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap();
    assert_eq!(next_try(&sending, 0).await, (1, 1, false));
}

pub(crate) async fn a_released_delivery_is_as_it_was(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &Outcome::Released { alone: false }).await;
    sending.assert_stands(0, DeliveryState::Ready, "").await;
    assert_eq!(next_try(&sending, 0).await, (0, 1, false));
}

pub(crate) async fn a_delivery_that_must_travel_alone_does_so_from_then_on(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let attempt = sending.claim_all(&[0, 1]).await;
    let alone =
        Outcome::Retry { at_ms: world.now_ms(), code: Code::known("one_of_many"), counts: Counts::Not, alone: true };
    sending.record(attempt, &[(0, alone), (1, Outcome::Released { alone: true })]).await;
    world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap();
    assert_eq!(next_try(&sending, 0).await, (1, 1, true));
    let attempt = sending.claim_all(&[1]).await;
    sending.record_all(attempt, &[1], &Outcome::Released { alone: false }).await;
    assert_eq!(next_try(&sending, 1).await, (0, 1, true));
}

pub(crate) async fn an_unanswered_delivery_is_unknown(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    sending.lose_all(&[0]).await;
    sending.assert_stands(0, DeliveryState::Unknown, "timeout").await;
    assert_eq!(sending.recipient(0).await.attempts, 1);
    assert!(sending.claim(&[0]).await.attempt.is_none());
    assert!(world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap().is_empty(), "a timeout is not a failure");
}

pub(crate) async fn an_erased_delivery_is_stopped(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &Outcome::Erased).await;
    sending.assert_stands(0, DeliveryState::Stopped, "erased").await;
}

pub(crate) async fn a_key_that_was_never_used_and_is_refused_as_used_fails(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &Outcome::Duplicate).await;
    sending.assert_stands(0, DeliveryState::Failed, "key_collision").await;
}

pub(crate) async fn a_key_in_doubt_that_is_refused_as_used_was_accepted(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let attempt = sending.lose_all(&[0]).await;
    sending.settle_all(attempt, &[0], &dispatch_engine::ledger::Verdict::Absent).await;
    let attempt = sending.claim_all(&[0, 1]).await;
    sending.record_all(attempt, &[0, 1], &Outcome::Duplicate).await;
    sending.assert_stands(0, DeliveryState::Accepted, "dup_key").await;
    sending.assert_stands(1, DeliveryState::Failed, "key_collision").await;
}

pub(crate) async fn one_record_may_hold_every_outcome(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(16).await;
    let seqs: Vec<i64> = (0..16).collect();
    let attempt = sending.claim_all(&seqs).await;
    let now_ms = world.now_ms();
    let kinds = [
        accepted(),
        failed(),
        deferred(now_ms),
        throttled(now_ms),
        Outcome::Released { alone: false },
        unknown(now_ms),
        Outcome::Erased,
        Outcome::Duplicate,
    ];
    let outcomes: Vec<_> = seqs.iter().zip(kinds.iter().cycle()).map(|(seq, kind)| (*seq, kind.clone())).collect();
    sending.record(attempt, &outcomes).await;
    let expected = [
        (DeliveryState::Accepted, "answer"),
        (DeliveryState::Failed, "bad_address"),
        (DeliveryState::RetryWait, "busy"),
        (DeliveryState::RetryWait, "throttled"),
        (DeliveryState::Ready, ""),
        (DeliveryState::Unknown, "timeout"),
        (DeliveryState::Stopped, "erased"),
        (DeliveryState::Failed, "key_collision"),
    ];
    for (seq, (state, detail)) in seqs.iter().zip(expected.iter().cycle()) {
        sending.assert_stands(*seq, *state, detail).await;
    }
}

pub(crate) async fn a_record_made_twice_counts_once(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(5).await;
    let seqs = [0, 1, 2, 3, 4];
    let attempt = sending.claim_all(&seqs).await;
    let now_ms = world.now_ms();
    let outcomes =
        [accepted(), failed(), deferred(now_ms), Outcome::Released { alone: false }, unknown(now_ms)].map(Some);
    let outcomes: Vec<_> = seqs.into_iter().zip(outcomes.into_iter().flatten()).collect();
    sending.record(attempt, &outcomes).await;
    let mut before = Vec::new();
    for seq in seqs {
        before.push(sending.recipient(seq).await);
    }
    world.clock.advance(1);
    sending.record(attempt, &outcomes).await;
    for (seq, before) in seqs.into_iter().zip(before) {
        assert_eq!(sending.recipient(seq).await, before);
    }
    sending.states().await;
}

pub(crate) async fn a_record_in_parts_ends_the_attempt_with_the_last(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(4).await;
    let attempt = sending.claim_all(&[0, 1, 2, 3]).await;
    sending.record_all(attempt, &[0, 2], &accepted()).await;
    sending.assert_states(&[(DeliveryState::Accepted, 2), (DeliveryState::Claimed, 2)]).await;
    world.clock.advance(3_600_000);
    assert_eq!(sending.reap().await, 1, "the rest of an attempt is still reaped");
    sending.record_all(attempt, &[1, 3], &accepted()).await;
    sending.assert_states(&[(DeliveryState::Accepted, 4)]).await;
}

pub(crate) async fn a_late_acceptance_beats_everything(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(4).await;
    let attempt = sending.claim_all(&[0, 1, 2, 3]).await;
    world.clock.advance(3_600_000);
    assert_eq!(sending.reap().await, 1);
    sending.settle_all(attempt, &[1], &dispatch_engine::ledger::Verdict::Final).await;
    sending.settle_all(attempt, &[2], &dispatch_engine::ledger::Verdict::Refused("spam".to_owned())).await;
    sending.settle_all(attempt, &[3], &dispatch_engine::ledger::Verdict::Resend).await;
    let second = sending.claim_all(&[3]).await;

    sending.record_all(attempt, &[0, 1, 2, 3], &Outcome::Accepted { provider_id: Some("late".to_owned()) }).await;
    for seq in 0..4 {
        sending.assert_stands(seq, DeliveryState::Accepted, "late_answer").await;
        assert_eq!(sending.recipient(seq).await.provider_id.as_deref(), Some("late"));
    }
    sending.record_all(second, &[3], &failed()).await;
    sending.assert_states(&[(DeliveryState::Accepted, 4)]).await;
    assert!(sending.unknown_due().await.is_empty());
}

pub(crate) async fn a_late_refusal_changes_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let attempt = sending.claim_all(&[0, 1, 2]).await;
    world.clock.advance(3_600_000);
    sending.reap().await;
    sending.record(attempt, &[(0, failed()), (1, deferred(0)), (2, Outcome::Released { alone: true })]).await;
    for seq in 0..3 {
        sending.assert_stands(seq, DeliveryState::Unknown, "no_outcome").await;
        assert_eq!(sending.recipient(seq).await.attempts, 1);
    }
}

pub(crate) async fn a_late_duplicate_proves_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.lose_all(&[0]).await;
    sending.settle_all(attempt, &[0], &dispatch_engine::ledger::Verdict::Absent).await;
    let silent = sending.claim_all(&[0]).await;
    world.clock.advance(3_600_000);
    assert_eq!(sending.reap().await, 1);
    // What it would have proved depends on what was known of its key then.
    sending.record_all(silent, &[0], &Outcome::Duplicate).await;
    sending.assert_stands(0, DeliveryState::Unknown, "no_outcome").await;
}

pub(crate) async fn a_record_of_another_attempt_changes_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let first = sending.claim_all(&[0]).await;
    sending.record_all(first, &[0], &Outcome::Released { alone: false }).await;
    let second = sending.claim_all(&[0]).await;
    sending.record_all(first, &[0], &failed()).await;
    sending.assert_stands(0, DeliveryState::Claimed, "").await;
    let gate = world.email(&address(0));
    let closed = world.ledger.close_gates(world.tenant, Channel::Email, &[gate], StopReason::Complained).await.unwrap();
    assert_eq!(closed.in_flight, 1);
    sending.record_all(second, &[0], &accepted()).await;
    sending.assert_states(&[(DeliveryState::Accepted, 1)]).await;
}
