//! What providers report of messages after they took them.
//!
//! A report is applied once, by its id, in one transaction: its fact, the count of such facts, and, where it proves that
//! the provider took the message over, the delivery's state (T13). What it says about an address is not done here: its
//! gate is closed before, by whoever applies it.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use dispatch_schemas::{
    facts::Fact,
    ids::{CampaignId, TenantId},
    states::{Channel, FactKind},
};
use dispatch_workers::{
    message::SendKey,
    providers::callbacks::{EventId, Traces},
    sealing::AddressHash,
};

use super::Result;

/// The evidence of a delivery that its provider's report has proven to be taken over.
pub(super) const CALLBACK: &str = "callback";

/// Milliseconds for which the id of an applied report is kept. Providers send one again for two days at most.
pub const REPORTS_SEEN_MS: i64 = 35 * 24 * 3_600_000;
/// Milliseconds for which a report is kept whose message is not known.
pub const ORPHANS_KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// When a report whose message is not known is looked at again, milliseconds after it came.
pub const ORPHAN_LOOKS_MS: [i64; 2] = [10 * 60_000, 24 * 3_600_000];

/// A delivery as reports are matched with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reported {
    /// Whose.
    pub tenant: TenantId,
    /// Of which campaign.
    pub campaign: CampaignId,
    /// Its number.
    pub seq: i64,
    /// The campaign's channel.
    pub channel: Channel,
    /// Whether it is known to be taken over.
    pub is_accepted: bool,
}

/// A delivery in a request that has one key for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub delivery: Reported,
    /// The provider's id for it, where its answer had one.
    pub provider_id: Option<String>,
}

/// A report about a known delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub id: EventId,
    /// About which delivery.
    pub campaign: CampaignId,
    /// Its number.
    pub seq: i64,
    /// Of what kind.
    pub kind: FactKind,
    /// When it happened, milliseconds since 1970.
    pub at_ms: i64,
    /// Whether it proves that the provider took the message over, which was not known before.
    pub proves_acceptance: bool,
    /// The provider's id for the message, if it says.
    pub provider_id: Option<String>,
}

/// A report about a message that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Which.
    pub id: EventId,
    /// The account it came for.
    pub account: String,
    /// Of what kind.
    pub kind: FactKind,
    /// When it happened, milliseconds since 1970.
    pub at_ms: i64,
    /// Whether it would prove that the provider took the message over.
    pub proves_acceptance: bool,
    /// What its message would be found by.
    pub traces: Traces,
    /// A keyed hash of the address it is about, with a key of the whole ledger.
    pub address: Option<[u8; 16]>,
    /// When it came, milliseconds since 1970.
    pub arrived_at_ms: i64,
}

/// What applying reports came to, in numbers of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Applied.
    pub applied: u64,
    /// Applied before.
    pub duplicates: u64,
    /// Kept without their message.
    pub orphans: u64,
}

/// What came of looking at orphans again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revisited {
    /// Those whose message is known now.
    pub found: Vec<Report>,
    /// Those whose message still is not, and when they are looked at next, if ever again.
    pub missed: Vec<(EventId, Option<i64>)>,
}

/// Whoever applies callbacks.
#[async_trait]
pub trait FactBook: Send + Sync + 'static {
    /// Which of these reports were not applied before.
    async fn unseen(&self, ids: &[EventId]) -> Result<HashSet<EventId>>;

    /// The deliveries of these numbers, as far as they are of campaigns that this account sends.
    async fn reported(
        &self,
        account: &str,
        deliveries: &[(CampaignId, i64)],
    ) -> Result<HashMap<(CampaignId, i64), Reported>>;

    /// The deliveries of the requests with these keys, of campaigns that this account sends.
    async fn members(&self, account: &str, requests: &[SendKey]) -> Result<HashMap<SendKey, Vec<Member>>>;

    /// The keyed hashes of these deliveries' addresses; none of a person who was erased.
    async fn addresses(&self, deliveries: &[(CampaignId, i64)]) -> Result<HashMap<(CampaignId, i64), AddressHash>>;

    /// The tenants with a campaign that this account sends.
    async fn tenants_of(&self, account: &str) -> Result<Vec<TenantId>>;

    /// Applies reports that were not applied before, and keeps those without a message. All are applied from then on.
    async fn apply(&self, reports: &[Report], orphans: &[Orphan], now_ms: i64) -> Result<Applied>;

    /// Orphans that are to be looked at again, the longest due first.
    async fn orphans_due(&self, now_ms: i64, limit: u32) -> Result<Vec<Orphan>>;

    /// Applies the reports of orphans whose message is known now, and notes when the others are looked at next.
    async fn revisit(&self, orphans: &Revisited, now_ms: i64) -> Result<()>;

    /// Forgets the ids of reports that were applied and the orphans that came before those moments, a bounded number.
    /// Returns how many; none when there are no more.
    async fn forget_reports(&self, seen_before_ms: i64, arrived_before_ms: i64) -> Result<u64>;
}

/// Most rows forgotten in one call.
pub(super) const FORGOTTEN_MAX: i64 = 10_000;

/// The facts of a delivery's reports, by campaign, number and kind.
pub(super) type Gathered = BTreeMap<(CampaignId, i64, FactKind), Fact>;

/// Deliveries by campaign, each campaign's ascending and once.
pub(super) fn by_campaign(deliveries: impl IntoIterator<Item = (CampaignId, i64)>) -> BTreeMap<CampaignId, Vec<i64>> {
    let mut by_campaign: BTreeMap<CampaignId, Vec<i64>> = BTreeMap::new();
    for (campaign, seq) in deliveries {
        by_campaign.entry(campaign).or_default().push(seq);
    }
    for seqs in by_campaign.values_mut() {
        seqs.sort_unstable();
        seqs.dedup();
    }
    by_campaign
}

/// Gathers reports into facts.
pub(super) fn gathered<'a>(reports: impl Iterator<Item = &'a Report>) -> Gathered {
    let mut facts = Gathered::new();
    for report in reports {
        let fact = Fact::once(report.at_ms);
        let place = (report.campaign, report.seq, report.kind);
        facts.entry(place).and_modify(|known| *known = known.and(fact)).or_insert(fact);
    }
    facts
}

/// The deliveries that reports prove to be taken over, ascending, each with the provider's id if one says it.
pub(super) fn proven<'a>(
    reports: impl Iterator<Item = &'a Report>,
) -> BTreeMap<CampaignId, BTreeMap<i64, Option<&'a str>>> {
    let mut proven: BTreeMap<CampaignId, BTreeMap<i64, Option<&str>>> = BTreeMap::new();
    for report in reports.filter(|report| report.proves_acceptance) {
        let id = proven.entry(report.campaign).or_default().entry(report.seq).or_default();
        *id = id.or(report.provider_id.as_deref());
    }
    proven
}
