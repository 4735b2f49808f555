//! Rows in which no process of ours dies: a connection does, or the broker's memory, or a worker stands still.

use dispatch_schemas::states::DeliveryState;
use dispatch_tests::support::{
    fault_proxy::{FaultProxy, Network},
    wait,
};

use crate::{
    doubt::{Doubt, judge},
    playing::{PRODUCTION, borrowed, goes_on, messages, patience, row},
    scene::{Part, Play, RECIPIENTS, Scene, WITHIN},
};

row!(
    /// K6
    k6_commit_in_doubt, PRODUCTION, commit_in_doubt
);

async fn commit_in_doubt(play: Play) {
    let patient = patience(play.kind);
    let scene = Scene::set(play, "accept_slow=1", &borrowed(&patient)).await;
    let _scheduler = scene.start_other(Part::Worker).await;
    let services = scene.services.as_ref().unwrap();
    let proxy = FaultProxy::before(services.ledger_address()).await;
    let through = services.ledger_url(Some(proxy.address().port()));
    let worker = scene.start(Part::Worker, &[("DISPATCH_LEDGER__URL", &through)]).await;
    scene.until_accepted(1).await;
    proxy.set(Network::LosesAnswersTo(b"COMMIT"));
    scene.stage.sandbox.set_faults("").await;
    let taken = scene.taken().len();
    wait::until("the ledger has what the worker cannot know it has", WITHIN, async || {
        (proxy.done() > 0 && scene.count(DeliveryState::Accepted).await >= taken).then_some(())
    })
    .await;
    proxy.set(Network::Works);
    scene.settled().await;
    assert!(worker.terminate().success());
    judge(&scene, &Doubt::default(), RECIPIENTS).await;
}

row!(
    /// K17
    k17_the_broker_loses_everything, PRODUCTION, broker_loses_everything
);

async fn broker_loses_everything(play: Play) {
    let scene = Scene::set(play, "", &[]).await;
    let services = scene.services.as_ref().unwrap();
    let _scheduler = scene.start(Part::Scheduler, &[]).await;
    services.holds(scene.channel(), messages(play)).await;
    services.broker_loses_everything().await;
    services.holds(scene.channel(), messages(play)).await;
    goes_on(&scene, &Doubt::default(), Part::Worker, &[]).await;
}

row!(
    /// K20
    k20_frozen_while_it_waits_for_an_answer, PRODUCTION, frozen
);

async fn frozen(play: Play) {
    let scene = Scene::set(play, "accept_slow=1", &PATIENT_SCHEDULER).await;
    let _scheduler = scene.start_other(Part::Worker).await;
    let patient = patience(play.kind);
    let worker = scene.start(Part::Worker, &borrowed(&patient)).await;
    scene.until_accepted(1).await;
    worker.freeze();
    let claimed = Doubt::left_claimed(&scene).await;
    scene.stage.sandbox.set_faults("").await;
    wait::until("the scheduler gives the worker up", WITHIN, async || {
        (scene.count(DeliveryState::Claimed).await == 0).then_some(())
    })
    .await;
    worker.thaw();
    // What it was answered is proof however late it comes; what it had not sent yet it may not send any more.
    let doubt = claimed.clone().without(&claimed.taken);
    scene.settled().await;
    assert!(worker.terminate().success());
    judge(&scene, &doubt, RECIPIENTS).await;
}

/// Leaves a worker the time to tell what it knows before a policy decides.
const PATIENT_SCHEDULER: [(&str, &str); 2] =
    [("DISPATCH_TIMING__PROVIDER_LAG_MS", "4000"), ("DISPATCH_TIMING__EVIDENCE_WINDOW_MS", "7000")];
