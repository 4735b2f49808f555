//! Rows in which the worker dies.

use dispatch_tests::support::{
    fault_proxy::{FaultProxy, Network},
    wait,
};
use dispatch_workers::abort::AbortPoint;

use crate::{
    doubt::Doubt,
    playing::{BOTH, PRODUCTION, borrowed, goes_on, patience, row},
    scene::{Part, Play, Scene, WITHIN},
};

row!(
    /// K0
    k0_before_the_claim_is_committed, BOTH, |play| worker_dies(play, AbortPoint::BeforeClaim, |doubt| {
        assert!(doubt.open.is_empty(), "{doubt:?}");
    })
);
row!(
    /// K1
    k1_claimed_and_not_rendered, BOTH, |play| worker_dies(play, AbortPoint::AfterClaim, nothing_left)
);
row!(
    /// K1
    k1_rendered_and_no_byte_sent, BOTH, |play| worker_dies(play, AbortPoint::BeforeSend, |doubt| {
        // Earlier requests of the same claim may have been answered.
        assert!(doubt.open.len() > doubt.taken.len(), "{doubt:?}");
    })
);
row!(
    /// K4
    quick k4_answer_read_and_not_written, BOTH, |play| worker_dies(play, AbortPoint::AfterAnswer, accepted)
);
row!(
    /// K5 without a journal: what was answered is unknown, as in K4.
    k5_answer_read_and_no_journal, PRODUCTION, |play| worker_dies(play, AbortPoint::AfterJournal, accepted)
);
row!(
    /// K7
    k7_recorded_and_not_acknowledged, BOTH, |play| worker_dies(play, AbortPoint::AfterRecord, move |doubt| {
        // Those of a batch are recorded together; one by one, others may still be under way.
        assert!(play.kind == "smtp" || doubt.open.is_empty(), "{doubt:?}");
    })
);

fn nothing_left(doubt: &Doubt) {
    assert!(!doubt.open.is_empty() && doubt.taken.is_empty(), "{doubt:?}");
}

fn accepted(doubt: &Doubt) {
    assert!(!doubt.taken.is_empty(), "{doubt:?}");
}

/// The worker dies when it comes to a place for the second time, and another one goes on.
async fn worker_dies(play: Play, point: AbortPoint, left: impl Fn(&Doubt)) {
    let scene = Scene::set(play, "", &[]).await;
    let _scheduler = scene.start_other(Part::Worker).await;
    scene.dies(Part::Worker, point, 2, &[]).await;
    let doubt = Doubt::left_claimed(&scene).await;
    left(&doubt);
    goes_on(&scene, &doubt, Part::Worker, &[]).await;
}

row!(
    /// K2
    k2_on_the_wire_and_never_there, BOTH, held_on_the_wire
);

async fn held_on_the_wire(play: Play) {
    let scene = Scene::set(play, "", &[]).await;
    let _scheduler = scene.start_other(Part::Worker).await;
    let url: reqwest::Url = scene.stage.sandbox.url(play.kind).parse().unwrap();
    let provider = (url.host_str().unwrap(), url.port().unwrap());
    let provider = std::net::ToSocketAddrs::to_socket_addrs(&provider).unwrap().next().unwrap();
    let proxy = FaultProxy::before(provider).await;
    proxy.set(Network::HoldsBack(if play.kind == "smtp" { b"Subject: " } else { b"POST /" }));
    let through = format!("{}://{}", url.scheme(), proxy.address());
    let variable = format!("DISPATCH_PROVIDERS__{}__URL", play.kind.to_ascii_uppercase());
    let worker = scene.start(Part::Worker, &[(&variable, &through)]).await;
    wait::until("a request is on the wire", WITHIN, async || (proxy.done() > 0).then_some(())).await;
    worker.kill();
    proxy.set(Network::Down);
    let doubt = Doubt::left_claimed(&scene).await;
    nothing_left(&doubt);
    goes_on(&scene, &doubt, Part::Worker, &[]).await;
}

row!(
    /// K3
    k3_accepted_and_not_answered, BOTH, killed_before_the_answer
);

async fn killed_before_the_answer(play: Play) {
    let scene = Scene::set(play, "accept_slow=1", &[]).await;
    let _scheduler = scene.start_other(Part::Worker).await;
    let patient = patience(play.kind);
    let worker = scene.start(Part::Worker, &borrowed(&patient)).await;
    scene.until_accepted(1).await;
    worker.kill();
    let doubt = Doubt::left_claimed(&scene).await;
    accepted(&doubt);
    scene.stage.sandbox.set_faults("").await;
    goes_on(&scene, &doubt, Part::Worker, &[]).await;
}

row!(
    /// K5
    quick k5_in_the_journal_and_not_in_the_ledger, PRODUCTION, dies_with_its_journal
);

async fn dies_with_its_journal(play: Play) {
    let scene = Scene::set(play, "", &PATIENT).await;
    let _scheduler = scene.start_other(Part::Worker).await;
    let folder = scene.journal().display().to_string();
    let journal = [("DISPATCH_WORKERS__JOURNAL_FOLDER", folder.as_str())];
    scene.dies(Part::Worker, AbortPoint::AfterJournal, 2, &journal).await;
    let claimed = Doubt::left_claimed(&scene).await;
    let doubt = claimed.clone().without(&scene.journalled());
    assert!(claimed.taken.len() > doubt.taken.len(), "the journal knows some: {claimed:?} {doubt:?}");
    // A request of which the last words are in the journal leaves nothing in doubt that was accepted.
    assert!(doubt.taken.is_empty(), "{doubt:?}");
    goes_on(&scene, &doubt, Part::Worker, &journal).await;
}

/// Leaves a worker the time to send and to tell what it knows, on a slow machine too.
const PATIENT: [(&str, &str); 3] = [
    ("DISPATCH_TIMING__SEND_DEADLINE_MS", "4000"),
    ("DISPATCH_TIMING__PROVIDER_LAG_MS", "2000"),
    ("DISPATCH_TIMING__EVIDENCE_WINDOW_MS", "8000"),
];
