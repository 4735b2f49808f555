//! Who received what.

use std::collections::HashMap;

use dispatch_schemas::{
    api::{
        campaigns::{RecipientStatus, Reports},
        time::Moment,
    },
    facts::Facts,
    ids::{CampaignId, ContactId},
    states::{Channel, DeliveryState},
};
use dispatch_workers::{
    delivery::SealedContact,
    sealing::{SendKeys, TenantKeys},
};
use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};

use super::{facts::facts_of, rows};
use crate::ledger::{EvidenceRow, RecipientFilter, Result, candidates::address_columns, masking::masked};

/// A page of a campaign's recipients, by number.
pub(super) async fn list(
    conn: &mut PgConnection,
    send_keys: &SendKeys,
    keys: &TenantKeys,
    campaign: CampaignId,
    channel: Channel,
    filter: RecipientFilter,
) -> Result<Vec<RecipientStatus>> {
    let (address, hash, _) = address_columns(channel);
    let sql = format!(
        "SELECT d.seq, d.key_epoch, d.state, d.detail, d.attempts, d.provider_id, d.updated_at_ms,
                c.id AS contact_id, c.key, c.{address} AS address, c.{hash} AS hash
           FROM delivery d LEFT JOIN contact c ON c.id = d.contact_id
          WHERE d.month = (SELECT month FROM campaign WHERE id = $1) AND d.campaign_id = $1 AND d.seq > $2
            AND ($3::text IS NULL OR d.state = $3) ORDER BY d.seq LIMIT $4"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(campaign.0)
        .bind(filter.after.unwrap_or(-1))
        .bind(filter.state.map(DeliveryState::as_str))
        .bind(i64::from(filter.limit))
        .fetch_all(&mut *conn)
        .await?;
    let seqs: Vec<i64> = rows.iter().map(|row| Ok(row.try_get("seq")?)).collect::<Result<_>>()?;
    let facts = facts_of(conn, campaign, &seqs).await?;
    rows.iter().map(|row| status(row, send_keys, keys, (campaign, channel), &facts)).collect()
}

/// A page of a campaign's deliveries with their sealed addresses.
pub(super) async fn evidence(
    conn: &mut PgConnection,
    campaign: CampaignId,
    channel: Channel,
    after: i64,
    limit: u32,
) -> Result<Vec<EvidenceRow>> {
    let (address, ..) = address_columns(channel);
    let sql = format!(
        "SELECT d.seq, d.state, d.resends, c.id AS contact_id, c.key, c.{address} AS address
           FROM delivery d LEFT JOIN contact c ON c.id = d.contact_id
          WHERE d.month = (SELECT month FROM campaign WHERE id = $1) AND d.campaign_id = $1 AND d.seq > $2
          ORDER BY d.seq LIMIT $3"
    );
    let rows =
        sqlx::query(AssertSqlSafe(sql)).bind(campaign.0).bind(after).bind(i64::from(limit)).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let contact = match (row.try_get::<Option<i64>, _>("contact_id")?, row.try_get("address")?) {
                (Some(id), Some(address)) => Some(SealedContact {
                    id: ContactId(id),
                    key: row.try_get("key")?,
                    address,
                    fields: None,
                    message: None,
                }),
                _ => None,
            };
            Ok(EvidenceRow {
                seq: row.try_get("seq")?,
                state: rows::word(row, "state")?,
                resends: rows::small_count(row, "resends")?,
                contact,
            })
        })
        .collect()
}

fn status(
    row: &PgRow,
    send_keys: &SendKeys,
    keys: &TenantKeys,
    (campaign, channel): (CampaignId, Channel),
    facts: &HashMap<i64, Facts>,
) -> Result<RecipientStatus> {
    let seq = row.try_get("seq")?;
    let facts = facts.get(&seq).cloned().unwrap_or_default();
    let state = rows::word(row, "state")?;
    let epoch = u8::try_from(row.try_get::<i16, _>("key_epoch")?).unwrap_or(u8::MAX);
    let detail: String = row.try_get("detail")?;
    let hash: Option<&[u8]> = row.try_get("hash")?;
    Ok(RecipientStatus {
        seq,
        send_key: send_keys.make(campaign, seq, epoch).to_string(),
        address_hash: hash.map(rows::hex),
        address_masked: masked_address(row, keys, channel)?,
        state,
        status: facts.status(state),
        detail: (!detail.is_empty()).then_some(detail),
        attempts: rows::small_count(row, "attempts")?,
        provider_id: row.try_get("provider_id")?,
        updated_at: Moment::from_ms(row.try_get("updated_at_ms")?),
        reports: Reports::of(&facts),
    })
}

fn masked_address(row: &PgRow, keys: &TenantKeys, channel: Channel) -> Result<Option<String>> {
    let (Some(id), Some(address)) =
        (row.try_get::<Option<i64>, _>("contact_id")?, row.try_get::<Option<&[u8]>, _>("address")?)
    else {
        return Ok(None);
    };
    Ok(masked(keys, ContactId(id), row.try_get("key")?, address, channel))
}
