//! Rows in which the ledger forgets: it fails over to a copy that was behind, or is restored from one.

use std::collections::BTreeSet;

use dispatch_schemas::states::{Channel, DeliveryState, StopReason, UnknownPolicy};
use dispatch_tests::support::{
    checker::{self, Entry},
    given_services::GivenServices,
};
use dispatch_workers::abort::AbortPoint;

use crate::{
    doubt::{Doubt, judge_all},
    playing::{BOTH, PRODUCTION, row},
    scene::{BATCH, Mode, Part, Play, RECIPIENTS, Scene},
};

row!(
    /// K18
    k18_a_failover_that_forgets, PRODUCTION, |play| async move {
        let services = GivenServices::with_own_postgres().await;
        forgets(play, Some(services)).await;
    }
);
row!(
    /// K19
    k19_a_copy_is_restored, BOTH, |play| async move {
        let services = match play.mode {
            Mode::Production => Some(GivenServices::new().await),
            Mode::Embedded => None,
        };
        forgets(play, services).await;
    }
);

/// Nobody is sent to twice, nobody who opted out at all, and whoever was not sent to is.
async fn forgets(play: Play, services: Option<GivenServices>) {
    let second = tempfile::tempdir().unwrap();
    let second = second.path().display().to_string();
    let scene = set(services, play, &[("DISPATCH_LEDGER__SECOND_PLACE_FOLDER", &second)]).await;
    let (doubt, stopped) = sent_and_forgotten(&scene).await;

    let scheduler = scene.start_other(Part::Worker).await;
    let worker = scene.start(Part::Worker, &[]).await;
    scene.settled().await;
    assert!(worker.terminate().success());
    assert!(scheduler.is_none_or(|scheduler| scheduler.terminate().success()));
    judge_all(&scene, &doubt, RECIPIENTS, &stopped).await;
}

/// What the quarantine is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: processes die, and what they left settles"]
async fn k19_without_a_second_place_a_copy_sends_again() {
    let play = Play { kind: "sendgrid", mode: Mode::Embedded, policy: UnknownPolicy::AtMostOnce };
    let scene = set(None, play, &[]).await;
    let (doubt, stopped) = sent_and_forgotten(&scene).await;
    let engine = scene.start(Part::Worker, &[]).await;
    scene.settled().await;
    assert!(engine.terminate().success());
    let books = scene.books().await;
    let report = checker::check(&books, &scene.stage.sandbox.lines());
    assert!(report.of(play.kind).extra > 0 && !report.faults.duplicated.is_empty(), "{doubt:?}: {report:?}");
    let is_accepted = |entry: &&Entry| stopped.contains(&entry.seq) && entry.state == DeliveryState::Accepted;
    assert_eq!(books.entries.iter().filter(is_accepted).count(), stopped.len(), "{report:?}");
}

async fn set(services: Option<GivenServices>, play: Play, change: &[(&str, &str)]) -> Scene {
    Scene::set_on(services, play, ("", change), (RECIPIENTS, BATCH)).await
}

/// Some are sent to and the ledger is copied; more are sent to, one opts out and one is erased; and the copy is put in the
/// ledger's place. Returns what was claimed since or open then, and who must not be sent to.
async fn sent_and_forgotten(scene: &Scene) -> (Doubt, BTreeSet<i64>) {
    let scheduler = scene.start_other(Part::Worker).await;
    scene.dies(Part::Worker, AbortPoint::AfterRecord, 1, &[]).await;
    drop(scheduler);
    // A ledger in a file is whole once whoever read it has closed it.
    let known = numbers(&scene.books().await.entries, DeliveryState::Accepted);
    scene.copy_ledger().await;
    assert!(!known.is_empty(), "{:?}: some are sent to before the copy", scene.play);

    let scheduler = scene.start_other(Part::Worker).await;
    scene.dies(Part::Worker, AbortPoint::AfterAnswer, 2, &[]).await;
    drop(scheduler);
    let doubt = Doubt::forgotten(scene, &known).await;
    let books = scene.books().await;
    assert!(!doubt.taken.is_empty(), "{:?}: and some after it: {doubt:?}", scene.play);
    let stopped = opt_out(scene, &numbers(&books.entries, DeliveryState::Ready)).await;
    scene.forget_since_copy().await;
    (doubt, stopped)
}

/// Of those who were not sent to, the last opts out and the one before is erased.
async fn opt_out(scene: &Scene, ready: &BTreeSet<i64>) -> BTreeSet<i64> {
    let chosen: Vec<i64> = ready.iter().rev().take(2).copied().collect();
    let [suppressed, erased] = chosen[..] else { unreachable!("{:?}: nobody is left: {ready:?}", scene.play) };
    let channel = if scene.channel() == "sms" { Channel::Sms } else { Channel::Email };
    let hashes = scene.address_hashes(&chosen).await;
    scene
        .with_ledger(async |ledger, tenant| {
            let closed = ledger.close_gates(tenant, channel, &hashes[..1], StopReason::Suppressed).await.unwrap();
            assert_eq!(closed.closed, 1);
            ledger.erase(tenant, &[(channel, hashes[1])]).await.unwrap();
        })
        .await;
    BTreeSet::from([suppressed, erased])
}

fn numbers(entries: &[Entry], state: DeliveryState) -> BTreeSet<i64> {
    entries.iter().filter(|entry| entry.state == state).map(|entry| entry.seq).collect()
}
