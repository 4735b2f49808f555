//! The plans of the campaigns this process works on: each made once and shared by all its deliveries.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
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

use crate::ledger::{CampaignPlan, Ledger, PastSends};

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
    /// Sends before this process started, for its hour and day windows.
    past: Vec<PastSends>,
    plans: Mutex<HashMap<CampaignId, Arc<Plan>>>,
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
        past: Vec<PastSends>,
    ) -> Self {
        Self { ledger, accounts, limits, clock, attempts_max, tenant_defaults, past, plans: Mutex::default() }
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

    /// Closes a campaign's plan, so that no worker of this process begins another request with it. A campaign that
    /// goes on gets a new plan.
    pub fn close(&self, campaign: CampaignId) {
        if let Some(plan) = self.lock().remove(&campaign) {
            plan.open.store(false, std::sync::atomic::Ordering::Release);
            self.limits.remove(&Scope::Campaign(campaign));
        }
    }

    /// Sets a tenant's limits, at once.
    pub fn limit_tenant(&self, tenant: TenantId, limits: Windows) {
        let limits = if limits.is_unlimited() { self.tenant_defaults } else { limits };
        let past = self.past_of(|sends| sends.tenant == tenant);
        self.limits.set(&Scope::Tenant(tenant), limits, &past);
    }

    /// Sets an account's limits.
    pub fn limit_account(&self, name: &Arc<str>, limits: Windows) {
        let past = self.past_of(|sends| sends.account == **name);
        self.limits.set(&Scope::Account(name.clone()), limits, &past);
    }

    fn past_of(&self, is_of: impl Fn(&PastSends) -> bool) -> Past {
        let now_ms = self.clock.now_ms();
        self.past
            .iter()
            .filter(|sends| is_of(sends))
            .map(|sends| {
                let age_ms = u64::try_from(now_ms.saturating_sub(sends.minute_ms)).unwrap_or(0);
                // A minute's sends count from its end: a limit is rather too strict than passed.
                (Duration::from_millis(age_ms.saturating_sub(60_000)), sends.sends)
            })
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CampaignId, Arc<Plan>>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.limit_tenant(campaign.tenant, campaign.tenant_limits);
        let past = self.past_of(|sends| sends.campaign == campaign.id);
        self.limits.set(&Scope::Campaign(campaign.id), campaign.limits, &past);
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
            open: AtomicBool::new(campaign.is_running),
        }))
    }
}

#[async_trait]
impl Plans for PlanBook {
    async fn plan(&self, campaign: CampaignId) -> Result<Option<Arc<Plan>>, LedgerUnavailable> {
        if let Some(plan) = self.lock().get(&campaign) {
            return Ok(Some(plan.clone()));
        }
        let Some(found) = self.ledger.brief(campaign).await? else { return Ok(None) };
        let Some(plan) = self.make(found).await? else { return Ok(None) };
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
