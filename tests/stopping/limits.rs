//! No second of a run holds more than its limit.

use dispatch_schemas::{
    api::limits::Windows,
    states::{Channel, DeliveryState, StallReason, StopReason},
};
use dispatch_tests::support::{checker::busiest, people::People, platform::count, stage::Account};

use crate::rig::Rig;

const PER_SECOND: u32 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_second_holds_more_than_an_accounts_limit_whoever_sends() {
    for (kind, batch) in [("smtp", 1), ("sendgrid", 5)] {
        let rig = Rig::new(&[Account { batch, per_second: Some(PER_SECOND), ..Account::new(kind) }]).await;
        let first = rig.launch(People::by_email("first", 500), kind).await;
        let second = rig.launch(People::by_email("second", 500), kind).await;
        for campaign in [first, second] {
            assert_eq!(count(&rig.completed(campaign).await, DeliveryState::Accepted), 500);
        }
        let busiest = busiest(&rig.stage.sandbox.lines(), 1_000);
        eprintln!("{kind}: {busiest} in the busiest second");
        assert!(busiest <= PER_SECOND as usize, "{kind}: {busiest} in a second");
        rig.engine.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_that_waits_for_its_recipients_domain_is_said_to_wait_for_a_limit() {
    let few = Windows { per_hour: Some(3), ..Windows::default() };
    let rig = Rig::with(&[Account::new("smtp")], |settings| {
        settings.limits.domains.insert("people.example".to_owned(), few);
    })
    .await;
    let campaign = rig.launch(People::by_email("customer", 20), "smtp").await;
    rig.accepted(3).await;
    rig.stalled(campaign, StallReason::Limit).await;
    let progress = rig.platform.progress(campaign).await;
    assert_eq!(count(&progress, DeliveryState::Accepted), 3, "{:?}", progress.states);
    rig.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_be_written_to_takes_none_of_a_domains_limit() {
    let few = Windows { per_day: Some(3), ..Windows::default() };
    let rig = Rig::with(&[Account::new("smtp")], |settings| {
        settings.limits.domains.insert("people.example".to_owned(), few);
    })
    .await;
    let refusing = People::by_email("refusing", 3);
    let to_nobody = rig.platform.campaign_to(refusing, "smtp", |_| {}).await;
    for number in 0..refusing.count {
        let hash = rig.platform.address_hash(Channel::Email, &refusing.address(number)).await;
        let (ledger, tenant) = (rig.platform.ledger(), rig.platform.tenant);
        ledger.close_gates(tenant, Channel::Email, &[hash], StopReason::Suppressed).await.expect("the gate closes");
    }
    rig.go(to_nobody).await;
    assert_eq!(count(&rig.completed(to_nobody).await, DeliveryState::Stopped), 3);
    let campaign = rig.launch(People::by_email("customer", 3), "smtp").await;
    assert_eq!(count(&rig.completed(campaign).await, DeliveryState::Accepted), 3);
    rig.engine.drain().await;
}
