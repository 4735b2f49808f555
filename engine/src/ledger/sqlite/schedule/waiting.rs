//! Deliveries that wait: woken when their time has come, ended when their campaign has.

use std::collections::BTreeMap;

use dispatch_schemas::{ids::CampaignId, states::DeliveryState};
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use crate::ledger::{
    Due, End, Result,
    sqlite::{rows, tally::Moves},
};

/// Ready deliveries from a number on, ascending. Mostly they are a run without a gap, which three numbers tell.
pub(super) async fn ready_from(readers: &SqlitePool, campaign: CampaignId, from: i64, limit: u32) -> Result<Vec<i64>> {
    let run = sqlx::query(
        "SELECT min(seq), max(seq), count(*) FROM (
             SELECT seq FROM delivery WHERE campaign_id = ? AND seq >= ? AND state = 'ready' ORDER BY seq LIMIT ?)",
    )
    .bind(campaign.0)
    .bind(from)
    .bind(limit)
    .fetch_one(readers)
    .await?;
    let (Some(first), Some(last)) = (run.try_get::<Option<i64>, _>(0)?, run.try_get::<Option<i64>, _>(1)?) else {
        return Ok(Vec::new());
    };
    if last - first + 1 == run.try_get::<i64, _>(2)? {
        return Ok((first..=last).collect());
    }
    let rows = sqlx::query(
        "SELECT seq FROM delivery WHERE campaign_id = ? AND seq BETWEEN ? AND ? AND state = 'ready'
          ORDER BY seq LIMIT ?",
    )
    .bind(campaign.0)
    .bind(first)
    .bind(last)
    .bind(limit)
    .fetch_all(readers)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// T11.
pub(super) async fn wake(conn: &mut SqliteConnection, now_ms: i64, limit: u32) -> Result<Vec<Due>> {
    let rows = sqlx::query(
        "SELECT d.campaign_id, d.seq FROM delivery d CROSS JOIN campaign c ON c.id = d.campaign_id
          WHERE d.state IN ('retry_wait', 'unknown') AND d.state = 'retry_wait' AND d.next_at_ms <= ?
            AND c.state = 'running' LIMIT ?",
    )
    .bind(now_ms)
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    let mut by_campaign: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for row in &rows {
        by_campaign.entry(row.try_get(0)?).or_default().push(row.try_get(1)?);
    }
    let mut due = Vec::with_capacity(by_campaign.len());
    for (campaign, mut seqs) in by_campaign {
        let campaign = CampaignId(campaign);
        seqs.sort_unstable();
        let done = sqlx::query(
            "UPDATE delivery SET state = 'ready', next_at_ms = NULL, updated_at_ms = ?3
              WHERE (campaign_id, seq) IN (SELECT ?1, value FROM json_each(?2)) AND state = 'retry_wait'",
        )
        .bind(campaign.0)
        .bind(rows::json_numbers(&seqs))
        .bind(now_ms)
        .execute(&mut *conn)
        .await?
        .rows_affected();
        let mut moves = Moves::default();
        moves.left(DeliveryState::RetryWait, "", done);
        moves.entered(DeliveryState::Ready, "", done);
        moves.write(campaign, conn).await?;
        due.push(Due { campaign, seqs });
    }
    Ok(due)
}

/// T3, T4.
pub(super) async fn end(
    conn: &mut SqliteConnection,
    campaign: CampaignId,
    end: End,
    from: i64,
    span: u32,
    now_ms: i64,
) -> Result<Option<i64>> {
    let until = from.saturating_add(i64::from(span));
    let next_seq: i64 = sqlx::query("SELECT next_seq FROM campaign WHERE id = ?")
        .bind(campaign.0)
        .fetch_one(&mut *conn)
        .await?
        .try_get(0)?;
    let waiting = sqlx::query(
        "SELECT state, doubted, count(*) AS deliveries FROM delivery
          WHERE campaign_id = ? AND seq >= ? AND seq < ? AND state IN ('ready', 'retry_wait') GROUP BY state, doubted",
    )
    .bind(campaign.0)
    .bind(from)
    .bind(until)
    .fetch_all(&mut *conn)
    .await?;
    if !waiting.is_empty() {
        let (to, detail) = match end {
            End::Stopped(reason) => (DeliveryState::Stopped, reason.as_str()),
            End::Expired => (DeliveryState::Expired, ""),
        };
        sqlx::query(
            "UPDATE delivery SET state = CASE doubted WHEN 0 THEN ?4 ELSE 'unknown_final' END, detail = ?5,
                    next_at_ms = NULL, updated_at_ms = ?6
              WHERE campaign_id = ?1 AND seq >= ?2 AND seq < ?3 AND state IN ('ready', 'retry_wait')",
        )
        .bind(campaign.0)
        .bind(from)
        .bind(until)
        .bind(to.as_str())
        .bind(detail)
        .bind(now_ms)
        .execute(&mut *conn)
        .await?;
        let mut moves = Moves::default();
        for row in &waiting {
            let count = u64::try_from(row.try_get::<i64, _>("deliveries")?).unwrap_or(0);
            let doubted = row.try_get::<i64, _>("doubted")? != 0;
            moves.left(rows::word(row, "state")?, "", count);
            moves.entered(if doubted { DeliveryState::UnknownFinal } else { to }, detail, count);
        }
        moves.write(campaign, conn).await?;
    }
    Ok((until < next_seq).then_some(until))
}
