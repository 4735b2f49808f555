//! The worker's part: claim a batch, record a batch.
//!
//! These statements run for every batch of every campaign, so each drives from the batch into the primary key: the
//! numbers come as JSON (or as one range where they are contiguous) and are joined with both key columns.

mod claimable;
mod mark;
pub(super) mod record;

use std::collections::BTreeSet;

use async_trait::async_trait;
use dispatch_schemas::{
    ids::{AttemptId, CampaignId, ContactId, TenantId},
    states::{CampaignState, Channel, DeliveryState, Lane, Purpose, StopReason},
};
use dispatch_workers::{
    delivery::{AskAgain, Claim, Claimed, ClaimedDelivery, Claims, LedgerUnavailable, Plan, Record, SealedContact},
    message::Token,
    providers::Class,
};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, sqlite::SqliteRow};

use claimable::is_claimable;
use mark::mark;
use record::{Repeats, record_batch};

use super::{SqliteLedger, rows, tally::Moves};
use crate::ledger::{LedgerError, Result};

impl From<LedgerError> for LedgerUnavailable {
    fn from(error: LedgerError) -> Self {
        Self(error.into_reason())
    }
}

/// What a claim needs to know of its campaign, apart from the plan's borrowed parts.
#[derive(Debug, Clone, Copy)]
struct Claimer {
    campaign: CampaignId,
    tenant: TenantId,
    channel: Channel,
    purpose: Purpose,
    lane: Lane,
    token: Token,
    now_ms: i64,
    /// Class A: for how long the provider remembers a key, milliseconds.
    key_safe_ms: Option<i64>,
    /// Whether each delivery travels in a request of its own, with a key of its own.
    singles: bool,
}

impl Claimer {
    fn new(claim: &Claim<'_>) -> Self {
        let plan = claim.plan;
        let contract = plan.account.contract();
        let key_safe_ms = match contract.class {
            Class::KeyWithTtl { safe_for } => Some(i64::try_from(safe_for.as_millis()).unwrap_or(i64::MAX / 4)),
            Class::ClientId | Class::EchoOnly | Class::Nothing => None,
        };
        Self {
            key_safe_ms,
            singles: contract.recipients_per_request == 1,
            campaign: plan.campaign,
            tenant: plan.tenant,
            channel: plan.channel,
            purpose: plan.purpose,
            lane: plan.lane,
            token: claim.token,
            now_ms: 0,
        }
    }

    /// At the moment of the transaction: a claim that waited for the writer is as old as its commit.
    const fn at(self, now_ms: i64) -> Self {
        Self { now_ms, ..self }
    }

    fn nothing(&self) -> Claimed {
        Claimed { attempt: None, token: self.token, root: self.token, deliveries: Vec::new(), again: Vec::new() }
    }
}

#[async_trait]
impl Claims for SqliteLedger {
    async fn claim(&self, claim: &Claim<'_>) -> std::result::Result<Claimed, LedgerUnavailable> {
        let (claimer, mut seqs) = (Claimer::new(claim), claim.seqs.to_vec());
        let window = claim.plan.sending_window.clone();
        // The queue may bring a job twice.
        seqs.sort_unstable();
        seqs.dedup();
        let (attempt, clock) = (AttemptId::from_random(self.draw()), self.clock.clone());
        Ok(self
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
            .await?)
    }

    async fn claim_again(&self, claim: &Claim<'_>, root: AttemptId) -> std::result::Result<Claimed, LedgerUnavailable> {
        let (claimer, most) = (Claimer::new(claim), claim.seqs.len());
        let window = claim.plan.sending_window.clone();
        let (attempt, clock) = (AttemptId::from_random(self.draw()), self.clock.clone());
        Ok(self
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
            .await?)
    }

    async fn record(&self, record: &Record<'_>) -> std::result::Result<(), LedgerUnavailable> {
        let (campaign, lane) = (record.plan.campaign, record.plan.lane);
        let repeats = match record.plan.account.contract().class {
            Class::KeyWithTtl { .. } => Repeats::Whole,
            Class::ClientId | Class::EchoOnly | Class::Nothing => Repeats::Each,
        };
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

const fn address_columns(channel: Channel) -> (&'static str, &'static str, &'static str) {
    match channel {
        Channel::Email => ("email", "email_hash", "email_destination"),
        Channel::Sms => ("phone", "phone_hash", "phone_destination"),
    }
}

/// The reasons of closed gates that stop a campaign of this purpose, as an SQL list of our own words.
fn stopping_reasons(purpose: Purpose) -> String {
    let words: Vec<String> = StopReason::ALL
        .iter()
        .filter(|reason| reason.stops(purpose))
        .map(|reason| format!("'{}'", reason.as_str()))
        .collect();
    words.join(",")
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
    let mut roots = BTreeSet::new();
    let mut sifted = Sifted::default();
    for row in &found {
        match sifted.root_to_ask(row, &claimer)? {
            Some(root) => drop(roots.insert(root)),
            None => sifted.take(row, &claimer)?,
        }
    }
    let claimed = mark(conn, claimer, attempt, None, sifted).await?;
    let mut again = Vec::with_capacity(roots.len());
    for root in roots {
        let root = AttemptId(root);
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
        sifted.take(row, &claimer)?;
    }
    let token: [u8; 16] =
        first.try_get::<&[u8], _>("token")?.try_into().map_err(|_| LedgerError::Corrupt("an attempt's token"))?;
    let claimed = mark(conn, claimer, attempt, Some(root), sifted).await?;
    Ok(Claimed { root: Token(token), ..claimed })
}

/// Whether a delivery may have been accepted under a key that its provider has forgotten by now.
fn is_too_late(row: &SqliteRow, claimer: &Claimer) -> Result<bool> {
    let first: Option<i64> = row.try_get("first_sent_at_ms")?;
    let (Some(first), Some(safe_ms)) = (first, claimer.key_safe_ms) else { return Ok(false) };
    Ok(row.try_get::<i64, _>("doubted")? != 0 && first.saturating_add(safe_ms) <= claimer.now_ms)
}

/// A batch's candidates: those to claim, and those that may not be sent.
#[derive(Default)]
struct Sifted {
    claimed: Vec<ClaimedDelivery>,
    /// `(seq, reason, whether an earlier attempt may have been accepted)`.
    closed: Vec<(i64, StopReason, bool)>,
    /// May have been accepted under a key that the provider has forgotten by now: not to be repeated.
    too_late: Vec<i64>,
}

impl Sifted {
    /// The request a delivery must be repeated with, when its provider remembers the key of a whole request.
    fn root_to_ask(&self, row: &SqliteRow, claimer: &Claimer) -> Result<Option<i64>> {
        let is_whole = row.try_get::<i64, _>("doubted")? != 0 && row.try_get::<i64, _>("alone")? == 0;
        let asks = claimer.key_safe_ms.is_some() && is_whole && !is_too_late(row, claimer)?;
        Ok(if asks { row.try_get("root_id")? } else { None })
    }

    fn take(&mut self, row: &SqliteRow, claimer: &Claimer) -> Result<()> {
        let seq = row.try_get("seq")?;
        let doubted = row.try_get::<i64, _>("doubted")? != 0;
        if is_too_late(row, claimer)? {
            self.too_late.push(seq);
            return Ok(());
        }
        let contact = row.try_get::<Option<i64>, _>("contact_id")?;
        let address = row.try_get::<Option<Vec<u8>>, _>("address")?;
        let (Some(contact), Some(address)) = (contact, address) else {
            self.closed.push((seq, StopReason::Erased, doubted));
            return Ok(());
        };
        if row.try_get::<Option<&str>, _>("gate")?.is_some() {
            self.closed.push((seq, rows::word(row, "gate")?, doubted));
            return Ok(());
        }
        let attempts: i64 = row.try_get("attempts")?;
        let key_epoch: i64 = row.try_get("key_epoch")?;
        self.claimed.push(ClaimedDelivery {
            seq,
            key_epoch: u8::try_from(key_epoch).unwrap_or(u8::MAX),
            attempt_no: u8::try_from(attempts.saturating_add(1)).unwrap_or(u8::MAX),
            alone: row.try_get::<i64, _>("alone")? != 0,
            contact: Some(SealedContact {
                id: ContactId(contact),
                key: row.try_get("key")?,
                address,
                fields: row.try_get("fields")?,
                message: row.try_get("message")?,
            }),
        });
        Ok(())
    }
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
