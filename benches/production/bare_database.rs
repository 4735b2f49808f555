//! What PostgreSQL does with nothing around it: rows like deliveries, claimed and recorded in batches over one
//! connection.

use std::{error::Error, time::Duration};

use dispatch_workers::clock::{Clock as _, SystemClock};
use sqlx::{Connection as _, PgConnection};

/// Rows in a batch.
pub(super) const BATCH: usize = 1_000;

/// How long each took.
pub(super) struct Bare {
    pub(super) claimed: Duration,
    pub(super) recorded: Duration,
}

pub(super) async fn measure(url: &str, rows: usize, clock: &SystemClock) -> Result<Bare, Box<dyn Error>> {
    let mut conn = PgConnection::connect(url).await?;
    let rows = i64::try_from(rows)?;
    sqlx::query("DROP TABLE IF EXISTS dispatch_bench").execute(&mut conn).await?;
    sqlx::query(
        "CREATE TABLE dispatch_bench (campaign bigint, seq bigint, state text NOT NULL, attempt bigint,
             updated_at_ms bigint NOT NULL, filler bytea, PRIMARY KEY (campaign, seq)) WITH (fillfactor = 35)",
    )
    .execute(&mut conn)
    .await?;
    sqlx::query(
        "INSERT INTO dispatch_bench SELECT 1, n, 'ready', NULL, 0, '\\x00'::bytea FROM generate_series(0, $1 - 1) n",
    )
    .bind(rows)
    .execute(&mut conn)
    .await?;

    let began = clock.monotonic();
    for first in (0..rows).step_by(BATCH) {
        sqlx::query(
            "WITH claimed AS (SELECT seq FROM dispatch_bench
                               WHERE campaign = 1 AND seq >= $1 AND seq < $2 AND state = 'ready' FOR UPDATE SKIP LOCKED)
             UPDATE dispatch_bench d SET state = 'claimed', attempt = $1, updated_at_ms = 1
               FROM claimed WHERE d.campaign = 1 AND d.seq = claimed.seq",
        )
        .bind(first)
        .bind(first + i64::try_from(BATCH)?)
        .execute(&mut conn)
        .await?;
    }
    let claimed = clock.monotonic().saturating_sub(began);
    let began = clock.monotonic();
    for first in (0..rows).step_by(BATCH) {
        sqlx::query(
            "UPDATE dispatch_bench SET state = 'accepted', updated_at_ms = 2
              WHERE campaign = 1 AND seq >= $1 AND seq < $2 AND attempt = $1 AND state = 'claimed'",
        )
        .bind(first)
        .bind(first + i64::try_from(BATCH)?)
        .execute(&mut conn)
        .await?;
    }
    let recorded = clock.monotonic().saturating_sub(began);
    sqlx::query("DROP TABLE dispatch_bench").execute(&mut conn).await?;
    conn.close().await?;
    Ok(Bare { claimed, recorded })
}
