//! Reading columns, and the answers of calls that were made before.

use dispatch_schemas::ids::TenantId;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row as _, SqliteConnection};

pub(super) use crate::ledger::columns::{hex, json, json_ranges, optional_json, optional_word, to_json, word};
use crate::ledger::{ANSWERS_KEPT_MS, LedgerError, Once, Replayable, Result};

/// The ids as a JSON array, for `json_each`.
pub(super) fn json_numbers(numbers: &[i64]) -> String {
    let mut text = String::with_capacity(numbers.len() * 8 + 2);
    text.push('[');
    for (at, number) in numbers.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&number.to_string());
    }
    text.push(']');
    text
}

/// The answer of an earlier call with the same Idempotency-Key, if there is one.
pub(super) async fn replay<T: DeserializeOwned>(
    conn: &mut SqliteConnection,
    tenant: TenantId,
    once: Option<&Once>,
    now_ms: i64,
) -> Result<Option<Replayable<T>>> {
    let Some(once) = once else { return Ok(None) };
    let earlier = sqlx::query(
        "SELECT fingerprint, answer FROM idempotency WHERE tenant_id = ? AND route = ? AND key = ? AND created_at_ms > ?",
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
    conn: &mut SqliteConnection,
    tenant: TenantId,
    once: Option<&Once>,
    now_ms: i64,
    value: T,
) -> Result<Replayable<T>> {
    if let Some(once) = once {
        sqlx::query(
            "INSERT INTO idempotency (tenant_id, route, key, fingerprint, answer, created_at_ms)
             VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (tenant_id, route, key) DO UPDATE SET fingerprint = excluded.fingerprint,
                 answer = excluded.answer, created_at_ms = excluded.created_at_ms",
        )
        .bind(tenant.0)
        .bind(once.route)
        .bind(&once.key)
        .bind(once.fingerprint.as_slice())
        .bind(to_json(&value)?)
        .bind(now_ms)
        .execute(conn)
        .await?;
    }
    Ok(Replayable { value, replayed: false })
}
