//! Limits change while three workers send.

use dispatch_tests::support::wait;

use crate::{
    arrivals::{busiest_second, within},
    fleet::{ACCOUNT, Fleet},
};

/// A changed limit holds from then on, milliseconds after whoever changed it was told so.
const HOLDS_WITHIN_MS: i64 = 1_000;
/// How long it is looked at.
const LOOKED_AT_MS: i64 = 3_000;

/// Nothing passes the limit, and whoever waited for a higher one has heard of it: it is used, or at least half of it.
async fn holds(fleet: &Fleet, limit: usize) {
    let from_ms = wait::now_ms() + HOLDS_WITHIN_MS;
    fleet.until(from_ms + LOOKED_AT_MS).await;
    let lines = fleet.stage.sandbox.lines();
    let busiest = busiest_second(&lines, from_ms, from_ms + LOOKED_AT_MS, fleet.machine.held_up_ms());
    assert!(busiest <= limit, "{busiest} in a second, the limit is {limit}");
    let used = within(&lines, from_ms, from_ms + LOOKED_AT_MS);
    eprintln!("{used} in {LOOKED_AT_MS} ms, the limit is {limit} a second");
    assert!(used * 1_000 * 2 > limit * usize::try_from(LOOKED_AT_MS).unwrap(), "{used} of {limit} a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_limit_holds_within_a_second_for_all_workers() {
    let fleet = Fleet::at_work(400, 400 * 30, "").await;
    fleet.limits(&["set", "account", ACCOUNT, "--per-second", "100"]).await;
    holds(&fleet, 100).await;
    fleet.limits(&["set", "account", ACCOUNT, "--per-second", "300"]).await;
    holds(&fleet, 300).await;
    let campaign = format!("/v1/campaigns/{}/limits", fleet.campaign);
    fleet.put(&campaign, r#"{"per_second": 60}"#).await;
    holds(&fleet, 60).await;
    fleet.put("/v1/limits", r#"{"per_second": 30}"#).await;
    holds(&fleet, 30).await;
    fleet.put("/v1/limits", "{}").await;
    fleet.put(&campaign, "{}").await;
    holds(&fleet, 300).await;
    fleet.limits(&["clear", "account", ACCOUNT]).await;
    holds(&fleet, 400).await;
    for worker in 0..3 {
        assert!(fleet.sent_by(worker).await > 0.0, "worker {worker} has not sent anything");
    }
    fleet.end().await;
}
