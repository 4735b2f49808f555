//! Calls with an Idempotency-Key: done once, answered alike.

use dispatch_engine::ledger::{ANSWERS_KEPT_MS, LedgerError, Once};
use dispatch_schemas::{
    api::{lists::NewList, templates::NewTemplate},
    states::Channel,
};

use super::{
    Fixture,
    people::crowd,
    sending::{ACCOUNT, content, to},
    world::World,
};

fn once(key: &str, body: u8) -> Once {
    Once { route: "POST /v1/things", key: key.to_owned(), fingerprint: [body; 32] }
}

impl World {
    fn new_list(&self, name: &str) -> NewList {
        NewList { name: name.to_owned(), source: self.source }
    }

    async fn list_names(&self) -> Vec<String> {
        self.ledger.lists(self.tenant).await.unwrap().into_iter().map(|list| list.name).collect()
    }
}

pub(crate) async fn a_repeated_call_gets_the_first_answer_and_does_nothing(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let (ledger, tenant, key) = (&world.ledger, world.tenant, once("k", 1));
    let first = ledger.create_list(tenant, &world.new_list("one"), Some(&key)).await.unwrap();
    world.clock.advance(1_000);
    let again = ledger.create_list(tenant, &world.new_list("one"), Some(&key)).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(again.value, first.value);
    assert_eq!(world.list_names().await, ["one"]);

    let (key, draft) = (once("campaign", 1), to(&[first.value.id]));
    let (new, content) = (draft.new_campaign(), content(Channel::Email));
    let first = ledger.create_campaign(tenant, &new, &content, ACCOUNT, Some(&key)).await.unwrap().value;
    let again = ledger.create_campaign(tenant, &new, &content, ACCOUNT, Some(&key)).await.unwrap().value;
    assert_eq!(first, again);
    assert_eq!(ledger.campaigns(tenant, None, 10).await.unwrap().len(), 1);
}

pub(crate) async fn a_key_used_for_another_request_is_refused(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let (ledger, tenant) = (&world.ledger, world.tenant);
    ledger.create_list(tenant, &world.new_list("one"), Some(&once("k", 1))).await.unwrap();
    let refused = ledger.create_list(tenant, &world.new_list("two"), Some(&once("k", 2))).await;
    assert!(matches!(refused, Err(LedgerError::KeyReused)));
    assert_eq!(world.list_names().await, ["one"]);
}

pub(crate) async fn a_key_is_its_tenants_and_its_routes_own(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    world.ledger.create_list(world.tenant, &world.new_list("one"), Some(&once("k", 1))).await.unwrap();
    let elsewhere = Once { route: "POST /v1/other", ..once("k", 2) };
    world.ledger.create_list(world.tenant, &world.new_list("two"), Some(&elsewhere)).await.unwrap();
    world.become_tenant("second").await;
    let made = world.ledger.create_list(world.tenant, &world.new_list("one"), Some(&once("k", 3))).await.unwrap();
    assert!(!made.replayed);
}

pub(crate) async fn a_refused_call_leaves_its_key_unused(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    world.list("one").await;
    let refused = world.ledger.create_list(world.tenant, &world.new_list("one"), Some(&once("k", 1))).await;
    assert!(matches!(refused, Err(LedgerError::Conflict { code: "name-taken", .. })));
    let made = world.ledger.create_list(world.tenant, &world.new_list("two"), Some(&once("k", 2))).await.unwrap();
    assert!(!made.replayed);
}

pub(crate) async fn an_old_answer_is_forgotten(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let (ledger, tenant) = (&world.ledger, world.tenant);
    ledger.create_list(tenant, &world.new_list("one"), Some(&once("k", 1))).await.unwrap();
    world.clock.advance(ANSWERS_KEPT_MS - 1);
    assert!(ledger.create_list(tenant, &world.new_list("one"), Some(&once("k", 1))).await.unwrap().replayed);
    assert_eq!(ledger.forget_old_answers(world.now_ms() - ANSWERS_KEPT_MS).await.unwrap(), 0);
    world.clock.advance(2);
    let made = ledger.create_list(tenant, &world.new_list("two"), Some(&once("k", 2))).await.unwrap();
    assert!(!made.replayed, "after a day a key may be used again");
    world.clock.advance(ANSWERS_KEPT_MS + 1);
    assert_eq!(ledger.forget_old_answers(world.now_ms() - ANSWERS_KEPT_MS).await.unwrap(), 1);
}

pub(crate) async fn a_launch_is_repeated_with_its_first_answer(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(1)).await;
    let id = world.drafted(&to(&[list])).await.id;
    let key = once("launch", 1);
    let first = world.ledger.launch(world.tenant, id, Some(&key)).await.unwrap();
    world.ledger.pause(world.tenant, id, "operator").await.unwrap();
    let again = world.ledger.launch(world.tenant, id, Some(&key)).await.unwrap();
    assert!(again.replayed && again.value == first.value);
    assert!(world.ledger.launch(world.tenant, id, None).await.is_err());
}

pub(crate) async fn names_are_taken_once(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    let template = NewTemplate { name: "spring".to_owned(), source: content(Channel::Email) };
    let stored = world.ledger.create_template(world.tenant, &template, None).await.unwrap().value;
    let taken = world.ledger.create_template(world.tenant, &template, None).await;
    assert!(matches!(taken, Err(LedgerError::Conflict { code: "name-taken", .. })));
    assert_eq!(world.ledger.templates(world.tenant).await.unwrap(), std::slice::from_ref(&stored));
    assert_eq!(world.ledger.template(world.tenant, stored.id).await.unwrap(), stored);
    world.become_tenant("second").await;
    assert!(matches!(world.ledger.template(world.tenant, stored.id).await, Err(LedgerError::NotFound("template"))));
    world.ledger.create_template(world.tenant, &template, None).await.unwrap();
}
