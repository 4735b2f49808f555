//! The one story of a delivery, over batches: take, permits, claim, unseal, render, send, record, ack.
//!
//! The order is the protocol. Permits come first, so that whoever waits holds nothing. The claim is durable before a
//! byte leaves, and carries a token and a deadline. A request without an answer makes its deliveries `unknown`, never
//! `ready`. The record is a compare-and-set on the attempt, and the jobs are acknowledged only after it.

mod destinations;
mod plan;
mod prepare;
mod record;
mod retry_delay;
mod seams;
mod send;
mod timing;
mod worker;

use std::{sync::Arc, time::Duration};

use destinations::Permitted;
pub use plan::{Account, Plan};
pub use record::Recording;
pub use retry_delay::RetryDelay;
pub use seams::{
    AskAgain, Claim, Claimed, ClaimedDelivery, Claims, Counts, Jobs, Journal, Kept, LedgerUnavailable, NoJournal,
    Outcome, Receipt, Record, Run, SealedContact,
};
pub use timing::Timing;
pub use worker::{Plans, work};

use crate::{
    abort::AbortPoint,
    clock::{Clock, Entropy, random},
    limits::Limits,
    message::Token,
    sealing::SendKeys,
};

/// How long a run waits for permits before its jobs go back: a slow campaign must not hold a worker that others could
/// use.
const PERMIT_PATIENCE: Duration = Duration::from_millis(100);

/// How long a run may keep its worker. What is left then goes back and takes its turn again.
const RUN_LASTS: Duration = Duration::from_millis(500);

/// What the deliveries of a process share.
pub struct Plane {
    /// The ledger.
    pub claims: Arc<dyn Claims>,
    /// The limits.
    pub limits: Arc<Limits>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The makers of send keys.
    pub send_keys: Arc<SendKeys>,
    /// The protocol's timers.
    pub timing: Timing,
    /// Where outcomes are kept until the ledger has them.
    pub journal: Arc<dyn Journal>,
    /// Whether the ledger takes outcomes.
    pub recording: Recording,
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plane")
    }
}

/// Sends the deliveries of one run. Those it could not get to go back with the receipt.
///
/// # Errors
/// When the ledger cannot be reached. Nothing is lost then: what was not claimed comes again, what was claimed and
/// not recorded is settled by the reaper.
pub async fn deliver(run: Run, plan: &Plan, plane: &Plane) -> Result<(), LedgerUnavailable> {
    let Run { mut seqs, receipt, .. } = run;
    let mut undone = Vec::new();
    let leave_at = plane.clock.monotonic() + RUN_LASTS;
    // What nobody has leave to send is not claimed: it would be released and claimed again until the probe is answered.
    while !seqs.is_empty() && may_send(plan, plane) && !plan.account.is_probed() && plane.clock.monotonic() < leave_at {
        let wanted = seqs.len().min(plan.account.claim_size());
        let permits = plane.limits.permits(&plan.scopes, wanted, PERMIT_PATIENCE).await?;
        if permits.is_empty() {
            break;
        }
        let later = seqs.split_off(permits.count().min(seqs.len()));
        let permitted = destinations::with_permits(seqs, permits, plan, plane).await?;
        AbortPoint::BeforeClaim.reached();
        let claimed = plane.claims.claim(&claim(plan, &permitted.seqs, plane)).await?;
        AbortPoint::AfterClaim.reached();
        let again = claimed.again.clone();
        undone.extend(send_claimed(claimed, &permitted, plan, plane).await?);
        for root in again {
            undone.extend(ask_again(root, plan, plane).await?);
        }
        seqs = later;
    }
    undone.append(&mut seqs);
    undone.sort_unstable();
    receipt.done(undone);
    Ok(())
}

/// Repeats an unknown request with its first key: whole, or not now.
async fn ask_again(again: AskAgain, plan: &Plan, plane: &Plane) -> Result<Vec<i64>, LedgerUnavailable> {
    let permits = plane.limits.permits_for_all(&plan.scopes, again.seqs.len(), PERMIT_PATIENCE).await?;
    if permits.is_empty() {
        return Ok(again.seqs);
    }
    let permitted = Permitted::anywhere(again.seqs, permits);
    let claimed = plane.claims.claim_again(&claim(plan, &permitted.seqs, plane), again.root).await?;
    send_claimed(claimed, &permitted, plan, plane).await
}

fn may_send(plan: &Plan, plane: &Plane) -> bool {
    plan.is_open()
        && plan.is_in_window(plane.clock.now_ms())
        && plane.limits.paused(&plan.account.name).is_none()
        && plane.recording.works(plane.clock.monotonic())
}

fn claim<'a>(plan: &'a Plan, seqs: &'a [i64], plane: &Plane) -> Claim<'a> {
    Claim { plan, seqs, token: Token(random(plane.entropy.as_ref())) }
}

/// Renders, sends and records a claimed batch. Returns the deliveries that were released unsent.
async fn send_claimed(
    claimed: Claimed,
    permitted: &Permitted,
    plan: &Plan,
    plane: &Plane,
) -> Result<Vec<i64>, LedgerUnavailable> {
    let seqs: Vec<i64> = claimed.deliveries.iter().map(|delivery| delivery.seq).collect();
    plane.limits.give_back(&permitted.beyond(&seqs)).await;
    let Some(attempt) = claimed.attempt else { return Ok(Vec::new()) };
    let send_by = plane.clock.monotonic() + plane.timing.send_deadline();
    metrics::histogram!("dispatch_claim_batch_size").record(claimed.deliveries.len() as f64);

    let prepared = prepare::prepare(&claimed, plan, plane);
    // What does not go out with the others is on record before they leave: after a crash it must not pass for sent.
    let settled: Vec<i64> = prepared.settled.iter().map(|(seq, _)| *seq).collect();
    let mut released = record::now(attempt, prepared.settled, plan, plane).await?;
    let answers = send::send(&prepared.requests, permitted, plan, plane, send_by);
    let unsent = record::as_they_come(attempt, answers, plan, plane).await?;
    plane.limits.give_back(&permitted.of(settled.into_iter().chain(unsent.iter().copied()))).await;
    released.extend(unsent);
    Ok(released)
}
