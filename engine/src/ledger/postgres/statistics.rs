//! The server's statistics of tables that grow by bulk.
//!
//! The server counts a table by itself about a minute after it has grown. An import or a campaign may be over by then,
//! with every statement planned as if the table were empty. So whoever has written much has it counted.

use sqlx::{AssertSqlSafe, Row as _};

use super::PostgresLedger;
use crate::ledger::Result;

/// What the server plans well with anyway.
const SMALL: i64 = 1_000;

impl PostgresLedger {
    /// Has a table counted that holds at least `rows`, when the server believes in less than half of them: each time it
    /// has doubled. `table` is a name of ours. Nothing depends on it but the speed of statements.
    pub(super) async fn count_again(&self, table: &str, rows: i64) {
        if let Err(error) = self.count_if_grown(table, rows).await {
            tracing::debug!(%error, table, "a table was not counted anew");
        }
    }

    async fn count_if_grown(&self, table: &str, rows: i64) -> Result<()> {
        if rows < SMALL {
            return Ok(());
        }
        let counted = sqlx::query("SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass($1)")
            .bind(table)
            .fetch_optional(&self.engine)
            .await?;
        let Some(counted) = counted else { return Ok(()) };
        if counted.try_get::<i64, _>(0)? < rows / 2 {
            // Somebody else who is at it does as well.
            let sql = format!("ANALYZE (SKIP_LOCKED) {table}");
            sqlx::query(AssertSqlSafe(sql)).execute(&self.engine).await?;
        }
        Ok(())
    }
}
