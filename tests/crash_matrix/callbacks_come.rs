//! Rows in which a process dies that takes callbacks. A campaign has been sent, and the provider calls back until it is
//! heard; what it told and what the ledger has must come out the same.

use std::collections::BTreeMap;

use dispatch_schemas::states::{DeliveryState, UnknownPolicy};
use dispatch_tests::support::{
    checker::{Faults, check},
    engine_process::free_address,
    wait,
};
use dispatch_workers::{abort::AbortPoint, sandbox::CallbackCounts};
use futures_util::future::join_all;

use crate::scene::{Mode, Part, Play, RECIPIENTS, Scene, WITHIN};

/// Much of everything: with few recipients there is some of it.
const PLAN: &str = "deferred=0.2,bounced_soft=0.1,bounced_hard=0.2,rejected=0.1,complained=0.1,unsubscribed=0.1,\
                    doubled=0.5,reordered=0.5,late=0,forged=0.3";

macro_rules! row {
    ($row:ident, $play:expr) => {
        mod $row {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sendgrid() {
                play("sendgrid", $play).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "long: as sendgrid, in another form"]
            async fn brevo() {
                play("brevo", $play).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "long: as sendgrid, in another form"]
            async fn infobip() {
                play("infobip", $play).await;
            }
        }
    };
}

/// Both modes at once: most of their time is waiting.
async fn play<F: Future<Output = ()>>(kind: &'static str, row: impl Fn(Play) -> F) {
    let plays = [Mode::Production, Mode::Embedded].map(|mode| Play { kind, mode, policy: UnknownPolicy::Verify });
    join_all(plays.map(row)).await;
}

row!(k12_spooled_and_not_answered, |play| dies(play, AbortPoint::AfterSpool));
row!(k14_applied_and_still_in_the_spool, |play| dies(play, AbortPoint::AfterApply));
row!(k13_answered_and_not_applied, answered_and_not_applied);

/// A campaign that was sent, with a provider that has much to tell and nobody who hears it yet.
async fn unheard(play: Play) -> (Scene, Listener) {
    let scene = Scene::set(play, "", &[]).await;
    let listener = Listener::of(&scene);
    scene.stage.sandbox.call_back(&listener.url, PLAN).await;
    let other = scene.start_other(Part::Worker).await;
    let worker = scene.start(Part::Worker, &[]).await;
    scene.settled().await;
    assert!(worker.terminate().success());
    drop(other);
    let told = scene.stage.sandbox.told().await;
    assert!(told.pending > 0 && told.taken == 0, "{told:?}");
    (scene, listener)
}

/// A process dies at a place, and the next one hears it all.
async fn dies(play: Play, point: AbortPoint) {
    let (scene, listener) = unheard(play).await;
    scene.dies_taking_callbacks(&listener.variables, point).await;
    if point == AbortPoint::AfterApply {
        assert!(!scene.reported().await.is_empty(), "it was applied before");
    }
    hears_all(&scene, &listener).await;
}

/// The process answers while the ledger can take nothing, and is killed then.
async fn answered_and_not_applied(play: Play) {
    let (scene, listener) = unheard(play).await;
    scene.stage.sandbox.call_back("off", "").await;
    let process = scene.takes_callbacks(&listener.variables);
    process.ready().await;
    let held = scene.hold_ledger().await;
    scene.stage.sandbox.call_back(&listener.url, PLAN).await;
    let told = wait::until("everything is answered", WITHIN, async || {
        let told = scene.stage.sandbox.told().await;
        (told.pending == 0).then_some(told)
    })
    .await;
    process.kill();
    held.release().await;
    assert!(scene.reported().await.is_empty(), "nothing of it was applied");
    hears_all(&scene, &listener).await;
    assert_eq!(scene.stage.sandbox.told().await, told, "the provider did not have to call again");
}

/// A process takes callbacks until there are none; then the ledger has what was told and nothing else.
async fn hears_all(scene: &Scene, listener: &Listener) {
    let process = scene.takes_callbacks(&listener.variables);
    let told = wait::until("everything is told and applied", WITHIN, async || {
        let told = scene.stage.sandbox.told().await;
        (told.pending == 0 && scene.stage.spool_is_empty()).then_some(told)
    })
    .await;
    assert!(process.terminate().success(), "a process that takes callbacks ends in good order");
    assert!(told.refused > 0, "there were forged ones");
    assert_eq!(scene.reported().await, happened(&told));
    assert_eq!(scene.count(DeliveryState::Accepted).await, RECIPIENTS);
}

fn happened(told: &CallbackCounts) -> BTreeMap<String, u64> {
    told.told.iter().filter(|(_, count)| **count > 0).map(|(kind, count)| (kind.clone(), *count)).collect()
}

/// Where callbacks are taken, and the settings that say so.
struct Listener {
    url: String,
    variables: Vec<(String, String)>,
}

impl Listener {
    fn of(scene: &Scene) -> Self {
        let address = free_address();
        Self { url: format!("http://{address}/callbacks"), variables: scene.callback_variables(address) }
    }
}

/// Half of all requests get no answer, and nobody can be asked: the callbacks tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_got_no_answer_is_settled_by_callbacks() {
    let play = |mode| Play { kind: "sendgrid", mode, policy: UnknownPolicy::AtMostOnce };
    join_all([Mode::Production, Mode::Embedded].map(|mode| async move {
        let scene = Scene::set(play(mode), "accept_then_drop=0.5", &[]).await;
        let listener = Listener::of(&scene);
        scene.stage.sandbox.call_back(&listener.url, PLAN).await;
        // In one process all roles are in it.
        let change: Vec<(&str, &str)> =
            listener.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let hearing = (mode == Mode::Production).then(|| scene.takes_callbacks(&listener.variables));
        let other = scene.start_other(Part::Worker).await;
        let worker = scene.start_hearing(&change).await;
        scene.settled().await;
        wait::until("everything is told and applied", WITHIN, async || {
            (scene.stage.sandbox.told().await.pending == 0 && scene.stage.spool_is_empty()).then_some(())
        })
        .await;
        assert!(worker.terminate().success());
        drop((hearing, other));
        assert!(!scene.hit_by("accept_then_drop").is_empty(), "some requests got no answer");
        assert_eq!(scene.count(DeliveryState::Accepted).await, RECIPIENTS, "no outcome is left unknown");
        let report = check(&scene.books().await, &scene.stage.sandbox.lines());
        assert_eq!(report.faults, Faults::default());
    }))
    .await;
}
