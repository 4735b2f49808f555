//! The scheduler's part: what starts, waits, ends, and what became of the unanswered.
//!
//! Several schedulers may do any of it at once: each change is made by compare-and-set or under a lock of its row.

mod unknown;
mod waiting;

use async_trait::async_trait;
use dispatch_schemas::{
    ids::{AttemptId, CampaignId, TenantId},
    states::{CampaignState, StallReason},
};
use dispatch_workers::delivery::Timing;
use sqlx::{Row as _, postgres::PgRow};

use super::{PostgresLedger, lock_gates};
use crate::ledger::{
    CampaignBrief, CampaignPlan, Due, End, PastSends, Result, Schedule, UnknownGroup, Verdict, columns,
};

#[async_trait]
impl Schedule for PostgresLedger {
    async fn beat(&self, scheduler: i64, now_ms: i64, silent_max_ms: i64) -> Result<Vec<i64>> {
        sqlx::query(
            "INSERT INTO scheduler (id, seen_at_ms) VALUES ($1, $2)
             ON CONFLICT (id) DO UPDATE SET seen_at_ms = greatest(scheduler.seen_at_ms, excluded.seen_at_ms)",
        )
        .bind(scheduler)
        .bind(now_ms)
        .execute(&self.engine)
        .await?;
        // One that was taken for dead comes back with its next beat.
        sqlx::query("DELETE FROM scheduler WHERE seen_at_ms < $1 AND id <> $2")
            .bind(now_ms.saturating_sub(silent_max_ms))
            .bind(scheduler)
            .execute(&self.engine)
            .await?;
        let rows = sqlx::query("SELECT id FROM scheduler ORDER BY id").fetch_all(&self.engine).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn brief(&self, campaign: CampaignId) -> Result<Option<CampaignPlan>> {
        let row = sqlx::query(
            "SELECT c.*, t.limits AS tenant_limits, t.closed_at_ms FROM campaign c JOIN tenant t ON t.id = c.tenant_id WHERE c.id = $1",
        )
        .bind(campaign.0)
        .fetch_optional(&self.engine)
        .await?;
        row.map(|row| {
            Ok(CampaignPlan {
                id: campaign,
                tenant: TenantId(row.try_get("tenant_id")?),
                channel: columns::word(&row, "channel")?,
                lane: columns::word(&row, "lane")?,
                purpose: columns::word(&row, "purpose")?,
                is_running: row.try_get::<&str, _>("state")? == CampaignState::Running.as_str()
                    && row.try_get::<Option<i64>, _>("closed_at_ms")?.is_none(),
                sending_window: columns::optional_json(&row, "sending_window")?,
                account: row.try_get("account")?,
                limits: columns::json(&row, "limits")?,
                tenant_limits: columns::json(&row, "tenant_limits")?,
                content: columns::json(&row, "content")?,
                expires_at_ms: row.try_get("expires_at_ms")?,
            })
        })
        .transpose()
    }

    async fn past_sends(&self, since_ms: i64) -> Result<Vec<PastSends>> {
        let rows = sqlx::query(
            "SELECT c.tenant_id, c.id, c.account, a.claimed_at_ms / 60000 * 60000 AS minute_ms,
                    sum(a.deliveries)::bigint AS sends
               FROM attempt a JOIN campaign c ON c.id = a.campaign_id
              WHERE a.claimed_at_ms >= $1 GROUP BY c.id, minute_ms",
        )
        .bind(since_ms)
        .fetch_all(&self.engine)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(PastSends {
                    tenant: TenantId(row.try_get("tenant_id")?),
                    campaign: CampaignId(row.try_get("id")?),
                    account: row.try_get("account")?,
                    minute_ms: row.try_get("minute_ms")?,
                    sends: count(row, "sends")?,
                })
            })
            .collect()
    }

    async fn unfinished(&self) -> Result<Vec<CampaignBrief>> {
        // One statement sees one moment: the sum over the shards is exact.
        let rows = sqlx::query(
            "SELECT c.id, c.tenant_id, c.channel, c.lane, c.state, c.account, c.unknown_policy, c.send_at_ms,
                    c.expires_at_ms, c.sending_window, coalesce(e.done, true) AS expanded,
                    n.closed_at_ms IS NOT NULL AS is_tenant_closed, s.reason AS stall, t.*
               FROM campaign c JOIN tenant n ON n.id = c.tenant_id LEFT JOIN expansion e ON e.campaign_id = c.id
                    LEFT JOIN stall s ON s.campaign_id = c.id
                    CROSS JOIN LATERAL (
                        SELECT coalesce(sum(deliveries) FILTER (WHERE state = 'ready'), 0)::bigint AS ready,
                               coalesce(sum(deliveries) FILTER (WHERE state = 'claimed'), 0)::bigint AS claimed,
                               coalesce(sum(deliveries) FILTER (WHERE state = 'unknown'), 0)::bigint AS unknown,
                               coalesce(sum(deliveries) FILTER (WHERE state = 'retry_wait'), 0)::bigint AS waiting,
                               coalesce(sum(deliveries) FILTER (WHERE state NOT IN
                                   ('ready', 'claimed', 'unknown', 'retry_wait')), 0)::bigint AS finished
                          FROM tally WHERE campaign_id = c.id) t
              WHERE c.ended_at_ms IS NULL AND c.state IN ('scheduled', 'running', 'paused', 'cancelled')
              ORDER BY c.launched_at_ms, c.id",
        )
        .fetch_all(&self.engine)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(CampaignBrief {
                    id: CampaignId(row.try_get("id")?),
                    tenant: TenantId(row.try_get("tenant_id")?),
                    channel: columns::word(row, "channel")?,
                    lane: columns::word(row, "lane")?,
                    state: columns::word(row, "state")?,
                    account: row.try_get("account")?,
                    unknown_policy: columns::word(row, "unknown_policy")?,
                    send_at_ms: row.try_get("send_at_ms")?,
                    expires_at_ms: row.try_get("expires_at_ms")?,
                    sending_window: columns::optional_json(row, "sending_window")?,
                    is_tenant_closed: row.try_get("is_tenant_closed")?,
                    expanded: row.try_get("expanded")?,
                    ready: count(row, "ready")?,
                    claimed: count(row, "claimed")?,
                    unknown: count(row, "unknown")?,
                    waiting: count(row, "waiting")?,
                    finished: count(row, "finished")?,
                    stall: columns::optional_word(row, "stall")?,
                })
            })
            .collect()
    }

    async fn note_stalls(&self, stalls: &[(CampaignId, Option<StallReason>)]) -> Result<()> {
        let campaigns: Vec<i64> = stalls.iter().map(|(campaign, _)| campaign.0).collect();
        let reasons: Vec<Option<&str>> = stalls.iter().map(|(_, reason)| reason.map(StallReason::as_str)).collect();
        sqlx::query(
            "WITH noted AS MATERIALIZED (SELECT * FROM unnest($1::bigint[], $2::text[]) AS n (campaign_id, reason)),
                  moving AS (DELETE FROM stall s USING noted n WHERE s.campaign_id = n.campaign_id AND n.reason IS NULL)
             INSERT INTO stall (campaign_id, tenant_id, reason)
             SELECT n.campaign_id, c.tenant_id, n.reason FROM noted n JOIN campaign c ON c.id = n.campaign_id
              WHERE n.reason IS NOT NULL AND c.ended_at_ms IS NULL ORDER BY n.campaign_id
             ON CONFLICT (campaign_id) DO UPDATE SET reason = excluded.reason",
        )
        .bind(campaigns)
        .bind(reasons)
        .execute(&self.engine)
        .await?;
        Ok(())
    }

    async fn start_due(&self, now_ms: i64) -> Result<u64> {
        let done = sqlx::query(
            "UPDATE campaign SET state = 'running'
              WHERE ended_at_ms IS NULL AND state = 'scheduled' AND coalesce(send_at_ms, 0) <= $1",
        )
        .bind(now_ms)
        .execute(&self.engine)
        .await?;
        Ok(done.rows_affected())
    }

    async fn expand(&self, campaign: CampaignId, contacts_max: u32, now_ms: i64) -> Result<u64> {
        self.expand_chunk((campaign, &[CampaignState::Running]), contacts_max, now_ms).await
    }

    async fn ready_from(&self, campaign: CampaignId, from: i64, limit: u32) -> Result<Vec<i64>> {
        waiting::ready_from(&self.engine, self.kept(campaign).await?, from, limit).await
    }

    async fn wake_waiting(&self, now_ms: i64, limit: u32) -> Result<Vec<Due>> {
        let mut transaction = self.engine.begin().await?;
        let due = waiting::wake(&mut transaction, now_ms, limit).await?;
        transaction.commit().await?;
        Ok(due)
    }

    async fn close_expired(&self, now_ms: i64) -> Result<()> {
        let mut transaction = self.engine.begin().await?;
        let closed = sqlx::query(
            "UPDATE campaign c SET state = 'running', pause_reason = NULL
              WHERE c.ended_at_ms IS NULL AND c.expires_at_ms <= $1
                AND (c.state IN ('scheduled', 'paused')
                     OR (c.state = 'running'
                         AND EXISTS (SELECT 1 FROM expansion e WHERE e.campaign_id = c.id AND NOT e.done)))
             RETURNING c.id",
        )
        .bind(now_ms)
        .fetch_all(&mut *transaction)
        .await?;
        let mut closed = closed.iter().map(|row| row.try_get(0)).collect::<std::result::Result<Vec<i64>, _>>()?;
        closed.sort_unstable();
        for campaign in closed {
            sqlx::query("UPDATE expansion SET done = true WHERE campaign_id = $1 AND NOT done")
                .bind(campaign)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn end_waiting(
        &self,
        campaign: CampaignId,
        end: End,
        from: i64,
        span: u32,
        now_ms: i64,
    ) -> Result<Option<i64>> {
        let kept = self.kept(campaign).await?;
        let mut transaction = self.engine.begin().await?;
        let next = waiting::end(&mut transaction, kept, end, from, span, now_ms).await?;
        transaction.commit().await?;
        Ok(next)
    }

    async fn reap(&self, claimed_before_ms: i64, now_ms: i64, timing: &Timing) -> Result<u64> {
        let settle_ms = i64::try_from(timing.settle_ms()).unwrap_or(i64::MAX / 4);
        let ask_again_ms = i64::try_from(timing.ask_again_ms).unwrap_or(i64::MAX / 4);
        // The first look comes at the earlier of the two; the reconciler knows the provider's class.
        let first_look_ms = settle_ms.min(ask_again_ms);
        unknown::reap(&self.engine, claimed_before_ms, now_ms, first_look_ms).await
    }

    async fn unknown_due(&self, now_ms: i64, attempts_max: u32) -> Result<Vec<UnknownGroup>> {
        unknown::due(&self.engine, now_ms, attempts_max).await
    }

    async fn settle(
        &self,
        campaign: CampaignId,
        attempt: AttemptId,
        verdicts: &[(i64, Verdict)],
        now_ms: i64,
    ) -> Result<Vec<i64>> {
        let kept = self.kept(campaign).await?;
        let mut transaction = self.engine.begin().await?;
        let ready = unknown::settle(&mut transaction, kept, attempt, verdicts, now_ms).await?;
        transaction.commit().await?;
        Ok(ready)
    }

    async fn pause_account(&self, account: &str, reason: &str, now_ms: i64) -> Result<Vec<(TenantId, CampaignId)>> {
        let mut transaction = self.engine.begin().await?;
        let tenants = sqlx::query(
            "SELECT DISTINCT tenant_id FROM campaign
              WHERE ended_at_ms IS NULL AND account = $1 AND state = 'running' AND lane = 'bulk' ORDER BY tenant_id",
        )
        .bind(account)
        .fetch_all(&mut *transaction)
        .await?;
        let tenants = tenants.iter().map(|row| row.try_get(0)).collect::<std::result::Result<Vec<i64>, _>>()?;
        for tenant in &tenants {
            lock_gates(&mut transaction, TenantId(*tenant)).await?;
        }
        let rows = sqlx::query(
            "UPDATE campaign SET state = 'paused', pause_reason = $2
              WHERE ended_at_ms IS NULL AND account = $1 AND state = 'running' AND lane = 'bulk'
                AND (expires_at_ms IS NULL OR expires_at_ms > $3) AND tenant_id = ANY($4) RETURNING tenant_id, id",
        )
        .bind(account)
        .bind(reason)
        .bind(now_ms)
        .bind(tenants)
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        rows.iter().map(|row| Ok((TenantId(row.try_get(0)?), CampaignId(row.try_get(1)?)))).collect()
    }

    async fn complete(&self, campaign: CampaignId, now_ms: i64) -> Result<bool> {
        let mut transaction = self.engine.begin().await?;
        // First the row, then the counts: what let a recipient try again has come before this look, or comes after the
        // commit and sets the campaign running again.
        let open = sqlx::query(
            "SELECT 1 FROM campaign WHERE id = $1 AND lane = 'bulk' AND state IN ('running', 'cancelled')
                AND ended_at_ms IS NULL FOR UPDATE",
        )
        .bind(campaign.0)
        .fetch_optional(&mut *transaction)
        .await?;
        if open.is_none() {
            transaction.rollback().await?;
            return Ok(false);
        }
        let done = sqlx::query(
            "UPDATE campaign SET ended_at_ms = $2, state = CASE state WHEN 'running' THEN 'completed' ELSE state END
              WHERE id = $1 AND EXISTS (SELECT 1 FROM expansion e WHERE e.campaign_id = $1 AND e.done)
                AND NOT EXISTS (SELECT 1 FROM tally t
                                 WHERE t.campaign_id = $1 AND t.state IN ('ready', 'claimed', 'unknown', 'retry_wait')
                                 GROUP BY t.state HAVING sum(t.deliveries) <> 0)",
        )
        .bind(campaign.0)
        .bind(now_ms)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM stall WHERE campaign_id = $1").bind(campaign.0).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn forget_old_answers(&self, older_than_ms: i64) -> Result<u64> {
        let done = sqlx::query("DELETE FROM idempotency WHERE created_at_ms < $1")
            .bind(older_than_ms)
            .execute(&self.engine)
            .await?;
        Ok(done.rows_affected())
    }
}

fn count(row: &PgRow, column: &'static str) -> Result<u64> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}
