//! Telling the ledger what an earlier process did not get to tell.

use std::time::Duration;

use dispatch_workers::delivery::{Claims, LedgerUnavailable, Plans, Record, RetryDelay};

use super::{Entry, OutcomeJournal};

impl OutcomeJournal {
    /// Records what an earlier process left, and forgets it then. Tries until the ledger has taken all of it: a record
    /// that is made twice counts once.
    pub async fn replay(&self, left: Vec<Entry>, plans: &dyn Plans, claims: &dyn Claims) {
        if left.is_empty() {
            return;
        }
        let mut delay = RetryDelay::new(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            match record(&left, plans, claims).await {
                Ok(deliveries) => {
                    tracing::info!(
                        deliveries,
                        "told the ledger what the last run was told by providers and could not record"
                    );
                    return self.forget_left().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "what the last run left in the journal is not recorded yet; trying again");
                    tokio::time::sleep(delay.next_wait()).await;
                }
            }
        }
    }
}

async fn record(left: &[Entry], plans: &dyn Plans, claims: &dyn Claims) -> Result<usize, LedgerUnavailable> {
    let mut deliveries = 0;
    for entry in left {
        // Without its campaign there is nothing to record for.
        let Some(plan) = plans.plan(entry.campaign).await? else { continue };
        let outcomes = entry.outcomes();
        deliveries += outcomes.len();
        claims.record(&Record { plan: &plan, attempt: entry.attempt, outcomes, now_ms: entry.now_ms }).await?;
    }
    Ok(deliveries)
}
