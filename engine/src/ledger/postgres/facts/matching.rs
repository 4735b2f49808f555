//! Finding the deliveries that reports are about.

use std::collections::HashMap;

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::DeliveryState,
};
use dispatch_workers::{message::SendKey, sealing::AddressHash};
use sqlx::{AssertSqlSafe, Row as _};

use super::{
    super::{PostgresLedger, deliveries::Numbers, rows},
    event_id,
};
use crate::ledger::{Member, Reported, Result, columns, facts::by_campaign};

impl PostgresLedger {
    /// Deliveries of campaigns that this account sends.
    pub(super) async fn found(
        &self,
        account: &str,
        deliveries: impl Iterator<Item = (CampaignId, i64)>,
    ) -> Result<Vec<Member>> {
        let asked = by_campaign(deliveries);
        let ids: Vec<i64> = asked.keys().map(|campaign| campaign.0).collect();
        let campaigns =
            sqlx::query("SELECT id, month, tenant_id, channel FROM campaign WHERE id = ANY($1) AND account = $2")
                .bind(ids)
                .bind(account)
                .fetch_all(&self.engine)
                .await?;
        let mut found = Vec::new();
        for about in &campaigns {
            let (campaign, tenant) = (CampaignId(about.try_get("id")?), TenantId(about.try_get("tenant_id")?));
            let channel = rows::word(about, "channel")?;
            let Some(seqs) = asked.get(&campaign) else { continue };
            let numbers = Numbers::of(seqs);
            let sql = format!(
                "SELECT d.seq, d.state, d.provider_id FROM delivery d
                  WHERE d.month = $1 AND d.campaign_id = $2 AND {}",
                numbers.condition("d.seq", 3)
            );
            let query = sqlx::query(AssertSqlSafe(sql)).bind(about.try_get::<i32, _>("month")?).bind(campaign.0);
            for row in &numbers.bind(query).fetch_all(&self.engine).await? {
                let is_accepted = rows::word::<_, DeliveryState>(row, "state")? == DeliveryState::Accepted;
                let delivery = Reported { tenant, campaign, seq: row.try_get("seq")?, channel, is_accepted };
                found.push(Member { delivery, provider_id: row.try_get("provider_id")? });
            }
        }
        Ok(found)
    }

    pub(super) async fn members_of(
        &self,
        account: &str,
        requests: &[SendKey],
    ) -> Result<HashMap<SendKey, Vec<Member>>> {
        let keys: Vec<Vec<u8>> = requests.iter().map(|key| key.0.to_vec()).collect();
        let rows = sqlx::query("SELECT request_key, campaign_id, ranges FROM attempt WHERE request_key = ANY($1)")
            .bind(keys)
            .fetch_all(&self.engine)
            .await?;
        // By number, so that each delivery is found by its whole key.
        let mut places = Vec::new();
        for row in &rows {
            let (key, campaign) =
                (SendKey(event_id(row.try_get("request_key")?)?), CampaignId(row.try_get("campaign_id")?));
            let seqs = columns::numbers(row.try_get("ranges")?)?;
            places.extend(seqs.into_iter().map(|seq| (key, (campaign, seq))));
        }
        let of_place: HashMap<(CampaignId, i64), Member> = self
            .found(account, places.iter().map(|(_, place)| *place))
            .await?
            .into_iter()
            .map(|member| ((member.delivery.campaign, member.delivery.seq), member))
            .collect();
        let mut found: HashMap<SendKey, Vec<Member>> = HashMap::new();
        for (key, place) in places {
            if let Some(member) = of_place.get(&place) {
                found.entry(key).or_default().push(member.clone());
            }
        }
        Ok(found)
    }

    pub(super) async fn addresses_of(
        &self,
        deliveries: &[(CampaignId, i64)],
    ) -> Result<HashMap<(CampaignId, i64), AddressHash>> {
        let mut found = HashMap::with_capacity(deliveries.len());
        for (campaign, seqs) in by_campaign(deliveries.iter().copied()) {
            let Some(kept) = self.find_kept(campaign).await? else { continue };
            let numbers = Numbers::of(&seqs);
            let sql = format!(
                "SELECT d.seq, CASE c.channel WHEN 'email' THEN k.email_hash ELSE k.phone_hash END AS address_hash
                   FROM delivery d JOIN contact k ON k.id = d.contact_id JOIN campaign c ON c.id = d.campaign_id
                  WHERE d.month = $1 AND d.campaign_id = $2 AND {}",
                numbers.condition("d.seq", 3)
            );
            let query = sqlx::query(AssertSqlSafe(sql)).bind(kept.month).bind(campaign.0);
            for row in &numbers.bind(query).fetch_all(&self.engine).await? {
                let hash: Option<&[u8]> = row.try_get("address_hash")?;
                if let Some(hash) = hash {
                    found.insert((campaign, row.try_get("seq")?), AddressHash(event_id(hash)?));
                }
            }
        }
        Ok(found)
    }
}
