//! The worker's part: claim a batch, record a batch.
//!
//! These statements run for every batch of every campaign, so each drives from the batch into the primary key: the
//! numbers come as JSON (or as one range where they are contiguous) and are joined with both key columns.

mod claimable;
mod mark;
pub(super) mod record;

use async_trait::async_trait;
use dispatch_schemas::{
    ids::{AttemptId, CampaignId, ContactId},
    states::{CampaignState, DeliveryState, Lane, StopReason},
};
use dispatch_workers::{
    delivery::{AskAgain, Claim, Claimed, Claims, LedgerUnavailable, Plan, Record, SealedContact},
    message::Token,
    providers::Class,
};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, sqlite::SqliteRow};

use claimable::is_claimable;
use mark::mark;
use record::record_batch;

use super::{SqliteLedger, rows, tally::Moves};
use crate::ledger::{
    LedgerError, Result,
    candidates::{Candidate, Claimer, Sifted, address_columns, stopping_reasons},
    claim_notes::noted,
    outcomes::Repeats,
};

#[async_trait]
impl Claims for SqliteLedger {
    async fn claim(&self, claim: &Claim<'_>) -> std::result::Result<Claimed, LedgerUnavailable> {
        let (claimer, mut seqs) = (Claimer::new(claim), claim.seqs.to_vec());
        let window = claim.plan.sending_window.clone();
        // The queue may bring a job twice.
        seqs.sort_unstable();
        seqs.dedup();
        let (attempt, clock) = (AttemptId::from_random(self.draw()), self.clock.clone());
        let claimed = self
            .writer
            .run("claim", move |conn| {
                Box::pin(async move {
                    let claimer = claimer.at(clock.now_ms());
                    if is_claimable(conn, claimer, window.as_deref()).await? {
                        claim_batch(conn, claimer, attempt, &seqs).await
                    } else {
                        Ok(claimer.nothing())
                    }
                })
            })
            .await?;
        noted(self, (&self.second_place, self.now_ms()), (claim, claimed), None).await
    }

    async fn claim_again(&self, claim: &Claim<'_>, root: AttemptId) -> std::result::Result<Claimed, LedgerUnavailable> {
        let (claimer, most) = (Claimer::new(claim), claim.seqs.len());
        let window = claim.plan.sending_window.clone();
        let (attempt, clock) = (AttemptId::from_random(self.draw()), self.clock.clone());
        let claimed = self
            .writer
            .run("claim_again", move |conn| {
                Box::pin(async move {
                    let claimer = claimer.at(clock.now_ms());
                    if is_claimable(conn, claimer, window.as_deref()).await? {
                        claim_root(conn, claimer, attempt, (root, most)).await
                    } else {
                        Ok(claimer.nothing())
                    }
                })
            })
            .await?;
        noted(self, (&self.second_place, self.now_ms()), (claim, claimed), Some(root)).await
    }

    async fn record(&self, record: &Record<'_>) -> std::result::Result<(), LedgerUnavailable> {
        let (campaign, lane) = (record.plan.campaign, record.plan.lane);
        let repeats = Repeats::of(record.plan.account.contract().class);
        let (attempt, outcomes, now_ms) = (record.attempt, record.outcomes.clone(), record.now_ms);
        Ok(self
            .writer
            .run("record", move |conn| {
                Box::pin(async move { record_batch(conn, campaign, (lane, repeats), attempt, &outcomes, now_ms).await })
            })
            .await?)
    }

    async fn defer(&self, plan: &Plan, waits: &[(i64, i64)]) -> std::result::Result<(), LedgerUnavailable> {
        let (campaign, waits, now_ms) = (plan.campaign, waits.to_vec(), self.now_ms());
        Ok(self.writer.run("defer", move |conn| Box::pin(defer(conn, campaign, waits, now_ms))).await?)
    }

    async fn destinations(
        &self,
        plan: &Plan,
        seqs: &[i64],
    ) -> std::result::Result<Vec<Option<i64>>, LedgerUnavailable> {
        Ok(destinations(&self.readers, plan, seqs).await?)
    }
}

/// What reads a candidate, its person and the first gate that stops it. `from` says which candidates, `?1` is the
/// campaign, `?2` the tenant. The `+` keeps the list of reasons out of the index: one look at the gates a person has,
/// not one for each reason there is.
fn candidates_sql(claimer: &Claimer, from: &str) -> String {
    let (address, hash, _) = address_columns(claimer.channel);
    let reasons = stopping_reasons(claimer.purpose);
    let (message, join) = match claimer.lane {
        Lane::Bulk => ("NULL", ""),
        Lane::Transactional => ("m.sealed", "LEFT JOIN message m ON m.campaign_id = d.campaign_id AND m.seq = d.seq"),
    };
    format!(
        "SELECT d.seq, d.key_epoch, d.attempts, d.alone, d.doubted, d.root_id, d.first_sent_at_ms, c.id AS contact_id, c.key,
                c.{address} AS address, c.fields, {message} AS message,
                (SELECT g.reason FROM gate g
                  WHERE g.tenant_id = ?2 AND g.address_hash = c.{hash} AND +g.reason IN ({reasons}) LIMIT 1) AS gate
           FROM {from} LEFT JOIN contact c ON c.id = d.contact_id {join}"
    )
}

/// Why a delivery may not be sent any more: its campaign is cancelled, its person is gone, or their gate is closed.
pub(super) async fn stop_reason(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    seq: i64,
) -> Result<Option<StopReason>> {
    let row = sqlx::query("SELECT tenant_id, state, channel, purpose FROM campaign WHERE id = ?")
        .bind(campaign.0)
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get::<&str, _>("state")? == CampaignState::Cancelled.as_str() {
        return Ok(Some(StopReason::Cancelled));
    }
    let (address, hash, _) = address_columns(rows::word(&row, "channel")?);
    let reasons = stopping_reasons(rows::word(&row, "purpose")?);
    let sql = format!(
        "SELECT CASE WHEN c.{address} IS NULL THEN 'erased' ELSE
                (SELECT g.reason FROM gate g
                  WHERE g.tenant_id = ?3 AND g.address_hash = c.{hash} AND +g.reason IN ({reasons}) LIMIT 1) END AS gate
           FROM delivery d LEFT JOIN contact c ON c.id = d.contact_id WHERE d.campaign_id = ?1 AND d.seq = ?2"
    );
    let found = sqlx::query(AssertSqlSafe(sql))
        .bind(campaign.0)
        .bind(seq)
        .bind(row.try_get::<i64, _>("tenant_id")?)
        .fetch_optional(conn)
        .await?;
    match found {
        Some(row) if row.try_get::<Option<&str>, _>("gate")?.is_some() => rows::word(&row, "gate").map(Some),
        _ => Ok(None),
    }
}

/// T5: checks and marks a batch, and stops what may not be sent.
async fn claim_batch(
    conn: &mut SqliteConnection,
    claimer: Claimer,
    attempt: AttemptId,
    seqs: &[i64],
) -> Result<Claimed> {
    let sql = candidates_sql(
        &claimer,
        "json_each(?3) r CROSS JOIN delivery d
             ON d.campaign_id = ?1 AND d.seq BETWEEN r.value ->> 0 AND r.value ->> 1 AND d.state = 'ready'",
    );
    let found = sqlx::query(AssertSqlSafe(sql))
        .bind(claimer.campaign.0)
        .bind(claimer.tenant.0)
        .bind(rows::json_ranges(seqs))
        .fetch_all(&mut *conn)
        .await?;
    let mut sifted = Sifted::default();
    for row in &found {
        sifted.take_or_ask(candidate(row)?, &claimer);
    }
    let roots = std::mem::take(&mut sifted.roots);
    let claimed = mark(conn, claimer, attempt, None, sifted).await?;
    let mut again = Vec::with_capacity(roots.len());
    for root in roots {
        again.push(AskAgain { root, seqs: ready_members(conn, claimer.campaign, root).await? });
    }
    Ok(Claimed { again, ..claimed })
}

/// All deliveries that an unknown request is to be repeated with.
async fn ready_members(conn: &mut SqliteConnection, campaign: CampaignId, root: AttemptId) -> Result<Vec<i64>> {
    let rows = sqlx::query(
        "SELECT d.seq FROM attempt a CROSS JOIN json_each(a.ranges) r CROSS JOIN delivery d
             ON d.campaign_id = ?1 AND d.seq BETWEEN r.value ->> 0 AND r.value ->> 1
          WHERE a.id = ?2 AND d.root_id = ?2 AND d.doubted = 1 AND NOT d.alone AND d.state = 'ready' ORDER BY d.seq",
    )
    .bind(campaign.0)
    .bind(root.0)
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// T5 for the members of an unknown request that are to be asked again with the key of its first attempt.
///
/// All of them or none: a provider that takes some of them under the key answers "duplicate" for the others, and they
/// would pass for accepted.
async fn claim_root(
    conn: &mut SqliteConnection,
    claimer: Claimer,
    attempt: AttemptId,
    (root, most): (AttemptId, usize),
) -> Result<Claimed> {
    let Some(first) =
        sqlx::query("SELECT token, ranges FROM attempt WHERE id = ?").bind(root.0).fetch_optional(&mut *conn).await?
    else {
        return Ok(claimer.nothing());
    };
    let ranges: String = first.try_get("ranges")?;
    let not_ready = sqlx::query(
        "SELECT 1 FROM json_each(?2) r CROSS JOIN delivery d
             ON d.campaign_id = ?1 AND d.seq BETWEEN r.value ->> 0 AND r.value ->> 1
          WHERE d.root_id = ?3 AND d.doubted = 1 AND NOT d.alone
            AND d.state IN ('claimed', 'unknown', 'retry_wait') LIMIT 1",
    )
    .bind(claimer.campaign.0)
    .bind(&ranges)
    .bind(root.0)
    .fetch_optional(&mut *conn)
    .await?;
    if not_ready.is_some() {
        return Ok(claimer.nothing());
    }
    let sql = candidates_sql(
        &claimer,
        "json_each(?3) r CROSS JOIN delivery d
             ON d.campaign_id = ?1 AND d.seq BETWEEN r.value ->> 0 AND r.value ->> 1 AND d.root_id = ?4
            AND d.doubted = 1 AND NOT d.alone AND d.state = 'ready'",
    );
    let found = sqlx::query(AssertSqlSafe(sql))
        .bind(claimer.campaign.0)
        .bind(claimer.tenant.0)
        .bind(ranges)
        .bind(root.0)
        .fetch_all(&mut *conn)
        .await?;
    if found.len() > most {
        // There are permits for fewer.
        return Ok(claimer.nothing());
    }
    let mut sifted = Sifted::default();
    for row in &found {
        sifted.take(candidate(row)?, &claimer);
    }
    let token: [u8; 16] =
        first.try_get::<&[u8], _>("token")?.try_into().map_err(|_| LedgerError::Corrupt("an attempt's token"))?;
    let claimed = mark(conn, claimer, attempt, Some(root), sifted).await?;
    Ok(Claimed { root: Token(token), ..claimed })
}

fn candidate(row: &SqliteRow) -> Result<Candidate> {
    let (contact, address) = (row.try_get::<Option<i64>, _>("contact_id")?, row.try_get::<Option<_>, _>("address")?);
    let contact = match (contact, address) {
        (Some(id), Some(address)) => Some(SealedContact {
            id: ContactId(id),
            key: row.try_get("key")?,
            address,
            fields: row.try_get("fields")?,
            message: row.try_get("message")?,
        }),
        _ => None,
    };
    let is_gated = row.try_get::<Option<&str>, _>("gate")?.is_some();
    Ok(Candidate {
        seq: row.try_get("seq")?,
        key_epoch: row.try_get("key_epoch")?,
        attempts: row.try_get("attempts")?,
        alone: row.try_get::<i64, _>("alone")? != 0,
        doubted: row.try_get::<i64, _>("doubted")? != 0,
        root: row.try_get::<Option<i64>, _>("root_id")?.map(AttemptId),
        first_sent_at_ms: row.try_get("first_sent_at_ms")?,
        contact,
        gate: if is_gated { Some(rows::word(row, "gate")?) } else { None },
    })
}

async fn defer(conn: &mut SqliteConnection, campaign: CampaignId, waits: Vec<(i64, i64)>, now_ms: i64) -> Result<()> {
    let mut moves = Moves::default();
    let done = sqlx::query(
        "UPDATE delivery SET state = 'retry_wait', detail = 'destination_limit', next_at_ms = j.value ->> 2,
                updated_at_ms = ?2
           FROM json_each(?1) j
          WHERE delivery.campaign_id = j.value ->> 0 AND delivery.seq = j.value ->> 1 AND delivery.state = 'ready'",
    )
    .bind(rows::to_json(&waits.iter().map(|(seq, at_ms)| (campaign.0, seq, at_ms)).collect::<Vec<_>>())?)
    .bind(now_ms)
    .execute(&mut *conn)
    .await?
    .rows_affected();
    moves.left(DeliveryState::Ready, "", done);
    moves.entered(DeliveryState::RetryWait, "", done);
    moves.write(campaign, conn).await
}

/// Members of a request that is repeated whole pass no limit one by one: it had its permits the first time.
async fn destinations(readers: &sqlx::SqlitePool, plan: &Plan, seqs: &[i64]) -> Result<Vec<Option<i64>>> {
    let (campaign, (_, _, destination)) = (plan.campaign, address_columns(plan.channel));
    let is_repeated = match plan.account.contract().class {
        Class::KeyWithTtl { .. } => "d.doubted AND NOT d.alone",
        Class::ClientId | Class::EchoOnly | Class::Nothing => "0",
    };
    let sql = format!(
        "SELECT CASE WHEN {is_repeated} THEN NULL ELSE c.{destination} END FROM json_each(?2) j
           LEFT JOIN delivery d ON d.campaign_id = ?1 AND d.seq = j.value
           LEFT JOIN contact c ON c.id = d.contact_id ORDER BY j.key"
    );
    let rows =
        sqlx::query(AssertSqlSafe(sql)).bind(campaign.0).bind(rows::json_numbers(seqs)).fetch_all(readers).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
