//! Rows in which the scheduler dies, or the reconciler beside it.

use dispatch_schemas::states::{DeliveryState, UnknownPolicy};
use dispatch_tests::support::wait;
use dispatch_workers::abort::AbortPoint;

use crate::{
    doubt::{Doubt, judge},
    playing::{BOTH, PRODUCTION, goes_on, messages, row},
    scene::{Mode, Part, Play, RECIPIENTS, Scene, WITHIN},
};

row!(
    /// K8
    k8_found_out_and_not_written, BOTH, |play| scheduler_dies(play, AbortPoint::BeforeSettle, "accept_then_drop")
);
row!(
    /// K9
    k9_resend_decided_and_not_published, BOTH, |play| {
        // A relay that breaks off before it accepts leaves no doubt: nothing of the message was said yet.
        let way = if play.kind == "smtp" { "accept_then_drop" } else { "drop_before" };
        scheduler_dies(play, AbortPoint::AfterSettle, way)
    }
);

/// Some requests are broken off in a way, and the reconciler dies over them.
async fn scheduler_dies(play: Play, point: AbortPoint, way: &'static str) {
    let scene = Scene::set(play, &format!("{way}=1"), &[]).await;
    let _worker = scene.start_other(Part::Scheduler).await;
    tokio::join!(scene.dies(Part::Scheduler, point, 1, &[]), async {
        wait::until("a request is broken off", WITHIN, async || (!scene.hit_by(way).is_empty()).then_some(())).await;
        scene.stage.sandbox.set_faults("").await;
    });
    let mut doubt = Doubt::broken_off(&scene, way).await;
    assert!(!doubt.open.is_empty() && doubt.taken.is_empty() == (way == "drop_before"), "{doubt:?}");
    if play.mode == Mode::Embedded {
        doubt = doubt.and(Doubt::left_claimed(&scene).await);
    }
    let next = scene.start(Part::Scheduler, &[]).await;
    scene.settled().await;
    assert!(next.terminate().success());
    judge(&scene, &doubt, RECIPIENTS).await;
}

row!(
    /// K10, after the last chunk; between two of them is the test below.
    k10_recipients_found_and_nothing_published, BOTH, dies_after_expansion
);

async fn dies_after_expansion(play: Play) {
    let scene = Scene::set(play, "", &[]).await;
    let _worker = scene.start_other(Part::Scheduler).await;
    scene.dies(Part::Scheduler, AbortPoint::Expanded, 1, &[]).await;
    assert_eq!(scene.count(DeliveryState::Ready).await, RECIPIENTS);
    goes_on(&scene, &Doubt::default(), Part::Scheduler, &[]).await;
}

/// K10: more recipients than are found at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ten thousand recipients, twice"]
async fn k10_between_two_chunks_of_recipients() {
    const CHUNK: usize = 10_000;
    let recipients = CHUNK + 500;
    for mode in BOTH {
        let play = Play { kind: "sendgrid", mode: *mode, policy: UnknownPolicy::Verify };
        let scene = Scene::set_for(play, "", &[], recipients, 1_000).await;
        let _worker = scene.start_other(Part::Scheduler).await;
        scene.dies(Part::Scheduler, AbortPoint::Expanded, 1, &[]).await;
        assert_eq!(scene.count(DeliveryState::Ready).await, CHUNK);
        let next = scene.start(Part::Scheduler, &[]).await;
        scene.settled().await;
        assert!(next.terminate().success());
        judge(&scene, &Doubt::default(), recipients).await;
    }
}

row!(
    /// K11 in one process, whose queue dies with it.
    k11_published_to_itself, &[Mode::Embedded], |play| async move {
        let scene = Scene::set(play, "", &[]).await;
        scene.dies(Part::Scheduler, AbortPoint::Published, 1, &[]).await;
        let doubt = Doubt::left_claimed(&scene).await;
        goes_on(&scene, &doubt, Part::Scheduler, &[]).await;
    }
);
row!(
    /// K11: what was published is published again, and everybody is written to once.
    k11_published_and_not_noted, PRODUCTION, published_twice
);

async fn published_twice(play: Play) {
    let scene = Scene::set(play, "", &[]).await;
    let services = scene.services.as_ref().unwrap();
    let scheduler = scene.start(Part::Scheduler, &[]).await;
    services.holds(scene.channel(), messages(play)).await;
    scheduler.kill();
    let _scheduler = scene.start(Part::Scheduler, &[]).await;
    services.holds(scene.channel(), 2 * messages(play)).await;
    goes_on(&scene, &Doubt::default(), Part::Worker, &[]).await;
}
