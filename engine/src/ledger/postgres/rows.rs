//! Reading columns, and the answers of calls that were made before.

use dispatch_schemas::ids::TenantId;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{PgConnection, Row, postgres::PgRow};

pub(super) use crate::ledger::columns::{hex, json, optional_json, optional_word, to_json, word};
use crate::ledger::{ANSWERS_KEPT_MS, LedgerError, Once, Replayable, Result};

/// The space of the advisory locks of idempotency keys: "DSPK". Gates' locks have one 64-bit key, these two of 32.
const KEYS: i32 = 0x4453_504b;

/// A count that cannot be below zero.
pub(super) fn count(row: &PgRow, column: &str) -> Result<u64> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}

/// A small count that cannot be below zero.
pub(super) fn small_count(row: &PgRow, column: &str) -> Result<u32> {
    Ok(u32::try_from(row.try_get::<i16, _>(column)?).unwrap_or(0))
}

/// The answer of an earlier call with the same Idempotency-Key, if there is one. Waits for a call that is under way:
/// of two at once the second finds the first one's answer.
pub(super) async fn replay<T: DeserializeOwned>(
    conn: &mut PgConnection,
    tenant: TenantId,
    once: Option<&Once>,
    now_ms: i64,
) -> Result<Option<Replayable<T>>> {
    let Some(once) = once else { return Ok(None) };
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2::bigint || ' ' || $3 || ' ' || $4))")
        .bind(KEYS)
        .bind(tenant.0)
        .bind(once.route)
        .bind(&once.key)
        .execute(&mut *conn)
        .await?;
    let earlier = sqlx::query(
        "SELECT fingerprint, answer FROM idempotency
          WHERE tenant_id = $1 AND route = $2 AND key = $3 AND created_at_ms > $4",
    )
    .bind(tenant.0)
    .bind(once.route)
    .bind(&once.key)
    .bind(now_ms - ANSWERS_KEPT_MS)
    .fetch_optional(conn)
    .await?;
    let Some(row) = earlier else { return Ok(None) };
    if row.try_get::<&[u8], _>("fingerprint")? != once.fingerprint {
        return Err(LedgerError::KeyReused);
    }
    Ok(Some(Replayable { value: json(&row, "answer")?, replayed: true }))
}

/// Keeps the answer of a call with an Idempotency-Key, in the transaction of its effect.
pub(super) async fn remember<T: Serialize>(
    conn: &mut PgConnection,
    tenant: TenantId,
    once: Option<&Once>,
    now_ms: i64,
    value: T,
) -> Result<Replayable<T>> {
    if let Some(once) = once {
        let kept = sqlx::query(
            "INSERT INTO idempotency (tenant_id, route, key, fingerprint, answer, created_at_ms)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (tenant_id, route, key) DO UPDATE SET fingerprint = excluded.fingerprint,
                 answer = excluded.answer, created_at_ms = excluded.created_at_ms
              WHERE idempotency.created_at_ms <= $7",
        )
        .bind(tenant.0)
        .bind(once.route)
        .bind(&once.key)
        .bind(once.fingerprint.as_slice())
        .bind(to_json(&value)?)
        .bind(now_ms)
        .bind(now_ms - ANSWERS_KEPT_MS)
        .execute(conn)
        .await?;
        if kept.rows_affected() == 0 {
            // The same key has an answer since: this effect is taken back, and the next try reads it.
            return Err(LedgerError::Contended);
        }
    }
    Ok(Replayable { value, replayed: false })
}
