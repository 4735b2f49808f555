//! Closing a tenant while its campaigns run.

use dispatch_engine::ledger::LedgerError;
use dispatch_schemas::states::{CampaignState, DeliveryState, StallReason};
use dispatch_tests::support::{
    checker::Faults,
    people::People,
    platform::{Platform, count},
    sandbox::{accepted_in, name_of},
    stage::Account,
    wait,
};

use crate::rig::{COMPLETES_WITHIN, Rig};

const RECIPIENTS: usize = 1_000;
/// A closing must be felt by then.
const FELT_WITHIN_MS: i64 = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_tenant_is_stopped_at_once_and_goes_on_without_loss_and_others_do_not_notice() {
    let rig = Rig::new(&[Account { batch: 10, per_minute: Some(60 * 400), ..Account::new("sendgrid") }]).await;
    let other = Platform::new(&rig.engine.opened, "other").await;
    let others = other.campaign_to(People::by_email("other", RECIPIENTS), "sendgrid", |_| {}).await;
    other.launch(others).await;
    rig.engine.campaign_changed(others);
    let people = People::by_email("customer", RECIPIENTS);
    let campaign = rig.launch(people, "sendgrid").await;
    let (ledger, tenant) = (rig.platform.ledger(), rig.platform.tenant);
    let names: Vec<String> = (0..RECIPIENTS).map(|number| name_of(&people.address(number))).collect();
    let written_to = || {
        let lines = rig.stage.sandbox.lines();
        let of_tenant = |line: &&_| -> bool {
            let line: &dispatch_workers::sandbox::witness::WitnessLine = line;
            line.recipients.iter().any(|recipient| names.contains(&recipient.to))
        };
        lines.iter().filter(of_tenant).map(|line| (line.t_ms, accepted_in(line) as u64)).collect::<Vec<_>>()
    };
    // Once by the engine's own operator, once by another process, of which this one is not told.
    for turn in 1..=2 {
        wait::until("the tenant's campaign is under way", COMPLETES_WITHIN, async || {
            (written_to().iter().map(|(_, accepted)| accepted).sum::<u64>() >= turn * RECIPIENTS as u64 / 4)
                .then_some(())
        })
        .await;
        let closed = ledger.close_tenant(tenant, "unpaid").await.expect("it can be closed");
        if turn == 1 {
            rig.engine.tenant_changed(tenant);
        }
        let answered_ms = wait::now_ms();
        rig.stalled(campaign, StallReason::Gate).await;
        wait::until("a while has passed", COMPLETES_WITHIN, async || {
            (wait::now_ms() > answered_ms + FELT_WITHIN_MS + 500).then_some(())
        })
        .await;
        rig.nothing_in_flight(campaign).await;
        let after: Vec<_> = written_to().into_iter().filter(|(at_ms, _)| *at_ms > answered_ms).collect();
        let late: u64 = after.iter().map(|(_, accepted)| accepted).sum();
        assert!(late <= closed.in_flight, "{late} after the answer, which reported {}", closed.in_flight);
        assert!(after.iter().all(|(at_ms, _)| *at_ms <= answered_ms + FELT_WITHIN_MS));
        let progress = rig.platform.progress(campaign).await;
        assert_eq!(progress.state, CampaignState::Running);
        assert!(count(&progress, DeliveryState::Ready) > 0, "it was closed in the middle");
        let refused = ledger.launch(tenant, campaign, None).await;
        assert!(matches!(refused, Err(LedgerError::TenantClosed { .. })), "{refused:?}");

        ledger.open_tenant(tenant).await.expect("it can be opened");
        if turn == 1 {
            rig.engine.tenant_changed(tenant);
        }
    }
    let end = rig.completed(campaign).await;
    assert_eq!(count(&end, DeliveryState::Accepted), RECIPIENTS as u64, "{:?}", end.states);
    let theirs = wait::until("the other's completes", COMPLETES_WITHIN, async || other.completed(others).await).await;
    assert_eq!(count(&theirs, DeliveryState::Accepted), RECIPIENTS as u64);
    let report = rig.check(&[campaign]).await;
    // The other tenant's are not in these books.
    assert_eq!(report.faults, Faults { unexpected: report.faults.unexpected.clone(), ..Faults::default() });
    rig.engine.drain().await;
}
