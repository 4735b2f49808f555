//! The running engine, as the API sees it.

use std::sync::Arc;

use dispatch_schemas::{
    api::campaigns::Campaign,
    ids::{CampaignId, TenantId},
    states::CampaignState,
};

use super::Engine;
use crate::{
    api::{Control, Health},
    telemetry::metrics::Metrics,
};

/// Connects the API to the engine of its process.
pub struct EngineControl {
    engine: Arc<Engine>,
    metrics: Metrics,
}

impl std::fmt::Debug for EngineControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EngineControl")
    }
}

impl EngineControl {
    /// For this engine, with the measurements of its process.
    #[must_use]
    pub fn new(engine: Arc<Engine>, metrics: Metrics) -> Self {
        Self { engine, metrics }
    }
}

impl Control for EngineControl {
    fn campaign_changed(&self, campaign: CampaignId) {
        self.engine.campaign_changed(campaign);
    }

    fn tenant_changed(&self, tenant: TenantId) {
        self.engine.tenant_changed(tenant);
    }

    fn message_ready(&self, _: CampaignId, _: i64) {
        self.engine.desk.wake();
    }

    fn limits_changed(&self, tenant: TenantId) {
        let engine = self.engine.clone();
        tokio::spawn(async move {
            let set = async {
                let limits = engine.opened.ledger.tenant_limits(tenant).await?;
                engine.plans.limit_tenant(tenant, limits).await
            };
            // The next plan of a campaign of the tenant reads them again.
            if let Err(error) = set.await {
                tracing::warn!(%error, "a tenant's new limits take effect with its next campaign only");
            }
        });
    }

    fn campaign_limits_changed(&self, campaign: &Campaign) {
        if !matches!(campaign.state, CampaignState::Running | CampaignState::Paused) {
            // Its plan is made with them when it starts.
            return;
        }
        let (engine, id, limits) = (self.engine.clone(), campaign.id, campaign.limits);
        tokio::spawn(async move {
            if let Err(error) = engine.plans.limit_campaign(id, limits).await {
                tracing::warn!(campaign = %id, %error, "a campaign's new limits take effect when it is resumed");
            }
        });
    }

    fn readiness(&self) -> Vec<(&'static str, Health)> {
        self.engine.readiness()
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }
}
