//! From the spool to the ledger.
//!
//! A batch is read, matched and applied, and only then taken off the spool. Gates are closed before the reports that ask
//! for it are marked as applied, so whatever dies in between, the gate is closed once more and the report counted once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{Channel, FactKind, StopReason},
};
use dispatch_workers::{
    abort::AbortPoint,
    clock::Clock,
    delivery::RetryDelay,
    providers::{self, callbacks::Event},
    sealing::{AddressHash, MasterKey, SendKeys, TenantKeys},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    Callback,
    matching::{Search, find, normal},
    spool::SpoolReader,
};
use crate::ledger::{Ledger, Orphan, Report, Reported, Result};

/// Reports applied in one transaction.
const TOGETHER_MAX: usize = 2_000;
/// Waits before what failed is tried again.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// How far from its arrival the time of a report is believed, milliseconds: providers report for days, and their clocks
/// may be ahead by a time zone.
const BEFORE_MAX_MS: i64 = 35 * 24 * 3_600_000;
const AFTER_MAX_MS: i64 = 24 * 3_600_000;

/// Applies what is in the spool.
pub struct Applier {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) send_keys: SendKeys,
    pub(super) clock: Arc<dyn Clock>,
    master: MasterKey,
}

impl std::fmt::Debug for Applier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Applier")
    }
}

/// A callback and what its body says.
type Read<'a> = (&'a Callback, Channel, Vec<Event>);

/// A report on its way, with what it came with.
pub(super) struct Arrived<'a> {
    event: &'a Event,
    callback: &'a Callback,
    channel: Channel,
}

impl Arrived<'_> {
    /// Its address in the form contacts have.
    fn address(&self) -> Option<String> {
        normal(self.channel, self.event.address.as_deref()?)
    }

    /// When it happened, as far as that can be.
    fn at_ms(&self) -> i64 {
        let arrived_at_ms = self.callback.arrived_at_ms;
        let believed = arrived_at_ms.saturating_sub(BEFORE_MAX_MS)..=arrived_at_ms.saturating_add(AFTER_MAX_MS);
        self.event.at_ms.filter(|at_ms| believed.contains(at_ms)).unwrap_or(arrived_at_ms)
    }
}

impl Applier {
    /// For a ledger.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, master: MasterKey, clock: Arc<dyn Clock>) -> Self {
        Self { ledger, send_keys: master.send_keys(), clock, master }
    }

    /// Applies what comes until it is stopped.
    pub async fn run(&self, mut spool: SpoolReader, stop: WaitForCancellationFutureOwned) {
        let mut delay = RetryDelay::new(AGAIN_FIRST, AGAIN_MAX);
        tokio::pin!(stop);
        loop {
            let batch = tokio::select! {
                batch = spool.next() => batch,
                () = &mut stop => return,
            };
            let batch = match batch {
                Ok(Some(batch)) => batch,
                Ok(None) => return,
                Err(error) => {
                    let kind = error.kind();
                    tracing::error!(%kind, "the spool of callbacks cannot be read; trying again");
                    tokio::time::sleep(delay.next_wait()).await;
                    continue;
                }
            };
            AbortPoint::BeforeApply.reached();
            let applied = tokio::select! {
                () = self.apply_until_done(&batch.callbacks) => true,
                () = &mut stop => false,
            };
            if !applied {
                // It is still in the spool.
                return;
            }
            AbortPoint::AfterApply.reached();
            spool.applied(&batch).await;
            delay = RetryDelay::new(AGAIN_FIRST, AGAIN_MAX);
        }
    }

    async fn apply_until_done(&self, callbacks: &[Callback]) {
        let mut delay = RetryDelay::new(AGAIN_FIRST, AGAIN_MAX);
        let read: Vec<Read<'_>> = callbacks.iter().filter_map(read).collect();
        while let Err(error) = self.apply(&read).await {
            tracing::warn!(%error, "callbacks are not applied yet; trying again");
            tokio::time::sleep(delay.next_wait()).await;
        }
        let now_ms = self.clock.now_ms();
        for callback in callbacks {
            let lag_ms = now_ms.saturating_sub(callback.arrived_at_ms).max(0);
            metrics::histogram!("dispatch_callback_lag_seconds").record(lag_ms as f64 / 1_000.0);
        }
    }

    /// Applies callbacks. What was applied before changes nothing; on an error they may be applied again.
    async fn apply(&self, read: &[Read<'_>]) -> Result<()> {
        let arrived: Vec<Arrived<'_>> = read
            .iter()
            .flat_map(|(callback, channel, events)| {
                events.iter().map(|event| Arrived { event, callback, channel: *channel })
            })
            .collect();
        for together in arrived.chunks(TOGETHER_MAX) {
            self.apply_together(together).await?;
        }
        Ok(())
    }

    async fn apply_together(&self, arrived: &[Arrived<'_>]) -> Result<()> {
        // A report that comes again must not close a gate that was opened since. All others are told apart when they are
        // applied.
        let asking: Vec<_> = arrived.iter().filter(|one| one.event.closes.is_some()).map(|one| one.event.id).collect();
        let unseen = self.ledger.unseen(&asking).await?;
        let is_new = |one: &Arrived<'_>| one.event.closes.is_none() || unseen.contains(&one.event.id);
        let mut here = HashSet::with_capacity(arrived.len());
        // The first of its id counts.
        let new: Vec<&Arrived<'_>> = arrived.iter().filter(|one| here.insert(one.event.id) && is_new(one)).collect();
        let mut by_account: BTreeMap<&str, Vec<&Arrived<'_>>> = BTreeMap::new();
        for one in &new {
            by_account.entry(&one.callback.account).or_default().push(one);
        }
        let (mut reports, mut orphans, mut closing) = (Vec::new(), Vec::new(), Closing::default());
        for (account, arrived) in &by_account {
            let searches: Vec<Search<'_>> = arrived
                .iter()
                .map(|one| Search { traces: &one.event.traces, address: one.event.address.as_deref() })
                .collect();
            let found = find(self.ledger.as_ref(), &self.send_keys, account, &searches).await?;
            let tenants = self.tenants_of_nobodys(account, arrived.iter().copied().zip(&found)).await?;
            let addresses = self.addresses_to_close(arrived.iter().copied().zip(&found)).await?;
            for (one, found) in arrived.iter().zip(found) {
                match found {
                    Some(found) => {
                        closing.of_delivery(one.event, &found, &addresses);
                        reports.push(report(one, &found));
                    }
                    None => {
                        closing.of_nobodys(one, &tenants);
                        orphans.push(self.orphan(one));
                    }
                }
            }
        }
        closing.close(self.ledger.as_ref()).await?;
        let applied = self.ledger.apply(&reports, &orphans, self.clock.now_ms()).await?;
        let duplicates = arrived.len() as u64 - applied.applied - applied.orphans;
        for (outcome, count) in [("applied", applied.applied), ("duplicate", duplicates), ("orphan", applied.orphans)] {
            metrics::counter!("dispatch_callback_reports_total", "outcome" => outcome).increment(count);
        }
        Ok(())
    }

    /// The tenants for whom addresses of reports without a message are closed: all that send through the account, for it
    /// may be any's. None where no report asks for it.
    async fn tenants_of_nobodys<'a>(
        &self,
        account: &str,
        mut found: impl Iterator<Item = (&'a Arrived<'a>, &'a Option<Reported>)>,
    ) -> Result<Vec<(TenantId, TenantKeys)>> {
        if !found.any(|(one, found)| found.is_none() && one.event.closes.is_some()) {
            return Ok(Vec::new());
        }
        let mut tenants = Vec::new();
        for tenant in self.ledger.tenants_of(account).await? {
            tenants.push((tenant, self.ledger.tenant_keys(tenant).await?));
        }
        Ok(tenants)
    }

    /// The addresses of deliveries whose reports ask for their gates to be closed.
    async fn addresses_to_close<'a>(
        &self,
        found: impl Iterator<Item = (&'a Arrived<'a>, &'a Option<Reported>)>,
    ) -> Result<HashMap<(CampaignId, i64), AddressHash>> {
        let asking = found.filter(|(one, _)| one.event.closes.is_some()).filter_map(|(_, found)| *found);
        let asking: Vec<_> = asking.map(|found| (found.campaign, found.seq)).collect();
        if asking.is_empty() { Ok(HashMap::new()) } else { self.ledger.addresses(&asking).await }
    }

    fn orphan(&self, one: &Arrived<'_>) -> Orphan {
        Orphan {
            id: one.event.id,
            account: one.callback.account.clone(),
            kind: one.event.kind,
            at_ms: one.at_ms(),
            proves_acceptance: one.event.proves_acceptance,
            traces: one.event.traces.clone(),
            address: one.address().map(|address| self.master.orphan_hash(&address)),
            arrived_at_ms: one.callback.arrived_at_ms,
        }
    }
}

/// Reads a callback's body. Nothing is left of one that cannot be read but a count.
fn read(callback: &Callback) -> Option<Read<'_>> {
    let entry = providers::entry(&callback.kind)?;
    let read = entry.callbacks?.read;
    let count = |outcome, count| {
        metrics::counter!("dispatch_callback_reports_total", "outcome" => outcome).increment(count);
    };
    let Ok(events) = read(&callback.account, &callback.body) else {
        tracing::warn!(account = %callback.account, "a callback is not what its provider sends; it is left");
        count("unreadable", 1);
        return None;
    };
    count("unreadable", events.unreadable);
    count("not_kept", events.not_kept);
    count("unknown_kind", events.events.iter().filter(|event| event.kind == FactKind::Other).count() as u64);
    Some((callback, entry.channel, events.events))
}

fn report(one: &Arrived<'_>, found: &Reported) -> Report {
    Report {
        id: one.event.id,
        campaign: found.campaign,
        seq: found.seq,
        kind: one.event.kind,
        at_ms: one.at_ms(),
        // What is accepted stays so.
        proves_acceptance: one.event.proves_acceptance && !found.is_accepted,
        provider_id: one.event.traces.provider_id.clone(),
    }
}

/// The gates that reports ask to close.
#[derive(Default)]
struct Closing(BTreeMap<(TenantId, Channel, StopReason), HashSet<AddressHash>>);

impl Closing {
    fn of_delivery(&mut self, event: &Event, found: &Reported, addresses: &HashMap<(CampaignId, i64), AddressHash>) {
        // Of an erased person there is no address, and nothing is sent to them.
        if let (Some(reason), Some(address)) = (event.closes, addresses.get(&(found.campaign, found.seq))) {
            self.add(found.tenant, found.channel, reason, *address);
        }
    }

    /// What a report says about an address holds even where its message is not known: too much closed harms nobody.
    fn of_nobodys(&mut self, one: &Arrived<'_>, tenants: &[(TenantId, TenantKeys)]) {
        let Some(reason) = one.event.closes else { return };
        let Some(address) = one.address() else { return };
        for (tenant, keys) in tenants {
            self.add(*tenant, one.channel, reason, keys.address_hash(one.channel, &address));
        }
    }

    fn add(&mut self, tenant: TenantId, channel: Channel, reason: StopReason, address: AddressHash) {
        self.0.entry((tenant, channel, reason)).or_default().insert(address);
    }

    async fn close(self, ledger: &dyn Ledger) -> Result<()> {
        for ((tenant, channel, reason), addresses) in self.0 {
            let addresses: Vec<AddressHash> = addresses.into_iter().collect();
            ledger.close_gates(tenant, channel, &addresses, reason).await?;
        }
        Ok(())
    }
}
