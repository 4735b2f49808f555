//! Reading columns, and the answers of calls that were made before.

use std::str::FromStr;

use dispatch_schemas::ids::TenantId;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use crate::ledger::{ANSWERS_KEPT_MS, LedgerError, Once, Replayable, Result};

/// A column that holds one word of a closed set.
pub(super) fn word<T: FromStr>(row: &SqliteRow, column: &str) -> Result<T> {
    row.try_get::<&str, _>(column)?.parse().map_err(|_| LedgerError::Corrupt("a word of a state or kind"))
}

/// A column that holds JSON.
pub(super) fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T> {
    serde_json::from_str(row.try_get::<&str, _>(column)?).map_err(|_| LedgerError::Corrupt("a JSON column"))
}

/// A column that holds JSON or nothing.
pub(super) fn optional_json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<Option<T>> {
    let text = row.try_get::<Option<&str>, _>(column)?;
    text.map(|text| serde_json::from_str(text).map_err(|_| LedgerError::Corrupt("a JSON column"))).transpose()
}

/// As JSON, for a column or a parameter.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|_| LedgerError::Corrupt("a value that is no JSON"))
}

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

/// Ascending numbers as JSON ranges `[[first, last], …]`.
pub(super) fn json_ranges(numbers: &[i64]) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let pairs: Vec<String> = ranges.iter().map(|(first, last)| format!("[{first},{last}]")).collect();
    format!("[{}]", pairs.join(","))
}

/// Hexadecimal digits of a hash, as `unhex` and people read them.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
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
