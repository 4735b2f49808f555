//! Telling the ledger what an earlier process did not get to tell.

use dispatch_workers::delivery::{Claims, LedgerUnavailable, Plans, Record};

use super::{Entry, OutcomeJournal};

/// Records what an earlier process left, and forgets it then. Returns how many deliveries it was about.
///
/// # Errors
/// When the ledger cannot be reached; the entries stay, and the next start tries again.
pub async fn replay(
    journal: &OutcomeJournal,
    left: Vec<Entry>,
    plans: &dyn Plans,
    claims: &dyn Claims,
) -> Result<u64, LedgerUnavailable> {
    let mut deliveries = 0;
    for entry in left {
        // Without its campaign there is nothing to record for.
        let Some(plan) = plans.plan(entry.campaign).await? else { continue };
        let outcomes = entry.outcomes();
        deliveries += outcomes.len() as u64;
        claims.record(&Record { plan: &plan, attempt: entry.attempt, outcomes, now_ms: entry.now_ms }).await?;
    }
    journal.forget_left().await;
    Ok(deliveries)
}
