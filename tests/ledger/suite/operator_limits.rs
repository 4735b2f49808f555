//! Limits that are changed while the engine runs.

use dispatch_engine::ledger::LimitTarget;
use dispatch_schemas::api::limits::Windows;

use super::{
    Fixture,
    launching::code,
    people::crowd,
    sending::to,
    world::{START_MS, World},
};

fn account(name: &str) -> LimitTarget {
    LimitTarget::Account(name.to_owned())
}

fn a_second(most: u32) -> Windows {
    Windows { per_second: Some(most), ..Windows::default() }
}

impl World {
    /// What operators limit, and how.
    async fn set(&self) -> Vec<(LimitTarget, Windows)> {
        let set = self.ledger.operator_limits().await.unwrap();
        set.into_iter().map(|limit| (limit.of, limit.limits)).collect()
    }
}

pub(crate) async fn an_operators_limits_are_kept_in_place_of_the_ones_before(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    assert_eq!(world.set().await, []);
    let domain = LimitTarget::Domain("people.example".to_owned());
    for (of, windows) in [(&domain, a_second(7)), (&account("main"), a_second(5)), (&account("main"), a_second(9))] {
        world.ledger.set_operator_limit(of, windows).await.unwrap();
    }
    // No window is no limit, which is not the same as none that was set.
    world.ledger.set_operator_limit(&account("another"), Windows::default()).await.unwrap();
    let all = [(account("another"), Windows::default()), (account("main"), a_second(9)), (domain.clone(), a_second(7))];
    assert_eq!(world.set().await, all, "by kind and name");
    assert_eq!(world.ledger.operator_limits().await.unwrap()[0].set_at.as_ms(), START_MS);

    // The same name of another kind is another limit.
    assert!(!world.ledger.clear_operator_limit(&LimitTarget::Domain("main".to_owned())).await.unwrap());
    assert!(world.ledger.clear_operator_limit(&account("main")).await.unwrap());
    assert!(!world.ledger.clear_operator_limit(&account("main")).await.unwrap());
    assert_eq!(world.set().await, [all[0].clone(), all[2].clone()]);
}

pub(crate) async fn an_operators_limits_are_there_when_the_ledger_reopens(fixture: &dyn Fixture) {
    let world = World::new(fixture).await;
    let country = LimitTarget::Country("FR".to_owned());
    world.ledger.set_operator_limit(&country, a_second(0)).await.unwrap();
    let world = world.reopened().await;
    assert_eq!(world.set().await, [(country, a_second(0))]);
}

pub(crate) async fn a_campaigns_limits_hold_for_the_next_plan_until_it_is_cancelled(fixture: &dyn Fixture) {
    let mut world = World::new(fixture).await;
    let list = world.list_of("crowd", &crowd(1)).await;
    let campaign = world.running(&to(&[list])).await.id;
    let (owner, ledger) = (world.tenant, world.ledger.clone());
    let set = ledger.set_campaign_limits(owner, campaign, a_second(3)).await.unwrap();
    assert_eq!((set.id, set.limits), (campaign, a_second(3)));
    assert_eq!(ledger.brief(campaign).await.unwrap().unwrap().limits, a_second(3));
    world.become_tenant("second").await;
    let foreign = ledger.set_campaign_limits(world.tenant, campaign, a_second(1)).await;
    assert!(matches!(foreign, Err(dispatch_engine::ledger::LedgerError::NotFound(_))), "{foreign:?}");
    ledger.cancel(owner, campaign).await.unwrap();
    assert_eq!(code(ledger.set_campaign_limits(owner, campaign, a_second(4)).await), "campaign-state");
    assert_eq!(ledger.campaign(owner, campaign).await.unwrap().limits, a_second(3));
}
