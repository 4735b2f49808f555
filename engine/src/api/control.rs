//! What the API needs of the running engine.

use dispatch_schemas::{
    api::campaigns::Campaign,
    ids::{CampaignId, TenantId},
};

/// How a role of the engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Well,
    /// It works, but not all of it: what is wrong.
    Impaired(String),
    /// It does not work: what is wrong.
    Down(String),
}

/// The running engine, as the API sees it. What is told here has been committed to the ledger already; each call
/// returns at once.
pub trait Control: Send + Sync + 'static {
    /// A campaign was launched, paused, resumed, cancelled or given recipients to retry.
    fn campaign_changed(&self, campaign: CampaignId);
    /// A tenant was closed or opened.
    fn tenant_changed(&self, tenant: TenantId);
    /// A single message is ready to be sent.
    fn message_ready(&self, campaign: CampaignId, seq: i64);
    /// A tenant's limits were set.
    fn limits_changed(&self, tenant: TenantId);
    /// A campaign's limits were set.
    fn campaign_limits_changed(&self, campaign: &Campaign);
    /// The roles this process has, and how each is.
    fn readiness(&self) -> Vec<(&'static str, Health)>;
    /// All metrics, in the text format of Prometheus.
    fn metrics(&self) -> String;
}
