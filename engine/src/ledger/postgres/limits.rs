//! The limits that all workers share, and the pauses of their accounts.

use std::sync::Arc;

use async_trait::async_trait;
use dispatch_workers::{
    clock::TimestampMs,
    delivery::LedgerUnavailable,
    limits::{LimitRow, LimitStore, PauseRow, Scope},
};
use sqlx::{Row as _, postgres::PgRow};

use super::PostgresLedger;
use crate::ledger::{LedgerError, Result};

/// One statement reads the versions under lock, compares and writes. Rows are locked in the order of their scopes, and
/// one that two processes make at once is the first one's.
const SWAP: &str = "
    WITH given AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS g (scope, windows, counted, version)
    ), locked AS (
        SELECT r.scope, r.version FROM rate_limit r
         WHERE r.scope = ANY($1) ORDER BY r.scope FOR UPDATE
    ), fits AS (
        SELECT bool_and(coalesce(l.version, 0) = g.version) AS all_of_them
          FROM given g LEFT JOIN locked l ON l.scope = g.scope
    )
    INSERT INTO rate_limit AS r (scope, windows, counted, version, changed_at_ms)
    SELECT g.scope, g.windows, g.counted, g.version + 1, $5 FROM given g WHERE (SELECT all_of_them FROM fits)
    ON CONFLICT (scope) DO UPDATE SET windows = excluded.windows, counted = excluded.counted,
        version = excluded.version, changed_at_ms = excluded.changed_at_ms
     WHERE r.version = excluded.version - 1";

#[async_trait]
impl LimitStore for PostgresLedger {
    async fn swap(&self, rows: &[LimitRow]) -> std::result::Result<Option<Vec<LimitRow>>, LedgerUnavailable> {
        let scopes: Vec<String> = rows.iter().map(|row| row.scope.to_key()).collect();
        let windows = rows
            .iter()
            .map(|row| serde_json::to_string(&row.limits).map_err(|_| LedgerError::Corrupt("a limit that is no JSON")))
            .collect::<Result<Vec<String>>>()?;
        let counted: Vec<&str> = rows.iter().map(|row| row.counted.as_str()).collect();
        let versions: Vec<i64> = rows.iter().map(|row| row.version).collect();
        let written = sqlx::query(SWAP)
            .bind(&scopes)
            .bind(&windows)
            .bind(&counted)
            .bind(&versions)
            .bind(self.now_ms())
            .execute(&self.engine)
            .await
            .map_err(LedgerError::from)?
            .rows_affected();
        if written == rows.len() as u64 {
            return Ok(None);
        }
        let current = sqlx::query("SELECT scope, windows, counted, version FROM rate_limit WHERE scope = ANY($1)")
            .bind(&scopes)
            .fetch_all(&self.engine)
            .await
            .map_err(LedgerError::from)?;
        Ok(Some(read(&current)?))
    }

    async fn changed_since(&self, since_ms: TimestampMs) -> std::result::Result<Vec<LimitRow>, LedgerUnavailable> {
        let rows = sqlx::query("SELECT scope, windows, counted, version FROM rate_limit WHERE changed_at_ms >= $1")
            .bind(since_ms)
            .fetch_all(&self.engine)
            .await
            .map_err(LedgerError::from)?;
        Ok(read(&rows)?)
    }

    async fn scopes(&self) -> std::result::Result<Vec<Scope>, LedgerUnavailable> {
        let rows =
            sqlx::query("SELECT scope FROM rate_limit").fetch_all(&self.engine).await.map_err(LedgerError::from)?;
        Ok(rows.iter().map(scope).collect::<Result<_>>()?)
    }

    async fn remove(&self, scope: &Scope) -> std::result::Result<(), LedgerUnavailable> {
        sqlx::query("DELETE FROM rate_limit WHERE scope = $1")
            .bind(scope.to_key())
            .execute(&self.engine)
            .await
            .map_err(LedgerError::from)?;
        Ok(())
    }

    async fn pause(&self, pause: &PauseRow) -> std::result::Result<(), LedgerUnavailable> {
        sqlx::query(
            "INSERT INTO account_pause AS p (account, refused, since_ms, until_ms) VALUES ($1, $2, $3, $4)
             ON CONFLICT (account) DO UPDATE SET refused = excluded.refused, since_ms = excluded.since_ms,
                 until_ms = excluded.until_ms
              WHERE excluded.refused IS NOT NULL OR p.until_ms <= excluded.since_ms
                 OR (p.refused IS NULL AND excluded.until_ms > p.until_ms)",
        )
        .bind(&*pause.account)
        .bind(&pause.refused)
        .bind(pause.since_ms)
        .bind(pause.until_ms)
        .execute(&self.engine)
        .await
        .map_err(LedgerError::from)?;
        Ok(())
    }

    async fn resume(&self, account: &str) -> std::result::Result<(), LedgerUnavailable> {
        sqlx::query("DELETE FROM account_pause WHERE account = $1")
            .bind(account)
            .execute(&self.engine)
            .await
            .map_err(LedgerError::from)?;
        Ok(())
    }

    async fn pauses(&self) -> std::result::Result<Vec<PauseRow>, LedgerUnavailable> {
        let rows = sqlx::query("SELECT account, refused, since_ms, until_ms FROM account_pause")
            .fetch_all(&self.engine)
            .await
            .map_err(LedgerError::from)?;
        let read = |row: &PgRow| -> Result<PauseRow> {
            Ok(PauseRow {
                account: Arc::from(row.try_get::<&str, _>("account")?),
                refused: row.try_get("refused")?,
                since_ms: row.try_get("since_ms")?,
                until_ms: row.try_get("until_ms")?,
            })
        };
        Ok(rows.iter().map(read).collect::<Result<_>>()?)
    }
}

fn scope(row: &PgRow) -> Result<Scope> {
    row.try_get::<&str, _>("scope")?.parse().map_err(|_| LedgerError::Corrupt("the scope of a limit"))
}

fn read(rows: &[PgRow]) -> Result<Vec<LimitRow>> {
    rows.iter()
        .map(|row| {
            Ok(LimitRow {
                scope: scope(row)?,
                limits: serde_json::from_str(row.try_get("windows")?)
                    .map_err(|_| LedgerError::Corrupt("the windows of a limit"))?,
                counted: row.try_get("counted")?,
                version: row.try_get("version")?,
            })
        })
        .collect()
}
