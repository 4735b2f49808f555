//! What becomes of the unanswered.

use dispatch_engine::ledger::{End, Verdict};
use dispatch_schemas::{
    api::campaigns::Retry,
    ids::AttemptId,
    states::{Channel, DeliveryState, StopReason},
};
use dispatch_workers::delivery::{Outcome, Timing};

use super::{
    Fixture,
    people::address,
    sending::{Sending, accepted, failed, numbers, throttled, unknown},
    world::World,
};

fn reap_after_ms() -> i64 {
    i64::try_from(Timing::default().reap_after_ms()).unwrap()
}

pub(crate) async fn what_has_no_outcome_in_time_is_unknown(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(4).await;
    sending.claim_all(&[0, 2]).await;
    world.clock.advance(1_000);
    sending.claim_all(&[3]).await;
    world.clock.advance(reap_after_ms() - 1_001);
    assert_eq!(sending.reap().await, 0);
    world.clock.advance(1);
    assert_eq!(sending.reap().await, 1);
    assert_eq!(sending.reap().await, 0);
    for seq in [0, 2] {
        sending.assert_stands(seq, DeliveryState::Unknown, "no_outcome").await;
        assert_eq!(sending.recipient(seq).await.attempts, 1);
    }
    sending.assert_states(&[(DeliveryState::Unknown, 2), (DeliveryState::Claimed, 1), (DeliveryState::Ready, 1)]).await;
    assert_eq!(sending.unknown_due().await.len(), 1, "where asking again is harmless it is done soon");
}

pub(crate) async fn a_recorded_attempt_is_not_reaped(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let first = sending.claim_all(&[0, 1]).await;
    sending.record_all(first, &[0, 1], &Outcome::Released { alone: false }).await;
    world.clock.advance(reap_after_ms());
    sending.claim_all(&[0, 1, 2]).await;
    assert_eq!(sending.reap().await, 0, "what a later attempt holds is not the earlier one's");
    sending.assert_states(&[(DeliveryState::Claimed, 3)]).await;
}

pub(crate) async fn an_unknown_delivery_is_not_looked_at_before_its_time(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let token = world.token();
    let claimed = world.ledger.claim(&sending.claim_of(&[0, 1], token)).await.unwrap();
    let attempt = claimed.attempt.unwrap();
    let claimed_at_ms = world.now_ms();
    sending.record_all(attempt, &[0, 1], &unknown(world.now_ms() + 30_000)).await;
    world.clock.advance(29_999);
    assert!(sending.unknown_due().await.is_empty());
    world.clock.advance(1);
    let groups = sending.unknown_due().await;
    let group = &groups[0];
    assert_eq!((groups.len(), group.campaign, group.attempt), (1, sending.id, attempt));
    assert!(group.token == token && group.root_token == token);
    assert_eq!(group.claimed_at_ms, claimed_at_ms);
    let seen: Vec<_> = group.deliveries.iter().map(|d| (d.seq, d.key_epoch, d.first_sent_at_ms, d.attempts)).collect();
    assert_eq!(seen, [(0, 0, claimed_at_ms, 1), (1, 0, claimed_at_ms, 1)]);
}

pub(crate) async fn what_the_log_has_is_accepted(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.lose_all(&[0]).await;
    let verdict = Verdict::Accepted { evidence: "log", provider_id: Some("p1".to_owned()) };
    assert!(sending.settle_all(attempt, &[0], &verdict).await.is_empty());
    sending.assert_stands(0, DeliveryState::Accepted, "log").await;
    assert_eq!(sending.recipient(0).await.provider_id.as_deref(), Some("p1"));
}

pub(crate) async fn what_the_log_refused_fails_and_is_retried_with_a_new_key(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.lose_all(&[0]).await;
    let key = sending.recipient(0).await.send_key;
    sending.settle_all(attempt, &[0], &Verdict::Refused("infobip_52".to_owned())).await;
    sending.assert_stands(0, DeliveryState::Failed, "infobip_52").await;
    assert_eq!(sending.progress().await.reasons["infobip_52"], 1);

    let retried = world.ledger.retry(world.tenant, sending.id, &Retry::default()).await.unwrap().retried;
    assert_eq!(retried, 1);
    assert_ne!(sending.recipient(0).await.send_key, key, "a provider may remember the key of what it refused");
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &Outcome::Duplicate).await;
    sending.assert_stands(0, DeliveryState::Failed, "key_collision").await;
}

pub(crate) async fn what_the_log_lacks_is_sent_again_with_the_same_key(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let attempt = sending.lose_all(&[0, 1]).await;
    let key = sending.recipient(0).await.send_key;
    assert_eq!(sending.settle_all(attempt, &[0, 1], &Verdict::Absent).await, [0, 1]);
    let claimed = sending.claim(&[0, 1]).await;
    assert_eq!(numbers(&claimed), [0, 1]);
    assert!(claimed.again.is_empty());
    assert_eq!((claimed.deliveries[0].key_epoch, claimed.deliveries[0].attempt_no), (0, 2));
    assert_eq!(sending.recipient(0).await.send_key, key);
    assert_eq!(resends(&world, sending.id).await, [0, 0]);
}

/// Deliveries without an answer of which the log had nothing: they are ready for their repeat.
async fn lose_all_and_find_none(sending: &Sending<'_>, seqs: &[i64]) {
    let attempt = sending.lose_all(seqs).await;
    assert_eq!(sending.settle_all(attempt, seqs, &Verdict::Absent).await, seqs);
}

pub(crate) async fn what_the_log_lacked_is_stopped_when_its_gate_closes_later(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(4).await;
    lose_all_and_find_none(&sending, &[0, 1, 2, 3]).await;
    let gate = world.email(&address(0));
    world.ledger.close_gates(world.tenant, Channel::Email, &[gate], StopReason::Unsubscribed).await.unwrap();
    world.ledger.erase(world.tenant, &[(Channel::Email, world.email(&address(1)))]).await.unwrap();
    assert!(sending.claim(&[0, 1]).await.attempt.is_none());
    sending.assert_stands(0, DeliveryState::Stopped, "unsubscribed").await;
    sending.assert_stands(1, DeliveryState::Stopped, "erased").await;
    let attempt = sending.claim_all(&[2]).await;
    sending.record_all(attempt, &[2], &Outcome::Erased).await;
    sending.assert_stands(2, DeliveryState::Stopped, "erased").await;
    world.ledger.cancel(world.tenant, sending.id).await.unwrap();
    sending.end_waiting(End::Stopped(StopReason::Cancelled), 100).await;
    sending.assert_stands(3, DeliveryState::Stopped, "cancelled").await;
}

pub(crate) async fn what_the_log_lacked_is_refused_like_any_other(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    lose_all_and_find_none(&sending, &[0, 1]).await;
    let key = sending.recipient(0).await.send_key;
    let attempt = sending.claim_all(&[0, 1]).await;
    sending.record(attempt, &[(0, throttled(world.now_ms())), (1, failed())]).await;
    sending.assert_stands(0, DeliveryState::RetryWait, "throttled").await;
    sending.assert_stands(1, DeliveryState::Failed, "bad_address").await;
    assert_ne!(sending.recipient(0).await.send_key, key, "the refused message may have used the old one up");
    world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap();
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &Outcome::Duplicate).await;
    sending.assert_stands(0, DeliveryState::Failed, "key_collision").await;
}

pub(crate) async fn what_the_log_lacked_was_still_tried_with_its_key(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let first_ms = world.now_ms();
    lose_all_and_find_none(&sending, &[0]).await;
    world.clock.advance(1_000);
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &Outcome::Released { alone: false }).await;
    let attempt = sending.lose_all(&[0]).await;
    assert_eq!(sending.unknown_due().await.remove(0).deliveries[0].first_sent_at_ms, first_ms);
    sending.settle_all(attempt, &[0], &Verdict::Absent).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &Outcome::Released { alone: false }).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &Outcome::Duplicate).await;
    sending.assert_stands(0, DeliveryState::Accepted, "dup_key").await;
}

/// How often each was sent again on the campaign's policy.
async fn resends(world: &World, campaign: dispatch_schemas::ids::CampaignId) -> Vec<u32> {
    let rows = world.ledger.evidence(campaign, Channel::Email, -1, 100).await.unwrap();
    rows.iter().map(|row| row.resends).collect()
}

pub(crate) async fn what_the_log_lacks_is_stopped_when_its_gate_has_closed(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let attempt = sending.lose_all(&[0, 1, 2]).await;
    let gate = world.email(&address(0));
    world.ledger.close_gates(world.tenant, Channel::Email, &[gate], StopReason::Unsubscribed).await.unwrap();
    world.ledger.erase(world.tenant, &[(Channel::Email, world.email(&address(1)))]).await.unwrap();
    assert_eq!(sending.settle_all(attempt, &[0, 1, 2], &Verdict::Absent).await, [2]);
    sending.assert_stands(0, DeliveryState::Stopped, "unsubscribed").await;
    sending.assert_stands(1, DeliveryState::Stopped, "erased").await;
    sending.assert_stands(2, DeliveryState::Ready, "absent").await;
}

pub(crate) async fn what_the_log_lacks_is_stopped_when_its_campaign_was_cancelled(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.lose_all(&[0]).await;
    world.ledger.cancel(world.tenant, sending.id).await.unwrap();
    assert!(sending.settle_all(attempt, &[0], &Verdict::Absent).await.is_empty());
    sending.assert_stands(0, DeliveryState::Stopped, "cancelled").await;
    assert!(world.ledger.complete(sending.id, world.now_ms()).await.unwrap());
}

pub(crate) async fn a_resend_is_counted(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let attempt = sending.lose_all(&[0, 1]).await;
    assert_eq!(sending.settle(attempt, &[(0, Verdict::Resend), (1, Verdict::Absent)]).await, [0, 1]);
    let attempt = sending.lose_all(&[0]).await;
    sending.settle_all(attempt, &[0], &Verdict::Resend).await;
    assert_eq!(resends(&world, sending.id).await, [2, 0]);
    let attempt = sending.claim_all(&[0, 1]).await;
    sending.record_all(attempt, &[0, 1], &accepted()).await;
    assert_eq!(resends(&world, sending.id).await, [2, 0]);
}

pub(crate) async fn a_resend_with_the_same_key_is_as_old_as_its_key(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let (key, first_ms) = (sending.recipient(0).await.send_key, world.now_ms());
    let attempt = sending.lose_all(&[0, 1]).await;
    world.clock.advance(1_000);
    assert_eq!(sending.settle_all(attempt, &[0, 1], &Verdict::ResendWithSameKey).await, [0, 1]);
    assert_eq!(resends(&world, sending.id).await, [1, 1]);
    let attempt = sending.lose_all(&[0]).await;
    let group = sending.unknown_due().await.remove(0);
    assert_eq!((group.attempt, group.deliveries[0].first_sent_at_ms), (attempt, first_ms));
    assert_eq!(sending.recipient(0).await.send_key, key);
    let gate = world.email(&address(1));
    world.ledger.close_gates(world.tenant, Channel::Email, &[gate], StopReason::Unsubscribed).await.unwrap();
    assert!(sending.claim(&[1]).await.attempt.is_none());
    sending.assert_stands(1, DeliveryState::UnknownFinal, "unsubscribed").await;
}

pub(crate) async fn a_duplicate_after_a_refused_resend_proves_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let attempt = sending.lose_all(&[0, 1, 2]).await;
    sending.settle_all(attempt, &[0, 1, 2], &Verdict::ResendWithSameKey).await;
    let attempt = sending.claim_all(&[0, 1, 2]).await;
    sending.record(attempt, &[(0, throttled(world.now_ms())), (1, failed()), (2, Outcome::Duplicate)]).await;
    sending.assert_stands(0, DeliveryState::RetryWait, "throttled").await;
    sending.assert_stands(1, DeliveryState::Unknown, "bad_address").await;
    sending.assert_stands(2, DeliveryState::Accepted, "dup_key").await;
    world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap();
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &Outcome::Duplicate).await;
    sending.assert_stands(0, DeliveryState::Unknown, "duplicate").await;
    // The log decides; what it says it never took over is in doubt no more.
    sending.settle_all(attempt, &[0], &Verdict::Absent).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &failed()).await;
    sending.assert_stands(0, DeliveryState::Failed, "bad_address").await;
}

pub(crate) async fn what_cannot_be_decided_stays_undecided(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.lose_all(&[0]).await;
    assert!(sending.settle_all(attempt, &[0], &Verdict::Final).await.is_empty());
    sending.assert_stands(0, DeliveryState::UnknownFinal, "undecided").await;
    assert!(sending.claim(&[0]).await.attempt.is_none());
    let retried = world.ledger.retry(world.tenant, sending.id, &Retry::default()).await.unwrap().retried;
    assert_eq!(retried, 0, "what may have been sent is no failure");
    assert!(world.ledger.complete(sending.id, world.now_ms()).await.unwrap());
    sending.record_all(attempt, &[0], &accepted()).await;
    sending.assert_stands(0, DeliveryState::Accepted, "late_answer").await;
}

pub(crate) async fn what_is_not_known_yet_is_looked_at_later(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.lose_all(&[0]).await;
    assert_eq!(sending.unknown_due().await.len(), 1);
    sending.settle_all(attempt, &[0], &Verdict::Later(world.now_ms() + 100)).await;
    assert!(sending.unknown_due().await.is_empty());
    sending.assert_stands(0, DeliveryState::Unknown, "timeout").await;
    world.clock.advance(100);
    assert_eq!(sending.unknown_due().await.len(), 1);
}

pub(crate) async fn a_verdict_on_another_attempt_changes_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let first = sending.lose_all(&[0]).await;
    sending.settle_all(first, &[0], &Verdict::Resend).await;
    let second = sending.lose_all(&[0]).await;
    assert!(sending.settle_all(first, &[0, 1], &Verdict::Resend).await.is_empty());
    assert!(sending.settle_all(AttemptId(1), &[0, 1], &Verdict::Final).await.is_empty());
    sending.assert_states(&[(DeliveryState::Unknown, 1), (DeliveryState::Ready, 1)]).await;
    assert_eq!(sending.settle_all(second, &[0], &Verdict::Resend).await, [0]);
}

pub(crate) async fn a_look_shows_a_request_whole(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(8).await;
    // A request that is asked again must hold whom it held: one that is cut would be taken as a repeat of the whole.
    let attempt = sending.claim_all(&[0, 1, 2, 3, 4]).await;
    sending.record_all(attempt, &[0, 1], &unknown(world.now_ms())).await;
    sending.record_all(attempt, &[2, 4], &unknown(world.now_ms() + 500)).await;
    sending.record_all(attempt, &[3], &accepted()).await;
    let other = sending.lose_all(&[5, 6]).await;
    let groups = world.ledger.unknown_due(world.now_ms(), 1).await.unwrap();
    let whole: Vec<_> = groups
        .iter()
        .map(|group| (group.attempt, group.deliveries.iter().map(|delivery| delivery.seq).collect::<Vec<_>>()))
        .collect();
    assert!(whole == [(attempt, vec![0, 1, 2, 4])] || whole == [(other, vec![5, 6])], "{whole:?}");
    let groups = sending.unknown_due().await;
    assert_eq!(groups.iter().map(|group| group.deliveries.len()).sum::<usize>(), 6);
}
