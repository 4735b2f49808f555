//! Recording a batch, by compare-and-set on its attempt.

use std::collections::{HashMap, HashSet};

use dispatch_schemas::{
    ids::AttemptId,
    states::{DeliveryState, Lane},
};
use dispatch_workers::delivery::Outcome;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use crate::ledger::{
    Result, columns,
    outcomes::{Earlier, Group, Member, Next, Repeats, grouped, to_be_asked_for_earlier},
    postgres::{
        deliveries::{Kept, Numbers, among, ascending, beside},
        tally::Moves,
    },
};

/// Whose batch is recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) kept: Kept,
    pub(super) lane: Lane,
    pub(super) repeats: Repeats,
    pub(super) attempt: AttemptId,
}

/// T6 to T9, T21 and T13, by compare-and-set on the attempt.
///
/// Rows are locked in the order deliveries, attempt, counts, as whatever ends an attempt does.
pub(super) async fn record_batch(
    conn: &mut PgConnection,
    batch: Batch,
    outcomes: &[(i64, Outcome)],
    now_ms: i64,
) -> Result<()> {
    let mut moves = Moves::default();
    let earlier = earlier_of(conn, batch.kept, outcomes).await?;
    let (mut recorded, mut unsent) = (0, 0);
    for Group { next, members } in &grouped(outcomes, &earlier, batch.repeats, now_ms) {
        let done = write_group(conn, batch, next, members, now_ms).await?;
        recorded += done;
        unsent += if next.is_unsent() { done } else { 0 };
        moves.left(DeliveryState::Claimed, "", done);
        moves.entered(next.state, next.detail, done);
        if next.proves_late() && done != members.len() as u64 {
            // Some were given up meanwhile: what the provider accepted is accepted, whatever we thought.
            accept_late(conn, batch.kept, members, now_ms, &mut moves).await?;
        }
    }
    if batch.lane == Lane::Transactional {
        let seqs: Vec<i64> = outcomes.iter().map(|(seq, _)| *seq).collect();
        forget_messages(conn, batch.kept, &seqs).await?;
    }
    close_attempt(conn, batch.attempt, (recorded, unsent), now_ms).await?;
    moves.write(batch.kept.campaign, conn).await
}

async fn write_group(
    conn: &mut PgConnection,
    batch: Batch,
    next: &Next<'_>,
    members: &[Member<'_>],
    now_ms: i64,
) -> Result<u64> {
    let (seqs, ids) = by_number(members);
    let first = ids.first().copied().flatten();
    let share_one_id = ids.iter().all(|id| *id == first);
    let numbers = Numbers::of(&seqs);
    let (provider_id, condition) = if share_one_id {
        ("$11".to_owned(), numbers.condition("d.seq", 12))
    } else {
        (beside("d.seq", 12, "$11::text[]"), numbers.condition("d.seq", 13))
    };
    let update = format!(
        "UPDATE delivery d SET state = $4, detail = $5, next_at_ms = $6, attempts = d.attempts + $7,
                key_epoch = least(d.key_epoch + ($8 = 'refused')::int, 255),
                doubted = CASE $8 WHEN 'doubted' THEN true WHEN 'refused' THEN false ELSE d.doubted END,
                duplicate_proves = CASE $8 WHEN 'doubted' THEN d.duplicate_proves OR NOT d.doubted
                                           WHEN 'refused' THEN false WHEN 'repeat_refused' THEN false
                                           ELSE d.duplicate_proves END,
                first_sent_at_ms = CASE WHEN $8 = 'refused' OR $8 = 'unused' AND NOT d.duplicate_proves THEN NULL
                                        ELSE d.first_sent_at_ms END,
                alone = d.alone OR $9, updated_at_ms = $10, provider_id = coalesce({provider_id}, d.provider_id)
          WHERE d.month = $1 AND d.campaign_id = $2 AND {condition} AND d.attempt_id = $3 AND d.state = 'claimed'"
    );
    // What waits from now on is found by its time.
    let sql = match (next.next_at_ms, next.state) {
        (Some(_), DeliveryState::RetryWait | DeliveryState::Unknown) => format!(
            "WITH d AS ({update} RETURNING d.seq, d.tenant_id)
             INSERT INTO waiting (campaign_id, seq, tenant_id, month, state, next_at_ms)
             SELECT $2, d.seq, d.tenant_id, $1, $4, $6 FROM d"
        ),
        _ => update,
    };
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(batch.kept.month)
        .bind(batch.kept.campaign.0)
        .bind(batch.attempt.0)
        .bind(next.state.as_str())
        .bind(next.detail)
        .bind(next.next_at_ms)
        .bind(next.attempts)
        .bind(next.key.as_str())
        .bind(next.alone)
        .bind(now_ms);
    let query = if share_one_id { query.bind(first) } else { query.bind(&ids).bind(&seqs) };
    Ok(numbers.bind(query).execute(conn).await?.rows_affected())
}

/// Numbers, ascending, and what the provider calls each.
fn by_number<'a>(members: impl IntoIterator<Item = &'a Member<'a>>) -> (Vec<i64>, Vec<Option<&'a str>>) {
    let mut pairs: Vec<_> = members.into_iter().map(|member| (member.seq, member.provider_id)).collect();
    pairs.sort_unstable();
    pairs.into_iter().unzip()
}

/// The variables of single messages are not kept past their end.
pub(in crate::ledger::postgres) async fn forget_messages(
    conn: &mut PgConnection,
    kept: Kept,
    seqs: &[i64],
) -> Result<()> {
    let sql = format!(
        "DELETE FROM message WHERE campaign_id = $2 AND seq = ANY(ARRAY(
             SELECT d.seq FROM delivery d WHERE d.month = $1 AND d.campaign_id = $2 AND {}
                AND d.state IN ('accepted', 'failed', 'expired', 'stopped', 'unknown_final')))",
        among("d.seq", 3)
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(kept.month)
        .bind(kept.campaign.0)
        .bind(ascending(seqs.iter().copied()))
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes recorded deliveries off an attempt; with the last one it has ended.
async fn close_attempt(
    conn: &mut PgConnection,
    attempt: AttemptId,
    (recorded, unsent): (u64, u64),
    now_ms: i64,
) -> Result<()> {
    // What was not sent does not count in the day's limit either. The attempt is found by its id: said
    // so that the index of what is open is not taken for it.
    sqlx::query(
        "UPDATE attempt SET open = open - $2, deliveries = deliveries - $4,
                ended_at_ms = CASE WHEN open <= $2 THEN $3::bigint END
          WHERE id = $1 AND coalesce(ended_at_ms, 0) = 0",
    )
    .bind(attempt.0)
    .bind(i64::try_from(recorded).unwrap_or(i64::MAX))
    .bind(now_ms)
    .bind(i64::try_from(unsent).unwrap_or(i64::MAX))
    .execute(conn)
    .await?;
    Ok(())
}

/// What is known of earlier attempts, where there is anything; asked only where it makes a difference.
async fn earlier_of(conn: &mut PgConnection, kept: Kept, outcomes: &[(i64, Outcome)]) -> Result<HashMap<i64, Earlier>> {
    let asked = to_be_asked_for_earlier(outcomes);
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = format!(
        "SELECT d.seq, d.doubted, d.duplicate_proves FROM delivery d
          WHERE d.month = $1 AND d.campaign_id = $2 AND (d.doubted OR d.duplicate_proves) AND {}",
        among("d.seq", 3)
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(kept.month)
        .bind(kept.campaign.0)
        .bind(ascending(asked))
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            let (doubted, duplicate_proves) = (row.try_get("doubted")?, row.try_get("duplicate_proves")?);
            Ok((row.try_get("seq")?, Earlier { doubted, duplicate_proves }))
        })
        .collect()
}

/// T13: acceptances that come after we gave the attempt up. Proof beats everything.
async fn accept_late(
    conn: &mut PgConnection,
    kept: Kept,
    members: &[Member<'_>],
    now_ms: i64,
    moves: &mut Moves,
) -> Result<()> {
    let seqs = ascending(members.iter().map(|member| member.seq));
    let sql = format!(
        "SELECT d.seq, d.state, d.detail FROM delivery d
          WHERE d.month = $1 AND d.campaign_id = $2 AND d.state <> 'accepted' AND {}
          ORDER BY d.seq FOR UPDATE",
        among("d.seq", 3)
    );
    let found = sqlx::query(AssertSqlSafe(sql))
        .bind(kept.month)
        .bind(kept.campaign.0)
        .bind(&seqs)
        .fetch_all(&mut *conn)
        .await?;
    if found.is_empty() {
        return Ok(());
    }
    let mut late = HashSet::with_capacity(found.len());
    for row in &found {
        late.insert(row.try_get::<i64, _>("seq")?);
        moves.left(columns::word(row, "state")?, row.try_get("detail")?, 1);
        moves.entered(DeliveryState::Accepted, "", 1);
    }
    let (seqs, ids) = by_number(members.iter().filter(|member| late.contains(&member.seq)));
    let numbers = Numbers::of(&seqs);
    let sql = format!(
        "WITH waited AS (DELETE FROM waiting WHERE campaign_id = $2 AND seq = ANY($3::bigint[]))
         UPDATE delivery d SET state = 'accepted', detail = 'late_answer', next_at_ms = NULL,
                provider_id = coalesce({}, d.provider_id), updated_at_ms = $5
          WHERE d.month = $1 AND d.campaign_id = $2 AND {}",
        beside("d.seq", 3, "$4::text[]"),
        numbers.condition("d.seq", 6)
    );
    let query =
        sqlx::query(AssertSqlSafe(sql)).bind(kept.month).bind(kept.campaign.0).bind(&seqs).bind(ids).bind(now_ms);
    numbers.bind(query).execute(conn).await?;
    metrics::counter!("dispatch_unknown_settled_total", "how" => "late_answer").increment(late.len() as u64);
    Ok(())
}
