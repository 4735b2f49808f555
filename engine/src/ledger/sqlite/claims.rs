//! The worker's part: claim a batch, record a batch.
//!
//! These statements run for every batch of every campaign, so each drives from the batch into the primary key: the
//! numbers come as JSON (or as one range where they are contiguous) and are joined with both key columns.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use dispatch_schemas::{
    ids::{AttemptId, CampaignId, ContactId, TenantId},
    states::{Channel, DeliveryState, Lane, Purpose, StopReason},
};
use dispatch_workers::{
    delivery::{
        AskAgain, Claim, Claimed, ClaimedDelivery, Claims, Counts, LedgerUnavailable, Outcome, Plan, Record,
        SealedContact,
    },
    message::Token,
    providers::Class,
};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{SqliteLedger, rows, tally::Moves};
use crate::ledger::{LedgerError, Result};

impl From<LedgerError> for LedgerUnavailable {
    fn from(error: LedgerError) -> Self {
        Self(error.to_string())
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
        let (claimer, seqs) = (Claimer::new(claim), claim.seqs.to_vec());
        let (attempt, clock) = (AttemptId::from_random(self.draw()), self.clock.clone());
        Ok(self
            .writer
            .run("claim", move |conn| {
                Box::pin(async move { claim_batch(conn, claimer.at(clock.now_ms()), attempt, &seqs).await })
            })
            .await?)
    }

    async fn claim_again(&self, claim: &Claim<'_>, root: AttemptId) -> std::result::Result<Claimed, LedgerUnavailable> {
        let claimer = Claimer::new(claim);
        let attempt = AttemptId::from_random(self.draw());
        Ok(self.writer.run("claim_again", move |conn| Box::pin(claim_root(conn, claimer, attempt, root))).await?)
    }

    async fn record(&self, record: &Record<'_>) -> std::result::Result<(), LedgerUnavailable> {
        let (campaign, lane) = (record.plan.campaign, record.plan.lane);
        let (attempt, outcomes, now_ms) = (record.attempt, record.outcomes.clone(), record.now_ms);
        Ok(self
            .writer
            .run("record", move |conn| {
                Box::pin(async move { record_batch(conn, campaign, lane, attempt, &outcomes, now_ms).await })
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
        let found = destinations(&self.readers, plan.campaign, plan.channel, seqs).await?;
        Ok(found)
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

/// T5: checks and marks a batch, and stops what may not be sent.
async fn claim_batch(
    conn: &mut SqliteConnection,
    claimer: Claimer,
    attempt: AttemptId,
    seqs: &[i64],
) -> Result<Claimed> {
    if !is_claimable(conn, claimer.campaign, claimer.now_ms).await? {
        return Ok(claimer.nothing());
    }
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
    let mut again: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let mut sifted = Sifted::default();
    for row in &found {
        match sifted.root_to_ask(row, &claimer)? {
            Some(root) => again.entry(root).or_default().push(row.try_get("seq")?),
            None => sifted.take(row, &claimer)?,
        }
    }
    let claimed = mark(conn, claimer, attempt, None, sifted).await?;
    let again = again.into_iter().map(|(root, seqs)| AskAgain { root: AttemptId(root), seqs }).collect();
    Ok(Claimed { again, ..claimed })
}

/// T5 for the members of an unknown request that are to be asked again with the key of its first attempt.
///
/// All of them or none: a provider that takes some of them under the key answers "duplicate" for the others, and they
/// would pass for accepted.
async fn claim_root(
    conn: &mut SqliteConnection,
    claimer: Claimer,
    attempt: AttemptId,
    root: AttemptId,
) -> Result<Claimed> {
    if !is_claimable(conn, claimer.campaign, claimer.now_ms).await? {
        return Ok(claimer.nothing());
    }
    let Some(first) =
        sqlx::query("SELECT token, ranges FROM attempt WHERE id = ?").bind(root.0).fetch_optional(&mut *conn).await?
    else {
        return Ok(claimer.nothing());
    };
    let ranges: String = first.try_get("ranges")?;
    let not_ready = sqlx::query(
        "SELECT 1 FROM json_each(?2) r CROSS JOIN delivery d
             ON d.campaign_id = ?1 AND d.seq BETWEEN r.value ->> 0 AND r.value ->> 1
          WHERE d.root_id = ?3 AND d.doubted = 1 AND d.state IN ('claimed', 'unknown', 'retry_wait') LIMIT 1",
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
    let mut sifted = Sifted::default();
    for row in &found {
        sifted.take(row, &claimer)?;
    }
    let token: [u8; 16] =
        first.try_get::<&[u8], _>("token")?.try_into().map_err(|_| LedgerError::Corrupt("an attempt's token"))?;
    let claimed = mark(conn, claimer, attempt, Some(root), sifted).await?;
    Ok(Claimed { root: Token(token), ..claimed })
}

async fn is_claimable(conn: &mut SqliteConnection, campaign: CampaignId, now_ms: i64) -> Result<bool> {
    let row = sqlx::query(
        "SELECT 1 FROM campaign WHERE id = ? AND state = 'running' AND (expires_at_ms IS NULL OR expires_at_ms > ?)",
    )
    .bind(campaign.0)
    .bind(now_ms)
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
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
        Ok(if claimer.key_safe_ms.is_some() && is_whole { row.try_get("root_id")? } else { None })
    }

    fn take(&mut self, row: &SqliteRow, claimer: &Claimer) -> Result<()> {
        let seq = row.try_get("seq")?;
        let doubted = row.try_get::<i64, _>("doubted")? != 0;
        if let (true, Some(safe_ms)) = (doubted, claimer.key_safe_ms) {
            let first: Option<i64> = row.try_get("first_sent_at_ms")?;
            if first.is_some_and(|first| first.saturating_add(safe_ms) <= claimer.now_ms) {
                self.too_late.push(seq);
                return Ok(());
            }
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

/// Marks the batch claimed under a new attempt; `root` is the attempt whose key is used again.
async fn mark(
    conn: &mut SqliteConnection,
    claimer: Claimer,
    attempt: AttemptId,
    root: Option<AttemptId>,
    sifted: Sifted,
) -> Result<Claimed> {
    let mut moves = Moves::default();
    stop(conn, claimer, &sifted.closed, &mut moves).await?;
    leave_unknown(conn, claimer, &sifted.too_late, &mut moves).await?;
    let mut claimed = sifted.claimed;
    claimed.sort_unstable_by_key(|delivery| delivery.seq);
    let seqs: Vec<i64> = claimed.iter().map(|delivery| delivery.seq).collect();
    let (Some(first), Some(last)) = (seqs.first().copied(), seqs.last().copied()) else {
        moves.write(claimer.campaign, conn).await?;
        return Ok(claimer.nothing());
    };
    let count = i64::try_from(seqs.len()).unwrap_or(i64::MAX);
    let root = root.unwrap_or(attempt);
    sqlx::query(
        "INSERT INTO attempt (id, campaign_id, root_id, token, ranges, deliveries, open, claimed_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)",
    )
    .bind(attempt.0)
    .bind(claimer.campaign.0)
    .bind(root.0)
    .bind(claimer.token.0.as_slice())
    .bind(rows::json_ranges(&seqs))
    .bind(count)
    .bind(claimer.now_ms)
    .execute(&mut *conn)
    .await?;
    let query = if last - first + 1 == count {
        sqlx::query(
            "UPDATE delivery SET state = 'claimed', detail = '', attempt_id = ?1, root_id = ?2, updated_at_ms = ?3,
                    first_sent_at_ms = coalesce(first_sent_at_ms, ?3), alone = max(alone, ?4)
              WHERE campaign_id = ?5 AND seq BETWEEN ?6 AND ?7 AND state = 'ready'",
        )
    } else {
        sqlx::query(
            "UPDATE delivery SET state = 'claimed', detail = '', attempt_id = ?1, root_id = ?2, updated_at_ms = ?3,
                    first_sent_at_ms = coalesce(first_sent_at_ms, ?3), alone = max(alone, ?4)
              WHERE (campaign_id, seq) IN (SELECT ?5, value FROM json_each(?6)) AND state = 'ready'",
        )
    }
    .bind(attempt.0)
    .bind(root.0)
    .bind(claimer.now_ms)
    .bind(i64::from(claimer.singles && root == attempt))
    .bind(claimer.campaign.0);
    let query =
        if last - first + 1 == count { query.bind(first).bind(last) } else { query.bind(rows::json_numbers(&seqs)) };
    let marked = query.execute(&mut *conn).await?.rows_affected();
    if marked != seqs.len() as u64 {
        return Err(LedgerError::Corrupt("a claim that marked other rows than it read"));
    }
    moves.left(DeliveryState::Ready, "", marked);
    moves.entered(DeliveryState::Claimed, "", marked);
    moves.write(claimer.campaign, conn).await?;
    Ok(Claimed {
        attempt: Some(attempt),
        token: claimer.token,
        root: claimer.token,
        deliveries: claimed,
        again: Vec::new(),
    })
}

/// Deliveries whose key is no longer safe to repeat are unknown again, and the campaign's policy decides.
async fn leave_unknown(conn: &mut SqliteConnection, claimer: Claimer, seqs: &[i64], moves: &mut Moves) -> Result<()> {
    if seqs.is_empty() {
        return Ok(());
    }
    let done = sqlx::query(
        "UPDATE delivery SET state = 'unknown', detail = 'key_too_old', next_at_ms = ?3, updated_at_ms = ?3
          WHERE (campaign_id, seq) IN (SELECT ?1, value FROM json_each(?2)) AND state = 'ready'",
    )
    .bind(claimer.campaign.0)
    .bind(rows::json_numbers(seqs))
    .bind(claimer.now_ms)
    .execute(conn)
    .await?
    .rows_affected();
    moves.left(DeliveryState::Ready, "", done);
    moves.entered(DeliveryState::Unknown, "", done);
    Ok(())
}

/// T3 for candidates behind a closed gate. One that may have been accepted before can't be called stopped.
async fn stop(
    conn: &mut SqliteConnection,
    claimer: Claimer,
    closed: &[(i64, StopReason, bool)],
    moves: &mut Moves,
) -> Result<()> {
    for (seq, reason, doubted) in closed {
        let state = if *doubted { DeliveryState::UnknownFinal } else { DeliveryState::Stopped };
        sqlx::query(
            "UPDATE delivery SET state = ?3, detail = ?4, updated_at_ms = ?5 WHERE campaign_id = ?1 AND seq = ?2",
        )
        .bind(claimer.campaign.0)
        .bind(seq)
        .bind(state.as_str())
        .bind(reason.as_str())
        .bind(claimer.now_ms)
        .execute(&mut *conn)
        .await?;
        moves.left(DeliveryState::Ready, "", 1);
        moves.entered(state, reason.as_str(), 1);
    }
    if claimer.lane == Lane::Transactional {
        let seqs: Vec<i64> = closed.iter().map(|(seq, ..)| *seq).collect();
        forget_messages(conn, claimer.campaign, &seqs).await?;
    }
    Ok(())
}

/// T6 to T9, T21 and T13, by compare-and-set on the attempt.
async fn record_batch(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    lane: Lane,
    attempt: AttemptId,
    outcomes: &[(i64, Outcome)],
    now_ms: i64,
) -> Result<()> {
    let mut moves = Moves::default();
    // Almost always a whole batch comes to the same; a batch that does not is written in as many statements as it has
    // kinds of outcome.
    let doubted = doubted_among(conn, campaign, outcomes).await?;
    let mut groups: Vec<(Next<'_>, Vec<Member<'_>>)> = Vec::new();
    for (seq, outcome) in outcomes {
        let next = if doubted.contains(seq) { next_when_doubted(outcome, now_ms) } else { next(outcome) };
        let provider_id = match outcome {
            Outcome::Accepted { provider_id } => provider_id.as_deref(),
            _ => None,
        };
        let member = Member { seq: *seq, provider_id };
        match groups.iter_mut().find(|(known, _)| *known == next) {
            Some((_, members)) => members.push(member),
            None => groups.push((next, vec![member])),
        }
    }
    let mut recorded = 0;
    for (next, members) in &groups {
        let done = write_group(conn, campaign, attempt, next, members, now_ms).await?;
        recorded += done;
        moves.left(DeliveryState::Claimed, "", done);
        moves.entered(next.state, next.detail, done);
        if next.state == DeliveryState::Accepted && done != members.len() as u64 {
            // Some were given up meanwhile: what the provider accepted is accepted, whatever we thought.
            for member in members {
                late(conn, campaign, member, now_ms, &mut moves).await?;
            }
        }
    }
    if lane == Lane::Transactional {
        let seqs: Vec<i64> = outcomes.iter().map(|(seq, _)| *seq).collect();
        forget_messages(conn, campaign, &seqs).await?;
    }
    close_attempt(conn, attempt, recorded, now_ms).await?;
    moves.write(campaign, conn).await
}

/// What a claimed delivery becomes.
#[derive(Debug, PartialEq, Eq)]
struct Next<'a> {
    state: DeliveryState,
    detail: &'a str,
    next_at_ms: Option<i64>,
    /// Added to the attempts that count.
    attempts: i64,
    key: Key,
    alone: i64,
}

/// What becomes of the send key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// It stays as it is.
    Same,
    /// It may have been accepted.
    Doubted,
    /// It was never used.
    Unused,
    /// It was definitely refused: the next try has another, so that a provider that remembers the keys of refused
    /// requests can't make us believe in an acceptance.
    Refused,
}

impl<'a> Next<'a> {
    const fn new(state: DeliveryState, detail: &'a str) -> Self {
        Self { state, detail, next_at_ms: None, attempts: 0, key: Key::Same, alone: 0 }
    }
}

/// One delivery of a group with the same outcome.
struct Member<'a> {
    seq: i64,
    provider_id: Option<&'a str>,
}

fn next(outcome: &Outcome) -> Next<'_> {
    match outcome {
        Outcome::Accepted { .. } => Next { attempts: 1, ..Next::new(DeliveryState::Accepted, "answer") },
        Outcome::Duplicate => {
            tracing::error!("a provider refused a key as used that was never used before; the delivery is failed");
            Next { attempts: 1, key: Key::Refused, ..Next::new(DeliveryState::Failed, "key_collision") }
        }
        Outcome::Failed(code) => {
            Next { attempts: 1, key: Key::Refused, ..Next::new(DeliveryState::Failed, code.as_str()) }
        }
        Outcome::Retry { at_ms, code, counts, alone } => Next {
            next_at_ms: Some(*at_ms),
            attempts: i64::from(*counts == Counts::AsAttempt),
            key: Key::Refused,
            alone: i64::from(*alone),
            ..Next::new(DeliveryState::RetryWait, code.as_str())
        },
        Outcome::Released { alone } => {
            Next { alone: i64::from(*alone), key: Key::Unused, ..Next::new(DeliveryState::Ready, "") }
        }
        Outcome::Unknown { code, look_at_ms } => Next {
            next_at_ms: Some(*look_at_ms),
            attempts: 1,
            key: Key::Doubted,
            ..Next::new(DeliveryState::Unknown, code.as_str())
        },
        Outcome::Erased => Next::new(DeliveryState::Stopped, StopReason::Erased.as_str()),
    }
}

/// The same for a delivery that an earlier attempt with this key may have got accepted. A refusal of the repeat says
/// nothing about that attempt, so the doubt and the key stay.
fn next_when_doubted(outcome: &Outcome, now_ms: i64) -> Next<'_> {
    match outcome {
        Outcome::Duplicate => Next { attempts: 1, ..Next::new(DeliveryState::Accepted, "dup_key") },
        Outcome::Failed(code) => {
            Next { next_at_ms: Some(now_ms), attempts: 1, ..Next::new(DeliveryState::Unknown, code.as_str()) }
        }
        Outcome::Retry { at_ms, code, counts, .. } => Next {
            next_at_ms: Some(*at_ms),
            attempts: i64::from(*counts == Counts::AsAttempt),
            ..Next::new(DeliveryState::RetryWait, code.as_str())
        },
        Outcome::Released { .. } => Next::new(DeliveryState::Ready, ""),
        Outcome::Erased => Next::new(DeliveryState::UnknownFinal, StopReason::Erased.as_str()),
        Outcome::Accepted { .. } | Outcome::Unknown { .. } => next(outcome),
    }
}

async fn write_group(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    attempt: AttemptId,
    next: &Next<'_>,
    members: &[Member<'_>],
    now_ms: i64,
) -> Result<u64> {
    let (Some(first), Some(last)) = (members.first(), members.last()) else { return Ok(0) };
    let is_range = last.seq - first.seq + 1 == i64::try_from(members.len()).unwrap_or(i64::MAX)
        && members.is_sorted_by_key(|member| member.seq)
        && members.iter().all(|member| member.provider_id == first.provider_id);
    let query = if is_range {
        sqlx::query(
            "UPDATE delivery SET state = ?1, detail = ?2, next_at_ms = ?3, attempts = attempts + ?4,
                    key_epoch = min(key_epoch + (?5 = 'refused'), 255),
                    doubted = CASE ?5 WHEN 'doubted' THEN 1 WHEN 'refused' THEN 0 ELSE doubted END,
                    first_sent_at_ms = CASE WHEN ?5 IN ('refused', 'unused') THEN NULL ELSE first_sent_at_ms END,
                    alone = max(alone, ?6), updated_at_ms = ?7, provider_id = coalesce(?9, provider_id)
              WHERE campaign_id = ?10 AND seq BETWEEN ?11 AND ?12 AND attempt_id = ?8 AND state = 'claimed'",
        )
    } else {
        // Both parts of the key come from the rows: with the campaign as a constant the whole campaign is scanned.
        sqlx::query(
            "UPDATE delivery SET state = ?1, detail = ?2, next_at_ms = ?3, attempts = attempts + ?4,
                    key_epoch = min(key_epoch + (?5 = 'refused'), 255),
                    doubted = CASE ?5 WHEN 'doubted' THEN 1 WHEN 'refused' THEN 0 ELSE doubted END,
                    first_sent_at_ms = CASE WHEN ?5 IN ('refused', 'unused') THEN NULL ELSE first_sent_at_ms END,
                    alone = max(alone, ?6), updated_at_ms = ?7, provider_id = coalesce(j.value ->> 2, provider_id)
               FROM json_each(?9) j
              WHERE delivery.campaign_id = j.value ->> 0 AND delivery.seq = j.value ->> 1
                AND delivery.attempt_id = ?8 AND delivery.state = 'claimed'",
        )
    }
    .bind(next.state.as_str())
    .bind(next.detail)
    .bind(next.next_at_ms)
    .bind(next.attempts)
    .bind(match next.key {
        Key::Same => "same",
        Key::Doubted => "doubted",
        Key::Unused => "unused",
        Key::Refused => "refused",
    })
    .bind(next.alone)
    .bind(now_ms)
    .bind(attempt.0);
    let query = if is_range {
        query.bind(first.provider_id).bind(campaign.0).bind(first.seq).bind(last.seq)
    } else {
        let rows: Vec<_> = members.iter().map(|member| (campaign.0, member.seq, member.provider_id)).collect();
        query.bind(rows::to_json(&rows)?)
    };
    Ok(query.execute(conn).await?.rows_affected())
}

/// The variables of single messages are not kept past their end.
pub(super) async fn forget_messages(conn: &mut SqliteConnection, campaign: CampaignId, seqs: &[i64]) -> Result<()> {
    sqlx::query(
        "DELETE FROM message WHERE (campaign_id, seq) IN (
             SELECT d.campaign_id, d.seq FROM json_each(?2) j CROSS JOIN delivery d
                 ON d.campaign_id = ?1 AND d.seq = j.value
              WHERE d.state IN ('accepted', 'failed', 'expired', 'stopped', 'unknown_final'))",
    )
    .bind(campaign.0)
    .bind(rows::json_numbers(seqs))
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes recorded deliveries off an attempt; with the last one it has ended.
async fn close_attempt(conn: &mut SqliteConnection, attempt: AttemptId, done: u64, now_ms: i64) -> Result<()> {
    sqlx::query(
        "UPDATE attempt SET open = open - ?2, ended_at_ms = CASE WHEN open <= ?2 THEN ?3 END
          WHERE id = ?1 AND ended_at_ms IS NULL",
    )
    .bind(attempt.0)
    .bind(i64::try_from(done).unwrap_or(i64::MAX))
    .bind(now_ms)
    .execute(conn)
    .await?;
    Ok(())
}

/// Which deliveries an earlier attempt may have got accepted; asked only where it makes a difference.
async fn doubted_among(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    outcomes: &[(i64, Outcome)],
) -> Result<HashSet<i64>> {
    let asked: Vec<i64> = outcomes
        .iter()
        .filter(|(_, outcome)| !matches!(outcome, Outcome::Accepted { .. } | Outcome::Unknown { .. }))
        .map(|(seq, _)| *seq)
        .collect();
    if asked.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = sqlx::query(
        "SELECT d.seq FROM json_each(?2) j CROSS JOIN delivery d ON d.campaign_id = ?1 AND d.seq = j.value
          WHERE d.doubted = 1",
    )
    .bind(campaign.0)
    .bind(rows::json_numbers(&asked))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// T13: an acceptance that comes after we gave the attempt up. Proof beats everything.
async fn late(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    member: &Member<'_>,
    now_ms: i64,
    moves: &mut Moves,
) -> Result<()> {
    let row =
        sqlx::query("SELECT state, detail FROM delivery WHERE campaign_id = ? AND seq = ? AND state <> 'accepted'")
            .bind(campaign.0)
            .bind(member.seq)
            .fetch_optional(&mut *conn)
            .await?;
    let Some(row) = row else { return Ok(()) };
    let (state, detail): (DeliveryState, String) = (rows::word(&row, "state")?, row.try_get("detail")?);
    sqlx::query(
        "UPDATE delivery SET state = 'accepted', detail = 'late_answer', next_at_ms = NULL,
                provider_id = coalesce(?3, provider_id), updated_at_ms = ?4
          WHERE campaign_id = ?1 AND seq = ?2",
    )
    .bind(campaign.0)
    .bind(member.seq)
    .bind(member.provider_id)
    .bind(now_ms)
    .execute(conn)
    .await?;
    moves.left(state, &detail, 1);
    moves.entered(DeliveryState::Accepted, "", 1);
    metrics::counter!("dispatch_unknown_settled_total", "how" => "late_answer").increment(1);
    Ok(())
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

async fn destinations(
    readers: &sqlx::SqlitePool,
    campaign: CampaignId,
    channel: Channel,
    seqs: &[i64],
) -> Result<Vec<Option<i64>>> {
    let (_, _, destination) = address_columns(channel);
    let sql = format!(
        "SELECT c.{destination} FROM json_each(?2) j
           LEFT JOIN delivery d ON d.campaign_id = ?1 AND d.seq = j.value
           LEFT JOIN contact c ON c.id = d.contact_id ORDER BY j.key"
    );
    let rows =
        sqlx::query(AssertSqlSafe(sql)).bind(campaign.0).bind(rows::json_numbers(seqs)).fetch_all(readers).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
