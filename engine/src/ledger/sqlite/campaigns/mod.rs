//! Campaigns: made, launched, paused, resumed, cancelled, looked at.

mod changes;

use std::collections::BTreeMap;

use async_trait::async_trait;
use dispatch_schemas::{
    api::{
        campaigns::{Campaign, CampaignStopped, NewCampaign, Progress, RecipientStatus, Retried, Retry},
        limits::Windows,
        templates::TemplateSource,
        time::Moment,
    },
    ids::{CampaignId, ListId, TenantId},
    states::{CampaignState, Channel, DeliveryState},
};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{SqliteLedger, recipients, rows, tenants::require_open};
use crate::{
    ledger::{
        Campaigns, EvidenceRow, LedgerError, Once, RecipientFilter, Replayable, Result,
        campaign_rules::{draft, set_going},
    },
    second_place::Note,
};

#[async_trait]
impl Campaigns for SqliteLedger {
    async fn create_campaign(
        &self,
        tenant: TenantId,
        new: &NewCampaign,
        content: &TemplateSource,
        account: &str,
        once: Option<&Once>,
    ) -> Result<Replayable<Campaign>> {
        let now_ms = self.now_ms();
        let campaign = draft(CampaignId::from_random(self.draw()), new, content, account, now_ms);
        let (content, once) = (rows::to_json(content)?, once.cloned());
        self.writer
            .run("create_campaign", move |conn| {
                Box::pin(async move {
                    if let Some(earlier) = rows::replay(conn, tenant, once.as_ref(), now_ms).await? {
                        return Ok(earlier);
                    }
                    changes::insert(conn, tenant, &campaign, &content).await?;
                    rows::remember(conn, tenant, once.as_ref(), now_ms, campaign).await
                })
            })
            .await
    }

    async fn campaigns(&self, tenant: TenantId, after: Option<(i64, CampaignId)>, limit: u32) -> Result<Vec<Campaign>> {
        let (created_at_ms, id) = after.map_or((i64::MAX, i64::MAX), |(at_ms, id)| (at_ms, id.0));
        let rows = sqlx::query(
            "SELECT * FROM campaign WHERE tenant_id = ? AND lane = 'bulk' AND (created_at_ms, id) < (?, ?)
              ORDER BY created_at_ms DESC, id DESC LIMIT ?",
        )
        .bind(tenant.0)
        .bind(created_at_ms)
        .bind(id)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let mut campaigns = Vec::with_capacity(rows.len());
        let mut conn = self.readers.acquire().await?;
        for row in &rows {
            let lists = lists_of(&mut conn, CampaignId(row.try_get("id")?)).await?;
            campaigns.push(campaign(row, lists)?);
        }
        Ok(campaigns)
    }

    async fn campaign(&self, tenant: TenantId, id: CampaignId) -> Result<Campaign> {
        let mut conn = self.readers.acquire().await?;
        load(&mut conn, tenant, id).await
    }

    async fn launch(&self, tenant: TenantId, id: CampaignId, once: Option<&Once>) -> Result<Replayable<Campaign>> {
        let (once, now_ms) = (once.cloned(), self.now_ms());
        self.writer
            .run("launch", move |conn| {
                Box::pin(async move {
                    if let Some(earlier) = rows::replay(conn, tenant, once.as_ref(), now_ms).await? {
                        return Ok(earlier);
                    }
                    let launched = changes::launch(conn, tenant, id, now_ms).await?;
                    rows::remember(conn, tenant, once.as_ref(), now_ms, launched).await
                })
            })
            .await
    }

    async fn pause(&self, tenant: TenantId, id: CampaignId, reason: &str) -> Result<CampaignStopped> {
        let reason = reason.to_owned();
        let done = self
            .writer
            .run("pause", move |conn| {
                Box::pin(async move {
                    let campaign = load(conn, tenant, id).await?;
                    match campaign.state {
                        CampaignState::Running | CampaignState::Scheduled | CampaignState::Paused => {}
                        state => return Err(LedgerError::not_now("paused", state)),
                    }
                    sqlx::query("UPDATE campaign SET state = 'paused', pause_reason = ? WHERE id = ?")
                        .bind(reason)
                        .bind(id.0)
                        .execute(&mut *conn)
                        .await?;
                    stopped(conn, tenant, id).await
                })
            })
            .await?;
        self.second_place.note(self.now_ms(), Note::Paused { tenant, campaign: id }).await?;
        Ok(done)
    }

    async fn set_campaign_limits(&self, tenant: TenantId, id: CampaignId, limits: Windows) -> Result<Campaign> {
        let limits = rows::to_json(&limits)?;
        self.writer
            .run("set_campaign_limits", move |conn| {
                Box::pin(async move {
                    if load(conn, tenant, id).await?.state == CampaignState::Cancelled {
                        return Err(LedgerError::not_now("limited", CampaignState::Cancelled));
                    }
                    sqlx::query("UPDATE campaign SET limits = ? WHERE id = ?")
                        .bind(limits)
                        .bind(id.0)
                        .execute(&mut *conn)
                        .await?;
                    load(conn, tenant, id).await
                })
            })
            .await
    }

    async fn resume(&self, tenant: TenantId, id: CampaignId) -> Result<Campaign> {
        let now_ms = self.now_ms();
        let done = self
            .writer
            .run("resume", move |conn| {
                Box::pin(async move {
                    let campaign = load(conn, tenant, id).await?;
                    match campaign.state {
                        CampaignState::Paused | CampaignState::Running | CampaignState::Scheduled => {}
                        state => return Err(LedgerError::not_now("resumed", state)),
                    }
                    require_open(conn, tenant).await?;
                    sqlx::query("UPDATE campaign SET state = ?, pause_reason = NULL WHERE id = ?")
                        .bind(set_going(&campaign, now_ms).as_str())
                        .bind(id.0)
                        .execute(&mut *conn)
                        .await?;
                    load(conn, tenant, id).await
                })
            })
            .await?;
        self.second_place.note(self.now_ms(), Note::Resumed { tenant, campaign: id }).await?;
        Ok(done)
    }

    async fn cancel(&self, tenant: TenantId, id: CampaignId) -> Result<CampaignStopped> {
        let now_ms = self.now_ms();
        let done = self
            .writer
            .run("cancel", move |conn| {
                Box::pin(async move {
                    let campaign = load(conn, tenant, id).await?;
                    if campaign.state == CampaignState::Completed {
                        return Err(LedgerError::not_now("cancelled", campaign.state));
                    }
                    // A draft has no deliveries to wait for.
                    let ended = (campaign.state == CampaignState::Draft).then_some(now_ms);
                    sqlx::query(
                        "UPDATE campaign SET state = 'cancelled', pause_reason = NULL, expanded = 1,
                                ended_at_ms = coalesce(ended_at_ms, ?) WHERE id = ?",
                    )
                    .bind(ended)
                    .bind(id.0)
                    .execute(&mut *conn)
                    .await?;
                    stopped(conn, tenant, id).await
                })
            })
            .await?;
        self.second_place.note(self.now_ms(), Note::Cancelled { tenant, campaign: id }).await?;
        Ok(done)
    }

    async fn progress(&self, tenant: TenantId, id: CampaignId) -> Result<Progress> {
        // One statement, so that the counts are of one moment.
        let rows = sqlx::query(
            "SELECT c.state AS campaign_state, c.pause_reason, c.expanded, c.next_seq, s.reason AS stall, t.state,
                    t.detail, t.deliveries
               FROM campaign c LEFT JOIN stall s ON s.campaign_id = c.id AND c.state = 'running'
                    LEFT JOIN tally t ON t.campaign_id = c.id
              WHERE c.id = ? AND c.tenant_id = ?",
        )
        .bind(id.0)
        .bind(tenant.0)
        .fetch_all(&self.readers)
        .await?;
        let first = rows.first().ok_or(LedgerError::NotFound("campaign"))?;
        let mut progress = Progress {
            id,
            state: rows::word(first, "campaign_state")?,
            pause_reason: first.try_get("pause_reason")?,
            audience: u64::try_from(first.try_get::<i64, _>("next_seq")?).unwrap_or(0),
            expanded: first.try_get::<i64, _>("expanded")? != 0,
            states: DeliveryState::ALL.iter().map(|state| (state.to_string(), 0)).collect(),
            reasons: BTreeMap::new(),
            reported: super::facts::counts(&self.readers, id).await?,
            stall: rows::optional_word(first, "stall")?,
            opens_at: None,
        };
        for row in &rows {
            let Some(state) = row.try_get::<Option<String>, _>("state")? else { continue };
            let count = u64::try_from(row.try_get::<i64, _>("deliveries")?).unwrap_or(0);
            let detail: String = row.try_get("detail")?;
            if !detail.is_empty() && count > 0 {
                *progress.reasons.entry(detail).or_default() += count;
            }
            *progress.states.entry(state).or_default() += count;
        }
        Ok(progress)
    }

    async fn recipients(
        &self,
        tenant: TenantId,
        id: CampaignId,
        filter: RecipientFilter,
    ) -> Result<Vec<RecipientStatus>> {
        let campaign = self.campaign(tenant, id).await?;
        let keys = super::Tenants::tenant_keys(self, tenant).await?;
        recipients::list(&self.readers, &self.send_keys, &keys, id, campaign.channel, filter).await
    }

    async fn evidence(
        &self,
        campaign: CampaignId,
        channel: Channel,
        after: i64,
        limit: u32,
    ) -> Result<Vec<EvidenceRow>> {
        recipients::evidence(&self.readers, campaign, channel, after, limit).await
    }

    async fn retry(&self, tenant: TenantId, id: CampaignId, which: &Retry) -> Result<Retried> {
        let (code, now_ms) = (which.code.clone(), self.now_ms());
        self.writer
            .run("retry", move |conn| Box::pin(async move { changes::retry(conn, tenant, id, code, now_ms).await }))
            .await
    }
}

async fn load(conn: &mut SqliteConnection, tenant: TenantId, id: CampaignId) -> Result<Campaign> {
    let row = sqlx::query("SELECT * FROM campaign WHERE id = ? AND tenant_id = ? AND lane = 'bulk'")
        .bind(id.0)
        .bind(tenant.0)
        .fetch_optional(&mut *conn)
        .await?
        .ok_or(LedgerError::NotFound("campaign"))?;
    campaign(&row, lists_of(conn, id).await?)
}

async fn lists_of(conn: &mut SqliteConnection, id: CampaignId) -> Result<Vec<ListId>> {
    let rows = sqlx::query("SELECT list_id FROM campaign_list WHERE campaign_id = ? ORDER BY position")
        .bind(id.0)
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Ok(ListId(row.try_get(0)?))).collect()
}

async fn stopped(conn: &mut SqliteConnection, tenant: TenantId, id: CampaignId) -> Result<CampaignStopped> {
    let in_flight: i64 =
        sqlx::query("SELECT coalesce(sum(deliveries), 0) FROM tally WHERE campaign_id = ? AND state = 'claimed'")
            .bind(id.0)
            .fetch_one(&mut *conn)
            .await?
            .try_get(0)?;
    Ok(CampaignStopped { campaign: load(conn, tenant, id).await?, in_flight: u64::try_from(in_flight).unwrap_or(0) })
}

fn campaign(row: &SqliteRow, lists: Vec<ListId>) -> Result<Campaign> {
    let moment = |column| -> Result<Option<Moment>> { Ok(row.try_get::<Option<i64>, _>(column)?.map(Moment::from_ms)) };
    Ok(Campaign {
        id: CampaignId(row.try_get("id")?),
        name: row.try_get("name")?,
        state: rows::word(row, "state")?,
        pause_reason: row.try_get("pause_reason")?,
        channel: rows::word(row, "channel")?,
        purpose: rows::word(row, "purpose")?,
        unknown_policy: rows::word(row, "unknown_policy")?,
        account: row.try_get("account")?,
        limits: rows::json(row, "limits")?,
        lists,
        send_at: moment("send_at_ms")?,
        expires_at: moment("expires_at_ms")?,
        sending_window: rows::optional_json(row, "sending_window")?,
        created_at: Moment::from_ms(row.try_get("created_at_ms")?),
        launched_at: moment("launched_at_ms")?,
        ended_at: moment("ended_at_ms")?,
    })
}
