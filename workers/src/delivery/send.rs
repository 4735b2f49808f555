//! Making the requests of a claimed batch, and what their answers mean for each delivery.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};

use super::{
    Counts, Outcome, Plan, Plane, destinations::Permitted, plan::SILENT_REQUESTS, prepare::Prepared, retry_delay,
};
use crate::{
    abort::AbortPoint,
    limits::Pause,
    providers::{Answer, Class, Request, Signal, Verdict},
};

/// An account that could not be reached at all is left alone for this long, then tried again.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(2);

/// Its first rest; doubles with each further request without an answer.
const SILENT_REST: Duration = Duration::from_millis(500);

/// Its longest rest.
const SILENT_REST_MAX: Duration = Duration::from_secs(60);

/// Makes all requests, as many at once as the account allows; yields the outcomes of each as it is answered.
pub(super) fn send<'a>(
    requests: &'a [Prepared],
    permitted: &'a Permitted,
    plan: &'a Plan,
    plane: &'a Plane,
    send_by: Duration,
) -> impl Stream<Item = Vec<(i64, Outcome)>> + Send + 'a {
    stream::iter(requests)
        .map(move |request| send_one(request, permitted, plan, plane, send_by))
        .buffer_unordered(plan.account.requests_open_max.max(1))
}

async fn send_one(
    request: &Prepared,
    permitted: &Permitted,
    plan: &Plan,
    plane: &Plane,
    send_by: Duration,
) -> Vec<(i64, Outcome)> {
    let account = &plan.account;
    let permits = permitted.of(request.members.iter().map(|(seq, _)| *seq));
    plane.limits.until_due(&permits).await;
    // Whoever may not send any more does not wait behind others' answers either: its deliveries would pass for sent
    // before they are released.
    let left = send_by.saturating_sub(plane.clock.monotonic());
    // A closed semaphore cannot happen: nobody closes it; without a slot nothing is sent.
    let slot = tokio::time::timeout(left, account.requests.acquire()).await;
    let may_send = matches!(slot, Ok(Ok(_)))
        && super::may_send(plan, plane)
        && plane.clock.monotonic() < send_by
        && plane.limits.are_fresh(&permits);
    let released = || request.members.iter().map(|(seq, _)| (*seq, Outcome::Released { alone: false })).collect();
    let Some(probe) = may_send.then(|| account.may_ask()).flatten() else {
        return released();
    };
    if let Err(error) = plane.limits.depart(&permits).await {
        tracing::warn!(%error, "a request was not made: whether it is within its limits is not known");
        return released();
    }
    AbortPoint::BeforeSend.reached();
    let began = plane.clock.monotonic();
    let answer = account
        .provider
        .send(&Request {
            message: &plan.message,
            recipients: &request.recipients,
            token: request.token,
            batch_key: request.batch_key,
            send_by,
        })
        .await;
    AbortPoint::AfterAnswer.reached();
    drop(slot);
    measure(&answer, plan, plane.clock.monotonic().saturating_sub(began));
    heed(&answer, plan, plane).await;
    rest_if_silent(&answer, plan, plane).await;
    drop(probe);
    let now_ms = plane.clock.now_ms();
    request
        .members
        .iter()
        .zip(answer.verdicts)
        .map(|((seq, attempt_no), verdict)| (*seq, outcome(verdict, *attempt_no, request, plan, plane, now_ms)))
        .collect()
}

/// A provider that stops answering must not make a whole list unknown: from the third request in a row without an
/// answer on, the account rests, longer each time, and is then asked by one request alone.
async fn rest_if_silent(answer: &Answer, plan: &Plan, plane: &Plane) {
    let account = &plan.account;
    if !answer.verdicts.iter().all(|verdict| matches!(verdict, Verdict::Unknown(_))) {
        account.unanswered.store(0, Ordering::Relaxed);
        return;
    }
    let in_a_row = account.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
    if in_a_row >= SILENT_REQUESTS {
        let rest = SILENT_REST.saturating_mul(1 << (in_a_row - SILENT_REQUESTS).min(16)).min(SILENT_REST_MAX);
        plane.limits.pause(&account.name, Pause::Until(plane.clock.monotonic() + rest)).await;
    }
}

/// Lets all workers obey what the answer says about the account.
async fn heed(answer: &Answer, plan: &Plan, plane: &Plane) {
    let account = &plan.account.name;
    match &answer.signal {
        Some(Signal::Wait(wait)) => {
            plane.limits.pause(account, Pause::Until(plane.clock.monotonic() + *wait)).await;
        }
        Some(Signal::Stop(code)) => {
            // Every request that was open hears it; whoever pauses the campaigns logs it once.
            plane.limits.pause(account, Pause::Refused(code.clone())).await;
        }
        None => {}
    }
    if !answer.verdicts.is_empty() && answer.verdicts.iter().all(|verdict| matches!(verdict, Verdict::NotSent(_))) {
        plane.limits.pause(account, Pause::Until(plane.clock.monotonic() + UNREACHABLE_PAUSE)).await;
    }
}

fn outcome(verdict: Verdict, attempt_no: u8, request: &Prepared, plan: &Plan, plane: &Plane, now_ms: i64) -> Outcome {
    let backed_off = || now_ms + retry_delay::after_attempt(&plane.timing, attempt_no);
    match verdict {
        Verdict::Accepted { provider_id } => Outcome::Accepted { provider_id },
        Verdict::Duplicate => Outcome::Duplicate,
        Verdict::Refused(code) => Outcome::Failed(code),
        Verdict::Deferred(code) if request.recipients.len() > 1 => {
            // One bad recipient refused the whole request: each goes alone, and the good ones lose nothing by it.
            Outcome::Retry { at_ms: now_ms, code, counts: Counts::Not, alone: true }
        }
        Verdict::Deferred(code) if attempt_no >= plan.attempts_max => Outcome::Failed(code),
        Verdict::Deferred(code) => {
            Outcome::Retry { at_ms: backed_off(), code, counts: Counts::AsAttempt, alone: false }
        }
        Verdict::Throttled(code) | Verdict::AccountRefused(code) => {
            Outcome::Retry { at_ms: now_ms, code, counts: Counts::Not, alone: false }
        }
        Verdict::NotSent(_) => Outcome::Released { alone: false },
        Verdict::Unknown(code) => Outcome::Unknown { code, look_at_ms: now_ms + first_look(attempt_no, plan, plane) },
    }
}

/// When an unknown outcome is looked at: soon where asking again is harmless, later with each try, else when it has
/// settled.
fn first_look(attempt_no: u8, plan: &Plan, plane: &Plane) -> i64 {
    let wait = match plan.account.contract().class {
        Class::KeyWithTtl { .. } => plane.timing.ask_again_ms.saturating_mul(u64::from(attempt_no.clamp(1, 6))),
        Class::ClientId | Class::EchoOnly | Class::Nothing => plane.timing.settle_ms(),
    };
    i64::try_from(wait).unwrap_or(i64::MAX / 2)
}

fn measure(answer: &Answer, plan: &Plan, took: Duration) {
    let contract = plan.account.contract();
    let (provider, channel) = (contract.kind, contract.channel.as_str());
    metrics::histogram!("dispatch_request_seconds", "provider" => provider, "channel" => channel)
        .record(took.as_secs_f64());
    metrics::histogram!("dispatch_request_recipients", "provider" => provider, "channel" => channel)
        .record(answer.verdicts.len() as f64);
    let mut counts: Vec<(&'static str, u64)> = Vec::with_capacity(2);
    for verdict in &answer.verdicts {
        let label = verdict.label();
        match counts.iter_mut().find(|(known, _)| *known == label) {
            Some((_, count)) => *count += 1,
            None => counts.push((label, 1)),
        }
    }
    for (verdict, count) in counts {
        metrics::counter!("dispatch_sends_total", "provider" => provider, "channel" => channel, "verdict" => verdict)
            .increment(count);
    }
}
