//! The worker: takes runs from the queue and delivers them, several at a time.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use dispatch_schemas::{
    ids::CampaignId,
    states::{Channel, Lane},
};

use super::{Jobs, LedgerUnavailable, Plan, Plane, RetryDelay, deliver};

/// Where a worker learns of a campaign.
#[async_trait]
pub trait Plans: Send + Sync + 'static {
    /// The plan of a campaign; `None` when it is gone or was never ours.
    async fn plan(&self, campaign: CampaignId) -> Result<Option<Arc<Plan>>, LedgerUnavailable>;
}

/// Delivers the runs of one channel and lane, one after the other, until the queue closes. Several of these run side
/// by side; one that serves [`Lane::Transactional`] only is never held up by a campaign.
///
/// After the ledger could not be reached it takes nothing for a while: what can't be recorded must not be sent.
pub async fn work(channel: Channel, lane: Lane, jobs: Arc<dyn Jobs>, plans: Arc<dyn Plans>, plane: Arc<Plane>) {
    let mut delay = RetryDelay::new(Duration::from_millis(200), Duration::from_secs(10));
    while let Some(run) = jobs.take(channel, lane).await {
        match deliver_run(run, plans.as_ref(), &plane).await {
            Ok(()) => delay.reset(),
            Err(error) => {
                metrics::counter!("dispatch_ledger_unavailable_total").increment(1);
                tracing::warn!(%error, "a run was not finished; its jobs come again");
                tokio::time::sleep(delay.next_wait()).await;
            }
        }
    }
}

async fn deliver_run(run: super::Run, plans: &dyn Plans, plane: &Plane) -> Result<(), LedgerUnavailable> {
    match plans.plan(run.campaign).await? {
        Some(plan) => deliver(run, &plan, plane).await,
        None => {
            metrics::counter!("dispatch_jobs_without_campaign_total").increment(run.seqs.len() as u64);
            run.receipt.gone();
            Ok(())
        }
    }
}
