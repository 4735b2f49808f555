//! Limits per recipient domain or country: known only by recipient, so asked for each batch.

use std::time::Duration;

use super::{LedgerUnavailable, Plan, Plane};
use crate::limits::Scope;

/// The last of a batch comes back at most this much after the first.
const SPREAD_MAX_MS: f64 = 300_000.0;

/// Leaves the deliveries whose domain or country has permits; the others wait in the ledger for their turn.
pub(super) async fn with_permits(seqs: &[i64], plan: &Plan, plane: &Plane) -> Result<Vec<i64>, LedgerUnavailable> {
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
    let now_ms = plane.clock.now_ms();
    for (destination, members) in by_destination {
        let (permits, wait) = plane.limits.destination_permits(destination, members.len()).await?;
        let (now, later) = members.split_at(permits.min(members.len()));
        granted.extend_from_slice(now);
        // They come back spread out at the limit's own rate, so that not all of them ask again at once.
        let first_ms = now_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 4));
        let rate = plane.limits.per_second(&[Scope::Destination(destination)]).unwrap_or(1.0).max(0.001);
        waits.extend(later.iter().zip(0_u32..).map(|(seq, nth)| {
            let behind_ms = (f64::from(nth) * 1_000.0 / rate).min(SPREAD_MAX_MS);
            (*seq, first_ms.saturating_add(behind_ms as i64))
        }));
    }
    if let Some(last_ms) = waits.iter().map(|(_, at_ms)| *at_ms).max() {
        let wait_ms = u64::try_from(last_ms.saturating_sub(now_ms)).unwrap_or(0);
        plane.limits.put_off(plan.campaign, Duration::from_millis(wait_ms));
        metrics::counter!("dispatch_deferred_total", "scope" => Scope::Destination(0).label())
            .increment(waits.len() as u64);
        plane.claims.defer(plan, &waits).await?;
    }
    granted.sort_unstable();
    Ok(granted)
}
