//! Deliveries whose outcome is unknown: how they come to be, are found and settled.

use dispatch_schemas::{
    ids::{AttemptId, CampaignId},
    states::DeliveryState,
};
use dispatch_workers::message::Token;
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use crate::ledger::{
    LedgerError, Result, UnknownDelivery, UnknownGroup, Verdict,
    outcomes::UNPROVEN_DUPLICATE,
    sqlite::{claims, tally::Moves},
    verdicts::{provider_id, settled},
};

/// Unknown deliveries that are due, by attempt.
pub(super) async fn due(readers: &SqlitePool, now_ms: i64, attempts_max: u32) -> Result<Vec<UnknownGroup>> {
    // The list of states is what the partial index says of itself; without it the table would be scanned.
    let rows = sqlx::query(
        "SELECT d.campaign_id, d.seq, d.key_epoch, d.attempts, d.attempt_id, a.token, a.claimed_at_ms, a.forgotten,
                coalesce(d.first_sent_at_ms, a.claimed_at_ms) AS first_sent_at_ms, d.detail = ?3 AS is_duplicate,
                r.token AS root_token
           FROM (SELECT DISTINCT attempt_id FROM delivery
                  WHERE state IN ('retry_wait', 'unknown') AND state = 'unknown' AND next_at_ms <= ?1 LIMIT ?2) due
                CROSS JOIN attempt a ON a.id = due.attempt_id
                CROSS JOIN json_each(a.ranges) g CROSS JOIN delivery d
                    ON d.campaign_id = a.campaign_id AND d.seq BETWEEN g.value ->> 0 AND g.value ->> 1
                JOIN attempt r ON r.id = d.root_id
          WHERE d.attempt_id = a.id AND d.state = 'unknown' ORDER BY d.campaign_id, a.id, d.seq",
    )
    .bind(now_ms)
    .bind(attempts_max)
    .bind(UNPROVEN_DUPLICATE)
    .fetch_all(readers)
    .await?;
    let mut groups: Vec<UnknownGroup> = Vec::new();
    for row in &rows {
        let attempt = AttemptId(row.try_get("attempt_id")?);
        let delivery = UnknownDelivery {
            seq: row.try_get("seq")?,
            key_epoch: u8::try_from(row.try_get::<i64, _>("key_epoch")?).unwrap_or(u8::MAX),
            first_sent_at_ms: row.try_get("first_sent_at_ms")?,
            attempts: row.try_get("attempts")?,
            is_duplicate: row.try_get("is_duplicate")?,
        };
        match groups.last_mut() {
            Some(group) if group.attempt == attempt => group.deliveries.push(delivery),
            _ => groups.push(UnknownGroup {
                campaign: CampaignId(row.try_get("campaign_id")?),
                attempt,
                token: token(row.try_get("token")?)?,
                claimed_at_ms: row.try_get("claimed_at_ms")?,
                root_token: token(row.try_get("root_token")?)?,
                is_forgotten: row.try_get("forgotten")?,
                deliveries: vec![delivery],
            }),
        }
    }
    Ok(groups)
}

fn token(bytes: &[u8]) -> Result<Token> {
    bytes.try_into().map(Token).map_err(|_| LedgerError::Corrupt("an attempt's token"))
}

/// T10: attempts that should have ended long ago. What became of their deliveries is not known.
pub(super) async fn reap(
    conn: &mut SqliteConnection,
    claimed_before_ms: i64,
    now_ms: i64,
    first_look_ms: i64,
) -> Result<u64> {
    let open = sqlx::query(
        "SELECT id, campaign_id, ranges, claimed_at_ms FROM attempt
          WHERE ended_at_ms IS NULL AND claimed_at_ms <= ? ORDER BY claimed_at_ms LIMIT 1000",
    )
    .bind(claimed_before_ms)
    .fetch_all(&mut *conn)
    .await?;
    for row in &open {
        let (attempt, campaign) = (row.try_get::<i64, _>("id")?, CampaignId(row.try_get("campaign_id")?));
        let claimed_at_ms: i64 = row.try_get("claimed_at_ms")?;
        let done = sqlx::query(
            "UPDATE delivery SET state = 'unknown', detail = 'no_outcome', attempts = attempts + 1,
                    doubted = 1, duplicate_proves = max(duplicate_proves, NOT doubted), next_at_ms = ?4, updated_at_ms = ?5
              WHERE (campaign_id, seq) IN (
                    SELECT d.campaign_id, d.seq FROM json_each(?3) r CROSS JOIN delivery d
                        ON d.campaign_id = ?1 AND d.seq BETWEEN r.value ->> 0 AND r.value ->> 1
                     WHERE d.attempt_id = ?2 AND d.state = 'claimed')",
        )
        .bind(campaign.0)
        .bind(attempt)
        .bind(row.try_get::<String, _>("ranges")?)
        .bind(claimed_at_ms.saturating_add(first_look_ms))
        .bind(now_ms)
        .execute(&mut *conn)
        .await?
        .rows_affected();
        sqlx::query("UPDATE attempt SET ended_at_ms = ? WHERE id = ?")
            .bind(now_ms)
            .bind(attempt)
            .execute(&mut *conn)
            .await?;
        let mut moves = Moves::default();
        moves.left(DeliveryState::Claimed, "", done);
        moves.entered(DeliveryState::Unknown, "", done);
        moves.write(campaign, conn).await?;
        if done > 0 {
            metrics::counter!("dispatch_claims_expired_total").increment(done);
        }
    }
    Ok(open.len() as u64)
}

pub(super) async fn settle(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    attempt: AttemptId,
    verdicts: &[(i64, Verdict)],
    now_ms: i64,
) -> Result<Vec<i64>> {
    let mut moves = Moves::default();
    let mut ready = Vec::new();
    for (seq, verdict) in verdicts {
        let settled = settle_one(conn, campaign, attempt, *seq, verdict, now_ms).await?;
        let Some((state, detail)) = settled else { continue };
        moves.left(DeliveryState::Unknown, "", 1);
        moves.entered(state, detail, 1);
        if state == DeliveryState::Ready {
            ready.push(*seq);
        }
    }
    moves.write(campaign, conn).await?;
    let seqs: Vec<i64> = verdicts.iter().map(|(seq, _)| *seq).collect();
    claims::record::forget_messages(conn, campaign, &seqs).await?;
    Ok(ready)
}

/// What a verdict makes of an unknown delivery; nothing when it is no longer this attempt's unknown.
async fn settle_one<'a>(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    attempt: AttemptId,
    seq: i64,
    verdict: &'a Verdict,
    now_ms: i64,
) -> Result<Option<(DeliveryState, &'a str)>> {
    let stopped = match verdict {
        Verdict::Absent => claims::stop_reason(conn, campaign, seq).await?,
        _ => None,
    };
    let settled = settled(verdict, stopped);
    let done = sqlx::query(
        "UPDATE delivery SET state = ?4, detail = CASE ?5 WHEN '' THEN detail ELSE ?5 END, next_at_ms = ?6,
                provider_id = coalesce(?7, provider_id), resends = resends + ?8, updated_at_ms = ?9,
                root_id = CASE ?10 WHEN 'renewed' THEN NULL ELSE root_id END,
                first_sent_at_ms = CASE WHEN ?10 IN ('renewed', 'refused') THEN NULL ELSE first_sent_at_ms END,
                key_epoch = min(key_epoch + (?10 = 'refused'), 255),
                doubted = CASE WHEN ?10 IN ('absent', 'refused') THEN 0 ELSE doubted END,
                duplicate_proves = CASE ?10 WHEN 'absent' THEN 1 WHEN 'renewed' THEN 1 WHEN 'refused' THEN 0
                                            ELSE duplicate_proves END
          WHERE campaign_id = ?1 AND seq = ?2 AND attempt_id = ?3 AND state = 'unknown'",
    )
    .bind(campaign.0)
    .bind(seq)
    .bind(attempt.0)
    .bind(settled.state.as_str())
    .bind(settled.detail)
    .bind(settled.next_at_ms)
    .bind(provider_id(verdict))
    .bind(i64::from(settled.resent))
    .bind(now_ms)
    .bind(settled.key.as_str())
    .execute(conn)
    .await?
    .rows_affected();
    if done == 0 || settled.state == DeliveryState::Unknown {
        return Ok(None);
    }
    metrics::counter!("dispatch_unknown_settled_total", "how" => settled.how).increment(1);
    Ok(Some((settled.state, settled.detail)))
}
