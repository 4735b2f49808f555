//! Deliveries whose outcome is unknown: how they come to be, are found and settled.

use std::collections::{HashMap, HashSet};

use dispatch_schemas::{
    ids::{AttemptId, CampaignId},
    states::DeliveryState,
};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row as _};

use crate::ledger::{
    Result, UnknownDelivery, UnknownGroup, Verdict, columns,
    outcomes::UNPROVEN_DUPLICATE,
    postgres::{
        claims::{record::forget_messages, stop_reasons, token},
        deliveries::{Kept, Numbers, among, ascending, beside},
        tally::Moves,
    },
    verdicts::{Settled, provider_id, settled},
};

/// Most due deliveries whose attempts are looked up at once. What is settled makes room for the next.
const DUE_SCANNED_MAX: i64 = 20_000;
/// Most attempts that are ended in one call.
const REAPED_MAX: i64 = 1_000;

/// Unknown deliveries that are due, by attempt.
pub(super) async fn due(pool: &PgPool, now_ms: i64, attempts_max: u32) -> Result<Vec<UnknownGroup>> {
    let attempts = sqlx::query(
        "SELECT a.id, a.campaign_id, a.month, a.token, a.claimed_at_ms, a.forgotten, a.ranges
           FROM (SELECT DISTINCT d.attempt_id
                   FROM (SELECT month, campaign_id, seq FROM waiting
                          WHERE state = 'unknown' AND next_at_ms <= $1 ORDER BY next_at_ms LIMIT $3) w
                        JOIN delivery d ON d.month = w.month AND d.campaign_id = w.campaign_id AND d.seq = w.seq
                  WHERE d.state = 'unknown' LIMIT $2) due
                JOIN attempt a ON a.id = due.attempt_id
          ORDER BY a.campaign_id, a.id",
    )
    .bind(now_ms)
    .bind(i64::from(attempts_max))
    .bind(DUE_SCANNED_MAX)
    .fetch_all(pool)
    .await?;
    let mut groups = Vec::with_capacity(attempts.len());
    for row in &attempts {
        let attempt = AttemptId(row.try_get("id")?);
        let kept = Kept { campaign: CampaignId(row.try_get("campaign_id")?), month: row.try_get("month")? };
        let seqs = columns::numbers(row.try_get("ranges")?)?;
        let claimed_at_ms = row.try_get("claimed_at_ms")?;
        let members = unknown_of(pool, kept, attempt, &seqs).await?;
        let Some((_, root_token)) = members.first() else { continue };
        groups.push(UnknownGroup {
            campaign: kept.campaign,
            attempt,
            token: token(row.try_get("token")?)?,
            claimed_at_ms,
            root_token: token(root_token)?,
            is_forgotten: row.try_get("forgotten")?,
            deliveries: members
                .iter()
                .map(|(delivery, _)| UnknownDelivery {
                    first_sent_at_ms: delivery.first_sent_at_ms.unwrap_or(claimed_at_ms),
                    seq: delivery.seq,
                    key_epoch: delivery.key_epoch,
                    attempts: delivery.attempts,
                    is_duplicate: delivery.is_duplicate,
                })
                .collect(),
        });
    }
    Ok(groups)
}

struct Unknown {
    seq: i64,
    key_epoch: u8,
    attempts: u32,
    first_sent_at_ms: Option<i64>,
    is_duplicate: bool,
}

/// An attempt's unknown deliveries, ascending, each with the token of its key.
async fn unknown_of(pool: &PgPool, kept: Kept, attempt: AttemptId, seqs: &[i64]) -> Result<Vec<(Unknown, Vec<u8>)>> {
    let numbers = Numbers::of(seqs);
    let sql = format!(
        "SELECT d.seq, d.key_epoch, d.attempts, d.first_sent_at_ms, d.detail = '{UNPROVEN_DUPLICATE}' AS is_duplicate,
                r.token AS root_token
           FROM delivery d JOIN attempt r ON r.id = d.root_id
          WHERE d.month = $1 AND d.campaign_id = $2 AND d.attempt_id = $3 AND d.state = 'unknown' AND {}
          ORDER BY d.seq",
        numbers.condition("d.seq", 4)
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(kept.month).bind(kept.campaign.0).bind(attempt.0);
    let rows = numbers.bind(query).fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            let delivery = Unknown {
                seq: row.try_get("seq")?,
                key_epoch: u8::try_from(row.try_get::<i16, _>("key_epoch")?).unwrap_or(u8::MAX),
                attempts: u32::try_from(row.try_get::<i16, _>("attempts")?).unwrap_or(0),
                first_sent_at_ms: row.try_get("first_sent_at_ms")?,
                is_duplicate: row.try_get("is_duplicate")?,
            };
            Ok((delivery, row.try_get("root_token")?))
        })
        .collect()
}

/// T10: attempts that should have ended long ago. What became of their deliveries is not known. Each is ended in a
/// transaction of its own: one whose outcome comes at the same moment holds up nothing else.
pub(super) async fn reap(pool: &PgPool, claimed_before_ms: i64, now_ms: i64, first_look_ms: i64) -> Result<u64> {
    let open = sqlx::query(
        "SELECT id, campaign_id, month, ranges, claimed_at_ms FROM attempt
          WHERE ended_at_ms IS NULL AND claimed_at_ms <= $1 ORDER BY claimed_at_ms LIMIT $2",
    )
    .bind(claimed_before_ms)
    .bind(REAPED_MAX)
    .fetch_all(pool)
    .await?;
    let mut reaped = 0;
    for row in &open {
        let kept = Kept { campaign: CampaignId(row.try_get("campaign_id")?), month: row.try_get("month")? };
        let seqs = columns::numbers(row.try_get("ranges")?)?;
        let look_at_ms = row.try_get::<i64, _>("claimed_at_ms")?.saturating_add(first_look_ms);
        let mut transaction = pool.begin().await?;
        let attempt = AttemptId(row.try_get("id")?);
        reaped += u64::from(end_attempt(&mut transaction, kept, attempt, &seqs, (look_at_ms, now_ms)).await?);
        transaction.commit().await?;
    }
    Ok(reaped)
}

/// Ends an attempt without an outcome. False when it has ended meanwhile.
async fn end_attempt(
    conn: &mut PgConnection,
    kept: Kept,
    attempt: AttemptId,
    seqs: &[i64],
    (look_at_ms, now_ms): (i64, i64),
) -> Result<bool> {
    let numbers = Numbers::of(seqs);
    let sql = format!(
        "WITH silent AS (
             UPDATE delivery SET state = 'unknown', detail = 'no_outcome', attempts = attempts + 1,
                    doubted = true, duplicate_proves = duplicate_proves OR NOT doubted, next_at_ms = $4, updated_at_ms = $5
              WHERE month = $1 AND campaign_id = $2 AND attempt_id = $3 AND state = 'claimed' AND {}
             RETURNING seq, tenant_id)
         INSERT INTO waiting (campaign_id, seq, tenant_id, month, state, next_at_ms)
         SELECT $2, seq, tenant_id, $1, 'unknown', $4 FROM silent",
        numbers.condition("seq", 6)
    );
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(kept.month)
        .bind(kept.campaign.0)
        .bind(attempt.0)
        .bind(look_at_ms)
        .bind(now_ms);
    let done = numbers.bind(query).execute(&mut *conn).await?.rows_affected();
    // Found by its id: said so that the index of what is open is not taken for it.
    let ended = sqlx::query("UPDATE attempt SET ended_at_ms = $2 WHERE id = $1 AND coalesce(ended_at_ms, 0) = 0")
        .bind(attempt.0)
        .bind(now_ms)
        .execute(&mut *conn)
        .await?
        .rows_affected();
    let mut moves = Moves::default();
    moves.left(DeliveryState::Claimed, "", done);
    moves.entered(DeliveryState::Unknown, "", done);
    moves.write(kept.campaign, conn).await?;
    if done > 0 {
        metrics::counter!("dispatch_claims_expired_total").increment(done);
    }
    Ok(ended == 1)
}

/// Deliveries on which a verdict comes to the same.
struct Group<'a> {
    settled: Settled<'a>,
    members: Vec<(i64, Option<&'a str>)>,
}

pub(super) async fn settle(
    conn: &mut PgConnection,
    kept: Kept,
    attempt: AttemptId,
    verdicts: &[(i64, Verdict)],
    now_ms: i64,
) -> Result<Vec<i64>> {
    let known = lock_unknown(conn, kept, attempt, verdicts).await?;
    let absent: Vec<i64> =
        verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Absent).map(|(seq, _)| *seq).collect();
    let stopped = if absent.is_empty() { HashMap::new() } else { stop_reasons(conn, kept, &absent).await? };
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (seq, verdict) in verdicts.iter().filter(|(seq, _)| known.contains(seq)) {
        let settled = settled(verdict, stopped.get(seq).copied());
        let member = (*seq, provider_id(verdict));
        match groups.iter_mut().find(|group| group.settled == settled) {
            Some(group) => group.members.push(member),
            None => groups.push(Group { settled, members: vec![member] }),
        }
    }
    let mut moves = Moves::default();
    let mut ready = Vec::new();
    for Group { settled, members } in &groups {
        let done = write_group(conn, kept, settled, members, now_ms).await?;
        if settled.state == DeliveryState::Unknown {
            continue;
        }
        metrics::counter!("dispatch_unknown_settled_total", "how" => settled.how).increment(done);
        moves.left(DeliveryState::Unknown, "", done);
        moves.entered(settled.state, settled.detail, done);
        if settled.state == DeliveryState::Ready {
            ready.extend(members.iter().map(|(seq, _)| *seq));
        }
    }
    let seqs: Vec<i64> = verdicts.iter().map(|(seq, _)| *seq).collect();
    forget_messages(conn, kept, &seqs).await?;
    moves.write(kept.campaign, conn).await?;
    ready.sort_unstable();
    Ok(ready)
}

/// Which of them are still this attempt's unknown; they stay so until the end of the transaction.
async fn lock_unknown(
    conn: &mut PgConnection,
    kept: Kept,
    attempt: AttemptId,
    verdicts: &[(i64, Verdict)],
) -> Result<HashSet<i64>> {
    let seqs = ascending(verdicts.iter().map(|(seq, _)| *seq));
    let sql = format!(
        "SELECT d.seq FROM delivery d
          WHERE d.month = $1 AND d.campaign_id = $2 AND d.attempt_id = $4 AND d.state = 'unknown' AND {}
          ORDER BY d.seq FOR UPDATE",
        among("d.seq", 3)
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(kept.month)
        .bind(kept.campaign.0)
        .bind(seqs)
        .bind(attempt.0)
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Writes what locked deliveries become, and where they wait.
async fn write_group(
    conn: &mut PgConnection,
    kept: Kept,
    settled: &Settled<'_>,
    members: &[(i64, Option<&str>)],
    now_ms: i64,
) -> Result<u64> {
    let mut members = members.to_vec();
    members.sort_unstable();
    let (seqs, ids): (Vec<i64>, Vec<Option<&str>>) = members.into_iter().unzip();
    let (numbers, id) = (Numbers::of(&seqs), beside("d.seq", 3, "$4::text[]"));
    let waits = match settled.next_at_ms {
        Some(_) => "UPDATE waiting SET next_at_ms = $7 WHERE campaign_id = $2 AND seq = ANY($3::bigint[])",
        None => "DELETE FROM waiting WHERE campaign_id = $2 AND seq = ANY($3::bigint[])",
    };
    let sql = format!(
        "WITH waits AS ({waits})
         UPDATE delivery d SET state = $5, detail = CASE $6 WHEN '' THEN d.detail ELSE $6 END, next_at_ms = $7,
                provider_id = coalesce({id}, d.provider_id), resends = d.resends + $8::boolean::int, updated_at_ms = $10,
                root_id = CASE $9 WHEN 'renewed' THEN NULL ELSE d.root_id END,
                first_sent_at_ms = CASE WHEN $9 IN ('renewed', 'refused') THEN NULL ELSE d.first_sent_at_ms END,
                key_epoch = least(d.key_epoch + ($9 = 'refused')::int, 255),
                doubted = CASE WHEN $9 IN ('absent', 'refused') THEN false ELSE d.doubted END,
                duplicate_proves = CASE $9 WHEN 'absent' THEN true WHEN 'renewed' THEN true WHEN 'refused' THEN false
                                           ELSE d.duplicate_proves END
          WHERE d.month = $1 AND d.campaign_id = $2 AND {}",
        numbers.condition("d.seq", 11)
    );
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(kept.month)
        .bind(kept.campaign.0)
        .bind(&seqs)
        .bind(ids)
        .bind(settled.state.as_str())
        .bind(settled.detail)
        .bind(settled.next_at_ms)
        .bind(settled.resent)
        .bind(settled.key.as_str())
        .bind(now_ms);
    Ok(numbers.bind(query).execute(conn).await?.rows_affected())
}
