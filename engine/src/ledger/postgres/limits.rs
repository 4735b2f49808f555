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
    INSERT INTO rate_limit AS r (scope, windows, counted, version)
    SELECT g.scope, g.windows, g.counted, g.version + 1 FROM given g WHERE (SELECT all_of_them FROM fits)
    ON CONFLICT (scope) DO UPDATE SET windows = excluded.windows, counted = excluded.counted,
        version = excluded.version
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
            .execute(&self.engine)
            .await
            .map_err(LedgerError::from)?
            .rows_affected();
        if written == rows.len() as u64 {
            return Ok(None);
        }
        Ok(Some(self.rows_of(&scopes).await?))
    }

    async fn versions(&self) -> std::result::Result<Vec<(Scope, i64)>, LedgerUnavailable> {
        let rows = sqlx::query("SELECT scope, version FROM rate_limit")
            .fetch_all(&self.engine)
            .await
            .map_err(LedgerError::from)?;
        let read = |row: &PgRow| -> Result<(Scope, i64)> { Ok((scope(row)?, row.try_get("version")?)) };
        Ok(rows.iter().map(read).collect::<Result<_>>()?)
    }

    async fn rows(&self, scopes: &[Scope]) -> std::result::Result<Vec<LimitRow>, LedgerUnavailable> {
        let scopes: Vec<String> = scopes.iter().map(Scope::to_key).collect();
        Ok(self.rows_of(&scopes).await?)
    }

    async fn remove(&self, scope: &Scope) -> std::result::Result<(), LedgerUnavailable> {
        sqlx::query("DELETE FROM rate_limit WHERE scope = $1")
            .bind(scope.to_key())
            .execute(&self.engine)
            .await
            .map_err(LedgerError::from)?;
        Ok(())
    }

    async fn want(&self, scopes: &[Scope], until_ms: TimestampMs) -> std::result::Result<(), LedgerUnavailable> {
        let keys: Vec<String> = scopes.iter().map(Scope::to_key).collect();
        sqlx::query("UPDATE rate_limit SET wanted_until_ms = $2 WHERE scope = ANY($1) AND wanted_until_ms < $2")
            .bind(&keys)
            .bind(until_ms)
            .execute(&self.engine)
            .await
            .map_err(LedgerError::from)?;
        Ok(())
    }

    async fn remove_unwanted(&self, scopes: &[Scope]) -> std::result::Result<Vec<Scope>, LedgerUnavailable> {
        let keys: Vec<String> = scopes.iter().map(Scope::to_key).collect();
        let removed =
            sqlx::query("DELETE FROM rate_limit WHERE scope = ANY($1) AND wanted_until_ms <= $2 RETURNING scope")
                .bind(&keys)
                .bind(self.now_ms())
                .fetch_all(&self.engine)
                .await
                .map_err(LedgerError::from)?;
        Ok(removed.iter().map(scope).collect::<Result<_>>()?)
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

impl PostgresLedger {
    async fn rows_of(&self, scopes: &[String]) -> Result<Vec<LimitRow>> {
        let rows = sqlx::query("SELECT scope, windows, counted, version FROM rate_limit WHERE scope = ANY($1)")
            .bind(scopes)
            .fetch_all(&self.engine)
            .await?;
        read(&rows)
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
