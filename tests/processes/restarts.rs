//! A new version is rolled out while campaigns run.

use dispatch_schemas::states::DeliveryState;
use dispatch_tests::support::{checker::Faults, given_services::GivenServices, people::People, stage::Account};

use crate::fleet::{Fleet, Ground, ROLES};

/// How many are still to be sent to when the last process has started again, at least.
const LEFT: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_every_process_one_by_one_leaves_no_unknown_outcome() {
    const RECIPIENTS: usize = 4_000;
    let given = GivenServices::new().await;
    let account = Account { batch: 10, per_second: Some(100), ..Account::new("sendgrid") };
    let ground = Ground::new(&[account], &given.ledger_url(None), &given.queue_url());
    let mut fleet = Fleet::at_work(ground, &ROLES).await;
    let campaign = fleet.launch(People::by_email("reader", RECIPIENTS), "sendgrid").await;
    fleet.accepted(50).await;
    for nth in 0..ROLES.len() {
        let before = fleet.ground.stage.sandbox.accepted();
        fleet.restart(nth).await;
        let look = fleet.look(campaign).await;
        for state in [DeliveryState::Unknown, DeliveryState::UnknownFinal] {
            assert_eq!(look.count(state), 0, "after the restart of process {nth}: {look:?}");
        }
        // It goes on with the new one.
        fleet.accepted(before + 20).await;
    }
    let sent = fleet.ground.stage.sandbox.accepted();
    assert!(sent + LEFT < RECIPIENTS, "all were restarted during the campaign: {sent} sent");
    // What is left would take its time.
    fleet.post(0, &format!("/v1/campaigns/{campaign}/cancel"), "{}").await;
    let end = fleet.ended(campaign).await;
    let (accepted, stopped) = (end.count(DeliveryState::Accepted), end.count(DeliveryState::Stopped));
    assert_eq!(accepted + stopped, i64::try_from(RECIPIENTS).unwrap(), "{end:?}");
    assert!(fleet.window.recovered().await.is_empty(), "each acceptance is known by its answer");
    assert_eq!(fleet.faults(&[campaign]).await, Faults::default());
    fleet.end().await;
}
