//! Closings that the second place remembers, and closing them again.

use std::collections::{BTreeMap, BTreeSet};

use dispatch_schemas::{
    api::campaigns::Campaign,
    ids::{CampaignId, KeyId, TenantId},
    states::{CampaignState, Channel, StopReason},
};
use dispatch_workers::sealing::AddressHash;

use crate::{
    ledger::{Ledger, LedgerError},
    second_place::{Hash, Note, Noted},
};

/// Addresses whose gates are closed in one step.
const TOGETHER: usize = 1_000;
/// Why a campaign is paused that had been.
const PAUSED_AGAIN: &str = "it was paused before the ledger was restored";

/// What is closed in the end, after all that was noted.
#[derive(Debug, Default)]
pub(super) struct Closings {
    gates: BTreeMap<(TenantId, Channel, StopReason), BTreeSet<Hash>>,
    erased: BTreeSet<(TenantId, Vec<(Channel, Hash)>)>,
    cancelled: BTreeMap<CampaignId, TenantId>,
    paused: BTreeMap<CampaignId, TenantId>,
    tenants: BTreeMap<TenantId, String>,
    keys: BTreeSet<KeyId>,
}

impl Closings {
    /// Of notes, oldest first. What was opened later is not closed; an opening that was forgotten is not made again:
    /// who is not written to for too long loses less than who is written to after all.
    pub(super) fn of(noted: &[Noted]) -> Self {
        let mut all = Self::default();
        for Noted { note, .. } in noted {
            match note {
                Note::Closed { tenant, channel, reason, addresses } => {
                    all.gates.entry((*tenant, *channel, *reason)).or_default().extend(addresses);
                }
                Note::Opened { tenant, reason, addresses } => {
                    for channel in Channel::ALL {
                        if let Some(closed) = all.gates.get_mut(&(*tenant, *channel, *reason)) {
                            closed.retain(|hash| !addresses.contains(hash));
                        }
                    }
                }
                Note::Erased { tenant, addresses } => {
                    let mut addresses = addresses.clone();
                    addresses.sort_unstable();
                    addresses.dedup();
                    all.erased.insert((*tenant, addresses));
                }
                Note::Cancelled { tenant, campaign } => drop(all.cancelled.insert(*campaign, *tenant)),
                Note::Paused { tenant, campaign } => drop(all.paused.insert(*campaign, *tenant)),
                Note::Resumed { campaign, .. } => drop(all.paused.remove(campaign)),
                Note::TenantClosed { tenant, reason } => drop(all.tenants.insert(*tenant, reason.clone())),
                Note::TenantOpened { tenant } => drop(all.tenants.remove(tenant)),
                Note::KeyRevoked { key } => drop(all.keys.insert(*key)),
                Note::Claimed(_) => {}
            }
        }
        all
    }

    /// Closes them in a ledger, now (milliseconds since 1970). Returns how many it did not know.
    pub(super) async fn close_again(self, ledger: &dyn Ledger, now_ms: i64) -> Result<usize, LedgerError> {
        let known: BTreeMap<TenantId, bool> =
            ledger.tenants().await?.into_iter().map(|tenant| (tenant.id, tenant.closed.is_some())).collect();
        let mut forgotten = 0;
        for ((tenant, channel, reason), addresses) in self.gates {
            if known.contains_key(&tenant) {
                let addresses: Vec<AddressHash> = addresses.into_iter().map(AddressHash::from).collect();
                forgotten += close(ledger, tenant, channel, &addresses, reason).await?;
            }
        }
        for (tenant, addresses) in self.erased.into_iter().filter(|(tenant, _)| known.contains_key(tenant)) {
            let addresses: Vec<(Channel, AddressHash)> =
                addresses.into_iter().map(|(channel, hash)| (channel, hash.into())).collect();
            for channel in Channel::ALL {
                let of_channel = addresses.iter().filter(|(of, _)| of == channel).map(|(_, hash)| *hash);
                let of_channel: Vec<AddressHash> = of_channel.collect();
                forgotten += close(ledger, tenant, *channel, &of_channel, StopReason::Erased).await?;
            }
            ledger.erase(tenant, &addresses).await?;
        }
        for (tenant, reason) in self.tenants.into_iter().filter(|(tenant, _)| known.get(tenant) == Some(&false)) {
            ledger.close_tenant(tenant, &reason).await?;
            forgotten += 1;
        }
        for (campaign, tenant) in self.paused {
            let Some(found) = find(ledger, tenant, campaign).await? else { continue };
            let has_ended = found.expires_at.is_some_and(|at| at.as_ms() <= now_ms);
            if matches!(found.state, CampaignState::Running | CampaignState::Scheduled) && !has_ended {
                ledger.pause(tenant, campaign, PAUSED_AGAIN).await?;
                forgotten += 1;
            }
        }
        for (campaign, tenant) in self.cancelled {
            let found = find(ledger, tenant, campaign).await?;
            if found.is_some_and(|it| !matches!(it.state, CampaignState::Cancelled | CampaignState::Completed)) {
                ledger.cancel(tenant, campaign).await?;
                forgotten += 1;
            }
        }
        for key in self.keys {
            if ledger.find_key(key).await?.is_some_and(|stored| stored.key.revoked_at.is_none()) {
                ledger.revoke_key(key).await?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }
}

/// Closes gates. Returns how many had not been closed.
async fn close(
    ledger: &dyn Ledger,
    tenant: TenantId,
    channel: Channel,
    addresses: &[AddressHash],
    reason: StopReason,
) -> Result<usize, LedgerError> {
    let mut closed = 0;
    for chunk in addresses.chunks(TOGETHER) {
        closed += ledger.close_gates(tenant, channel, chunk, reason).await?.closed;
    }
    Ok(usize::try_from(closed).unwrap_or(usize::MAX))
}

/// A campaign; nothing when it was made after the copy.
async fn find(ledger: &dyn Ledger, tenant: TenantId, campaign: CampaignId) -> Result<Option<Campaign>, LedgerError> {
    match ledger.campaign(tenant, campaign).await {
        Ok(found) => Ok(Some(found)),
        Err(LedgerError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
