//! Writing down how many deliveries of a campaign stand where.

use dispatch_schemas::ids::CampaignId;
use sqlx::{PgConnection, Postgres};

use crate::ledger::{LedgerError, Result, tally};

/// Rows for each state of a campaign. Each connection has its own of them as long as there are no more connections than
/// rows, so that workers do not wait for each other's commits. A look at a campaign adds them up.
pub(super) const SHARDS: i32 = 32;

/// Changes of one campaign's counts, gathered over a transaction's statements.
pub(super) type Moves = tally::Moves<Postgres>;

impl Moves {
    /// Writes the changes, in one statement: the last of its transaction, so that its rows are locked for a moment only.
    /// A transaction that writes for several campaigns does so in the order of their ids.
    pub(super) async fn write(self, campaign: CampaignId, conn: &mut PgConnection) -> Result<()> {
        let changes = self.changes();
        if changes.is_empty() {
            return Ok(());
        }
        let states: Vec<&str> = changes.iter().map(|(state, ..)| state.as_str()).collect();
        let details: Vec<&str> = changes.iter().map(|(_, detail, _)| detail.as_str()).collect();
        let sums: Vec<i64> = changes.iter().map(|(.., sum)| *sum).collect();
        let written = sqlx::query(
            "INSERT INTO tally (campaign_id, tenant_id, shard, state, detail, deliveries)
             SELECT c.id, c.tenant_id, pg_backend_pid() % $5, m.state, m.detail, m.deliveries
               FROM campaign c CROSS JOIN unnest($2::text[], $3::text[], $4::bigint[]) m(state, detail, deliveries)
              WHERE c.id = $1 ORDER BY m.state COLLATE \"C\", m.detail COLLATE \"C\"
             ON CONFLICT (campaign_id, shard, state, detail)
             DO UPDATE SET deliveries = tally.deliveries + excluded.deliveries",
        )
        .bind(campaign.0)
        .bind(states)
        .bind(details)
        .bind(sums)
        .bind(SHARDS)
        .execute(conn)
        .await?;
        if written.rows_affected() == changes.len() as u64 {
            Ok(())
        } else {
            Err(LedgerError::Corrupt("deliveries without a campaign"))
        }
    }
}
