//! Deliveries that wait: woken when their time has come, ended when their campaign has.

use std::collections::BTreeMap;

use dispatch_schemas::{ids::CampaignId, states::DeliveryState};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row as _};

use crate::ledger::{
    Due, End, Result, columns,
    postgres::{
        deliveries::{Kept, among},
        tally::Moves,
    },
};

/// Ready deliveries from a number on, ascending. Mostly they are a run without a gap, which three numbers tell.
pub(super) async fn ready_from(pool: &PgPool, kept: Kept, from: i64, limit: u32) -> Result<Vec<i64>> {
    let run = sqlx::query(
        "SELECT min(seq), max(seq), count(*) FROM (
             SELECT seq FROM delivery WHERE month = $1 AND campaign_id = $2 AND seq >= $3 AND state = 'ready'
              ORDER BY seq LIMIT $4) run",
    )
    .bind(kept.month)
    .bind(kept.campaign.0)
    .bind(from)
    .bind(i64::from(limit))
    .fetch_one(pool)
    .await?;
    let (Some(first), Some(last)) = (run.try_get::<Option<i64>, _>(0)?, run.try_get::<Option<i64>, _>(1)?) else {
        return Ok(Vec::new());
    };
    if last - first + 1 == run.try_get::<i64, _>(2)? {
        return Ok((first..=last).collect());
    }
    let rows = sqlx::query(
        "SELECT seq FROM delivery
          WHERE month = $1 AND campaign_id = $2 AND seq BETWEEN $3 AND $4 AND state = 'ready' ORDER BY seq LIMIT $5",
    )
    .bind(kept.month)
    .bind(kept.campaign.0)
    .bind(first)
    .bind(last)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// T11. What another transaction has locked is left to it, so this one waits for nobody.
pub(super) async fn wake(conn: &mut PgConnection, now_ms: i64, limit: u32) -> Result<Vec<Due>> {
    let rows = sqlx::query(
        "SELECT w.month, w.campaign_id, w.seq FROM waiting w JOIN campaign c ON c.id = w.campaign_id
          WHERE w.state = 'retry_wait' AND w.next_at_ms <= $1 AND c.state = 'running'
          ORDER BY w.next_at_ms LIMIT $2 FOR UPDATE OF w SKIP LOCKED",
    )
    .bind(now_ms)
    .bind(i64::from(limit))
    .fetch_all(&mut *conn)
    .await?;
    let mut by_campaign: BTreeMap<Kept, Vec<i64>> = BTreeMap::new();
    for row in &rows {
        let kept = Kept { campaign: CampaignId(row.try_get("campaign_id")?), month: row.try_get("month")? };
        by_campaign.entry(kept).or_default().push(row.try_get("seq")?);
    }
    let mut due = Vec::with_capacity(by_campaign.len());
    let mut counts = Vec::with_capacity(by_campaign.len());
    for (kept, mut seqs) in by_campaign {
        seqs.sort_unstable();
        let sql = format!(
            "WITH free AS MATERIALIZED (
                 SELECT d.seq FROM delivery d
                  WHERE d.month = $1 AND d.campaign_id = $2 AND d.state = 'retry_wait' AND {}
                    FOR UPDATE SKIP LOCKED),
             waited AS (
                 DELETE FROM waiting WHERE campaign_id = $2 AND seq = ANY(ARRAY(SELECT seq FROM free)))
             UPDATE delivery SET state = 'ready', next_at_ms = NULL, updated_at_ms = $4
              WHERE month = $1 AND campaign_id = $2 AND {} AND seq = ANY(ARRAY(SELECT seq FROM free))
             RETURNING seq",
            among("d.seq", 3),
            among("seq", 3)
        );
        let woken = sqlx::query(AssertSqlSafe(sql))
            .bind(kept.month)
            .bind(kept.campaign.0)
            .bind(&seqs)
            .bind(now_ms)
            .fetch_all(&mut *conn)
            .await?;
        let mut seqs = woken.iter().map(|row| row.try_get(0)).collect::<std::result::Result<Vec<i64>, _>>()?;
        seqs.sort_unstable();
        let mut moves = Moves::default();
        moves.left(DeliveryState::RetryWait, "", seqs.len() as u64);
        moves.entered(DeliveryState::Ready, "", seqs.len() as u64);
        counts.push((kept.campaign, moves));
        if !seqs.is_empty() {
            due.push(Due { campaign: kept.campaign, seqs });
        }
    }
    for (campaign, moves) in counts {
        moves.write(campaign, conn).await?;
    }
    Ok(due)
}

/// T3, T4. Those that wait come first: one that is woken meanwhile is then ended as a ready one.
pub(super) async fn end(
    conn: &mut PgConnection,
    kept: Kept,
    end: End,
    from: i64,
    span: u32,
    now_ms: i64,
) -> Result<Option<i64>> {
    let until = from.saturating_add(i64::from(span));
    let next_seq = sqlx::query("SELECT next_seq FROM expansion WHERE campaign_id = $1")
        .bind(kept.campaign.0)
        .fetch_optional(&mut *conn)
        .await?
        .map_or(Ok(0), |row| row.try_get::<i64, _>(0))?;
    let (to, detail) = match end {
        End::Stopped(reason) => (DeliveryState::Stopped, reason.as_str()),
        End::Expired => (DeliveryState::Expired, ""),
    };
    let mut moves = Moves::default();
    for state in [DeliveryState::RetryWait, DeliveryState::Ready] {
        let waited = match state {
            DeliveryState::RetryWait => {
                ", waited AS (DELETE FROM waiting WHERE campaign_id = $2 AND seq = ANY(ARRAY(SELECT seq FROM ended)))"
            }
            _ => "",
        };
        let sql = format!(
            "WITH ended AS (
                 UPDATE delivery SET state = CASE WHEN doubted THEN 'unknown_final' ELSE $6 END, detail = $7,
                        next_at_ms = NULL, updated_at_ms = $8
                  WHERE month = $1 AND campaign_id = $2 AND seq >= $3 AND seq < $4 AND state = $5
                 RETURNING seq, state) {waited}
             SELECT state, count(*) AS deliveries FROM ended GROUP BY state"
        );
        let ended = sqlx::query(AssertSqlSafe(sql))
            .bind(kept.month)
            .bind(kept.campaign.0)
            .bind(from)
            .bind(until)
            .bind(state.as_str())
            .bind(to.as_str())
            .bind(detail)
            .bind(now_ms)
            .fetch_all(&mut *conn)
            .await?;
        for row in &ended {
            let count = u64::try_from(row.try_get::<i64, _>("deliveries")?).unwrap_or(0);
            moves.left(state, "", count);
            moves.entered(columns::word(row, "state")?, detail, count);
        }
    }
    moves.write(kept.campaign, conn).await?;
    Ok((until < next_seq).then_some(until))
}
