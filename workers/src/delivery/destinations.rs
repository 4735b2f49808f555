//! Limits per recipient domain or country: known only by recipient, so asked for each batch.

use std::{collections::HashMap, time::Duration};

use super::{LedgerUnavailable, Plan, Plane};
use crate::limits::{Permits, Scope, Share};

/// The last of a batch comes back at most this much after the first.
const SPREAD_MAX_MS: f64 = 300_000.0;

/// When those are asked for again that a domain or country had no permit for beside others it had.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Deliveries that have all their permits.
pub(super) struct Permitted {
    /// Their numbers, ascending.
    pub(super) seqs: Vec<i64>,
    /// Of campaign, tenant and account; for these deliveries and maybe more.
    all: Permits,
    /// Of domains and countries.
    of_destinations: Vec<Permits>,
    /// Which of those a delivery has one of.
    destinations: HashMap<i64, usize>,
}

impl Permitted {
    /// Deliveries whose domains and countries are not asked.
    pub(super) fn anywhere(seqs: Vec<i64>, all: Permits) -> Self {
        Self { seqs, all, of_destinations: Vec::new(), destinations: HashMap::new() }
    }

    /// The permits of some of the deliveries.
    pub(super) fn of(&self, seqs: impl IntoIterator<Item = i64>) -> Vec<Share<'_>> {
        let (mut sends, mut to) = (0, vec![0; self.of_destinations.len()]);
        for seq in seqs {
            sends += 1;
            if let Some(destination) = self.destinations.get(&seq) {
                to[*destination] += 1;
            }
        }
        let of_destinations = self.of_destinations.iter().zip(to).filter(|(_, sends)| *sends > 0);
        std::iter::once((&self.all, sends)).chain(of_destinations).collect()
    }

    /// The permits that none of these deliveries needs.
    pub(super) fn beyond(&self, seqs: &[i64]) -> Vec<Share<'_>> {
        let mut beyond = self.of(self.seqs.iter().copied().filter(|seq| seqs.binary_search(seq).is_err()));
        beyond[0].1 = self.all.count().saturating_sub(seqs.len());
        beyond
    }
}

/// Leaves the deliveries whose domain or country has permits; the others wait in the ledger for their turn.
pub(super) async fn with_permits(
    seqs: Vec<i64>,
    all: Permits,
    plan: &Plan,
    plane: &Plane,
) -> Result<Permitted, LedgerUnavailable> {
    if !plane.limits.limits_destinations() {
        return Ok(Permitted::anywhere(seqs, all));
    }
    let destinations = plane.claims.destinations(plan, &seqs).await?;
    let mut permitted = Permitted::anywhere(Vec::with_capacity(seqs.len()), all);
    let mut waits = Vec::new();
    let mut by_destination: Vec<(i64, Vec<i64>)> = Vec::new();
    for (seq, destination) in seqs.iter().zip(destinations) {
        match destination {
            None => permitted.seqs.push(*seq),
            Some(destination) => match by_destination.iter_mut().find(|(known, _)| *known == destination) {
                Some((_, members)) => members.push(*seq),
                None => by_destination.push((destination, vec![*seq])),
            },
        }
    }
    let now_ms = plane.clock.now_ms();
    let wanted = by_destination.iter().map(|(destination, members)| (*destination, members.len())).collect();
    let granted = plane.limits.destination_permits(wanted).await?;
    for ((destination, members), granted) in by_destination.into_iter().zip(granted) {
        let (permits, wait) = match granted {
            Ok(permits) => (permits, ASKED_AGAIN_AFTER),
            Err(wait) => (Permits::none(), wait),
        };
        let (now, later) = members.split_at(permits.count().min(members.len()));
        permitted.seqs.extend_from_slice(now);
        permitted.destinations.extend(now.iter().map(|seq| (*seq, permitted.of_destinations.len())));
        permitted.of_destinations.push(permits);
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
    permitted.seqs.sort_unstable();
    Ok(permitted)
}
