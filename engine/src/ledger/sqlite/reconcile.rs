//! The scheduler's part: what starts, waits, ends, and what became of the unanswered.

use std::collections::BTreeMap;

use async_trait::async_trait;
use dispatch_schemas::{
    ids::{AttemptId, CampaignId, TenantId},
    states::{CampaignState, DeliveryState},
};
use dispatch_workers::{delivery::Timing, message::Token};
use sqlx::{Row as _, SqliteConnection};

use super::{SqliteLedger, claims, expansion, rows, tally::Moves};
use crate::ledger::{
    CampaignBrief, CampaignPlan, Due, End, LedgerError, PastSends, Result, Schedule, UnknownDelivery, UnknownGroup,
    Verdict,
};

#[async_trait]
impl Schedule for SqliteLedger {
    async fn brief(&self, campaign: CampaignId) -> Result<Option<CampaignPlan>> {
        let row = sqlx::query(
            "SELECT c.*, t.limits AS tenant_limits FROM campaign c JOIN tenant t ON t.id = c.tenant_id WHERE c.id = ?",
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
                is_running: row.try_get::<&str, _>("state")? == CampaignState::Running.as_str(),
                account: row.try_get("account")?,
                limits: rows::json(&row, "limits")?,
                tenant_limits: rows::json(&row, "tenant_limits")?,
                content: rows::json(&row, "content")?,
                expires_at_ms: row.try_get("expires_at_ms")?,
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
                    c.expires_at_ms, c.expanded,
                    coalesce(sum(t.deliveries) FILTER (WHERE t.state = 'ready'), 0) AS ready,
                    coalesce(sum(t.deliveries) FILTER (WHERE t.state = 'claimed'), 0) AS claimed,
                    coalesce(sum(t.deliveries) FILTER (WHERE t.state = 'unknown'), 0) AS unknown,
                    coalesce(sum(t.deliveries) FILTER (WHERE t.state = 'retry_wait'), 0) AS waiting,
                    coalesce(sum(t.deliveries) FILTER (WHERE t.state NOT IN
                        ('ready', 'claimed', 'unknown', 'retry_wait')), 0) AS finished
               FROM campaign c LEFT JOIN tally t ON t.campaign_id = c.id
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
                    expanded: row.try_get::<i64, _>("expanded")? != 0,
                    ready: count(row, "ready")?,
                    claimed: count(row, "claimed")?,
                    unknown: count(row, "unknown")?,
                    waiting: count(row, "waiting")?,
                    finished: count(row, "finished")?,
                })
            })
            .collect()
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
        self.writer.run("expand", move |conn| Box::pin(expansion::expand(conn, campaign, contacts_max, now_ms))).await
    }

    async fn ready_from(&self, campaign: CampaignId, from: i64, limit: u32) -> Result<Vec<i64>> {
        let rows = sqlx::query(
            "SELECT seq FROM delivery WHERE campaign_id = ? AND seq >= ? AND state = 'ready' ORDER BY seq LIMIT ?",
        )
        .bind(campaign.0)
        .bind(from)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn wake_waiting(&self, now_ms: i64, limit: u32) -> Result<Vec<Due>> {
        self.writer.run("wake_waiting", move |conn| Box::pin(wake_waiting(conn, now_ms, limit))).await
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
        self.writer.run("end_waiting", move |conn| Box::pin(end_waiting(conn, campaign, end, from, span, now_ms))).await
    }

    async fn reap(&self, claimed_before_ms: i64, now_ms: i64, timing: &Timing) -> Result<u64> {
        let settle_ms = i64::try_from(timing.settle_ms()).unwrap_or(i64::MAX / 4);
        let ask_again_ms = i64::try_from(timing.ask_again_ms).unwrap_or(i64::MAX / 4);
        // The first look comes at the earlier of the two; the reconciler knows the provider's class.
        let first_look_ms = settle_ms.min(ask_again_ms);
        let reaped =
            self.writer.run("reap", move |conn| Box::pin(reap(conn, claimed_before_ms, now_ms, first_look_ms))).await?;
        if reaped > 0 {
            metrics::counter!("dispatch_claims_expired_total").increment(reaped);
        }
        Ok(reaped)
    }

    async fn unknown_due(&self, now_ms: i64, attempts_max: u32) -> Result<Vec<UnknownGroup>> {
        // The list of states is what the partial index says of itself; without it the table would be scanned.
        let rows = sqlx::query(
            "SELECT d.campaign_id, d.seq, d.key_epoch, d.attempts, d.attempt_id, a.token, a.claimed_at_ms,
                    coalesce(d.first_sent_at_ms, a.claimed_at_ms) AS first_sent_at_ms, r.token AS root_token
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
        .fetch_all(&self.readers)
        .await?;
        let mut groups: Vec<UnknownGroup> = Vec::new();
        for row in &rows {
            let attempt = AttemptId(row.try_get("attempt_id")?);
            let delivery = UnknownDelivery {
                seq: row.try_get("seq")?,
                key_epoch: u8::try_from(row.try_get::<i64, _>("key_epoch")?).unwrap_or(u8::MAX),
                first_sent_at_ms: row.try_get("first_sent_at_ms")?,
                attempts: row.try_get("attempts")?,
            };
            match groups.last_mut() {
                Some(group) if group.attempt == attempt => group.deliveries.push(delivery),
                _ => groups.push(UnknownGroup {
                    campaign: CampaignId(row.try_get("campaign_id")?),
                    attempt,
                    token: token(row.try_get("token")?)?,
                    claimed_at_ms: row.try_get("claimed_at_ms")?,
                    root_token: token(row.try_get("root_token")?)?,
                    deliveries: vec![delivery],
                }),
            }
        }
        Ok(groups)
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
                Box::pin(async move { settle(conn, campaign, attempt, &verdicts, now_ms).await })
            })
            .await
    }

    async fn pause_account(&self, account: &str, reason: &str) -> Result<Vec<(TenantId, CampaignId)>> {
        let (account, reason) = (account.to_owned(), reason.to_owned());
        self.writer
            .run("pause_account", move |conn| {
                Box::pin(async move {
                    let rows = sqlx::query(
                        "UPDATE campaign SET state = 'paused', pause_reason = ?2
                          WHERE account = ?1 AND state = 'running' AND lane = 'bulk' RETURNING tenant_id, id",
                    )
                    .bind(account)
                    .bind(reason)
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
                    .execute(conn)
                    .await?;
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

fn token(bytes: &[u8]) -> Result<Token> {
    bytes.try_into().map(Token).map_err(|_| LedgerError::Corrupt("an attempt's token"))
}

/// T11.
async fn wake_waiting(conn: &mut SqliteConnection, now_ms: i64, limit: u32) -> Result<Vec<Due>> {
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
async fn end_waiting(
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

/// T10: attempts that should have ended long ago. What became of their deliveries is not known.
async fn reap(conn: &mut SqliteConnection, claimed_before_ms: i64, now_ms: i64, first_look_ms: i64) -> Result<u64> {
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
            "UPDATE delivery SET state = 'unknown', detail = 'no_outcome', attempts = attempts + 1, doubted = 1,
                    next_at_ms = ?4, updated_at_ms = ?5
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

async fn settle(
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
    let (state, detail, how): (_, &str, _) = match verdict {
        Verdict::Accepted { evidence, .. } => (DeliveryState::Accepted, evidence, "log"),
        Verdict::Refused(code) => (DeliveryState::Failed, code, "refused"),
        Verdict::Absent => match stopped {
            Some(reason) => (DeliveryState::Stopped, reason.as_str(), "absent"),
            None => (DeliveryState::Ready, "absent", "absent"),
        },
        Verdict::AskAgain => (DeliveryState::Ready, "ask_again", "asked_again"),
        Verdict::Resend => (DeliveryState::Ready, "resend", "resend"),
        Verdict::Later(_) => (DeliveryState::Unknown, "", "later"),
        Verdict::Final => (DeliveryState::UnknownFinal, "undecided", "final"),
    };
    let (next_at_ms, provider_id) = match verdict {
        Verdict::Later(at_ms) => (Some(*at_ms), None),
        Verdict::Accepted { provider_id, .. } => (None, provider_id.as_deref()),
        _ => (None, None),
    };
    // What is sent again on purpose is a request of its own, whatever its provider remembers of the first; what was
    // refused has another key next time, for the provider may remember the old one.
    let done = sqlx::query(
        "UPDATE delivery SET state = ?4, detail = CASE ?5 WHEN '' THEN detail ELSE ?5 END, next_at_ms = ?6,
                provider_id = coalesce(?7, provider_id), resends = resends + ?8, updated_at_ms = ?9,
                root_id = CASE ?8 WHEN 1 THEN NULL ELSE root_id END,
                first_sent_at_ms = CASE WHEN ?8 = 1 OR ?10 = 1 THEN NULL ELSE first_sent_at_ms END,
                key_epoch = min(key_epoch + ?10, 255), doubted = CASE ?10 WHEN 1 THEN 0 ELSE doubted END
          WHERE campaign_id = ?1 AND seq = ?2 AND attempt_id = ?3 AND state = 'unknown'",
    )
    .bind(campaign.0)
    .bind(seq)
    .bind(attempt.0)
    .bind(state.as_str())
    .bind(detail)
    .bind(next_at_ms)
    .bind(provider_id)
    .bind(i64::from(matches!(verdict, Verdict::Resend)))
    .bind(now_ms)
    .bind(i64::from(matches!(verdict, Verdict::Refused(_))))
    .execute(conn)
    .await?
    .rows_affected();
    if done == 0 || state == DeliveryState::Unknown {
        return Ok(None);
    }
    metrics::counter!("dispatch_unknown_settled_total", "how" => how).increment(1);
    Ok(Some((state, detail)))
}
