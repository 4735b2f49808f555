//! The limits operators set.

use async_trait::async_trait;
use dispatch_schemas::api::limits::Windows;
use sqlx::Row as _;

use super::{PostgresLedger, rows};
use crate::ledger::{LimitTarget, OperatorLimit, OperatorLimits, Result};

#[async_trait]
impl OperatorLimits for PostgresLedger {
    async fn operator_limits(&self) -> Result<Vec<OperatorLimit>> {
        let rows = sqlx::query("SELECT kind, name, limits, set_at_ms FROM operator_limit ORDER BY kind, name")
            .fetch_all(&self.engine)
            .await?;
        rows.iter()
            .map(|row| {
                let limits = rows::json(row, "limits")?;
                OperatorLimit::from_row(row.try_get("kind")?, row.try_get("name")?, limits, row.try_get("set_at_ms")?)
            })
            .collect()
    }

    async fn set_operator_limit(&self, of: &LimitTarget, limits: Windows) -> Result<()> {
        let (limits, now_ms) = (rows::to_json(&limits)?, self.now_ms());
        self.repeatable("set_operator_limit", || async {
            sqlx::query(
                "INSERT INTO operator_limit (kind, name, limits, set_at_ms) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (kind, name) DO UPDATE SET limits = excluded.limits, set_at_ms = excluded.set_at_ms",
            )
            .bind(of.kind())
            .bind(of.name())
            .bind(&limits)
            .bind(now_ms)
            .execute(&self.engine)
            .await?;
            Ok(())
        })
        .await
    }

    async fn clear_operator_limit(&self, of: &LimitTarget) -> Result<bool> {
        let removed = sqlx::query("DELETE FROM operator_limit WHERE kind = $1 AND name = $2")
            .bind(of.kind())
            .bind(of.name())
            .execute(&self.engine)
            .await?;
        Ok(removed.rows_affected() == 1)
    }
}
