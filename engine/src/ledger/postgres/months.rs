//! The months deliveries are kept under: a partition each, so that what is too old is dropped and not deleted.

use sqlx::{PgConnection, Row as _};

use super::PostgresLedger;
use crate::ledger::Result;

/// The month a moment lies in, in UTC: year * 100 + month.
pub(super) fn month_at(ms: i64) -> i32 {
    let moment = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    let date = jiff::tz::Offset::UTC.to_datetime(moment);
    i32::from(date.year()) * 100 + i32::from(date.month())
}

const fn following(month: i32) -> i32 {
    if month % 100 == 12 { month + 89 } else { month + 1 }
}

/// This month and the next.
pub(super) fn this_and_next(now_ms: i64) -> [i32; 2] {
    let month = month_at(now_ms);
    [month, following(month)]
}

/// Makes the partitions of this month and the next.
pub(super) async fn make_next(conn: &mut PgConnection, now_ms: i64) -> Result<()> {
    for month in this_and_next(now_ms) {
        make(conn, month).await?;
    }
    Ok(())
}

/// Makes a month's partition, unless it is there.
async fn make(conn: &mut PgConnection, month: i32) -> Result<()> {
    let there = sqlx::query("SELECT to_regclass('delivery_' || $1::integer) IS NOT NULL")
        .bind(month)
        .fetch_one(&mut *conn)
        .await?;
    if !there.try_get::<bool, _>(0)? {
        sqlx::query("SELECT keep_month($1)").bind(month).execute(conn).await?;
    }
    Ok(())
}

impl PostgresLedger {
    /// Sees to it that deliveries of a month can be stored.
    pub(super) async fn make_month(&self, month: i32) -> Result<()> {
        make(&mut *self.engine.acquire().await?, month).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_named_by_year_and_month_in_utc() {
        // 2027-01-15T08:00Z, 2026-12-31T23:59:59.999Z, 2027-01-01T00:00Z, 1969-12-31.
        for (ms, month) in
            [(1_800_000_000_000, 202_701), (1_798_761_599_999, 202_612), (1_798_761_600_000, 202_701), (-1, 196_912)]
        {
            assert_eq!(month_at(ms), month);
        }
    }

    #[test]
    fn january_follows_december() {
        assert_eq!((following(202_611), following(202_612)), (202_612, 202_701));
    }
}
