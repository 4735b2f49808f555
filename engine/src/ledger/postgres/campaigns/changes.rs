//! What a campaign must be to be made, launched or retried.

use dispatch_schemas::{
    api::{
        campaigns::{Campaign, Retried},
        time::Moment,
    },
    ids::{CampaignId, TenantId},
    states::{CampaignState, Channel, DeliveryState},
};
use sqlx::{PgConnection, Row as _};

use super::{hold, load};
use crate::ledger::{
    LedgerError, Result,
    campaign_rules::{check_audience, check_launch, set_going},
    postgres::{months::month_at, rows, tally::Moves, tenants::require_open},
};

pub(super) async fn insert(
    conn: &mut PgConnection,
    tenant: TenantId,
    campaign: &Campaign,
    content: &str,
) -> Result<()> {
    require_open(conn, tenant).await?;
    sqlx::query(
        "INSERT INTO campaign (id, tenant_id, name, lane, state, channel, purpose, unknown_policy, account, limits,
                               content, send_at_ms, expires_at_ms, created_at_ms, month, sending_window)
         VALUES ($1, $2, $3, 'bulk', 'draft', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
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
    .bind(campaign.created_at.as_ms())
    .bind(month_at(campaign.created_at.as_ms()))
    .bind(campaign.sending_window.as_ref().map(rows::to_json).transpose()?)
    .execute(&mut *conn)
    .await?;
    sqlx::query("INSERT INTO expansion (campaign_id, tenant_id) VALUES ($1, $2)")
        .bind(campaign.id.0)
        .bind(tenant.0)
        .execute(&mut *conn)
        .await?;
    let lists: Vec<i64> = campaign.lists.iter().map(|list| list.0).collect();
    let stored = sqlx::query(
        "INSERT INTO campaign_list (campaign_id, tenant_id, position, list_id)
         SELECT $1, $2, n.position - 1, l.id
           FROM unnest($3::bigint[]) WITH ORDINALITY AS n (list_id, position) JOIN list l ON l.id = n.list_id
          WHERE l.tenant_id = $2 AND l.kind = 'contacts'",
    )
    .bind(campaign.id.0)
    .bind(tenant.0)
    .bind(&lists)
    .execute(conn)
    .await?
    .rows_affected();
    if stored == lists.len() as u64 { Ok(()) } else { Err(LedgerError::NotFound("list")) }
}

pub(super) async fn launch(conn: &mut PgConnection, tenant: TenantId, id: CampaignId, now_ms: i64) -> Result<Campaign> {
    let campaign = hold(conn, tenant, id).await?;
    require_open(conn, tenant).await?;
    check_launch(&campaign, now_ms)?;
    let audience = audience(conn, id, campaign.channel).await?;
    check_audience(campaign.channel, audience.importing, audience.is_empty)?;
    sqlx::query("UPDATE campaign SET state = $2, launched_at_ms = $3 WHERE id = $1")
        .bind(id.0)
        .bind(set_going(&campaign, now_ms).as_str())
        .bind(now_ms)
        .execute(&mut *conn)
        .await?;
    sqlx::query("UPDATE expansion SET until_contact = $2 WHERE campaign_id = $1")
        .bind(id.0)
        .bind(audience.until_contact)
        .execute(&mut *conn)
        .await?;
    load(conn, tenant, id).await
}

/// A campaign's lists at one moment.
struct Audience {
    /// Whether an upload into one of them has not ended.
    importing: bool,
    is_empty: bool,
    /// The last contact there is.
    until_contact: i64,
}

/// One statement, so that it is one moment: an upload that begins after it has contacts above the last one only.
async fn audience(conn: &mut PgConnection, id: CampaignId, channel: Channel) -> Result<Audience> {
    let row = sqlx::query(match channel {
        Channel::Email => {
            "SELECT EXISTS (SELECT FROM campaign_list l JOIN import i ON i.list_id = l.list_id
                             WHERE l.campaign_id = $1 AND i.state IN ('running', 'applying', 'rolling_back'))
                        AS importing,
                    NOT EXISTS (SELECT FROM campaign_list l JOIN contact c ON c.list_id = l.list_id
                                 WHERE l.campaign_id = $1 AND c.email_hash IS NOT NULL) AS is_empty,
                    (SELECT coalesce(max(last.id), 0) FROM campaign_list l CROSS JOIN LATERAL
                         (SELECT c.id FROM contact c WHERE c.list_id = l.list_id ORDER BY c.id DESC LIMIT 1) last
                      WHERE l.campaign_id = $1) AS until_contact"
        }
        Channel::Sms => {
            "SELECT EXISTS (SELECT FROM campaign_list l JOIN import i ON i.list_id = l.list_id
                             WHERE l.campaign_id = $1 AND i.state IN ('running', 'applying', 'rolling_back'))
                        AS importing,
                    NOT EXISTS (SELECT FROM campaign_list l JOIN contact c ON c.list_id = l.list_id
                                 WHERE l.campaign_id = $1 AND c.phone_hash IS NOT NULL) AS is_empty,
                    (SELECT coalesce(max(last.id), 0) FROM campaign_list l CROSS JOIN LATERAL
                         (SELECT c.id FROM contact c WHERE c.list_id = l.list_id ORDER BY c.id DESC LIMIT 1) last
                      WHERE l.campaign_id = $1) AS until_contact"
        }
    })
    .bind(id.0)
    .fetch_one(conn)
    .await?;
    Ok(Audience {
        importing: row.try_get("importing")?,
        is_empty: row.try_get("is_empty")?,
        until_contact: row.try_get("until_contact")?,
    })
}

pub(super) async fn retry(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: CampaignId,
    code: Option<&str>,
    now_ms: i64,
) -> Result<Retried> {
    let campaign = hold(conn, tenant, id).await?;
    match campaign.state {
        CampaignState::Running | CampaignState::Paused | CampaignState::Completed => {}
        state => return Err(LedgerError::not_now("retried", state)),
    }
    require_open(conn, tenant).await?;
    if campaign.expires_at.is_some_and(|at| at.as_ms() <= now_ms) {
        return Err(LedgerError::conflict("campaign-expired", "this campaign's expires_at has passed"));
    }
    let failed = sqlx::query(
        "WITH again AS (
             SELECT seq, detail FROM delivery
              WHERE month = $2 AND campaign_id = $1 AND state = 'failed' AND ($3::text IS NULL OR detail = $3)
                FOR NO KEY UPDATE),
         retried AS (
             UPDATE delivery d SET state = 'ready', detail = '', attempts = 0, updated_at_ms = $4
               FROM again WHERE d.month = $2 AND d.campaign_id = $1 AND d.seq = again.seq
             RETURNING again.detail)
         SELECT detail, count(*) AS deliveries FROM retried GROUP BY detail",
    )
    .bind(id.0)
    .bind(month_at(campaign.created_at.as_ms()))
    .bind(code)
    .bind(now_ms)
    .fetch_all(&mut *conn)
    .await?;
    let mut moves = Moves::default();
    let mut retried = 0;
    for row in &failed {
        let done = rows::count(row, "deliveries")?;
        moves.left(DeliveryState::Failed, row.try_get("detail")?, done);
        moves.entered(DeliveryState::Ready, "", done);
        retried += done;
    }
    moves.write(id, conn).await?;
    if retried > 0 {
        sqlx::query(
            "UPDATE campaign SET ended_at_ms = NULL, state = CASE state WHEN 'completed' THEN 'running' ELSE state END
              WHERE id = $1",
        )
        .bind(id.0)
        .execute(conn)
        .await?;
    }
    Ok(Retried { retried })
}
