//! Whether anything of a campaign may be claimed: one read for each claim.

use dispatch_schemas::api::sending_window::SendingWindow;
use sqlx::SqliteConnection;

use super::Claimer;
use crate::ledger::Result;

/// Whether the campaign runs, has not expired and is in its sending window, its tenant's gate is open, and the ledger is in
/// no quarantine.
pub(super) async fn is_claimable(
    conn: &mut SqliteConnection,
    claimer: Claimer,
    window: Option<&SendingWindow>,
) -> Result<bool> {
    if window.is_some_and(|window| !window.is_open(claimer.now_ms)) {
        return Ok(false);
    }
    let row = sqlx::query(
        "SELECT 1 FROM campaign c CROSS JOIN tenant t ON t.id = c.tenant_id
          WHERE c.id = ? AND c.tenant_id = ? AND c.state = 'running'
            AND (c.expires_at_ms IS NULL OR c.expires_at_ms > ?) AND t.closed_at_ms IS NULL
            AND NOT EXISTS (SELECT 1 FROM quarantine WHERE left_at_ms IS NULL)",
    )
    .bind(claimer.campaign.0)
    .bind(claimer.tenant.0)
    .bind(claimer.now_ms)
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}
