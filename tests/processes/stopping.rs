//! Pause and cancel, asked of one process, hold for the workers of all.

use std::collections::HashSet;

use dispatch_schemas::{
    ids::CampaignId,
    states::{DeliveryState, StallReason},
};
use dispatch_tests::support::{
    checker::{self, BehindGates, Closing, Faults},
    given_services::GivenServices,
    people::People,
    sandbox::{accepted_in, name_of},
    stage::Account,
    wait,
};

use crate::fleet::{Fleet, Ground, ROLES, WITHIN};

const RECIPIENTS: usize = 4_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_and_a_cancel_stop_three_workers_from_the_answer_on() {
    let given = GivenServices::new().await;
    // Some answers are late, so that there is something in flight whenever it is stopped.
    let account = Account { batch: 10, per_second: Some(300), requests_open: 8, ..Account::new("sendgrid") };
    let ground = Ground::new(&[account], &given.ledger_url(None), &given.queue_url());
    let fleet = Fleet::at_work(ground, &ROLES).await;
    let people = People::by_email("reader", RECIPIENTS);
    let names: HashSet<String> = (0..RECIPIENTS).map(|number| name_of(&people.address(number))).collect();
    let campaign = fleet.launch(people, "sendgrid").await;
    for worker in 2..ROLES.len() {
        wait::until("each worker sends", WITHIN, async || (fleet.sent_by(worker).await > 20.0).then_some(())).await;
    }

    let mut paused = stopped(&fleet, 0, campaign, "pause", &names).await;
    fleet.until(paused.from_ms + 2_500).await;
    let so_far = fleet.ground.stage.sandbox.accepted();
    assert!(so_far < RECIPIENTS, "it was paused in the middle");
    paused.until_ms = Some(wait::now_ms());
    fleet.post(1, &format!("/v1/campaigns/{campaign}/resume"), "{}").await;
    fleet.accepted(so_far + 500).await;

    // Of the other process this time.
    let cancelled = stopped(&fleet, 1, campaign, "cancel", &names).await;
    let end = fleet.ended(campaign).await;
    fleet.until(cancelled.from_ms + 2_500).await;
    let (accepted, stopped) = (end.count(DeliveryState::Accepted), end.count(DeliveryState::Stopped));
    assert!(accepted + stopped == RECIPIENTS as i64 && stopped > 0, "{end:?}");

    let lines = fleet.ground.stage.sandbox.lines();
    let closings = [paused, cancelled];
    let BehindGates { begun_after, late, announced } = checker::behind(&closings, &lines, &fleet.claims().await);
    let in_flight: Vec<u64> = closings.iter().map(|closing| closing.in_flight).collect();
    eprintln!("in flight by the answers {in_flight:?}, and of those arrived afterwards: {announced}");
    assert_eq!((begun_after, late), (vec![], vec![]), "nothing but what the answers said");
    for closing in &closings {
        let until_ms = closing.until_ms.unwrap_or(i64::MAX);
        let second_later = lines.iter().filter(|line| (closing.from_ms + 1_000..until_ms).contains(&line.t_ms));
        assert_eq!(second_later.map(accepted_in).sum::<usize>(), 0, "a second after the {}", closing.what);
    }
    assert_eq!(fleet.faults(&[campaign]).await, Faults::default());
    fleet.end().await;
}

/// Stops a campaign by a call to one of the processes.
async fn stopped(
    fleet: &Fleet,
    nth: usize,
    campaign: CampaignId,
    what: &'static str,
    people: &HashSet<String>,
) -> Closing {
    let answer = fleet.post(nth, &format!("/v1/campaigns/{campaign}/{what}"), "{}").await;
    let in_flight = answer["in_flight"].as_u64().expect("the answer says how many are on their way");
    Closing { what, people: people.clone(), from_ms: wait::now_ms(), until_ms: None, in_flight }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_does_not_schedule_says_why_a_campaign_does_not_move() {
    let given = GivenServices::new().await;
    let ground = Ground::new(&[Account::new("sendgrid")], &given.ledger_url(None), &given.queue_url());
    let fleet = Fleet::at_work(ground, &["api", "scheduler"]).await;
    let campaign = fleet.launch(People::by_email("reader", 10), "sendgrid").await;
    let path = format!("/v1/campaigns/{campaign}/progress");
    let reason = StallReason::NoWorker.as_str();
    wait::until("the reason is said", WITHIN, async || (fleet.get(0, &path).await["stall"] == reason).then_some(()))
        .await;
    let worker = fleet.ground.start(2, "worker");
    fleet.ended(campaign).await;
    assert!(fleet.get(0, &path).await["stall"].is_null());
    fleet.assert_everyone_once(&[campaign], 10).await;
    assert!(tokio::task::block_in_place(|| worker.terminate()).success());
    fleet.end().await;
}
