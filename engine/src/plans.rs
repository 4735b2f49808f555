//! The plans of the campaigns this process works on: each made once and shared by all its deliveries.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use dispatch_schemas::{
    api::limits::Windows,
    ids::{CampaignId, TenantId},
};
use dispatch_workers::{
    clock::Clock,
    delivery::{Account, LedgerUnavailable, Plan, Plans},
    limits::{Limits, Past, Scope},
    template::Template,
};

use crate::ledger::{CampaignPlan, Ledger, LedgerError, PastSends};

/// How far back sends are counted for limits per hour and day.
const DAY_MS: i64 = 24 * 3_600_000;
/// How long a campaign that no plan could be made of is left alone.
const UNUSABLE_FOR: Duration = Duration::from_secs(60);
/// Plans kept; the ones not used are forgotten when there are more.
const PLANS_KEPT_MAX: usize = 10_000;

/// The plans of running campaigns, and the accounts they send through.
pub struct PlanBook {
    ledger: Arc<dyn Ledger>,
    accounts: HashMap<String, Arc<Account>>,
    limits: Arc<Limits>,
    clock: Arc<dyn Clock>,
    attempts_max: u8,
    /// What a tenant without limits of its own gets.
    tenant_defaults: Windows,
    plans: Mutex<HashMap<CampaignId, Arc<Plan>>>,
    /// Campaigns that no plan could be made of, and when that was tried.
    unusable: Mutex<HashMap<CampaignId, Duration>>,
}

impl std::fmt::Debug for PlanBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlanBook")
    }
}

impl PlanBook {
    /// An empty book.
    #[must_use]
    pub fn new(
        ledger: Arc<dyn Ledger>,
        accounts: HashMap<String, Arc<Account>>,
        limits: Arc<Limits>,
        clock: Arc<dyn Clock>,
        attempts_max: u8,
        tenant_defaults: Windows,
    ) -> Self {
        Self {
            ledger,
            accounts,
            limits,
            clock,
            attempts_max,
            tenant_defaults,
            plans: Mutex::default(),
            unusable: Mutex::default(),
        }
    }

    /// The account of this name.
    #[must_use]
    pub fn account(&self, name: &str) -> Option<&Arc<Account>> {
        self.accounts.get(name)
    }

    /// All accounts.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.values()
    }

    /// Tries before a delivery that is refused for now fails.
    #[must_use]
    pub const fn attempts_max(&self) -> u8 {
        self.attempts_max
    }

    /// Closes a campaign's plan, so that no worker of this process begins another request with it. A campaign that
    /// goes on gets a new plan; its limits stay.
    pub fn close(&self, campaign: CampaignId) {
        self.unusable().remove(&campaign);
        if let Some(plan) = self.lock().remove(&campaign) {
            plan.open.store(false, Ordering::Release);
        }
    }

    /// Closes the plans of a tenant's campaigns.
    pub fn close_tenant(&self, tenant: TenantId) {
        self.lock().retain(|_, plan| {
            let is_others = plan.tenant != tenant;
            if !is_others {
                plan.open.store(false, Ordering::Release);
            }
            is_others
        });
    }

    /// Closes the plan of a campaign that has ended, and forgets its limits.
    pub async fn forget(&self, campaign: CampaignId) {
        self.close(campaign);
        if let Err(error) = self.limits.remove(&Scope::Campaign(campaign)).await {
            tracing::warn!(%campaign, %error, "the limits of a campaign that has ended are kept");
        }
    }

    /// Sets a tenant's limits, at once.
    ///
    /// # Errors
    /// When what it has sent before cannot be read.
    pub async fn limit_tenant(&self, tenant: TenantId, limits: Windows) -> Result<(), LedgerError> {
        let limits = if limits.is_unlimited() { self.tenant_defaults } else { limits };
        self.set_limit(&Scope::Tenant(tenant), limits, |sends| sends.tenant == tenant).await
    }

    /// Sets a campaign's limits, at once.
    ///
    /// # Errors
    /// When what it has sent before cannot be read.
    pub async fn limit_campaign(&self, campaign: CampaignId, limits: Windows) -> Result<(), LedgerError> {
        self.set_limit(&Scope::Campaign(campaign), limits, |sends| sends.campaign == campaign).await
    }

    /// Sets an account's limits.
    ///
    /// # Errors
    /// When what it has sent before cannot be read.
    pub async fn limit_account(&self, name: &Arc<str>, limits: Windows) -> Result<(), LedgerError> {
        self.set_limit(&Scope::Account(name.clone()), limits, |sends| sends.account == **name).await
    }

    async fn set_limit(
        &self,
        scope: &Scope,
        limits: Windows,
        is_of: impl Fn(&PastSends) -> bool,
    ) -> Result<(), LedgerError> {
        // Only windows that outlive a process need to know what was sent before.
        let past = if limits.per_hour.is_some() || limits.per_day.is_some() {
            let now_ms = self.clock.now_ms();
            let sends = self.ledger.past_sends(now_ms.saturating_sub(DAY_MS)).await?;
            sends.iter().filter(|sends| is_of(sends)).map(|sends| (age(sends, now_ms), sends.sends)).collect()
        } else {
            Past::new()
        };
        self.limits.set(scope, limits, &past).await.map_err(|error| LedgerError::Unavailable(error.0))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CampaignId, Arc<Plan>>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unusable(&self) -> std::sync::MutexGuard<'_, HashMap<CampaignId, Duration>> {
        self.unusable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn make(&self, campaign: CampaignPlan) -> Result<Option<Plan>, LedgerUnavailable> {
        let Some(account) = self.accounts.get(&campaign.account) else {
            tracing::error!(campaign = %campaign.id, "the campaign's account is not in the settings");
            return Ok(None);
        };
        let (message, template) = match Template::compile(&campaign.content) {
            Ok(compiled) => compiled,
            Err(error) => {
                tracing::error!(campaign = %campaign.id, %error, "the campaign's content cannot be used");
                return Ok(None);
            }
        };
        self.limit_tenant(campaign.tenant, campaign.tenant_limits).await?;
        self.limit_campaign(campaign.id, campaign.limits).await?;
        Ok(Some(Plan {
            campaign: campaign.id,
            tenant: campaign.tenant,
            keys: self.ledger.tenant_keys(campaign.tenant).await?,
            channel: campaign.channel,
            lane: campaign.lane,
            purpose: campaign.purpose,
            scopes: vec![
                Scope::Campaign(campaign.id),
                Scope::Tenant(campaign.tenant),
                Scope::Account(account.name.clone()),
            ],
            account: account.clone(),
            message,
            template,
            attempts_max: self.attempts_max,
            expires_at_ms: campaign.expires_at_ms,
            sending_window: campaign.sending_window.map(Arc::new),
            open: AtomicBool::new(campaign.is_running),
        }))
    }
}

/// How long ago sends were made. A minute's sends count from its end: a limit is rather too strict than passed.
fn age(sends: &PastSends, now_ms: i64) -> Duration {
    let since_begin_ms = u64::try_from(now_ms.saturating_sub(sends.minute_ms)).unwrap_or(0);
    Duration::from_millis(since_begin_ms.saturating_sub(60_000))
}

#[async_trait]
impl Plans for PlanBook {
    async fn plan(&self, campaign: CampaignId) -> Result<Option<Arc<Plan>>, LedgerUnavailable> {
        if let Some(plan) = self.lock().get(&campaign) {
            return Ok(Some(plan.clone()));
        }
        let now = self.clock.monotonic();
        if self.unusable().get(&campaign).is_some_and(|since| now < *since + UNUSABLE_FOR) {
            return Ok(None);
        }
        let Some(found) = self.ledger.brief(campaign).await? else { return Ok(None) };
        let Some(plan) = self.make(found).await? else {
            let mut unusable = self.unusable();
            unusable.retain(|_, since| now < *since + UNUSABLE_FOR);
            unusable.insert(campaign, now);
            return Ok(None);
        };
        let plan = Arc::new(plan);
        if plan.is_open() {
            let mut plans = self.lock();
            if plans.len() >= PLANS_KEPT_MAX {
                plans.retain(|_, kept| Arc::strong_count(kept) > 1);
            }
            return Ok(Some(plans.entry(campaign).or_insert(plan).clone()));
        }
        Ok(Some(plan))
    }
}
