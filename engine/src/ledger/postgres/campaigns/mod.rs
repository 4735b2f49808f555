//! Campaigns: made, launched, paused, resumed, cancelled, looked at.
//!
//! Whatever lets nothing more be claimed has its tenant's gates to itself; every change holds the campaign's row from
//! the look at its state on.

mod changes;

use std::collections::{BTreeMap, HashMap};

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
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{PostgresLedger, lock_gates, recipients, rows, tenants::require_open};
use crate::{
    ledger::{
        Campaigns, EvidenceRow, LedgerError, Once, RecipientFilter, Replayable, Result, Tenants,
        campaign_rules::{draft, set_going},
    },
    second_place::Note,
};

#[async_trait]
impl Campaigns for PostgresLedger {
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
        let content = rows::to_json(content)?;
        self.once("create_campaign", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            if let Some(earlier) = rows::replay(&mut transaction, tenant, once, now_ms).await? {
                return Ok(earlier);
            }
            changes::insert(&mut transaction, tenant, &campaign, &content).await?;
            let made = rows::remember(&mut transaction, tenant, once, now_ms, campaign.clone()).await?;
            transaction.commit().await?;
            Ok(made)
        })
        .await
    }

    async fn campaigns(&self, tenant: TenantId, after: Option<(i64, CampaignId)>, limit: u32) -> Result<Vec<Campaign>> {
        let (created_at_ms, id) = after.map_or((i64::MAX, i64::MAX), |(at_ms, id)| (at_ms, id.0));
        let mut transaction = self.for_tenant(tenant).await?;
        let rows = sqlx::query(
            "SELECT * FROM campaign WHERE tenant_id = $1 AND lane = 'bulk' AND (created_at_ms, id) < ($2, $3)
              ORDER BY created_at_ms DESC, id DESC LIMIT $4",
        )
        .bind(tenant.0)
        .bind(created_at_ms)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&mut *transaction)
        .await?;
        let ids = rows.iter().map(|row| row.try_get("id")).collect::<sqlx::Result<Vec<i64>>>()?;
        let mut lists = lists_of(&mut transaction, &ids).await?;
        rows.iter().zip(&ids).map(|(row, id)| campaign(row, lists.remove(id).unwrap_or_default())).collect()
    }

    async fn campaign(&self, tenant: TenantId, id: CampaignId) -> Result<Campaign> {
        load(&mut *self.for_tenant(tenant).await?, tenant, id).await
    }

    async fn launch(&self, tenant: TenantId, id: CampaignId, once: Option<&Once>) -> Result<Replayable<Campaign>> {
        let now_ms = self.now_ms();
        self.make_month(self.month_of(id).await?).await?;
        self.once("launch", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            if let Some(earlier) = rows::replay(&mut transaction, tenant, once, now_ms).await? {
                return Ok(earlier);
            }
            let launched = changes::launch(&mut transaction, tenant, id, now_ms).await?;
            let launched = rows::remember(&mut transaction, tenant, once, now_ms, launched).await?;
            transaction.commit().await?;
            Ok(launched)
        })
        .await
    }

    async fn pause(&self, tenant: TenantId, id: CampaignId, reason: &str) -> Result<CampaignStopped> {
        let done = self
            .repeatable("pause", || async {
                let mut transaction = self.for_tenant(tenant).await?;
                lock_gates(&mut transaction, tenant).await?;
                match hold(&mut transaction, tenant, id).await?.state {
                    CampaignState::Running | CampaignState::Scheduled | CampaignState::Paused => {}
                    state => return Err(LedgerError::not_now("paused", state)),
                }
                sqlx::query("UPDATE campaign SET state = 'paused', pause_reason = $1 WHERE id = $2")
                    .bind(reason)
                    .bind(id.0)
                    .execute(&mut *transaction)
                    .await?;
                let stopped = stopped(&mut transaction, tenant, id).await?;
                transaction.commit().await?;
                Ok(stopped)
            })
            .await?;
        self.second_place.note(self.now_ms(), Note::Paused { tenant, campaign: id }).await?;
        Ok(done)
    }

    async fn set_campaign_limits(&self, tenant: TenantId, id: CampaignId, limits: Windows) -> Result<Campaign> {
        let limits = rows::to_json(&limits)?;
        self.repeatable("set_campaign_limits", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            if hold(&mut transaction, tenant, id).await?.state == CampaignState::Cancelled {
                return Err(LedgerError::not_now("limited", CampaignState::Cancelled));
            }
            sqlx::query("UPDATE campaign SET limits = $1 WHERE id = $2")
                .bind(&limits)
                .bind(id.0)
                .execute(&mut *transaction)
                .await?;
            let campaign = load(&mut transaction, tenant, id).await?;
            transaction.commit().await?;
            Ok(campaign)
        })
        .await
    }

    async fn resume(&self, tenant: TenantId, id: CampaignId) -> Result<Campaign> {
        let now_ms = self.now_ms();
        let done = self
            .repeatable("resume", || async {
                let mut transaction = self.for_tenant(tenant).await?;
                lock_gates(&mut transaction, tenant).await?;
                let campaign = hold(&mut transaction, tenant, id).await?;
                match campaign.state {
                    CampaignState::Paused | CampaignState::Running | CampaignState::Scheduled => {}
                    state => return Err(LedgerError::not_now("resumed", state)),
                }
                require_open(&mut transaction, tenant).await?;
                sqlx::query("UPDATE campaign SET state = $1, pause_reason = NULL WHERE id = $2")
                    .bind(set_going(&campaign, now_ms).as_str())
                    .bind(id.0)
                    .execute(&mut *transaction)
                    .await?;
                let resumed = load(&mut transaction, tenant, id).await?;
                transaction.commit().await?;
                Ok(resumed)
            })
            .await?;
        self.second_place.note(self.now_ms(), Note::Resumed { tenant, campaign: id }).await?;
        Ok(done)
    }

    async fn cancel(&self, tenant: TenantId, id: CampaignId) -> Result<CampaignStopped> {
        let now_ms = self.now_ms();
        let done = self
            .repeatable("cancel", || async {
                let mut transaction = self.for_tenant(tenant).await?;
                lock_gates(&mut transaction, tenant).await?;
                let campaign = hold(&mut transaction, tenant, id).await?;
                if campaign.state == CampaignState::Completed {
                    return Err(LedgerError::not_now("cancelled", campaign.state));
                }
                // A draft has no deliveries to wait for.
                let ended = (campaign.state == CampaignState::Draft).then_some(now_ms);
                sqlx::query(
                "UPDATE campaign SET state = 'cancelled', pause_reason = NULL, ended_at_ms = coalesce(ended_at_ms, $1)
                  WHERE id = $2",
            )
            .bind(ended)
            .bind(id.0)
            .execute(&mut *transaction)
            .await?;
                sqlx::query("UPDATE expansion SET done = true WHERE campaign_id = $1")
                    .bind(id.0)
                    .execute(&mut *transaction)
                    .await?;
                let stopped = stopped(&mut transaction, tenant, id).await?;
                transaction.commit().await?;
                Ok(stopped)
            })
            .await?;
        self.second_place.note(self.now_ms(), Note::Cancelled { tenant, campaign: id }).await?;
        Ok(done)
    }

    async fn progress(&self, tenant: TenantId, id: CampaignId) -> Result<Progress> {
        let mut transaction = self.for_tenant(tenant).await?;
        // One statement, so that the counts are of one moment.
        let rows = sqlx::query(
            "SELECT c.state AS campaign_state, c.pause_reason, e.done, e.next_seq, s.reason AS stall, t.state, t.detail,
                    t.deliveries
               FROM campaign c JOIN expansion e ON e.campaign_id = c.id
                    LEFT JOIN stall s ON s.campaign_id = c.id AND c.state = 'running'
                    LEFT JOIN LATERAL (SELECT state, detail, sum(deliveries)::bigint AS deliveries FROM tally
                                        WHERE campaign_id = c.id GROUP BY state, detail) t ON true
              WHERE c.id = $1 AND c.tenant_id = $2",
        )
        .bind(id.0)
        .bind(tenant.0)
        .fetch_all(&mut *transaction)
        .await?;
        let first = rows.first().ok_or(LedgerError::NotFound("campaign"))?;
        let mut progress = Progress {
            opens_at: None,
            id,
            state: rows::word(first, "campaign_state")?,
            pause_reason: first.try_get("pause_reason")?,
            audience: rows::count(first, "next_seq")?,
            expanded: first.try_get("done")?,
            states: DeliveryState::ALL.iter().map(|state| (state.to_string(), 0)).collect(),
            reasons: BTreeMap::new(),
            reported: super::facts::counts(&mut transaction, id).await?,
            stall: rows::optional_word(first, "stall")?,
        };
        for row in &rows {
            let Some(state) = row.try_get::<Option<String>, _>("state")? else { continue };
            let count = rows::count(row, "deliveries")?;
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
        let keys = Tenants::tenant_keys(self, tenant).await?;
        let mut transaction = self.for_tenant(tenant).await?;
        let channel = load(&mut transaction, tenant, id).await?.channel;
        recipients::list(&mut transaction, &self.send_keys, &keys, id, channel, filter).await
    }

    async fn evidence(
        &self,
        campaign: CampaignId,
        channel: Channel,
        after: i64,
        limit: u32,
    ) -> Result<Vec<EvidenceRow>> {
        recipients::evidence(&mut *self.engine.acquire().await?, campaign, channel, after, limit).await
    }

    async fn retry(&self, tenant: TenantId, id: CampaignId, which: &Retry) -> Result<Retried> {
        let (code, now_ms) = (which.code.as_deref(), self.now_ms());
        self.once("retry", || async {
            let mut transaction = self.for_tenant(tenant).await?;
            let retried = changes::retry(&mut transaction, tenant, id, code, now_ms).await?;
            transaction.commit().await?;
            Ok(retried)
        })
        .await
    }
}

async fn load(conn: &mut PgConnection, tenant: TenantId, id: CampaignId) -> Result<Campaign> {
    let row = sqlx::query("SELECT * FROM campaign WHERE id = $1 AND tenant_id = $2 AND lane = 'bulk'")
        .bind(id.0)
        .bind(tenant.0)
        .fetch_optional(&mut *conn)
        .await?
        .ok_or(LedgerError::NotFound("campaign"))?;
    campaign(&row, lists_of(conn, &[id.0]).await?.remove(&id.0).unwrap_or_default())
}

/// As [`load`], and nobody else changes the campaign until the transaction ends.
async fn hold(conn: &mut PgConnection, tenant: TenantId, id: CampaignId) -> Result<Campaign> {
    sqlx::query("SELECT 1 FROM campaign WHERE id = $1 AND tenant_id = $2 FOR NO KEY UPDATE")
        .bind(id.0)
        .bind(tenant.0)
        .fetch_optional(&mut *conn)
        .await?;
    load(conn, tenant, id).await
}

async fn lists_of(conn: &mut PgConnection, campaigns: &[i64]) -> Result<HashMap<i64, Vec<ListId>>> {
    let rows = sqlx::query(
        "SELECT campaign_id, list_id FROM campaign_list WHERE campaign_id = ANY($1) ORDER BY campaign_id, position",
    )
    .bind(campaigns)
    .fetch_all(conn)
    .await?;
    let mut lists: HashMap<i64, Vec<ListId>> = HashMap::with_capacity(campaigns.len());
    for row in &rows {
        lists.entry(row.try_get("campaign_id")?).or_default().push(ListId(row.try_get("list_id")?));
    }
    Ok(lists)
}

async fn stopped(conn: &mut PgConnection, tenant: TenantId, id: CampaignId) -> Result<CampaignStopped> {
    let row = sqlx::query(
        "SELECT coalesce(sum(deliveries), 0)::bigint AS in_flight FROM tally WHERE campaign_id = $1 AND state = 'claimed'",
    )
    .bind(id.0)
    .fetch_one(&mut *conn)
    .await?;
    Ok(CampaignStopped { campaign: load(conn, tenant, id).await?, in_flight: rows::count(&row, "in_flight")? })
}

fn campaign(row: &PgRow, lists: Vec<ListId>) -> Result<Campaign> {
    let moment = |column| -> Result<Option<Moment>> { Ok(row.try_get::<Option<i64>, _>(column)?.map(Moment::from_ms)) };
    Ok(Campaign {
        sending_window: rows::optional_json(row, "sending_window")?,
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
        created_at: Moment::from_ms(row.try_get("created_at_ms")?),
        launched_at: moment("launched_at_ms")?,
        ended_at: moment("ended_at_ms")?,
    })
}
