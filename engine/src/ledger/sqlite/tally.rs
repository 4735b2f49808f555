//! Writing down how many deliveries of a campaign stand where.

use dispatch_schemas::ids::CampaignId;
use sqlx::{Sqlite, SqliteConnection};

use crate::ledger::{Result, tally};

/// Changes of one campaign's counts, gathered over a transaction's statements.
pub(super) type Moves = tally::Moves<Sqlite>;

impl Moves {
    /// Writes the changes.
    pub(super) async fn write(self, campaign: CampaignId, conn: &mut SqliteConnection) -> Result<()> {
        for (state, detail, change) in self.changes() {
            sqlx::query(
                "INSERT INTO tally (campaign_id, state, detail, deliveries) VALUES (?, ?, ?, ?)
                 ON CONFLICT (campaign_id, state, detail) DO UPDATE SET deliveries = deliveries + excluded.deliveries",
            )
            .bind(campaign.0)
            .bind(state.as_str())
            .bind(detail)
            .bind(change)
            .execute(&mut *conn)
            .await?;
        }
        Ok(())
    }
}
