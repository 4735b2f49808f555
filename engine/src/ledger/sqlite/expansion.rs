//! T1: finding a campaign's recipients, chunk by chunk, with a durable cursor.
//!
//! Recipients are numbered in the order of their lists and contacts. An address in several lists, or a phone number
//! of several people, is written to once: by the first contact that has it.

use dispatch_schemas::{
    ids::CampaignId,
    states::{CampaignState, Channel, DeliveryState},
};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::{rows, tally::Moves};
use crate::ledger::Result;

/// Expands one chunk of a campaign in one of these states. Returns how many recipients were added.
pub(super) async fn expand(
    conn: &mut SqliteConnection,
    (campaign, states): (CampaignId, &[CampaignState]),
    contacts_max: u32,
    now_ms: i64,
) -> Result<u64> {
    let Some(cursor) = sqlx::query(
        "SELECT channel, expansion_list, expansion_contact, expansion_until, next_seq FROM campaign
          WHERE id = ? AND expanded = 0 AND state IN (SELECT value FROM json_each(?))",
    )
    .bind(campaign.0)
    .bind(rows::to_json(&states)?)
    .fetch_optional(&mut *conn)
    .await?
    else {
        return Ok(0);
    };
    let channel: Channel = rows::word(&cursor, "channel")?;
    let (position, after): (i64, i64) = (cursor.try_get("expansion_list")?, cursor.try_get("expansion_contact")?);
    let next_seq: i64 = cursor.try_get("next_seq")?;

    let Some(list) = list_at(conn, campaign, position).await? else {
        sqlx::query("UPDATE campaign SET expanded = 1 WHERE id = ?").bind(campaign.0).execute(conn).await?;
        return Ok(0);
    };
    // The chunk is a range of contacts looked at, so that one without any recipient moves the cursor too.
    let upto: Option<i64> = sqlx::query(
        "SELECT max(id) FROM (SELECT id FROM contact WHERE list_id = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?)",
    )
    .bind(list)
    .bind(after)
    .bind(cursor.try_get::<i64, _>("expansion_until")?)
    .bind(contacts_max)
    .fetch_one(&mut *conn)
    .await?
    .try_get(0)?;
    let Some(upto) = upto else {
        sqlx::query("UPDATE campaign SET expansion_list = expansion_list + 1, expansion_contact = 0 WHERE id = ?")
            .bind(campaign.0)
            .execute(&mut *conn)
            .await?;
        return Box::pin(expand(conn, (campaign, states), contacts_max, now_ms)).await;
    };
    let added = sqlx::query(AssertSqlSafe(insert_sql(channel, position)))
        .bind(campaign.0)
        .bind(list)
        .bind(after)
        .bind(upto)
        .bind(next_seq)
        .bind(now_ms)
        .bind(position)
        .execute(&mut *conn)
        .await?
        .rows_affected();
    sqlx::query("UPDATE campaign SET expansion_contact = ?2, next_seq = next_seq + ?3 WHERE id = ?1")
        .bind(campaign.0)
        .bind(upto)
        .bind(i64::try_from(added).unwrap_or(i64::MAX))
        .execute(&mut *conn)
        .await?;
    let mut moves = Moves::default();
    moves.entered(DeliveryState::Ready, "", added);
    moves.write(campaign, conn).await?;
    Ok(added)
}

async fn list_at(conn: &mut SqliteConnection, campaign: CampaignId, position: i64) -> Result<Option<i64>> {
    let row = sqlx::query("SELECT list_id FROM campaign_list WHERE campaign_id = ? AND position = ?")
        .bind(campaign.0)
        .bind(position)
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

fn insert_sql(channel: Channel, position: i64) -> String {
    let hash = match channel {
        Channel::Email => "email_hash",
        Channel::Sms => "phone_hash",
    };
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
            "AND NOT EXISTS (SELECT 1 FROM campaign_list l CROSS JOIN contact e
                               ON e.{hash} = c.{hash} AND e.list_id = l.list_id
                              WHERE l.campaign_id = ?1 AND l.position < ?7
                                AND coalesce(e.import_id, 0) NOT IN {finished})"
        )
    };
    format!(
        "INSERT INTO delivery (campaign_id, seq, contact_id, state, updated_at_ms)
         SELECT ?1, ?5 - 1 + row_number() OVER (ORDER BY c.id), c.id, 'ready', ?6
           FROM contact c
          WHERE c.list_id = ?2 AND c.id > ?3 AND c.id <= ?4 AND c.{hash} IS NOT NULL AND ?7 = ?7
            AND coalesce(c.import_id, 0) NOT IN {finished} {first_of_list} {first_of_campaign}
          ORDER BY c.id"
    )
}
