//! T1: finding a campaign's recipients, chunk by chunk, with a durable cursor.
//!
//! Recipients are numbered in the order of their lists and contacts. An address in several lists, or a phone number
//! of several people, is written to once: by the first contact that has it. The cursor's row is locked, so of two
//! schedulers one goes on where the other ended.

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{CampaignState, Channel, DeliveryState},
};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::{PostgresLedger, deliveries::Kept, lock_gates_shared, tally::Moves};
use crate::ledger::{Result, candidates::address_columns, columns};

/// Where an expansion stands.
struct Cursor {
    channel: Channel,
    position: i64,
    after: i64,
    until: i64,
    next_seq: i64,
}

impl PostgresLedger {
    /// Expands one chunk of a campaign in one of these states. Returns how many recipients were added.
    pub(super) async fn expand_chunk(
        &self,
        (campaign, states): (CampaignId, &[CampaignState]),
        contacts_max: u32,
        now_ms: i64,
    ) -> Result<u64> {
        let row = sqlx::query("SELECT tenant_id, month FROM campaign WHERE id = $1")
            .bind(campaign.0)
            .fetch_optional(&self.engine)
            .await?;
        let Some(row) = row else { return Ok(0) };
        let (tenant, kept) = (TenantId(row.try_get("tenant_id")?), Kept { campaign, month: row.try_get("month")? });
        let mut transaction = self.engine.begin().await?;
        // A pause or a cancel comes before this chunk or after it: a cancelled campaign gets no recipients behind those
        // that were stopped.
        lock_gates_shared(&mut transaction, tenant).await?;
        let (added, recipients) = expand(&mut transaction, (tenant, kept), states, contacts_max, now_ms).await?;
        transaction.commit().await?;
        if added > 0 {
            self.count_again(&format!("delivery_{}", kept.month), recipients).await;
        }
        Ok(added)
    }
}

/// Returns how many recipients were added, and how many the campaign has now.
async fn expand(
    conn: &mut PgConnection,
    (tenant, kept): (TenantId, Kept),
    states: &[CampaignState],
    contacts_max: u32,
    now_ms: i64,
) -> Result<(u64, i64)> {
    let campaign = kept.campaign;
    let Some(mut cursor) = lock_cursor(conn, campaign, states).await? else { return Ok((0, 0)) };
    loop {
        let Some(list) = list_at(conn, campaign, cursor.position).await? else {
            sqlx::query("UPDATE expansion SET done = true, list_position = $2, contact_id = 0 WHERE campaign_id = $1")
                .bind(campaign.0)
                .bind(cursor.position)
                .execute(conn)
                .await?;
            return Ok((0, cursor.next_seq));
        };
        // The chunk is a range of contacts looked at, so that one without any recipient moves the cursor too.
        let upto: Option<i64> = sqlx::query(
            "SELECT max(id) FROM (
                 SELECT id FROM contact WHERE list_id = $1 AND id > $2 AND id <= $3 ORDER BY id LIMIT $4) chunk",
        )
        .bind(list)
        .bind(cursor.after)
        .bind(cursor.until)
        .bind(i64::from(contacts_max))
        .fetch_one(&mut *conn)
        .await?
        .try_get(0)?;
        if let Some(upto) = upto {
            let added = add(conn, (tenant, kept), &cursor, (list, upto), now_ms).await?;
            return Ok((added, cursor.next_seq.saturating_add(i64::try_from(added).unwrap_or(i64::MAX))));
        }
        cursor.position += 1;
        cursor.after = 0;
    }
}

async fn lock_cursor(
    conn: &mut PgConnection,
    campaign: CampaignId,
    states: &[CampaignState],
) -> Result<Option<Cursor>> {
    let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    let row = sqlx::query(
        "SELECT c.channel, e.list_position, e.contact_id, e.until_contact, e.next_seq
           FROM expansion e JOIN campaign c ON c.id = e.campaign_id
          WHERE e.campaign_id = $1 AND NOT e.done AND c.state = ANY($2) FOR UPDATE OF e",
    )
    .bind(campaign.0)
    .bind(states)
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(Cursor {
            channel: columns::word(&row, "channel")?,
            position: row.try_get("list_position")?,
            after: row.try_get("contact_id")?,
            until: row.try_get("until_contact")?,
            next_seq: row.try_get("next_seq")?,
        })
    })
    .transpose()
}

async fn list_at(conn: &mut PgConnection, campaign: CampaignId, position: i64) -> Result<Option<i64>> {
    let row = sqlx::query("SELECT list_id FROM campaign_list WHERE campaign_id = $1 AND position = $2")
        .bind(campaign.0)
        .bind(position)
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Adds the recipients among the contacts of a list up to `upto`, and moves the cursor behind them.
async fn add(
    conn: &mut PgConnection,
    (tenant, kept): (TenantId, Kept),
    cursor: &Cursor,
    (list, upto): (i64, i64),
    now_ms: i64,
) -> Result<u64> {
    let added = sqlx::query(AssertSqlSafe(insert_sql(cursor.channel, cursor.position)))
        .bind(kept.campaign.0)
        .bind(list)
        .bind(cursor.after)
        .bind(upto)
        .bind(cursor.next_seq)
        .bind(now_ms)
        .bind(cursor.position)
        .bind(kept.month)
        .bind(tenant.0)
        .execute(&mut *conn)
        .await?
        .rows_affected();
    sqlx::query(
        "UPDATE expansion SET list_position = $2, contact_id = $3, next_seq = next_seq + $4 WHERE campaign_id = $1",
    )
    .bind(kept.campaign.0)
    .bind(cursor.position)
    .bind(upto)
    .bind(i64::try_from(added).unwrap_or(i64::MAX))
    .execute(&mut *conn)
    .await?;
    let mut moves = Moves::default();
    moves.entered(DeliveryState::Ready, "", added);
    moves.write(kept.campaign, conn).await?;
    Ok(added)
}

/// A number that is taken is an error here and not passed over: with the cursor locked it cannot happen, and a recipient
/// passed over would be lost.
fn insert_sql(channel: Channel, position: i64) -> String {
    let (_, hash, _) = address_columns(channel);
    let finished = "(SELECT id FROM import WHERE state IN ('running', 'applying', 'rolling_back'))";
    // E-mail addresses are unique in a list; phone numbers may be shared by its people.
    let first_of_list = match channel {
        Channel::Email => String::new(),
        Channel::Sms => format!(
            "AND NOT EXISTS (SELECT 1 FROM contact e WHERE e.phone_hash = c.phone_hash AND e.list_id = c.list_id
                               AND e.id < c.id AND coalesce(e.import_id, 0) NOT IN {finished})"
        ),
    };
    let first_of_campaign = if position == 0 {
        String::new()
    } else {
        format!(
            "AND NOT EXISTS (SELECT 1 FROM campaign_list l JOIN contact e ON e.{hash} = c.{hash} AND e.list_id = l.list_id
                              WHERE l.campaign_id = $1 AND l.position < $7
                                AND coalesce(e.import_id, 0) NOT IN {finished})"
        )
    };
    format!(
        "INSERT INTO delivery (month, campaign_id, seq, tenant_id, contact_id, state, updated_at_ms)
         SELECT $8, $1, $5 - 1 + row_number() OVER (ORDER BY c.id), $9, c.id, 'ready', $6
           FROM contact c
          WHERE c.list_id = $2 AND c.id > $3 AND c.id <= $4 AND c.{hash} IS NOT NULL AND $7::bigint = $7
            AND coalesce(c.import_id, 0) NOT IN {finished} {first_of_list} {first_of_campaign}
          ORDER BY c.id"
    )
}
