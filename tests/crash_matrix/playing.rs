//! How a row is played: by each class of provider, in each mode, with each policy.

use std::future::Future;

use dispatch_schemas::states::{DeliveryState, UnknownPolicy};
use futures_util::future::join_all;

use crate::{
    doubt::{Doubt, judge},
    scene::{Mode, Part, Play, RECIPIENTS, Scene},
};

/// A test for each class of provider, which plays the row `$play` in the modes it has a meaning in. Rows are long tests
/// but for those that say `quick`.
macro_rules! row {
    ($(#[$about:meta])* quick $row:ident, $modes:expr, $play:expr) => {
        row!(@ [] $(#[$about])* $row, $modes, $play);
    };
    ($(#[$about:meta])* $row:ident, $modes:expr, $play:expr) => {
        row!(@ ["long: processes die, and what they left settles"] $(#[$about])* $row, $modes, $play);
    };
    (@ [$($long:literal)?] $(#[$about:meta])* $row:ident, $modes:expr, $play:expr) => {
        $(#[$about])*
        mod $row {
            use super::*;
            use crate::playing::play;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            $(#[ignore = $long])?
            async fn brevo() {
                play("brevo", $modes, $play).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            $(#[ignore = $long])?
            async fn infobip() {
                play("infobip", $modes, $play).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            $(#[ignore = $long])?
            async fn sendgrid() {
                play("sendgrid", $modes, $play).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            $(#[ignore = $long])?
            async fn smtp() {
                play("smtp", $modes, $play).await;
            }
        }
    };
}
pub(crate) use row;

pub(crate) const BOTH: &[Mode] = &[Mode::Production, Mode::Embedded];
pub(crate) const PRODUCTION: &[Mode] = &[Mode::Production];

/// Plays a row in each mode, and with each policy where a policy decides; all of them at once, because most of their
/// time is waiting.
pub(crate) async fn play<F: Future<Output = ()>>(kind: &'static str, modes: &[Mode], row: impl Fn(Play) -> F) {
    let plays = modes.iter().flat_map(|mode| policies(kind, *mode).iter().map(|policy| (*mode, *policy)));
    join_all(plays.map(|(mode, policy)| row(Play { kind, mode, policy }))).await;
}

const fn policies(kind: &str, mode: Mode) -> &'static [UnknownPolicy] {
    match (kind.as_bytes(), mode) {
        (b"brevo" | b"infobip", _) => &[UnknownPolicy::Verify],
        (_, Mode::Production) => &[UnknownPolicy::AtMostOnce, UnknownPolicy::AtLeastOnce],
        (_, Mode::Embedded) => &[UnknownPolicy::Verify],
    }
}

/// A new process takes the dead one's place, and the campaign comes to its end.
pub(crate) async fn goes_on(scene: &Scene, doubt: &Doubt, part: Part, change: &[(&str, &str)]) {
    assert!(scene.count(DeliveryState::Accepted).await < RECIPIENTS, "it dies in the middle");
    let next = scene.start(part, change).await;
    scene.settled().await;
    assert!(next.terminate().success(), "an engine that is told to end does so in good order");
    judge(scene, doubt, RECIPIENTS).await;
}

/// Settings of a worker that waits for an answer longer than the scheduler waits for it.
pub(crate) fn patience(kind: &str) -> Vec<(String, String)> {
    vec![
        (format!("DISPATCH_PROVIDERS__{}__ANSWER_TIMEOUT_S", kind.to_ascii_uppercase()), "30".to_owned()),
        ("DISPATCH_TIMING__ANSWER_TIMEOUT_MS".to_owned(), "30000".to_owned()),
    ]
}

pub(crate) fn borrowed(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Messages that the jobs handed over at a time come in.
pub(crate) fn messages(play: Play) -> u32 {
    if matches!(play.kind, "brevo" | "smtp") { 2 } else { 1 }
}
