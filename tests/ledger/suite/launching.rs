//! From draft to running.

use dispatch_engine::ledger::{LedgerError, RecipientFilter, Result};
use dispatch_schemas::{
    api::{campaigns::Retry, time::Moment},
    states::{CampaignState, Channel},
};

use super::{
    Fixture,
    people::{crowd, phone},
    sending::{ACCOUNT, content, to},
    world::World,
};

/// The word programs tell a refusal by.
pub(super) fn code<T: std::fmt::Debug>(refused: Result<T>) -> &'static str {
    match refused {
        Err(LedgerError::Conflict { code, message }) => {
            assert!(!message.is_empty());
            code
        }
        other => panic!("a conflict was expected, not {other:?}"),
    }
}

pub(crate) async fn a_campaign_is_launched_once(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(1)).await;
    let campaign = world.drafted(&to(&[list])).await;
    assert_eq!((campaign.state, campaign.launched_at), (CampaignState::Draft, None));
    let launched = world.ledger.launch(world.tenant, campaign.id, None).await.unwrap().value;
    assert_eq!(launched.state, CampaignState::Running);
    assert_eq!(launched.launched_at.map(Moment::as_ms), Some(world.now_ms()));
    assert_eq!(code(world.ledger.launch(world.tenant, campaign.id, None).await), "already-launched");
}

pub(crate) async fn a_campaign_without_recipients_is_not_launched(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let (empty, phones) = (world.list("empty").await, world.list_of("phones", &[phone("+33600000001")]).await);
    let id = world.drafted(&to(&[empty, phones])).await.id;
    assert_eq!(code(world.ledger.launch(world.tenant, id, None).await), "audience-empty");
    assert_eq!(world.ledger.campaign(world.tenant, id).await.unwrap().state, CampaignState::Draft);
    world.add(empty, &crowd(1)).await;
    world.ledger.launch(world.tenant, id, None).await.unwrap();
}

pub(crate) async fn a_campaign_past_its_end_is_not_launched(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(1)).await;
    let id = world.drafted(&to(&[list]).not_after(world.now_ms() + 10)).await.id;
    world.clock.advance(10);
    assert_eq!(code(world.ledger.launch(world.tenant, id, None).await), "campaign-expired");
}

pub(crate) async fn a_campaign_is_not_launched_during_an_upload(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let lists = [world.list_of("one", &crowd(1)).await, world.list("two").await];
    let id = world.drafted(&to(&lists)).await.id;
    let mut upload = world.upload(lists[1]).await;
    upload.store(&crowd(3)).await;
    assert_eq!(code(world.ledger.launch(world.tenant, id, None).await), "import-running");
    upload.complete().await;
    world.ledger.launch(world.tenant, id, None).await.unwrap();
}

pub(crate) async fn a_campaign_waits_for_its_moment(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(1)).await;
    let sending = world.launched(&to(&[list]).not_before(world.now_ms() + 100)).await;
    let state = async || world.ledger.campaign(world.tenant, sending.id).await.unwrap().state;
    assert_eq!(state().await, CampaignState::Scheduled);
    assert_eq!(world.ledger.expand(sending.id, 10, world.now_ms()).await.unwrap(), 0);
    world.ledger.pause(world.tenant, sending.id, "operator").await.unwrap();
    world.ledger.resume(world.tenant, sending.id).await.unwrap();
    assert_eq!(state().await, CampaignState::Scheduled, "a pause does not begin it early");
    world.clock.advance(99);
    assert_eq!(world.ledger.start_due(world.now_ms()).await.unwrap(), 0);
    world.clock.advance(1);
    assert_eq!(world.ledger.start_due(world.now_ms()).await.unwrap(), 1);
    assert_eq!(state().await, CampaignState::Running);
    assert_eq!(world.ledger.start_due(world.now_ms()).await.unwrap(), 0);
    sending.expand_all(10).await;
    sending.claim_all(&[0]).await;
}

pub(crate) async fn another_tenant_sees_nothing(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(1)).await;
    let (source, id) = (world.source, world.running(&to(&[list])).await.id);
    world.become_tenant("second").await;
    let (ledger, tenant) = (&world.ledger, world.tenant);
    let not_found = |refused: Option<LedgerError>| matches!(refused, Some(LedgerError::NotFound(_)));
    assert!(not_found(ledger.campaign(tenant, id).await.err()));
    assert!(not_found(ledger.launch(tenant, id, None).await.err()));
    assert!(not_found(ledger.pause(tenant, id, "operator").await.err()));
    assert!(not_found(ledger.resume(tenant, id).await.err()));
    assert!(not_found(ledger.cancel(tenant, id).await.err()));
    assert!(not_found(ledger.progress(tenant, id).await.err()));
    assert!(not_found(ledger.recipients(tenant, id, RecipientFilter { limit: 1, ..Default::default() }).await.err()));
    assert!(not_found(ledger.retry(tenant, id, &Retry::default()).await.err()));
    assert!(not_found(ledger.list(tenant, list).await.err()));
    let (new, content) = (to(&[list]).new_campaign(), content(Channel::Email));
    assert!(not_found(ledger.create_campaign(tenant, &new, &content, ACCOUNT, None).await.err()));
    let stolen = dispatch_schemas::api::lists::NewList { name: "stolen".to_owned(), source };
    assert!(not_found(ledger.create_list(tenant, &stolen, None).await.err()));
    assert!(ledger.campaigns(tenant, None, 10).await.unwrap().is_empty());
    assert!(ledger.lists(tenant).await.unwrap().is_empty());
}
