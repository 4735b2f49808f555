//! The worker's part: claim a batch, record a batch.
//!
//! These statements run for every batch of every campaign. A claim takes its tenant's gates' lock before it reads
//! anything, in a statement of its own: what it reads afterwards is as new as the lock.

mod mark;
pub(super) mod record;

use std::collections::HashMap;

use async_trait::async_trait;
use dispatch_schemas::{
    ids::{AttemptId, ContactId},
    states::{CampaignState, DeliveryState, Lane, StopReason},
};
use dispatch_workers::{
    delivery::{AskAgain, Claim, Claimed, Claims, LedgerUnavailable, Plan, Record, SealedContact},
    message::Token,
    providers::Class,
};
use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};

use mark::mark;
use record::{Batch, record_batch};

use super::{
    PostgresLedger,
    deliveries::{Kept, Numbers, among, ascending, beside},
    lock_gates_shared,
    tally::Moves,
};
use crate::ledger::{
    LedgerError, Result,
    candidates::{Candidate, Claimer, Sifted, address_columns, stopping_reasons},
    claim_notes::noted,
    columns,
    outcomes::Repeats,
};

#[async_trait]
impl Claims for PostgresLedger {
    async fn claim(&self, claim: &Claim<'_>) -> std::result::Result<Claimed, LedgerUnavailable> {
        let mut seqs = claim.seqs.to_vec();
        // The queue may bring a job twice.
        seqs.sort_unstable();
        seqs.dedup();
        // Not again when the connection broke: what may have been claimed is not claimed again.
        let claimed = self.once("claim", || self.claim_batch(claim, &seqs)).await?;
        noted(self, (&self.second_place, self.now_ms()), (claim, claimed), None).await
    }

    async fn claim_again(&self, claim: &Claim<'_>, root: AttemptId) -> std::result::Result<Claimed, LedgerUnavailable> {
        let claimed = self.once("claim_again", || self.claim_root(claim, root)).await?;
        noted(self, (&self.second_place, self.now_ms()), (claim, claimed), Some(root)).await
    }

    async fn record(&self, record: &Record<'_>) -> std::result::Result<(), LedgerUnavailable> {
        Ok(self.repeatable("record", || self.record_outcomes(record)).await?)
    }

    async fn defer(&self, plan: &Plan, waits: &[(i64, i64)]) -> std::result::Result<(), LedgerUnavailable> {
        Ok(self.repeatable("defer", || self.defer_ready(plan, waits)).await?)
    }

    async fn destinations(
        &self,
        plan: &Plan,
        seqs: &[i64],
    ) -> std::result::Result<Vec<Option<i64>>, LedgerUnavailable> {
        Ok(self.destinations_of(plan, seqs).await?)
    }
}

impl PostgresLedger {
    async fn claim_batch(&self, claim: &Claim<'_>, seqs: &[i64]) -> Result<Claimed> {
        let claimer = Claimer::new(claim);
        let Some(kept) = self.find_kept(claimer.campaign).await? else { return Ok(claimer.nothing()) };
        let attempt = AttemptId::from_random(self.draw());
        let mut transaction = self.engine.begin().await?;
        lock_gates_shared(&mut transaction, claimer.tenant).await?;
        // A claim that waited for the lock is as old as its commit.
        let claimer = claimer.at(self.now_ms());
        if !claim.plan.is_in_window(claimer.now_ms) {
            return Ok(claimer.nothing());
        }
        let claimed = claim_batch(&mut transaction, (claimer, kept), attempt, seqs).await?;
        transaction.commit().await?;
        Ok(claimed)
    }

    async fn claim_root(&self, claim: &Claim<'_>, root: AttemptId) -> Result<Claimed> {
        let claimer = Claimer::new(claim);
        let Some(kept) = self.find_kept(claimer.campaign).await? else { return Ok(claimer.nothing()) };
        let attempt = AttemptId::from_random(self.draw());
        let mut transaction = self.engine.begin().await?;
        lock_gates_shared(&mut transaction, claimer.tenant).await?;
        let claimer = claimer.at(self.now_ms());
        if !claim.plan.is_in_window(claimer.now_ms) {
            return Ok(claimer.nothing());
        }
        let claimed = claim_root(&mut transaction, (claimer, kept), attempt, (root, claim.seqs.len())).await?;
        transaction.commit().await?;
        Ok(claimed)
    }

    async fn record_outcomes(&self, record: &Record<'_>) -> Result<()> {
        let plan = record.plan;
        let batch = Batch {
            kept: self.kept(plan.campaign).await?,
            lane: plan.lane,
            repeats: Repeats::of(plan.account.contract().class),
            attempt: record.attempt,
        };
        let mut transaction = self.engine.begin().await?;
        record_batch(&mut transaction, batch, &record.outcomes, record.now_ms).await?;
        Ok(transaction.commit().await?)
    }

    async fn defer_ready(&self, plan: &Plan, waits: &[(i64, i64)]) -> Result<()> {
        let month = self.month_of(plan.campaign).await?;
        let mut waits = waits.to_vec();
        waits.sort_unstable();
        waits.dedup_by_key(|(seq, _)| *seq);
        let (seqs, at_ms): (Vec<i64>, Vec<i64>) = waits.into_iter().unzip();
        let mut transaction = self.engine.begin().await?;
        let numbers = Numbers::of(&seqs);
        let sql = format!(
            "WITH deferred AS (
                 UPDATE delivery d SET state = 'retry_wait', detail = 'destination_limit', next_at_ms = {},
                        updated_at_ms = $5
                  WHERE d.month = $1 AND d.campaign_id = $2 AND d.state = 'ready' AND {}
                 RETURNING d.seq, d.tenant_id, d.next_at_ms)
             INSERT INTO waiting (campaign_id, seq, tenant_id, month, state, next_at_ms)
             SELECT $2, seq, tenant_id, $1, 'retry_wait', next_at_ms FROM deferred",
            beside("d.seq", 3, "$4::bigint[]"),
            numbers.condition("d.seq", 6)
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(month)
            .bind(plan.campaign.0)
            .bind(&seqs)
            .bind(at_ms)
            .bind(self.now_ms());
        let done = numbers.bind(query).execute(&mut *transaction).await?.rows_affected();
        let mut moves = Moves::default();
        moves.left(DeliveryState::Ready, "", done);
        moves.entered(DeliveryState::RetryWait, "", done);
        moves.write(plan.campaign, &mut transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Members of a request that is repeated whole pass no limit one by one: it had its permits the first time.
    async fn destinations_of(&self, plan: &Plan, seqs: &[i64]) -> Result<Vec<Option<i64>>> {
        let month = self.month_of(plan.campaign).await?;
        let (_, _, destination) = address_columns(plan.channel);
        let is_repeated = match plan.account.contract().class {
            Class::KeyWithTtl { .. } => "d.doubted AND NOT d.alone",
            Class::ClientId | Class::EchoOnly | Class::Nothing => "false",
        };
        let mut asked = seqs.to_vec();
        asked.sort_unstable();
        asked.dedup();
        let numbers = Numbers::of(&asked);
        let sql = format!(
            "SELECT d.seq, c.{destination} FROM delivery d JOIN contact c ON c.id = d.contact_id
              WHERE d.month = $1 AND d.campaign_id = $2 AND NOT ({is_repeated}) AND c.{destination} IS NOT NULL AND {}",
            numbers.condition("d.seq", 3)
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(month).bind(plan.campaign.0);
        let rows = numbers.bind(query).fetch_all(&self.engine).await?;
        let found =
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<HashMap<i64, i64>>>()?;
        Ok(seqs.iter().map(|seq| found.get(seq).copied()).collect())
    }
}

/// T5: checks and marks a batch, and stops what may not be sent.
async fn claim_batch(
    conn: &mut PgConnection,
    (claimer, kept): (Claimer, Kept),
    attempt: AttemptId,
    seqs: &[i64],
) -> Result<Claimed> {
    if !is_claimable(conn, &claimer).await? {
        return Ok(claimer.nothing());
    }
    let mut sifted = Sifted::default();
    for candidate in ready(conn, (&claimer, kept), seqs).await? {
        sifted.take_or_ask(candidate, &claimer);
    }
    let roots = std::mem::take(&mut sifted.roots);
    let claimed = mark(conn, (claimer, kept), attempt, None, sifted).await?;
    let mut again = Vec::with_capacity(roots.len());
    for root in roots {
        again.push(AskAgain { root, seqs: ready_members(conn, kept, root).await? });
    }
    Ok(Claimed { again, ..claimed })
}

/// T5 for the members of an unknown request that are to be asked again with the key of its first attempt.
///
/// All of them or none: a provider that takes some of them under the key answers "duplicate" for the others, and they
/// would pass for accepted.
async fn claim_root(
    conn: &mut PgConnection,
    (claimer, kept): (Claimer, Kept),
    attempt: AttemptId,
    (root, most): (AttemptId, usize),
) -> Result<Claimed> {
    if !is_claimable(conn, &claimer).await? {
        return Ok(claimer.nothing());
    }
    let Some((token, seqs)) = first_attempt(conn, root).await? else { return Ok(claimer.nothing()) };
    // Nothing when there are permits for fewer.
    let members = all_members(conn, (&claimer, kept), root, &seqs).await?.filter(|members| members.len() <= most);
    let mut sifted = Sifted::default();
    for candidate in members.into_iter().flatten() {
        sifted.take(candidate, &claimer);
    }
    let claimed = mark(conn, (claimer, kept), attempt, Some(root), sifted).await?;
    Ok(Claimed { root: token, ..claimed })
}

async fn is_claimable(conn: &mut PgConnection, claimer: &Claimer) -> Result<bool> {
    let row = sqlx::query(
        "SELECT 1 FROM campaign c JOIN tenant t ON t.id = c.tenant_id
          WHERE c.id = $1 AND c.tenant_id = $2 AND c.state = 'running'
            AND (c.expires_at_ms IS NULL OR c.expires_at_ms > $3) AND t.closed_at_ms IS NULL
            AND NOT EXISTS (SELECT FROM quarantine WHERE left_at_ms IS NULL)
            AND EXISTS (SELECT FROM ledger_epoch WHERE id = 1 AND server = this_server())",
    )
    .bind(claimer.campaign.0)
    .bind(claimer.tenant.0)
    .bind(claimer.now_ms)
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// What reads a candidate, its person and the first gate that stops it. `$1` is the month, `$2` the campaign, `$3` the
/// tenant.
fn candidates_sql(claimer: &Claimer) -> String {
    let (address, hash, _) = address_columns(claimer.channel);
    let reasons = stopping_reasons(claimer.purpose);
    let (message, join) = match claimer.lane {
        Lane::Bulk => ("NULL::bytea", ""),
        Lane::Transactional => ("m.sealed", "LEFT JOIN message m ON m.campaign_id = d.campaign_id AND m.seq = d.seq"),
    };
    format!(
        "SELECT d.seq, d.state, d.key_epoch, d.attempts, d.alone, d.doubted, d.root_id, d.first_sent_at_ms,
                c.id AS contact_id, c.key, c.{address} AS address, c.fields, {message} AS message,
                (SELECT g.reason FROM gate g
                  WHERE g.tenant_id = $3 AND g.address_hash = c.{hash} AND g.reason IN ({reasons}) LIMIT 1) AS gate
           FROM delivery d LEFT JOIN contact c ON c.id = d.contact_id {join}
          WHERE d.month = $1 AND d.campaign_id = $2"
    )
}

fn candidate(row: &PgRow) -> Result<Candidate> {
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
        key_epoch: row.try_get::<i16, _>("key_epoch")?.into(),
        attempts: row.try_get::<i16, _>("attempts")?.into(),
        alone: row.try_get("alone")?,
        doubted: row.try_get("doubted")?,
        root: row.try_get::<Option<i64>, _>("root_id")?.map(AttemptId),
        first_sent_at_ms: row.try_get("first_sent_at_ms")?,
        contact,
        gate: if is_gated { Some(columns::word(row, "gate")?) } else { None },
    })
}

/// Locks what is ready of a batch. What another transaction has locked is left to it.
async fn ready(conn: &mut PgConnection, (claimer, kept): (&Claimer, Kept), seqs: &[i64]) -> Result<Vec<Candidate>> {
    let numbers = Numbers::of(seqs);
    let sql = format!(
        "{} AND {} AND d.state = 'ready' FOR UPDATE OF d SKIP LOCKED",
        candidates_sql(claimer),
        numbers.condition("d.seq", 4)
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(kept.month).bind(kept.campaign.0).bind(claimer.tenant.0);
    numbers.bind(query).fetch_all(conn).await?.iter().map(candidate).collect()
}

/// An attempt's token and the numbers it was made for.
async fn first_attempt(conn: &mut PgConnection, attempt: AttemptId) -> Result<Option<(Token, Vec<i64>)>> {
    let row =
        sqlx::query("SELECT token, ranges FROM attempt WHERE id = $1").bind(attempt.0).fetch_optional(conn).await?;
    row.map(|row| Ok((token(row.try_get("token")?)?, columns::numbers(row.try_get("ranges")?)?))).transpose()
}

/// The token of an attempt as it is stored.
pub(super) fn token(bytes: &[u8]) -> Result<Token> {
    bytes.try_into().map(Token).map_err(|_| LedgerError::Corrupt("an attempt's token"))
}

/// Locks all deliveries that an unknown request is to be repeated with; nothing unless they all are ready. One that is
/// locked elsewhere is waited for: without it they would not be all.
async fn all_members(
    conn: &mut PgConnection,
    (claimer, kept): (&Claimer, Kept),
    root: AttemptId,
    seqs: &[i64],
) -> Result<Option<Vec<Candidate>>> {
    let numbers = Numbers::of(seqs);
    let sql = format!(
        "{} AND d.root_id = $4 AND d.doubted AND NOT d.alone
            AND d.state IN ('ready', 'claimed', 'unknown', 'retry_wait') AND {} ORDER BY d.seq FOR UPDATE OF d",
        candidates_sql(claimer),
        numbers.condition("d.seq", 5)
    );
    let query =
        sqlx::query(AssertSqlSafe(sql)).bind(kept.month).bind(kept.campaign.0).bind(claimer.tenant.0).bind(root.0);
    let rows = numbers.bind(query).fetch_all(conn).await?;
    for row in &rows {
        if columns::word::<_, DeliveryState>(row, "state")? != DeliveryState::Ready {
            return Ok(None);
        }
    }
    rows.iter().map(candidate).collect::<Result<_>>().map(Some)
}

/// All deliveries that an unknown request is to be repeated with.
async fn ready_members(conn: &mut PgConnection, kept: Kept, root: AttemptId) -> Result<Vec<i64>> {
    let Some((_, seqs)) = first_attempt(conn, root).await? else { return Ok(Vec::new()) };
    let numbers = Numbers::of(&seqs);
    let sql = format!(
        "SELECT d.seq FROM delivery d WHERE d.month = $1 AND d.campaign_id = $2 AND d.root_id = $3 AND d.doubted
            AND NOT d.alone AND d.state = 'ready' AND {} ORDER BY d.seq",
        numbers.condition("d.seq", 4)
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(kept.month).bind(kept.campaign.0).bind(root.0);
    numbers.bind(query).fetch_all(conn).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Why deliveries may not be sent any more: their campaign is cancelled, their person is gone, or their gate is closed.
pub(super) async fn stop_reasons(
    conn: &mut PgConnection,
    kept: Kept,
    seqs: &[i64],
) -> Result<HashMap<i64, StopReason>> {
    let campaign = sqlx::query("SELECT tenant_id, state, channel, purpose FROM campaign WHERE id = $1")
        .bind(kept.campaign.0)
        .fetch_optional(&mut *conn)
        .await?;
    let Some(campaign) = campaign else { return Ok(HashMap::new()) };
    if campaign.try_get::<&str, _>("state")? == CampaignState::Cancelled.as_str() {
        return Ok(seqs.iter().map(|seq| (*seq, StopReason::Cancelled)).collect());
    }
    let (address, hash, _) = address_columns(columns::word(&campaign, "channel")?);
    let reasons = stopping_reasons(columns::word(&campaign, "purpose")?);
    let sql = format!(
        "SELECT seq, gate FROM (
             SELECT d.seq, CASE WHEN c.{address} IS NULL THEN 'erased' ELSE
                    (SELECT g.reason FROM gate g
                      WHERE g.tenant_id = $4 AND g.address_hash = c.{hash} AND g.reason IN ({reasons}) LIMIT 1)
                    END AS gate
               FROM delivery d LEFT JOIN contact c ON c.id = d.contact_id
              WHERE d.month = $1 AND d.campaign_id = $2 AND {}) looked_at
          WHERE gate IS NOT NULL",
        among("d.seq", 3)
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(kept.month)
        .bind(kept.campaign.0)
        .bind(ascending(seqs.iter().copied()))
        .bind(campaign.try_get::<i64, _>("tenant_id")?)
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("seq")?, columns::word(row, "gate")?))).collect()
}
