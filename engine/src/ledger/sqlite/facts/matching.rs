//! Finding the deliveries that reports are about.
//!
//! Most are accepted by then, and a row that comes back costs more than one that is looked at. So it is the others that
//! are asked for.

use std::collections::HashMap;

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{Channel, DeliveryState},
};
use dispatch_workers::{message::SendKey, sealing::AddressHash};
use sqlx::{Row as _, SqlitePool};

use super::{super::rows, event_id};
use crate::ledger::{Member, Reported, Result, facts::by_campaign};

/// Of an account: its campaigns among these.
async fn campaigns(
    readers: &SqlitePool,
    account: &str,
    campaigns: impl Iterator<Item = CampaignId>,
) -> Result<HashMap<CampaignId, (TenantId, Channel)>> {
    let asked: Vec<i64> = campaigns.map(|campaign| campaign.0).collect();
    let rows = sqlx::query(
        "SELECT c.id, c.tenant_id, c.channel FROM json_each(?1) j CROSS JOIN campaign c ON c.id = j.value
          WHERE c.account = ?2",
    )
    .bind(rows::json_numbers(&asked))
    .bind(account)
    .fetch_all(readers)
    .await?;
    rows.iter()
        .map(|row| {
            Ok((CampaignId(row.try_get("id")?), (TenantId(row.try_get("tenant_id")?), rows::word(row, "channel")?)))
        })
        .collect()
}

pub(super) async fn reported(
    readers: &SqlitePool,
    account: &str,
    deliveries: &[(CampaignId, i64)],
) -> Result<HashMap<(CampaignId, i64), Reported>> {
    let asked = by_campaign(deliveries.iter().copied());
    let campaigns = campaigns(readers, account, asked.keys().copied()).await?;
    let mut found = HashMap::with_capacity(deliveries.len());
    for (campaign, seqs) in &asked {
        let Some((tenant, channel)) = campaigns.get(campaign).copied() else { continue };
        let others = sqlx::query(
            "SELECT j.value AS seq, d.seq IS NULL AS is_missing FROM json_each(?2) j
                LEFT JOIN delivery d ON d.campaign_id = ?1 AND d.seq = j.value WHERE d.state IS NOT 'accepted'",
        )
        .bind(campaign.0)
        .bind(rows::json_numbers(seqs))
        .fetch_all(readers)
        .await?;
        let reported = |seq, is_accepted| Reported { tenant, campaign: *campaign, seq, channel, is_accepted };
        found.extend(seqs.iter().map(|seq| ((*campaign, *seq), reported(*seq, true))));
        for row in &others {
            let seq: i64 = row.try_get("seq")?;
            if row.try_get("is_missing")? {
                found.remove(&(*campaign, seq));
            } else {
                found.insert((*campaign, seq), reported(seq, false));
            }
        }
    }
    Ok(found)
}

pub(super) async fn members(
    readers: &SqlitePool,
    account: &str,
    requests: &[SendKey],
) -> Result<HashMap<SendKey, Vec<Member>>> {
    let keys: Vec<String> = requests.iter().map(|key| rows::hex(&key.0)).collect();
    let attempts = sqlx::query(
        "SELECT a.id, a.request_key, a.campaign_id, a.ranges FROM json_each(?1) j
            CROSS JOIN attempt a INDEXED BY attempt_by_request_key ON a.request_key = unhex(j.value)",
    )
    .bind(rows::to_json(&keys)?)
    .fetch_all(readers)
    .await?;
    let mut of_requests = Vec::with_capacity(attempts.len());
    for row in &attempts {
        let (key, campaign) = (event_id(row.try_get("request_key")?)?, CampaignId(row.try_get("campaign_id")?));
        of_requests.push((SendKey(key), campaign, row.try_get::<&str, _>("ranges")?));
    }
    let campaigns = campaigns(readers, account, of_requests.iter().map(|(_, campaign, _)| *campaign)).await?;
    let mut found: HashMap<SendKey, Vec<Member>> = HashMap::new();
    for (key, campaign, ranges) in of_requests {
        let Some((tenant, channel)) = campaigns.get(&campaign).copied() else { continue };
        let rows = sqlx::query(
            "SELECT d.seq, d.provider_id, d.state FROM json_each(?2) r
                CROSS JOIN delivery d ON d.campaign_id = ?1 AND d.seq BETWEEN r.value ->> 0 AND r.value ->> 1",
        )
        .bind(campaign.0)
        .bind(ranges)
        .fetch_all(readers)
        .await?;
        let members = found.entry(key).or_default();
        for row in &rows {
            let is_accepted = rows::word::<_, DeliveryState>(row, "state")? == DeliveryState::Accepted;
            let delivery = Reported { tenant, campaign, seq: row.try_get("seq")?, channel, is_accepted };
            members.push(Member { delivery, provider_id: row.try_get("provider_id")? });
        }
    }
    Ok(found)
}

pub(super) async fn addresses(
    readers: &SqlitePool,
    deliveries: &[(CampaignId, i64)],
) -> Result<HashMap<(CampaignId, i64), AddressHash>> {
    let mut found = HashMap::with_capacity(deliveries.len());
    for (campaign, seqs) in by_campaign(deliveries.iter().copied()) {
        let rows = sqlx::query(
            "SELECT d.seq, CASE c.channel WHEN 'email' THEN k.email_hash ELSE k.phone_hash END AS address_hash
               FROM json_each(?2) j CROSS JOIN campaign c ON c.id = ?1
                    CROSS JOIN delivery d ON d.campaign_id = c.id AND d.seq = j.value
                    CROSS JOIN contact k ON k.id = d.contact_id",
        )
        .bind(campaign.0)
        .bind(rows::json_numbers(&seqs))
        .fetch_all(readers)
        .await?;
        for row in &rows {
            let hash: Option<&[u8]> = row.try_get("address_hash")?;
            if let Some(hash) = hash {
                found.insert((campaign, row.try_get("seq")?), AddressHash(event_id(hash)?));
            }
        }
    }
    Ok(found)
}
