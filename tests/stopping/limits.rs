//! No second of a run holds more than its limit.

use dispatch_schemas::{
    api::{campaigns::StallReason, limits::Windows},
    states::DeliveryState,
};
use dispatch_tests::support::{people::People, platform::count, sandbox::accepted_in, stage::Account};
use dispatch_workers::sandbox::witness::WitnessLine;

use crate::rig::Rig;

const PER_SECOND: u32 = 200;

/// The most messages accepted in any second, wherever it begins.
fn busiest_second(lines: &[WitnessLine]) -> usize {
    let mut times: Vec<(i64, usize)> = lines.iter().map(|line| (line.t_ms, accepted_in(line))).collect();
    times.sort_unstable();
    let (mut busiest, mut inside, mut first) = (0, 0, 0);
    for (at, accepted) in &times {
        inside += accepted;
        while times[first].0 <= at - 1_000 {
            inside -= times[first].1;
            first += 1;
        }
        busiest = busiest.max(inside);
    }
    busiest
}

#[test]
fn the_busiest_second_is_found_wherever_it_begins() {
    let line = |t_ms, accepted: usize| WitnessLine {
        seq: 0,
        t_ms,
        provider: "smtp".into(),
        token: None,
        batch_key: None,
        mode: "ok".into(),
        status: 250,
        recipients: vec![
            dispatch_workers::sandbox::witness::WitnessRecipient {
                key: None,
                to: String::new(),
                verdict: dispatch_workers::sandbox::witness::WitnessVerdict::Accepted,
            };
            accepted
        ],
    };
    assert_eq!(busiest_second(&[]), 0);
    assert_eq!(busiest_second(&[line(0, 1), line(900, 2), line(1_100, 3), line(1_899, 1), line(1_900, 9)]), 13);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_second_holds_more_than_an_accounts_limit_whoever_sends() {
    for (kind, batch) in [("smtp", 1), ("sendgrid", 5)] {
        let rig = Rig::new(&[Account { batch, per_second: Some(PER_SECOND), ..Account::new(kind) }]).await;
        let first = rig.launch(People::by_email("first", 500), kind).await;
        let second = rig.launch(People::by_email("second", 500), kind).await;
        for campaign in [first, second] {
            assert_eq!(count(&rig.completed(campaign).await, DeliveryState::Accepted), 500);
        }
        let busiest = busiest_second(&rig.stage.sandbox.lines());
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
