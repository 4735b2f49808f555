//! The limits operators set.

use async_trait::async_trait;
use dispatch_schemas::api::limits::Windows;
use sqlx::Row as _;

use super::{SqliteLedger, rows};
use crate::ledger::{LimitTarget, OperatorLimit, OperatorLimits, Result};

#[async_trait]
impl OperatorLimits for SqliteLedger {
    async fn operator_limits(&self) -> Result<Vec<OperatorLimit>> {
        let rows = sqlx::query("SELECT kind, name, limits, set_at_ms FROM operator_limit ORDER BY kind, name")
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                let limits = rows::json(row, "limits")?;
                OperatorLimit::from_row(row.try_get("kind")?, row.try_get("name")?, limits, row.try_get("set_at_ms")?)
            })
            .collect()
    }

    async fn set_operator_limit(&self, of: &LimitTarget, limits: Windows) -> Result<()> {
        let (of, limits, now_ms) = (of.clone(), rows::to_json(&limits)?, self.now_ms());
        self.writer
            .run("set_operator_limit", move |conn| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO operator_limit (kind, name, limits, set_at_ms) VALUES (?, ?, ?, ?)
                         ON CONFLICT (kind, name) DO UPDATE SET limits = excluded.limits, set_at_ms = excluded.set_at_ms",
                    )
                    .bind(of.kind())
                    .bind(of.name())
                    .bind(limits)
                    .bind(now_ms)
                    .execute(conn)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    async fn clear_operator_limit(&self, of: &LimitTarget) -> Result<bool> {
        let of = of.clone();
        self.writer
            .run("clear_operator_limit", move |conn| {
                Box::pin(async move {
                    let removed = sqlx::query("DELETE FROM operator_limit WHERE kind = ? AND name = ?")
                        .bind(of.kind())
                        .bind(of.name())
                        .execute(conn)
                        .await?;
                    Ok(removed.rows_affected() == 1)
                })
            })
            .await
    }
}
