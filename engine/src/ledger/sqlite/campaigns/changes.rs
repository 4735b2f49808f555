//! What a campaign must be to be made, launched or retried.

use dispatch_schemas::{
    api::{
        campaigns::{Campaign, Retried},
        time::Moment,
    },
    ids::{CampaignId, TenantId},
    states::{CampaignState, Channel, DeliveryState},
};
use sqlx::{Row as _, SqliteConnection};

use super::load;
use crate::ledger::{
    LedgerError, Result,
    campaign_rules::{check_audience, check_launch, set_going},
    sqlite::{rows, tally::Moves, tenants::require_open},
};

pub(super) async fn insert(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    campaign: &Campaign,
    content: &str,
) -> Result<()> {
    require_open(conn, tenant).await?;
    sqlx::query(
        "INSERT INTO campaign (id, tenant_id, name, lane, state, channel, purpose, unknown_policy, account, limits,
                               content, send_at_ms, expires_at_ms, sending_window, created_at_ms)
         VALUES (?, ?, ?, 'bulk', 'draft', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(campaign.id.0)
    .bind(tenant.0)
    .bind(&campaign.name)
    .bind(campaign.channel.as_str())
    .bind(campaign.purpose.as_str())
    .bind(campaign.unknown_policy.as_str())
    .bind(&campaign.account)
    .bind(rows::to_json(&campaign.limits)?)
    .bind(content)
    .bind(campaign.send_at.map(Moment::as_ms))
    .bind(campaign.expires_at.map(Moment::as_ms))
    .bind(campaign.sending_window.as_ref().map(rows::to_json).transpose()?)
    .bind(campaign.created_at.as_ms())
    .execute(&mut *conn)
    .await?;
    for (position, list) in (0_i64..).zip(&campaign.lists) {
        let stored = sqlx::query(
            "INSERT INTO campaign_list (campaign_id, position, list_id)
             SELECT ?, ?, id FROM list WHERE id = ? AND tenant_id = ? AND kind = 'contacts'",
        )
        .bind(campaign.id.0)
        .bind(position)
        .bind(list.0)
        .bind(tenant.0)
        .execute(&mut *conn)
        .await?
        .rows_affected();
        if stored == 0 {
            return Err(LedgerError::NotFound("list"));
        }
    }
    Ok(())
}

pub(super) async fn launch(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: CampaignId,
    now_ms: i64,
) -> Result<Campaign> {
    let campaign = load(conn, tenant, id).await?;
    require_open(conn, tenant).await?;
    check_launch(&campaign, now_ms)?;
    let importing = sqlx::query(
        "SELECT 1 FROM campaign_list l JOIN import i ON i.list_id = l.list_id
          WHERE l.campaign_id = ? AND i.state IN ('running', 'applying', 'rolling_back')",
    )
    .bind(id.0)
    .fetch_optional(&mut *conn)
    .await?;
    let audience = match campaign.channel {
        Channel::Email => {
            "SELECT 1 FROM campaign_list l CROSS JOIN contact c ON c.list_id = l.list_id
              WHERE l.campaign_id = ? AND c.email_hash IS NOT NULL LIMIT 1"
        }
        Channel::Sms => {
            "SELECT 1 FROM campaign_list l CROSS JOIN contact c ON c.list_id = l.list_id
              WHERE l.campaign_id = ? AND c.phone_hash IS NOT NULL LIMIT 1"
        }
    };
    let anybody = sqlx::query(audience).bind(id.0).fetch_optional(&mut *conn).await?;
    check_audience(campaign.channel, importing.is_some(), anybody.is_none())?;
    sqlx::query(
        "UPDATE campaign SET state = ?2, launched_at_ms = ?3,
                expansion_until = (SELECT coalesce(max(id), 0) FROM contact) WHERE id = ?1",
    )
    .bind(id.0)
    .bind(set_going(&campaign, now_ms).as_str())
    .bind(now_ms)
    .execute(&mut *conn)
    .await?;
    load(conn, tenant, id).await
}

pub(super) async fn retry(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    id: CampaignId,
    code: Option<String>,
    now_ms: i64,
) -> Result<Retried> {
    let campaign = load(conn, tenant, id).await?;
    match campaign.state {
        CampaignState::Running | CampaignState::Paused | CampaignState::Completed => {}
        state => return Err(LedgerError::not_now("retried", state)),
    }
    require_open(conn, tenant).await?;
    if campaign.expires_at.is_some_and(|at| at.as_ms() <= now_ms) {
        return Err(LedgerError::conflict("campaign-expired", "this campaign's expires_at has passed"));
    }
    let failed = sqlx::query(
        "SELECT detail, deliveries FROM tally
          WHERE campaign_id = ?1 AND state = 'failed' AND deliveries > 0 AND (?2 IS NULL OR detail = ?2)",
    )
    .bind(id.0)
    .bind(&code)
    .fetch_all(&mut *conn)
    .await?;
    let mut moves = Moves::default();
    let mut retried = 0;
    for row in &failed {
        let detail: String = row.try_get("detail")?;
        let done = sqlx::query(
            "UPDATE delivery SET state = 'ready', detail = '', attempts = 0, updated_at_ms = ?3
              WHERE campaign_id = ?1 AND state = 'failed' AND detail = ?2",
        )
        .bind(id.0)
        .bind(&detail)
        .bind(now_ms)
        .execute(&mut *conn)
        .await?
        .rows_affected();
        moves.left(DeliveryState::Failed, &detail, done);
        moves.entered(DeliveryState::Ready, "", done);
        retried += done;
    }
    moves.write(id, conn).await?;
    if retried > 0 {
        sqlx::query(
            "UPDATE campaign SET ended_at_ms = NULL, state = CASE state WHEN 'completed' THEN 'running' ELSE state END
              WHERE id = ?",
        )
        .bind(id.0)
        .execute(conn)
        .await?;
    }
    Ok(Retried { retried })
}
