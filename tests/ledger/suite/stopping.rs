//! Pausing, cancelling, expiring, completing, trying again.

use dispatch_engine::ledger::{End, Verdict};
use dispatch_schemas::{
    api::{campaigns::Retry, time::Moment},
    states::{CampaignState, DeliveryState, StopReason},
};
use dispatch_workers::{delivery::Outcome, providers::Code};

use super::{
    Fixture,
    launching::code,
    people::crowd,
    sending::{ACCOUNT, Sending, accepted, deferred, failed, numbers, throttled, to},
    world::World,
};

impl Sending<'_> {
    async fn state(&self) -> CampaignState {
        self.world.ledger.campaign(self.world.tenant, self.id).await.unwrap().state
    }

    async fn completes(&self) -> bool {
        self.world.ledger.complete(self.id, self.world.now_ms()).await.unwrap()
    }
}

pub(crate) async fn a_paused_campaign_goes_on_where_it_was(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &throttled(world.now_ms())).await;
    let paused = world.ledger.pause(world.tenant, sending.id, "operator").await.unwrap().campaign;
    assert_eq!((paused.state, paused.pause_reason.as_deref()), (CampaignState::Paused, Some("operator")));
    assert_eq!(sending.progress().await.pause_reason.as_deref(), Some("operator"));
    assert!(world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap().is_empty());
    sending.assert_states(&[(DeliveryState::Ready, 2), (DeliveryState::RetryWait, 1)]).await;
    let resumed = world.ledger.resume(world.tenant, sending.id).await.unwrap();
    assert_eq!((resumed.state, resumed.pause_reason), (CampaignState::Running, None));
    world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap();
    assert_eq!(numbers(&sending.claim(&[0, 1, 2]).await), [0, 1, 2]);
}

pub(crate) async fn a_pause_reports_what_is_in_flight(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(5).await;
    let attempt = sending.claim_all(&[0, 1, 4]).await;
    assert_eq!(world.ledger.pause(world.tenant, sending.id, "operator").await.unwrap().in_flight, 3);
    sending.record_all(attempt, &[0, 1], &accepted()).await;
    assert_eq!(world.ledger.cancel(world.tenant, sending.id).await.unwrap().in_flight, 1);
}

pub(crate) async fn a_cancelled_campaign_stops_for_good(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(10).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &throttled(world.now_ms())).await;
    let lost = sending.lose_all(&[1]).await;
    sending.settle_all(lost, &[1], &Verdict::Resend).await;
    world.ledger.cancel(world.tenant, sending.id).await.unwrap();
    sending.end_waiting(End::Stopped(StopReason::Cancelled), 4).await;
    sending.assert_states(&[(DeliveryState::Stopped, 9), (DeliveryState::UnknownFinal, 1)]).await;
    sending.assert_stands(1, DeliveryState::UnknownFinal, "cancelled").await;
    assert_eq!(sending.progress().await.reasons["cancelled"], 9);
    assert_eq!(code(world.ledger.resume(world.tenant, sending.id).await), "campaign-state");
    assert_eq!(code(world.ledger.pause(world.tenant, sending.id, "operator").await), "campaign-state");
    assert_eq!(code(world.ledger.retry(world.tenant, sending.id, &Retry::default()).await), "campaign-state");
    assert_eq!(code(world.ledger.launch(world.tenant, sending.id, None).await), "already-launched");
    world.ledger.cancel(world.tenant, sending.id).await.unwrap();
}

pub(crate) async fn a_cancelled_campaign_ends_with_its_last_delivery(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(2).await;
    let attempt = sending.claim_all(&[0]).await;
    world.ledger.cancel(world.tenant, sending.id).await.unwrap();
    sending.end_waiting(End::Stopped(StopReason::Cancelled), 100).await;
    assert!(!sending.completes().await);
    assert_eq!(world.ledger.unfinished().await.unwrap().len(), 1);
    sending.record_all(attempt, &[0], &accepted()).await;
    assert!(sending.completes().await);
    assert_eq!(sending.state().await, CampaignState::Cancelled);
    assert!(world.ledger.unfinished().await.unwrap().is_empty());
}

pub(crate) async fn a_draft_is_cancelled_at_once(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(1)).await;
    let id = world.drafted(&to(&[list])).await.id;
    assert_eq!(code(world.ledger.pause(world.tenant, id, "operator").await), "campaign-state");
    let cancelled = world.ledger.cancel(world.tenant, id).await.unwrap().campaign;
    assert_eq!(cancelled.ended_at.map(Moment::as_ms), Some(world.now_ms()));
    assert!(world.ledger.unfinished().await.unwrap().is_empty());
}

pub(crate) async fn a_campaign_completes_when_all_are_final(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(3)).await;
    let sending = world.launched(&to(&[list])).await;
    assert!(!sending.completes().await, "its recipients are not found yet");
    sending.expand_all(10).await;
    assert!(!sending.completes().await);
    let attempt = sending.claim_all(&[0, 1, 2]).await;
    sending.record(attempt, &[(0, accepted()), (1, failed()), (2, deferred(world.now_ms()))]).await;
    assert!(!sending.completes().await);
    world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap();
    let attempt = sending.claim_all(&[2]).await;
    sending.record_all(attempt, &[2], &accepted()).await;
    world.clock.advance(5);
    assert!(sending.completes().await);
    assert!(!sending.completes().await, "it is told once");
    let campaign = world.ledger.campaign(world.tenant, sending.id).await.unwrap();
    assert_eq!(campaign.state, CampaignState::Completed);
    assert_eq!(campaign.ended_at.map(Moment::as_ms), Some(world.now_ms()));
}

pub(crate) async fn a_completed_campaign_cannot_be_paused_resumed_or_cancelled(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &accepted()).await;
    assert!(sending.completes().await);
    for refused in [
        world.ledger.pause(world.tenant, sending.id, "operator").await.map(drop),
        world.ledger.resume(world.tenant, sending.id).await.map(drop),
        world.ledger.cancel(world.tenant, sending.id).await.map(drop),
    ] {
        let message = refused.as_ref().unwrap_err().to_string();
        assert!(message.starts_with("a campaign that is completed cannot be "), "{message}");
        assert_eq!(code(refused), "campaign-state");
    }
}

pub(crate) async fn an_expired_campaign_expires_who_waits(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(6)).await;
    let sending = world.launched(&to(&[list]).not_after(world.now_ms() + 100)).await;
    world.ledger.expand(sending.id, 5, world.now_ms()).await.unwrap();
    let attempt = sending.claim_all(&[0, 1]).await;
    sending.record_all(attempt, &[0], &throttled(world.now_ms())).await;
    world.ledger.pause(world.tenant, sending.id, "operator").await.unwrap();
    world.ledger.close_expired(world.now_ms() + 99).await.unwrap();
    assert_eq!(sending.state().await, CampaignState::Paused);
    world.clock.advance(100);
    world.ledger.close_expired(world.now_ms()).await.unwrap();
    assert_eq!(world.ledger.expand(sending.id, 5, world.now_ms()).await.unwrap(), 0);
    assert!(sending.claim(&[2, 3]).await.attempt.is_none());
    sending.end_waiting(End::Expired, 2).await;
    sending.assert_states(&[(DeliveryState::Expired, 4), (DeliveryState::Claimed, 1)]).await;
    sending.record_all(attempt, &[1], &accepted()).await;
    assert!(sending.completes().await, "whoever was not found by its end is not looked for");
    assert_eq!(code(world.ledger.retry(world.tenant, sending.id, &Retry::default()).await), "campaign-expired");
}

pub(crate) async fn what_may_have_been_sent_does_not_expire(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(3)).await;
    let sending = world.running(&to(&[list]).not_after(world.now_ms() + 100)).await;
    let lost = sending.lose_all(&[0, 1]).await;
    sending.settle_all(lost, &[0], &Verdict::AskAgain).await;
    world.clock.advance(100);
    world.ledger.close_expired(world.now_ms()).await.unwrap();
    sending.end_waiting(End::Expired, 100).await;
    sending
        .assert_states(&[(DeliveryState::UnknownFinal, 1), (DeliveryState::Unknown, 1), (DeliveryState::Expired, 1)])
        .await;
    assert!(!sending.completes().await);
}

pub(crate) async fn failed_recipients_are_retried_with_a_new_key(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let key = sending.recipient(0).await.send_key;
    let attempt = sending.claim_all(&[0, 1, 2]).await;
    sending.record(attempt, &[(0, failed()), (1, failed()), (2, accepted())]).await;
    assert!(sending.completes().await);
    let retried = world.ledger.retry(world.tenant, sending.id, &Retry::default()).await.unwrap();
    assert_eq!(retried.retried, 2);
    assert_eq!(sending.state().await, CampaignState::Running);
    sending.assert_states(&[(DeliveryState::Ready, 2), (DeliveryState::Accepted, 1)]).await;
    assert_ne!(sending.recipient(0).await.send_key, key);
    let claimed = sending.claim(&[0, 1, 2]).await;
    let tries: Vec<_> = claimed.deliveries.iter().map(|d| (d.seq, d.key_epoch, d.attempt_no)).collect();
    assert_eq!(tries, [(0, 1, 1), (1, 1, 1)], "all its tries are before it again");
    assert_eq!(world.ledger.retry(world.tenant, sending.id, &Retry::default()).await.unwrap().retried, 0);
}

pub(crate) async fn only_the_failures_asked_for_are_retried(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(3).await;
    let attempt = sending.claim_all(&[0, 1, 2]).await;
    let other = Outcome::Failed(Code::known("no_credit"));
    sending.record(attempt, &[(0, failed()), (1, other.clone()), (2, other)]).await;
    let which = Retry { code: Some("no_credit".to_owned()) };
    assert_eq!(world.ledger.retry(world.tenant, sending.id, &which).await.unwrap().retried, 2);
    let reasons = sending.progress().await.reasons;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), [("bad_address".to_owned(), 1)]);
    assert_eq!(numbers(&sending.claim(&[0, 1, 2]).await), [1, 2]);
}

pub(crate) async fn a_refused_account_pauses_its_campaigns(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(1).await;
    assert!(world.ledger.pause_account("other", "http_401", 0).await.unwrap().is_empty());
    let paused = world.ledger.pause_account(ACCOUNT, "http_401", 0).await.unwrap();
    assert_eq!(paused, [(world.tenant, sending.id)]);
    assert_eq!(sending.progress().await.pause_reason.as_deref(), Some("http_401"));
    assert!(sending.claim(&[0]).await.attempt.is_none());
    assert!(world.ledger.pause_account(ACCOUNT, "http_401", 0).await.unwrap().is_empty());
}
