//! Marking a batch: claimed what may be sent, ended what may not.

use dispatch_schemas::{
    ids::AttemptId,
    states::{DeliveryState, Lane},
};
use dispatch_workers::delivery::Claimed;
use sqlx::SqliteConnection;

use super::record::forget_messages;
use crate::ledger::{
    LedgerError, Result,
    candidates::{Claimer, Closed, Sifted},
    columns,
    sqlite::{rows, tally::Moves},
};

/// Marks the batch claimed under a new attempt; `root` is the attempt whose key is used again.
pub(super) async fn mark(
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
    if seqs.is_empty() {
        moves.write(claimer.campaign, conn).await?;
        return Ok(claimer.nothing());
    }
    let count = i64::try_from(seqs.len()).unwrap_or(i64::MAX);
    let root = root.unwrap_or(attempt);
    sqlx::query(
        "INSERT INTO attempt (id, campaign_id, root_id, token, ranges, deliveries, open, claimed_at_ms, request_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8)",
    )
    .bind(attempt.0)
    .bind(claimer.campaign.0)
    .bind(root.0)
    .bind(claimer.token.0.as_slice())
    .bind(rows::json_ranges(&seqs))
    .bind(count)
    .bind(claimer.now_ms)
    .bind(claimer.request_key().filter(|_| root == attempt).map(|key| key.0.to_vec()))
    .execute(&mut *conn)
    .await?;
    let run = columns::run(&seqs);
    let query = if run.is_some() {
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
    let query = match run {
        Some((first, last)) => query.bind(first).bind(last),
        None => query.bind(rows::json_numbers(&seqs)),
    };
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

/// T3 for candidates behind a closed gate.
async fn stop(conn: &mut SqliteConnection, claimer: Claimer, closed: &[Closed], moves: &mut Moves) -> Result<()> {
    for Closed { seq, state, reason } in closed {
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
        moves.entered(*state, reason.as_str(), 1);
    }
    if claimer.lane == Lane::Transactional {
        let seqs: Vec<i64> = closed.iter().map(|closed| closed.seq).collect();
        forget_messages(conn, claimer.campaign, &seqs).await?;
    }
    Ok(())
}
