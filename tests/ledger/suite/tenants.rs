//! The gate of a whole tenant.

use dispatch_engine::ledger::{End, Held, LedgerError, Once, Result, Verdict};
use dispatch_schemas::{
    api::{campaigns::Retry, keys::TenantClosure, time::Moment},
    ids::TenantId,
    states::{CampaignState, Channel, DeliveryState, StopReason},
};

use super::{
    Fixture,
    people::{address, crowd},
    sending::{ACCOUNT, Sending, accepted, content, failed, numbers, throttled, to},
    world::World,
};

const UNPAID: &str = "unpaid";

impl World {
    async fn close_tenant(&self) -> u64 {
        self.ledger.close_tenant(self.tenant, UNPAID).await.unwrap().in_flight
    }

    async fn open_tenant(&self) {
        assert_eq!(self.ledger.open_tenant(self.tenant).await.unwrap().closed, None);
    }
}

/// Asserts that a call was refused because the tenant is closed.
fn assert_closed<T: std::fmt::Debug>(refused: Result<T>) {
    match refused {
        Err(LedgerError::TenantClosed { reason }) => assert_eq!(reason, UNPAID),
        other => panic!("a closed tenant was expected, not {other:?}"),
    }
}

async fn state(sending: &Sending<'_>) -> CampaignState {
    sending.progress().await.state
}

pub(crate) async fn a_closed_tenant_gives_nothing_to_claim(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    let (first, others) = (world.tenant, world.running_to_crowd(2).await.id);
    world.become_tenant("second").await;
    let template = world.template().await;
    let (stream, seq) = world.try_message(&template, &address(9), None).await.unwrap().value;
    let sending = world.running_to_crowd(4).await.with_keys_remembered();
    let root = sending.lose_all(&[3]).await;
    sending.settle_all(root, &[3], &Verdict::AskAgain).await;

    world.close_tenant().await;
    assert!(sending.claim(&[0, 1, 2]).await.attempt.is_none());
    assert!(sending.claim_again(root).await.attempt.is_none());
    assert!(world.sending(stream).await.claim(&[seq]).await.attempt.is_none());
    sending.assert_states(&[(DeliveryState::Ready, 4)]).await;
    assert_eq!(state(&sending).await, CampaignState::Running);

    assert!(!world.ledger.brief(sending.id).await.unwrap().unwrap().is_running, "a plan made now is closed");
    for brief in world.ledger.unfinished().await.unwrap() {
        assert_eq!(brief.is_tenant_closed, brief.tenant == world.tenant);
        assert_eq!(brief.held(world.now_ms()), brief.is_tenant_closed.then_some(Held::Gate));
    }
    assert!(world.ledger.brief(others).await.unwrap().unwrap().is_running);
    let mut others = world.sending(others).await;
    others.plan.tenant = first;
    others.plan.keys = world.ledger.tenant_keys(first).await.unwrap();
    assert_eq!(numbers(&others.claim(&[0, 1]).await), [0, 1], "another tenant goes on");
}

pub(crate) async fn closing_a_tenant_reports_what_is_in_flight(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    world.running_to_crowd(3).await.claim_all(&[0, 1]).await;
    world.become_tenant("second").await;
    assert_eq!(world.close_tenant().await, 0);
    world.open_tenant().await;
    let template = world.template().await;
    let (stream, seq) = world.try_message(&template, &address(9), None).await.unwrap().value;
    world.sending(stream).await.claim_all(&[seq]).await;
    let list = world.list_of("people", &crowd(5)).await;
    let by_mail = world.running(&to(&[list])).await;
    let attempt = by_mail.claim_all(&[0, 1, 2]).await;
    by_mail.lose_all(&[3]).await;
    world.running(&to(&[list])).await.claim_all(&[4]).await;
    assert_eq!(world.close_tenant().await, 5);
    by_mail.record_all(attempt, &[0, 1], &accepted()).await;
    assert_eq!(world.close_tenant().await, 3);
}

pub(crate) async fn an_opened_tenant_goes_on_where_it_was(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    {
        let sending = world.running_to_crowd(4).await;
        let attempt = sending.claim_all(&[0, 1]).await;
        sending.record(attempt, &[(0, accepted()), (1, throttled(world.now_ms()))]).await;
        world.close_tenant().await;
        assert!(sending.claim(&[2, 3]).await.attempt.is_none());
    }
    let id = world.ledger.unfinished().await.unwrap()[0].id;
    world = world.reopened().await;
    let sending = world.sending(id).await;
    assert!(sending.claim(&[2, 3]).await.attempt.is_none(), "it stays closed over a restart");
    world.open_tenant().await;
    world.open_tenant().await;
    world.ledger.wake_waiting(world.now_ms(), 10).await.unwrap();
    assert_eq!(numbers(&sending.claim(&[0, 1, 2, 3]).await), [1, 2, 3]);
    assert!(world.ledger.brief(id).await.unwrap().unwrap().is_running);
}

pub(crate) async fn what_would_send_is_refused_for_a_closed_tenant(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let (ledger, tenant) = (&world.ledger, world.tenant);
    let list = world.list_of("crowd", &crowd(3)).await;
    let draft = world.drafted(&to(&[list])).await.id;
    let template = world.template().await;
    let sending = world.running(&to(&[list])).await;
    let attempt = sending.claim_all(&[0]).await;
    sending.record_all(attempt, &[0], &failed()).await;
    world.close_tenant().await;

    let new = to(&[list]).new_campaign();
    assert_closed(ledger.create_campaign(tenant, &new, &content(Channel::Email), ACCOUNT, None).await);
    assert_closed(ledger.launch(tenant, draft, None).await);
    assert_closed(ledger.retry(tenant, sending.id, &Retry::default()).await);
    assert_closed(world.try_message(&template, &address(0), None).await);
    // What stops, what looks and what protects people is not refused.
    ledger.pause(tenant, sending.id, "operator").await.unwrap();
    assert_closed(ledger.resume(tenant, sending.id).await);
    let gate = world.email(&address(1));
    assert_eq!(ledger.close_gates(tenant, Channel::Email, &[gate], StopReason::Suppressed).await.unwrap().closed, 1);
    ledger.erase(tenant, &[(Channel::Email, world.email(&address(2)))]).await.unwrap();
    assert_eq!(sending.recipient(0).await.state, DeliveryState::Failed);
    assert_eq!(ledger.campaigns(tenant, None, 10).await.unwrap().len(), 2);
    ledger.cancel(tenant, sending.id).await.unwrap();
    assert_eq!(ledger.campaign(tenant, draft).await.unwrap().state, CampaignState::Draft);

    world.open_tenant().await;
    ledger.launch(tenant, draft, None).await.unwrap();
    world.try_message(&template, &address(0), None).await.unwrap();
}

pub(crate) async fn a_repeated_call_gets_its_first_answer_from_a_closed_tenant(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let template = world.template().await;
    let once = |key: &str| Once { route: "POST /v1/messages", key: key.to_owned(), fingerprint: [1; 32] };
    let first = world.try_message(&template, &address(0), Some(&once("a"))).await.unwrap();
    world.close_tenant().await;
    let again = world.try_message(&template, &address(0), Some(&once("a"))).await.unwrap();
    assert_eq!((again.value, again.replayed), (first.value, true));
    assert_closed(world.try_message(&template, &address(0), Some(&once("b"))).await);
    world.open_tenant().await;
    assert!(!world.try_message(&template, &address(0), Some(&once("b"))).await.unwrap().replayed);
}

pub(crate) async fn what_was_sent_before_a_tenant_closed_is_still_settled(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let sending = world.running_to_crowd(4).await;
    let lost = sending.lose_all(&[0, 1]).await;
    let attempt = sending.claim_all(&[2]).await;
    world.close_tenant().await;
    sending.record_all(attempt, &[2], &accepted()).await;
    assert_eq!(sending.unknown_due().await.len(), 1);
    let in_the_log = Verdict::Accepted { evidence: "log", provider_id: None };
    assert_eq!(sending.settle(lost, &[(0, in_the_log), (1, Verdict::Absent)]).await, [1]);
    // Nothing was decided about its person.
    sending.assert_states(&[(DeliveryState::Accepted, 2), (DeliveryState::Ready, 2)]).await;
    assert!(sending.claim(&[1, 3]).await.attempt.is_none());
}

pub(crate) async fn what_waits_of_a_closed_tenant_still_ends(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(3)).await;
    let expiring = world.running(&to(&[list]).not_after(world.now_ms() + 100)).await;
    let cancelled = world.running(&to(&[list])).await;
    world.close_tenant().await;
    world.ledger.cancel(world.tenant, cancelled.id).await.unwrap();
    cancelled.end_waiting(End::Stopped(StopReason::Cancelled), 10).await;
    world.clock.advance(100);
    world.ledger.close_expired(world.now_ms()).await.unwrap();
    expiring.end_waiting(End::Expired, 10).await;
    expiring.assert_states(&[(DeliveryState::Expired, 3)]).await;
    for sending in [expiring, cancelled] {
        assert!(world.ledger.complete(sending.id, world.now_ms()).await.unwrap());
    }
    assert!(world.ledger.unfinished().await.unwrap().is_empty());
}

pub(crate) async fn a_tenant_stays_closed_since_it_was_and_says_why(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let at = Moment::from_ms(world.now_ms());
    let closed = world.ledger.close_tenant(world.tenant, UNPAID).await.unwrap().tenant;
    assert_eq!(closed.closed, Some(TenantClosure { at, reason: UNPAID.to_owned() }));
    world.clock.advance(5_000);
    let again = world.ledger.close_tenant(world.tenant, "abuse").await.unwrap().tenant;
    assert_eq!(again.closed, Some(TenantClosure { at, reason: "abuse".to_owned() }));
    assert_eq!(world.ledger.find_tenant("first").await.unwrap(), Some(again.clone()));
    assert_eq!(world.ledger.tenant("first").await.unwrap(), again, "made again it is the same, and closed");
    world.open_tenant().await;
    assert_eq!(world.ledger.find_tenant("first").await.unwrap().unwrap().closed, None);
    let nobody = TenantId(1);
    assert!(matches!(world.ledger.close_tenant(nobody, UNPAID).await, Err(LedgerError::NotFound("tenant"))));
    assert!(matches!(world.ledger.open_tenant(nobody).await, Err(LedgerError::NotFound("tenant"))));
}

pub(crate) async fn tenants_are_listed_by_name(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    for name in ["zeta", "acme"] {
        world.ledger.tenant(name).await.unwrap();
    }
    world.close_tenant().await;
    let listed = world.ledger.tenants().await.unwrap();
    let names: Vec<_> = listed.iter().map(|tenant| (tenant.name.as_str(), tenant.closed.is_some())).collect();
    assert_eq!(names, [("acme", false), ("first", true), ("zeta", false)]);
}
