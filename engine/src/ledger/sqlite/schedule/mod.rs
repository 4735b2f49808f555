//! The scheduler's part: what starts, waits, ends, and what became of the unanswered.

mod unknown;
mod waiting;

use async_trait::async_trait;
use dispatch_schemas::{
    ids::{AttemptId, CampaignId, TenantId},
    states::{CampaignState, StallReason},
};
use dispatch_workers::delivery::Timing;
use sqlx::Row as _;

use super::{SqliteLedger, expansion, rows};
use crate::ledger::{CampaignBrief, CampaignPlan, Due, End, PastSends, Result, Schedule, UnknownGroup, Verdict};

#[async_trait]
impl Schedule for SqliteLedger {
    async fn beat(&self, scheduler: i64, _: i64, _: i64) -> Result<Vec<i64>> {
        Ok(vec![scheduler])
    }

    async fn brief(&self, campaign: CampaignId) -> Result<Option<CampaignPlan>> {
        let row = sqlx::query(
            "SELECT c.*, t.limits AS tenant_limits, t.closed_at_ms IS NULL AS is_tenant_open
               FROM campaign c JOIN tenant t ON t.id = c.tenant_id WHERE c.id = ?",
        )
        .bind(campaign.0)
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| {
            Ok(CampaignPlan {
                id: campaign,
                tenant: TenantId(row.try_get("tenant_id")?),
                channel: rows::word(&row, "channel")?,
                lane: rows::word(&row, "lane")?,
                purpose: rows::word(&row, "purpose")?,
                is_running: row.try_get::<&str, _>("state")? == CampaignState::Running.as_str()
                    && row.try_get("is_tenant_open")?,
                account: row.try_get("account")?,
                limits: rows::json(&row, "limits")?,
                tenant_limits: rows::json(&row, "tenant_limits")?,
                content: rows::json(&row, "content")?,
                expires_at_ms: row.try_get("expires_at_ms")?,
                sending_window: rows::optional_json(&row, "sending_window")?,
            })
        })
        .transpose()
    }

    async fn past_sends(&self, since_ms: i64) -> Result<Vec<PastSends>> {
        let rows = sqlx::query(
            "SELECT c.tenant_id, c.id, c.account, a.claimed_at_ms / 60000 * 60000 AS minute_ms,
                    sum(a.deliveries) AS sends
               FROM attempt a JOIN campaign c ON c.id = a.campaign_id
              WHERE a.claimed_at_ms >= ? GROUP BY c.id, minute_ms",
        )
        .bind(since_ms)
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(PastSends {
                    tenant: TenantId(row.try_get("tenant_id")?),
                    campaign: CampaignId(row.try_get("id")?),
                    account: row.try_get("account")?,
                    minute_ms: row.try_get("minute_ms")?,
                    sends: u64::try_from(row.try_get::<i64, _>("sends")?).unwrap_or(0),
                })
            })
            .collect()
    }

    async fn unfinished(&self) -> Result<Vec<CampaignBrief>> {
        let rows = sqlx::query(
            "SELECT c.id, c.tenant_id, c.channel, c.lane, c.state, c.account, c.unknown_policy, c.send_at_ms,
                    c.expires_at_ms, c.sending_window, c.expanded, n.closed_at_ms IS NOT NULL AS is_tenant_closed,
                    s.reason AS stall,
                    coalesce(sum(t.deliveries) FILTER (WHERE t.state = 'ready'), 0) AS ready,
                    coalesce(sum(t.deliveries) FILTER (WHERE t.state = 'claimed'), 0) AS claimed,
                    coalesce(sum(t.deliveries) FILTER (WHERE t.state = 'unknown'), 0) AS unknown,
                    coalesce(sum(t.deliveries) FILTER (WHERE t.state = 'retry_wait'), 0) AS waiting,
                    coalesce(sum(t.deliveries) FILTER (WHERE t.state NOT IN
                        ('ready', 'claimed', 'unknown', 'retry_wait')), 0) AS finished
               FROM campaign c CROSS JOIN tenant n ON n.id = c.tenant_id LEFT JOIN stall s ON s.campaign_id = c.id
                    LEFT JOIN tally t ON t.campaign_id = c.id
              WHERE c.ended_at_ms IS NULL AND c.state IN ('scheduled', 'running', 'paused', 'cancelled')
              GROUP BY c.id ORDER BY c.launched_at_ms, c.id",
        )
        .fetch_all(&self.readers)
        .await?;
        let count = |row: &sqlx::sqlite::SqliteRow, column| -> Result<u64> {
            Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
        };
        rows.iter()
            .map(|row| {
                Ok(CampaignBrief {
                    id: CampaignId(row.try_get("id")?),
                    tenant: TenantId(row.try_get("tenant_id")?),
                    channel: rows::word(row, "channel")?,
                    lane: rows::word(row, "lane")?,
                    state: rows::word(row, "state")?,
                    account: row.try_get("account")?,
                    unknown_policy: rows::word(row, "unknown_policy")?,
                    send_at_ms: row.try_get("send_at_ms")?,
                    expires_at_ms: row.try_get("expires_at_ms")?,
                    sending_window: rows::optional_json(row, "sending_window")?,
                    is_tenant_closed: row.try_get("is_tenant_closed")?,
                    expanded: row.try_get::<i64, _>("expanded")? != 0,
                    ready: count(row, "ready")?,
                    claimed: count(row, "claimed")?,
                    unknown: count(row, "unknown")?,
                    waiting: count(row, "waiting")?,
                    finished: count(row, "finished")?,
                    stall: rows::optional_word(row, "stall")?,
                })
            })
            .collect()
    }

    async fn note_stalls(&self, stalls: &[(CampaignId, Option<StallReason>)]) -> Result<()> {
        let noted: Vec<(i64, Option<&str>)> =
            stalls.iter().map(|(campaign, reason)| (campaign.0, reason.map(StallReason::as_str))).collect();
        let noted = rows::to_json(&noted)?;
        self.writer
            .run("note_stalls", move |conn| {
                Box::pin(async move {
                    sqlx::query(
                        "DELETE FROM stall WHERE campaign_id IN
                             (SELECT value ->> 0 FROM json_each(?) WHERE value ->> 1 IS NULL)",
                    )
                    .bind(&noted)
                    .execute(&mut *conn)
                    .await?;
                    sqlx::query(
                        "INSERT INTO stall (campaign_id, reason)
                         SELECT c.id, n.value ->> 1 FROM json_each(?) n CROSS JOIN campaign c ON c.id = n.value ->> 0
                          WHERE n.value ->> 1 IS NOT NULL AND c.ended_at_ms IS NULL
                         ON CONFLICT (campaign_id) DO UPDATE SET reason = excluded.reason",
                    )
                    .bind(&noted)
                    .execute(conn)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    async fn start_due(&self, now_ms: i64) -> Result<u64> {
        self.writer
            .run("start_due", move |conn| {
                Box::pin(async move {
                    let done = sqlx::query(
                        "UPDATE campaign SET state = 'running'
                          WHERE ended_at_ms IS NULL AND state = 'scheduled' AND coalesce(send_at_ms, 0) <= ?",
                    )
                    .bind(now_ms)
                    .execute(conn)
                    .await?;
                    Ok(done.rows_affected())
                })
            })
            .await
    }

    async fn expand(&self, campaign: CampaignId, contacts_max: u32, now_ms: i64) -> Result<u64> {
        let running = &[CampaignState::Running];
        self.writer
            .run("expand", move |conn| Box::pin(expansion::expand(conn, (campaign, running), contacts_max, now_ms)))
            .await
    }

    async fn ready_from(&self, campaign: CampaignId, from: i64, limit: u32) -> Result<Vec<i64>> {
        waiting::ready_from(&self.readers, campaign, from, limit).await
    }

    async fn wake_waiting(&self, now_ms: i64, limit: u32) -> Result<Vec<Due>> {
        self.writer.run("wake_waiting", move |conn| Box::pin(waiting::wake(conn, now_ms, limit))).await
    }

    async fn close_expired(&self, now_ms: i64) -> Result<()> {
        self.writer
            .run("close_expired", move |conn| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE campaign SET expanded = 1, state = 'running', pause_reason = NULL
                          WHERE ended_at_ms IS NULL AND expires_at_ms <= ?
                            AND (state IN ('scheduled', 'paused') OR (state = 'running' AND expanded = 0))",
                    )
                    .bind(now_ms)
                    .execute(conn)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    async fn end_waiting(
        &self,
        campaign: CampaignId,
        end: End,
        from: i64,
        span: u32,
        now_ms: i64,
    ) -> Result<Option<i64>> {
        self.writer
            .run("end_waiting", move |conn| Box::pin(waiting::end(conn, campaign, end, from, span, now_ms)))
            .await
    }

    async fn reap(&self, claimed_before_ms: i64, now_ms: i64, timing: &Timing) -> Result<u64> {
        let settle_ms = i64::try_from(timing.settle_ms()).unwrap_or(i64::MAX / 4);
        let ask_again_ms = i64::try_from(timing.ask_again_ms).unwrap_or(i64::MAX / 4);
        // The first look comes at the earlier of the two; the reconciler knows the provider's class.
        let first_look_ms = settle_ms.min(ask_again_ms);
        let reaped = self
            .writer
            .run("reap", move |conn| Box::pin(unknown::reap(conn, claimed_before_ms, now_ms, first_look_ms)))
            .await?;
        if reaped > 0 {
            metrics::counter!("dispatch_claims_expired_total").increment(reaped);
        }
        Ok(reaped)
    }

    async fn unknown_due(&self, now_ms: i64, attempts_max: u32) -> Result<Vec<UnknownGroup>> {
        unknown::due(&self.readers, now_ms, attempts_max).await
    }

    async fn settle(
        &self,
        campaign: CampaignId,
        attempt: AttemptId,
        verdicts: &[(i64, Verdict)],
        now_ms: i64,
    ) -> Result<Vec<i64>> {
        let verdicts = verdicts.to_vec();
        self.writer
            .run("settle", move |conn| {
                Box::pin(async move { unknown::settle(conn, campaign, attempt, &verdicts, now_ms).await })
            })
            .await
    }

    async fn pause_account(&self, account: &str, reason: &str, now_ms: i64) -> Result<Vec<(TenantId, CampaignId)>> {
        let (account, reason) = (account.to_owned(), reason.to_owned());
        self.writer
            .run("pause_account", move |conn| {
                Box::pin(async move {
                    let rows = sqlx::query(
                        "UPDATE campaign SET state = 'paused', pause_reason = ?2
                          WHERE account = ?1 AND state = 'running' AND lane = 'bulk'
                            AND (expires_at_ms IS NULL OR expires_at_ms > ?3) RETURNING tenant_id, id",
                    )
                    .bind(account)
                    .bind(reason)
                    .bind(now_ms)
                    .fetch_all(conn)
                    .await?;
                    rows.iter().map(|row| Ok((TenantId(row.try_get(0)?), CampaignId(row.try_get(1)?)))).collect()
                })
            })
            .await
    }

    async fn complete(&self, campaign: CampaignId, now_ms: i64) -> Result<bool> {
        self.writer
            .run("complete", move |conn| {
                Box::pin(async move {
                    let done = sqlx::query(
                        "UPDATE campaign SET ended_at_ms = ?2,
                                state = CASE state WHEN 'running' THEN 'completed' ELSE state END
                          WHERE id = ?1 AND lane = 'bulk' AND state IN ('running', 'cancelled') AND expanded = 1
                            AND ended_at_ms IS NULL
                            AND NOT EXISTS (SELECT 1 FROM tally t WHERE t.campaign_id = ?1 AND t.deliveries <> 0
                                              AND t.state IN ('ready', 'claimed', 'unknown', 'retry_wait'))",
                    )
                    .bind(campaign.0)
                    .bind(now_ms)
                    .execute(&mut *conn)
                    .await?;
                    sqlx::query("DELETE FROM stall WHERE campaign_id = ?").bind(campaign.0).execute(conn).await?;
                    Ok(done.rows_affected() == 1)
                })
            })
            .await
    }

    async fn forget_old_answers(&self, older_than_ms: i64) -> Result<u64> {
        self.writer
            .run("forget_old_answers", move |conn| {
                Box::pin(async move {
                    let done = sqlx::query("DELETE FROM idempotency WHERE created_at_ms < ?")
                        .bind(older_than_ms)
                        .execute(conn)
                        .await?;
                    Ok(done.rows_affected())
                })
            })
            .await
    }
}
