//! A provider asks one worker to wait.

use dispatch_tests::support::wait;

use crate::fleet::{Fleet, WITHIN};

/// What the sandbox asks for (`Retry-After: 1`), milliseconds.
const ASKED_MS: i64 = 1_000;
/// How long it may take until all have heard of it: who was asked writes it down, the others look ten times a second.
const HEARD_WITHIN_MS: i64 = 500;
const WAITS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_one_worker_is_asked_for_holds_all_of_them() {
    let fleet = Fleet::at_work(300, 300 * 60, "throttle=0.02").await;
    let waits = || {
        let lines = fleet.stage.sandbox.lines();
        let asked: Vec<i64> = lines.iter().filter(|line| line.mode == "throttle").map(|line| line.t_ms).collect();
        (lines, asked)
    };
    let (lines, asked) = wait::until("workers were asked to wait, and it is over", WITHIN, async || {
        let (lines, asked) = waits();
        let is_over = asked.get(WAITS - 1).is_some_and(|asked_ms| wait::now_ms() > asked_ms + 2 * ASKED_MS);
        is_over.then_some((lines, asked))
    })
    .await;
    let (mut held, mut others, held_up_ms) = (0, 0, fleet.machine.held_up_ms());
    for asked_ms in asked.iter().take(WAITS) {
        let silence = asked_ms + HEARD_WITHIN_MS + 2 * held_up_ms..asked_ms + ASKED_MS;
        held += lines.iter().filter(|line| silence.contains(&line.t_ms)).count();
        others += lines.iter().filter(|line| (asked_ms - ASKED_MS..*asked_ms).contains(&line.t_ms)).count();
    }
    assert!(others > 0, "they were at work before");
    assert_eq!(held, 0, "requests while all should wait, {asked:?}");
    for worker in 0..3 {
        assert!(fleet.sent_by(worker).await > 0.0, "worker {worker} has not sent anything");
    }
    fleet.end().await;
}
