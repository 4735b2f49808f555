//! Workers die.

use dispatch_tests::support::wait;

use crate::{
    arrivals::{busiest_second, moment_of, print_seconds, within},
    fleet::{Fleet, WITHIN},
};

const PER_SECOND: u32 = 500;
const LIMIT: usize = PER_SECOND as usize;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: half a minute in which five processes want the machine for themselves"]
async fn three_workers_use_their_limit_and_never_pass_it_while_one_is_killed_and_started_again() {
    const SECONDS: usize = 24;
    let mut fleet = Fleet::at_work(PER_SECOND, LIMIT * SECONDS, "").await;
    let begun_ms = wait::now_ms();
    let before = fleet.stage.sandbox.accepted();
    fleet.until(begun_ms + 5_000).await;
    eprintln!("each has sent {:?}", [fleet.sent_by(0).await, fleet.sent_by(1).await, fleet.sent_by(2).await]);
    fleet.kill(1);
    let killed_ms = wait::now_ms();
    fleet.until(killed_ms + 2_000).await;
    fleet.start_again(1);
    // The last ones may be somebody's to settle who died with them.
    let last = LIMIT * (SECONDS - 1);
    fleet.accepted(last).await;
    let ended_ms = moment_of(&fleet.stage.sandbox.lines(), last);
    let lines = fleet.stage.sandbox.lines();
    print_seconds(&lines, begun_ms, ended_ms);
    eprintln!("killed {} ms after the begin; {} requests", killed_ms - begun_ms, lines.len());
    let busiest = busiest_second(&lines, 0, i64::MAX, fleet.machine.held_up_ms());
    let used = within(&lines, begun_ms, ended_ms);
    let span_ms = usize::try_from(ended_ms - begun_ms).unwrap();
    eprintln!("{used} in {span_ms} ms: {:.1} % of the limit", used as f64 * 100_000.0 / (LIMIT * span_ms) as f64);
    assert!(before < last && span_ms > 10_000, "it lasted");
    assert!(busiest <= LIMIT, "{busiest} in a second");
    assert!(used * 1_000 * 100 >= LIMIT * span_ms * 95, "{used} in {span_ms} ms");
    for worker in 0..3 {
        wait::until("each of them has sent", WITHIN, async || (fleet.sent_by(worker).await > 0.0).then_some(())).await;
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_die_again_and_again_never_pass_the_limit_together() {
    const FEW_PER_SECOND: u32 = 200;
    let few = FEW_PER_SECOND as usize;
    let mut fleet = Fleet::at_work(FEW_PER_SECOND, few * 60, "").await;
    for _ in 0..6 {
        (0..3).for_each(|worker| fleet.kill(worker));
        (0..3).for_each(|worker| fleet.start_again(worker));
        // They die as soon as they have begun to send.
        fleet.accepted(fleet.stage.sandbox.accepted() + few / 4).await;
    }
    let lines = fleet.stage.sandbox.lines();
    print_seconds(&lines, moment_of(&lines, 1), wait::now_ms());
    let busiest = busiest_second(&lines, 0, i64::MAX, fleet.machine.held_up_ms());
    assert!(busiest <= few, "{busiest} in a second");
    fleet.end().await;
}
