//! A request without an answer, asked again with the key it had.

use dispatch_engine::ledger::Verdict;
use dispatch_schemas::{
    ids::AttemptId,
    states::{Channel, DeliveryState, StopReason},
};
use dispatch_workers::{
    delivery::{AskAgain, Counts, Outcome},
    message::Token,
    providers::Code,
};

use super::{
    Fixture,
    people::address,
    sending::{KEY_SAFE_FOR, Sending, accepted, failed, numbers, throttled, unknown, unsendable},
    world::World,
};

/// A request for these without an answer, to be asked again: its attempt and token.
async fn lost_and_asked_again(sending: &Sending<'_>, seqs: &[i64]) -> (AttemptId, Token) {
    let token = sending.world.token();
    let claimed = sending.world.ledger.claim(&sending.claim_of(seqs, token)).await.unwrap();
    let root = claimed.attempt.unwrap();
    sending.record_all(root, seqs, &unknown(sending.world.now_ms())).await;
    assert_eq!(sending.settle_all(root, seqs, &Verdict::AskAgain).await, seqs);
    (root, token)
}

pub(crate) async fn a_request_is_asked_again_with_its_first_token(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(6).await.with_keys_remembered();
    let (root, token) = lost_and_asked_again(&sending, &[0, 1, 3]).await;

    let claimed = sending.claim(&[0, 2]).await;
    assert_eq!(numbers(&claimed), [2], "it is reported, not mixed in");
    assert_eq!(claimed.again, [AskAgain { root, seqs: vec![0, 1, 3] }], "with all it needs permits for");
    assert!(sending.claim_again_with_permits(root, 2).await.attempt.is_none(), "with fewer it is not asked");
    let claimed = sending.claim_again(root).await;
    assert_eq!(numbers(&claimed), [0, 1, 3]);
    assert!(claimed.root == token && claimed.token != token, "the key of the request is the first one's");
    assert!(claimed.attempt.is_some_and(|attempt| attempt != root) && claimed.again.is_empty());
    assert!(sending.claim_again(root).await.attempt.is_none(), "it is asked again once at a time");
    assert_eq!(sending.reap().await, 0, "its time runs from the repeat on");

    sending.record_all(claimed.attempt.unwrap(), &[0, 1, 3], &Outcome::Duplicate).await;
    for seq in [0, 1, 3] {
        sending.assert_stands(seq, DeliveryState::Accepted, "dup_key").await;
    }
}

pub(crate) async fn a_member_whose_gate_has_closed_is_not_asked_for(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(4).await.with_keys_remembered();
    let (root, _) = lost_and_asked_again(&sending, &[0, 1, 2, 3]).await;
    let gate = world.email(&address(1));
    world.ledger.close_gates(world.tenant, Channel::Email, &[gate], StopReason::Unsubscribed).await.unwrap();
    world.ledger.erase(world.tenant, &[(Channel::Email, world.email(&address(2)))]).await.unwrap();

    let claimed = sending.claim_again(root).await;
    assert_eq!(numbers(&claimed), [0, 3]);
    sending.assert_stands(1, DeliveryState::UnknownFinal, "unsubscribed").await;
    sending.assert_stands(2, DeliveryState::UnknownFinal, "erased").await;
    sending.record_all(claimed.attempt.unwrap(), &[0, 3], &accepted()).await;
    sending.assert_states(&[(DeliveryState::Accepted, 2), (DeliveryState::UnknownFinal, 2)]).await;
}

pub(crate) async fn what_was_asked_again_without_an_answer_keeps_its_first_token(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await.with_keys_remembered();
    let first_ms = world.now_ms();
    let (root, token) = lost_and_asked_again(&sending, &[0, 1]).await;
    for _ in 0..3 {
        world.clock.advance(30_000);
        let claimed = sending.claim_again(root).await;
        assert!(claimed.root == token);
        let attempt = claimed.attempt.unwrap();
        sending.record_all(attempt, &[0, 1], &unknown(world.now_ms())).await;
        let group = sending.unknown_due().await.remove(0);
        assert_eq!((group.attempt, group.deliveries[1].first_sent_at_ms), (attempt, first_ms));
        assert!(group.root_token == token && group.token == claimed.token);
        sending.settle_all(attempt, &[0, 1], &Verdict::AskAgain).await;
    }
    sending.assert_states(&[(DeliveryState::Ready, 2)]).await;
}

/// Both are ready, and can be asked for with the first token only; a repeat that is taken over proves itself.
async fn assert_asked_for_with_the_first_token(sending: &Sending<'_>, root: AttemptId, token: Token) {
    sending.assert_states(&[(DeliveryState::Ready, 2)]).await;
    let claimed = sending.claim(&[0, 1]).await;
    assert!(claimed.attempt.is_none());
    assert_eq!(claimed.again, [AskAgain { root, seqs: vec![0, 1] }]);
    let claimed = sending.claim_again(root).await;
    assert!(claimed.root == token && claimed.deliveries.iter().all(|delivery| delivery.key_epoch == 0));
    sending.record_all(claimed.attempt.unwrap(), &[0, 1], &accepted()).await;
    sending.assert_states(&[(DeliveryState::Accepted, 2)]).await;
}

pub(crate) async fn a_repeat_that_was_not_made_leaves_the_first_in_doubt(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await.with_keys_remembered();
    let (root, token) = lost_and_asked_again(&sending, &[0, 1]).await;
    let attempt = sending.claim_again(root).await.attempt.unwrap();
    sending.record(attempt, &[(0, Outcome::Released { alone: false }), (1, Outcome::Released { alone: true })]).await;
    assert_eq!(sending.recipient(0).await.attempts, 1);
    assert_asked_for_with_the_first_token(&sending, root, token).await;
}

pub(crate) async fn a_repeat_that_was_refused_for_now_leaves_the_first_in_doubt(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await.with_keys_remembered();
    let (root, token) = lost_and_asked_again(&sending, &[0, 1]).await;
    let at_ms = world.now_ms() + 100;
    let attempt = sending.claim_again(root).await.attempt.unwrap();
    let apart = Outcome::Retry { at_ms, code: Code::known("one_of_many"), counts: Counts::Not, alone: true };
    sending.record(attempt, &[(0, throttled(at_ms)), (1, apart)]).await;
    sending.assert_states(&[(DeliveryState::RetryWait, 2)]).await;
    assert!(sending.claim_again(root).await.attempt.is_none());
    world.clock.advance(100);
    assert!(world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap().is_empty(), "a refused repeat is not hurried");
    world.clock.advance(5_000);
    world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap();
    assert_asked_for_with_the_first_token(&sending, root, token).await;
}

pub(crate) async fn a_repeat_that_was_refused_for_good_leaves_the_first_in_doubt(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await.with_keys_remembered();
    let (root, token) = lost_and_asked_again(&sending, &[0, 1]).await;
    let attempt = sending.claim_again(root).await.attempt.unwrap();
    sending.record_all(attempt, &[0, 1], &failed()).await;
    for seq in [0, 1] {
        sending.assert_stands(seq, DeliveryState::Unknown, "bad_address").await;
    }
    assert!(sending.unknown_due().await.is_empty(), "a refused repeat is not hurried");
    world.clock.advance(5_000);
    assert!(sending.unknown_due().await.remove(0).root_token == token);
    sending.settle_all(attempt, &[0, 1], &Verdict::AskAgain).await;
    assert_asked_for_with_the_first_token(&sending, root, token).await;
}

pub(crate) async fn a_repeat_that_could_not_be_made_leaves_the_first_in_doubt(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await.with_keys_remembered();
    let (root, token) = lost_and_asked_again(&sending, &[0, 1]).await;
    let attempt = sending.claim_again(root).await.attempt.unwrap();
    sending.record_all(attempt, &[0, 1], &unsendable()).await;
    sending.assert_stands(0, DeliveryState::Unknown, "template_variable_missing:plan").await;
    assert_eq!(sending.recipient(0).await.attempts, 2, "asking again comes to an end");
    world.clock.advance(5_000);
    assert!(sending.unknown_due().await.remove(0).root_token == token);
}

/// Asks both again and hears that their key was used.
async fn ask_and_hear_duplicate(sending: &Sending<'_>, root: AttemptId) {
    let attempt = sending.claim_again(root).await.attempt.unwrap();
    sending.record_all(attempt, &[0, 1], &Outcome::Duplicate).await;
}

pub(crate) async fn a_repeat_that_was_not_made_uses_no_key_up(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await.with_keys_remembered();
    let (root, _) = lost_and_asked_again(&sending, &[0, 1]).await;
    let attempt = sending.claim_again(root).await.attempt.unwrap();
    sending.record_all(attempt, &[0, 1], &Outcome::Released { alone: false }).await;
    ask_and_hear_duplicate(&sending, root).await;
    sending.assert_stands(0, DeliveryState::Accepted, "dup_key").await;
}

pub(crate) async fn a_duplicate_after_a_refused_repeat_proves_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await.with_keys_remembered();
    let (root, token) = lost_and_asked_again(&sending, &[0, 1]).await;
    let attempt = sending.claim_again(root).await.attempt.unwrap();
    sending.record_all(attempt, &[0, 1], &throttled(world.now_ms())).await;
    world.clock.advance(5_000);
    world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap();
    // The refused request may have used the key up as well as the lost one.
    ask_and_hear_duplicate(&sending, root).await;
    for seq in [0, 1] {
        sending.assert_stands(seq, DeliveryState::Unknown, "duplicate").await;
    }
    world.clock.advance(5_000);
    let group = sending.unknown_due().await.remove(0);
    assert!(group.root_token == token && group.deliveries.iter().all(|delivery| delivery.is_duplicate));
    sending.settle_all(group.attempt, &[0, 1], &Verdict::Later(world.now_ms() + 1_000)).await;
    world.clock.advance(1_000);
    let group = sending.unknown_due().await.remove(0);
    assert!(group.deliveries.iter().all(|delivery| delivery.is_duplicate), "asking again would still tell the same");
}

pub(crate) async fn a_refused_repeat_is_remembered_through_a_lost_one(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await.with_keys_remembered();
    let (root, _) = lost_and_asked_again(&sending, &[0, 1]).await;
    let attempt = sending.claim_again(root).await.attempt.unwrap();
    sending.record_all(attempt, &[0, 1], &failed()).await;
    sending.settle_all(attempt, &[0, 1], &Verdict::AskAgain).await;
    let lost = sending.claim_again(root).await.attempt.unwrap();
    sending.record_all(lost, &[0, 1], &unknown(world.now_ms())).await;
    sending.settle_all(lost, &[0, 1], &Verdict::AskAgain).await;
    let silent = sending.claim_again(root).await.attempt.unwrap();
    world.clock.advance(60_000);
    assert_eq!(sending.reap().await, 1);
    sending.settle_all(silent, &[0, 1], &Verdict::AskAgain).await;
    ask_and_hear_duplicate(&sending, root).await;
    sending.assert_stands(0, DeliveryState::Unknown, "duplicate").await;

    world.clock.advance(3_600_000);
    let group = sending.unknown_due().await.remove(0);
    sending.settle_all(group.attempt, &[0, 1], &Verdict::Resend).await;
    let attempt = sending.lose_all(&[0, 1]).await;
    sending.settle_all(attempt, &[0, 1], &Verdict::AskAgain).await;
    ask_and_hear_duplicate(&sending, attempt).await;
    sending.assert_stands(0, DeliveryState::Accepted, "dup_key").await;
}

pub(crate) async fn a_request_is_asked_again_whole_or_not_at_all(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await.with_keys_remembered();
    let root = sending.lose_all(&[0, 1, 2]).await;
    sending.settle_all(root, &[0, 2], &Verdict::AskAgain).await;
    // Whoever is left out of the repeat would pass for accepted with the next one.
    assert!(sending.claim_again(root).await.attempt.is_none());
    sending.settle_all(root, &[1], &Verdict::AskAgain).await;
    assert_eq!(numbers(&sending.claim_again(root).await), [0, 1, 2]);
}

pub(crate) async fn a_key_the_provider_has_forgotten_is_not_asked_with(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await.with_keys_remembered();
    let attempt = sending.claim_all(&[2]).await;
    sending.record_all(attempt, &[2], &Outcome::Released { alone: true }).await;
    let (root, token) = lost_and_asked_again(&sending, &[0, 1, 2]).await;
    world.clock.advance(i64::try_from(KEY_SAFE_FOR.as_millis()).unwrap());
    assert!(sending.claim(&[2]).await.attempt.is_none());
    assert!(sending.claim_again(root).await.attempt.is_none(), "it would be taken as a new request");
    let group = sending.unknown_due().await.remove(0);
    assert!(group.root_token == token && group.deliveries.len() == 3, "the policy decides");

    assert_eq!(sending.settle_all(group.attempt, &[0, 1, 2], &Verdict::Resend).await, [0, 1, 2]);
    let claimed = sending.claim(&[0, 1, 2]).await;
    assert_eq!(numbers(&claimed), [0, 1, 2], "what is sent again on purpose is sent");
    assert!(claimed.root == claimed.token && claimed.again.is_empty(), "as a request of its own");
    sending.record_all(claimed.attempt.unwrap(), &[0, 1, 2], &unknown(world.now_ms())).await;
    let group = sending.unknown_due().await.remove(0);
    assert!(group.root_token == claimed.token);
    assert!(group.deliveries.iter().all(|delivery| delivery.first_sent_at_ms == world.now_ms()));
}

pub(crate) async fn what_travelled_alone_is_asked_again_alone(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await.with_keys_remembered();
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &Outcome::Released { alone: true }).await;
    let (root, _) = lost_and_asked_again(&sending, &[0, 1, 2]).await;
    let claimed = sending.claim(&[0, 1, 2]).await;
    assert_eq!(numbers(&claimed), [0]);
    assert_eq!(claimed.again, [AskAgain { root, seqs: vec![1, 2] }]);
    assert!(claimed.deliveries[0].alone && claimed.deliveries[0].key_epoch == 0);
    assert_eq!(numbers(&sending.claim_again(root).await), [1, 2]);
}
