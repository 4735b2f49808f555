//! The ledger's side of a comparison.

use std::{collections::HashSet, path::Path};

use dispatch_engine::ledger::Ledger;
use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{Channel, DeliveryState},
};
use dispatch_workers::sealing::{Column, TenantKeys};

use crate::support::{look, sandbox};

/// Deliveries read at a time.
const PAGE: u32 = 5_000;
/// A request's token is its attempt's but for the last four bytes, into which the request's number is mixed.
pub(super) const SHARED_DIGITS: usize = 24;

/// A recipient of a campaign, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who sends it: the kind of its account.
    pub provider: String,
    /// Its number.
    pub seq: i64,
    /// The witness's name for its address; `None` once erased.
    pub to: Option<String>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Resends that were counted.
    pub resends: u32,
}

/// What the ledger believes.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// All recipients.
    pub entries: Vec<Entry>,
    tokens: HashSet<String>,
}

impl Books {
    /// Books of these entries and attempts.
    #[must_use]
    pub fn new(entries: Vec<Entry>, tokens: &[[u8; 16]]) -> Self {
        let hex = |token: &[u8; 16]| token.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { entries, tokens: tokens.iter().map(|token| hex(token)[..SHARED_DIGITS].to_owned()).collect() }
    }

    /// Reads the deliveries of these campaigns from an open ledger, and the attempts from its file.
    pub async fn read(ledger: &dyn Ledger, file: &Path, tenant: TenantId, campaigns: &[CampaignId]) -> Self {
        Self::read_with(ledger, &look::tokens(file).await, tenant, campaigns).await
    }

    /// The same with the tokens of the attempts, read elsewhere.
    pub async fn read_with(
        ledger: &dyn Ledger,
        tokens: &[[u8; 16]],
        tenant: TenantId,
        campaigns: &[CampaignId],
    ) -> Self {
        let keys = ledger.tenant_keys(tenant).await.expect("the tenant's keys");
        let mut entries = Vec::new();
        for campaign in campaigns {
            let about = ledger.campaign(tenant, *campaign).await.expect("the campaign is there");
            let mut after = -1;
            loop {
                let page = ledger.evidence(*campaign, about.channel, after, PAGE).await.expect("its evidence");
                let Some(last) = page.last() else { break };
                after = last.seq;
                entries.extend(page.iter().map(|row| Entry {
                    provider: about.account.clone(),
                    seq: row.seq,
                    to: address(row, about.channel, &keys).map(|address| sandbox::name_of(&address)),
                    state: row.state,
                    resends: row.resends,
                }));
            }
        }
        Self::new(entries, tokens)
    }

    /// Whether an attempt made this request.
    pub(super) fn knows_token(&self, token: &str) -> bool {
        token.get(..SHARED_DIGITS).is_some_and(|shared| self.tokens.contains(shared))
    }
}

fn address(row: &dispatch_engine::ledger::EvidenceRow, channel: Channel, keys: &TenantKeys) -> Option<String> {
    let contact = row.contact.as_ref()?;
    let column = match channel {
        Channel::Email => Column::Email,
        Channel::Sms => Column::Phone,
    };
    let key = keys.open_contact(contact.id, &contact.key).expect("a contact's key opens");
    let address = key.open(column, &contact.address).expect("an address opens");
    Some(String::from_utf8(address).expect("an address is text"))
}
