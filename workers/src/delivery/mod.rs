//! The one story of a delivery, over batches: take, permits, claim, unseal, render, send, record, ack.
//!
//! The order is the protocol. Permits come first, so that whoever waits holds nothing. The claim is durable before a
//! byte leaves, and carries a token and a deadline. A request without an answer makes its deliveries `unknown`, never
//! `ready`. The record is a compare-and-set on the attempt, and the jobs are acknowledged only after it.

mod plan;
mod prepare;
mod retry_delay;
mod seams;
mod send;
mod timing;
mod worker;

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};

pub use plan::{Account, Plan};
pub use retry_delay::RetryDelay;
pub use seams::{
    Claim, Claimed, ClaimedDelivery, Claims, Counts, Jobs, LedgerUnavailable, Outcome, Receipt, Record, Run,
    SealedContact,
};
pub use timing::Timing;
pub use worker::{Plans, work};

use crate::{
    clock::{Clock, Entropy, random},
    limits::{Limits, Scope},
    message::Token,
    sealing::SendKeys,
};

/// How long a run waits for permits before its jobs go back: a paused or slow account must not hold a worker that
/// others could use.
const PERMIT_PATIENCE: Duration = Duration::from_millis(250);

/// How long an outcome waits for others of its batch before it is recorded without them.
const RECORD_TOGETHER: Duration = Duration::from_millis(100);

/// How long a record is tried again before the worker gives up on it and leaves it to the reaper.
const RECORD_PATIENCE: Duration = Duration::from_secs(60);

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
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plane")
    }
}

/// Sends the deliveries of one run.
///
/// # Errors
/// When the ledger cannot be reached. Nothing is lost then: what was not claimed comes again, what was claimed and
/// not recorded is settled by the reaper.
pub async fn deliver(run: Run, plan: &Plan, plane: &Plane) -> Result<(), LedgerUnavailable> {
    let mut rest = within_destination_limits(&run.seqs, plan, plane).await?;
    while !rest.is_empty() && plan.is_open() {
        let wanted = rest.len().min(plan.account.claim_size());
        let permits = plane.limits.permits(&plan.scopes, wanted, PERMIT_PATIENCE).await;
        if permits == 0 || !plan.is_open() || plane.limits.paused(&plan.account.name).is_some() {
            // Dropped without an ack: the jobs come again when there is room.
            return Ok(());
        }
        let later = rest.split_off(permits.min(rest.len()));
        let claimed = plane.claims.claim(&claim(plan, &rest, plane)).await?;
        let again = claimed.again.clone();
        send_claimed(claimed, plan, plane).await?;
        for root in again {
            let claimed = plane.claims.claim_again(&claim(plan, &rest, plane), root).await?;
            send_claimed(claimed, plan, plane).await?;
        }
        rest = later;
    }
    if rest.is_empty() {
        run.receipt.ack();
    }
    Ok(())
}

fn claim<'a>(plan: &'a Plan, seqs: &'a [i64], plane: &Plane) -> Claim<'a> {
    Claim { plan, seqs, token: Token(random(plane.entropy.as_ref())), now_ms: plane.clock.now_ms() }
}

async fn send_claimed(claimed: Claimed, plan: &Plan, plane: &Plane) -> Result<(), LedgerUnavailable> {
    let Some(attempt) = claimed.attempt else { return Ok(()) };
    let send_by = plane.clock.monotonic() + plane.timing.send_deadline();
    metrics::histogram!("dispatch_claim_batch_size").record(claimed.deliveries.len() as f64);

    let prepared = prepare::prepare(&claimed, plan, plane);
    let mut outcomes = prepared.settled;
    let mut answers = pin!(send::send(&prepared.requests, plan, plane, send_by));
    loop {
        // A slow request must not keep the outcomes of the quick ones from the ledger.
        let done = gather(&mut answers, &mut outcomes).await;
        if !outcomes.is_empty() {
            let mut outcomes = std::mem::take(&mut outcomes);
            outcomes.sort_unstable_by_key(|(seq, _)| *seq);
            record(Record { plan, attempt, outcomes, now_ms: plane.clock.now_ms() }, plane).await?;
        }
        if done {
            return Ok(());
        }
    }
}

/// Gathers outcomes for a short while; true when there are no more to come.
async fn gather(
    answers: &mut (impl Stream<Item = Vec<(i64, Outcome)>> + Unpin),
    outcomes: &mut Vec<(i64, Outcome)>,
) -> bool {
    let all = async {
        while let Some(of_one) = answers.next().await {
            outcomes.extend(of_one);
        }
    };
    tokio::time::timeout(RECORD_TOGETHER, all).await.is_ok()
}

/// Records until the ledger takes it: what a provider accepted must not be forgotten because a database blinked.
async fn record(record: Record<'_>, plane: &Plane) -> Result<(), LedgerUnavailable> {
    let give_up_at = plane.clock.monotonic() + RECORD_PATIENCE;
    let mut delay = RetryDelay::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        match plane.claims.record(&record).await {
            Ok(()) => return Ok(()),
            Err(error) if plane.clock.monotonic() >= give_up_at => return Err(error),
            Err(error) => {
                tracing::warn!(%error, deliveries = record.outcomes.len(), "outcomes not recorded yet; trying again");
                tokio::time::sleep(delay.next_wait()).await;
            }
        }
    }
}

/// Leaves the deliveries whose domain or country has permits; the others wait in the ledger for their turn.
async fn within_destination_limits(seqs: &[i64], plan: &Plan, plane: &Plane) -> Result<Vec<i64>, LedgerUnavailable> {
    if !plane.limits.limits_destinations() {
        return Ok(seqs.to_vec());
    }
    let destinations = plane.claims.destinations(plan, seqs).await?;
    let mut granted = Vec::with_capacity(seqs.len());
    let mut waits = Vec::new();
    let mut by_destination: Vec<(i64, Vec<i64>)> = Vec::new();
    for (seq, destination) in seqs.iter().zip(destinations) {
        match destination {
            None => granted.push(*seq),
            Some(destination) => match by_destination.iter_mut().find(|(known, _)| *known == destination) {
                Some((_, members)) => members.push(*seq),
                None => by_destination.push((destination, vec![*seq])),
            },
        }
    }
    for (destination, members) in by_destination {
        let mut members = members.as_slice();
        while !members.is_empty() {
            let (permits, wait) = plane.limits.destination_permits(destination, members.len());
            let (now, later) = members.split_at(permits);
            granted.extend_from_slice(now);
            members = later;
            if permits == 0 {
                // Each waits one step longer than the one before, so that they come back spread out.
                let step = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 4).max(1);
                let now_ms = plane.clock.now_ms();
                waits.extend(
                    members.iter().zip(1..).map(|(seq, nth)| (*seq, now_ms.saturating_add(step.saturating_mul(nth)))),
                );
                break;
            }
        }
    }
    if !waits.is_empty() {
        metrics::counter!("dispatch_deferred_total", "scope" => Scope::Destination(0).label())
            .increment(waits.len() as u64);
        plane.claims.defer(plan, &waits).await?;
    }
    granted.sort_unstable();
    Ok(granted)
}
