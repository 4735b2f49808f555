//! Marking a batch: claimed what may be sent, ended what may not.

use std::collections::BTreeMap;

use dispatch_schemas::{
    ids::AttemptId,
    states::{DeliveryState, Lane},
};
use dispatch_workers::delivery::Claimed;
use sqlx::{AssertSqlSafe, PgConnection};

use super::record::forget_messages;
use crate::ledger::{
    LedgerError, Result,
    candidates::{Claimer, Closed, Sifted},
    columns,
    postgres::{
        deliveries::{Kept, Numbers, among, ascending},
        tally::Moves,
    },
};

/// Marks the batch claimed under a new attempt; `root` is the attempt whose key is used again. The deliveries' rows are
/// locked.
pub(super) async fn mark(
    conn: &mut PgConnection,
    (claimer, kept): (Claimer, Kept),
    attempt: AttemptId,
    root: Option<AttemptId>,
    sifted: Sifted,
) -> Result<Claimed> {
    let mut moves = Moves::default();
    stop(conn, (claimer, kept), &sifted.closed, &mut moves).await?;
    leave_unknown(conn, (claimer, kept), &sifted.too_late, &mut moves).await?;
    let mut claimed = sifted.claimed;
    claimed.sort_unstable_by_key(|delivery| delivery.seq);
    if claimed.is_empty() {
        moves.write(claimer.campaign, conn).await?;
        return Ok(claimer.nothing());
    }
    let seqs: Vec<i64> = claimed.iter().map(|delivery| delivery.seq).collect();
    let numbers = Numbers::of(&seqs);
    let root = root.unwrap_or(attempt);
    // The attempt and the marks in one round trip.
    let sql = format!(
        "WITH made AS (
             INSERT INTO attempt (id, campaign_id, tenant_id, month, root_id, token, ranges, deliveries, open, claimed_at_ms,
                                  request_key)
             VALUES ($3, $2, $6, $1, $4, $7, $8, $9, $9, $5, $11))
         UPDATE delivery SET state = 'claimed', detail = '', attempt_id = $3, root_id = $4, updated_at_ms = $5,
                first_sent_at_ms = coalesce(first_sent_at_ms, $5), alone = alone OR $10
          WHERE month = $1 AND campaign_id = $2 AND state = 'ready' AND {}",
        numbers.condition("seq", 12)
    );
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(kept.month)
        .bind(claimer.campaign.0)
        .bind(attempt.0)
        .bind(root.0)
        .bind(claimer.now_ms)
        .bind(claimer.tenant.0)
        .bind(claimer.token.0.as_slice())
        .bind(columns::json_ranges(&seqs))
        .bind(i64::try_from(seqs.len()).unwrap_or(i64::MAX))
        .bind(claimer.singles && root == attempt)
        .bind(claimer.request_key().filter(|_| root == attempt).map(|key| key.0.to_vec()));
    let marked = numbers.bind(query).execute(&mut *conn).await?.rows_affected();
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
async fn leave_unknown(
    conn: &mut PgConnection,
    (claimer, kept): (Claimer, Kept),
    seqs: &[i64],
    moves: &mut Moves,
) -> Result<()> {
    if seqs.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "WITH doubted AS (
             UPDATE delivery SET state = 'unknown', detail = 'key_too_old', next_at_ms = $4, updated_at_ms = $4
              WHERE month = $1 AND campaign_id = $2 AND state = 'ready' AND {} RETURNING seq)
         INSERT INTO waiting (campaign_id, seq, tenant_id, month, state, next_at_ms)
         SELECT $2, seq, $5, $1, 'unknown', $4 FROM doubted",
        among("seq", 3)
    );
    let done = sqlx::query(AssertSqlSafe(sql))
        .bind(kept.month)
        .bind(claimer.campaign.0)
        .bind(ascending(seqs.iter().copied()))
        .bind(claimer.now_ms)
        .bind(claimer.tenant.0)
        .execute(conn)
        .await?
        .rows_affected();
    moves.left(DeliveryState::Ready, "", done);
    moves.entered(DeliveryState::Unknown, "", done);
    Ok(())
}

/// T3 for candidates behind a closed gate: a statement for each reason there is among them.
async fn stop(
    conn: &mut PgConnection,
    (claimer, kept): (Claimer, Kept),
    closed: &[Closed],
    moves: &mut Moves,
) -> Result<()> {
    let mut groups: BTreeMap<(&str, &str), (&Closed, Vec<i64>)> = BTreeMap::new();
    for delivery in closed {
        let key = (delivery.state.as_str(), delivery.reason.as_str());
        groups.entry(key).or_insert_with(|| (delivery, Vec::new())).1.push(delivery.seq);
    }
    for (delivery, seqs) in groups.values() {
        let sql = format!(
            "UPDATE delivery SET state = $4, detail = $5, updated_at_ms = $6
              WHERE month = $1 AND campaign_id = $2 AND state = 'ready' AND {}",
            among("seq", 3)
        );
        let done = sqlx::query(AssertSqlSafe(sql))
            .bind(kept.month)
            .bind(claimer.campaign.0)
            .bind(ascending(seqs.iter().copied()))
            .bind(delivery.state.as_str())
            .bind(delivery.reason.as_str())
            .bind(claimer.now_ms)
            .execute(&mut *conn)
            .await?
            .rows_affected();
        moves.left(DeliveryState::Ready, "", done);
        moves.entered(delivery.state, delivery.reason.as_str(), done);
    }
    if claimer.lane == Lane::Transactional && !closed.is_empty() {
        let seqs: Vec<i64> = closed.iter().map(|delivery| delivery.seq).collect();
        forget_messages(conn, kept, &seqs).await?;
    }
    Ok(())
}
