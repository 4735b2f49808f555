//! The task that calls.

use std::{convert::Infallible, io, sync::Arc, sync::PoisonError, time::Duration};

use tokio::task::JoinSet;

use super::{Callbacks, Report, forms};
use crate::clock::Clock;

/// How often it is looked at what is due.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Calls under way at once: a provider calls from many servers.
const CALLS_MAX: usize = 8;
/// How long an answer is waited for: as long as the most impatient of the vendors.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// When what was not taken is told again, milliseconds. The vendors wait minutes; nobody watches a demo for those.
const AGAIN_MS: u64 = 1_000;

/// What a call came to.
enum Called {
    Taken,
    Refused,
    Again,
}

/// Calls back until it is dropped.
pub(in crate::sandbox) async fn call(callbacks: Arc<Callbacks>, clock: Arc<dyn Clock>) -> io::Result<Infallible> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(ANSWER_WITHIN)
        .build()
        .map_err(io::Error::other)?;
    let mut calls: JoinSet<(Called, Vec<Report>)> = JoinSet::new();
    loop {
        while let Some(called) = calls.try_join_next() {
            finish(&callbacks, clock.as_ref(), called.map_err(io::Error::other)?);
        }
        let due = if calls.len() < CALLS_MAX { next(&callbacks, clock.as_ref()) } else { None };
        let Some((url, reports)) = due else {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Some(called) = calls.join_next(), if !calls.is_empty() => {
                    finish(&callbacks, clock.as_ref(), called.map_err(io::Error::other)?);
                }
            }
            continue;
        };
        let request = request(&client, &callbacks, &url, &reports, clock.now_ms() / 1_000);
        calls.spawn(async move {
            let called = match request.send().await {
                Ok(answer) if answer.status().is_success() => Called::Taken,
                Ok(answer) if answer.status() == reqwest::StatusCode::UNAUTHORIZED => Called::Refused,
                _ => Called::Again,
            };
            (called, reports)
        });
    }
}

fn next(callbacks: &Callbacks, clock: &dyn Clock) -> Option<(String, Vec<Report>)> {
    let url = callbacks.target.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(url, _)| url.clone())?;
    let mut waiting = callbacks.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let due = waiting.due(clock.monotonic(), forms::together_max);
    (!due.is_empty()).then_some((url, due))
}

fn request(
    client: &reqwest::Client,
    callbacks: &Callbacks,
    url: &str,
    reports: &[Report],
    now_s: i64,
) -> reqwest::RequestBuilder {
    let provider = reports.first().map_or("", |report| report.provider);
    let body = forms::body(reports);
    let is_forged = reports.first().is_some_and(|report| report.forged);
    // A forger has the vendor's form and not its key.
    let signed = if is_forged { b"something else".as_slice() } else { body.as_slice() };
    let mut request = client.post(format!("{}/{provider}", url.trim_end_matches('/')));
    for (name, value) in callbacks.signer.headers(provider, signed, now_s) {
        let value = if is_forged && name == "authorization" { "Bearer guessed".to_owned() } else { value };
        request = request.header(name, value);
    }
    request.header("content-type", "application/json").body(body)
}

fn finish(callbacks: &Callbacks, clock: &dyn Clock, (called, reports): (Called, Vec<Report>)) {
    let mut waiting = callbacks.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    match called {
        Called::Taken => waiting.counts.taken += 1,
        // Who is refused does not come again: the forger of a false report, or a sandbox nobody knows.
        Called::Refused => waiting.counts.refused += 1,
        Called::Again => {
            let due_ms = u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX) + AGAIN_MS;
            waiting.reports.extend(reports.into_iter().map(|report| Report { due_ms, ..report }));
            return;
        }
    }
    waiting.counts.pending -= reports.len() as u64;
}
