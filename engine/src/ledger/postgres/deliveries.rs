//! How statements find deliveries: by month, campaign and number, always all three.
//!
//! The month picks the partition; it comes from the campaign and never changes, so it is read once per process. The
//! numbers of a batch come as two ends where they are a run, and as an array else, whose ends are looked at too ([`among`]).
//! The ends keep the server from walking through a whole campaign: of one that began a moment ago it has no statistics, takes it for a few rows, and would
//! rather read them all than look each number up. For the same reason what belongs to each number comes as an array
//! beside theirs ([`beside`]) and not as a table to be joined.

use std::sync::PoisonError;

use dispatch_schemas::ids::CampaignId;
use sqlx::{Postgres, Row as _, postgres::PgArguments, query::Query};

use super::PostgresLedger;
use crate::ledger::{LedgerError, Result, columns};

/// Campaigns whose month is remembered; with more, all are read anew.
const REMEMBERED_MAX: usize = 100_000;

impl PostgresLedger {
    /// The month a campaign's deliveries are kept under.
    pub(super) async fn month_of(&self, campaign: CampaignId) -> Result<i32> {
        let known = self.months.lock().unwrap_or_else(PoisonError::into_inner).get(&campaign).copied();
        if let Some(month) = known {
            return Ok(month);
        }
        let month = sqlx::query("SELECT month FROM campaign WHERE id = $1")
            .bind(campaign.0)
            .fetch_optional(&self.engine)
            .await?
            .ok_or(LedgerError::NotFound("campaign"))?
            .try_get(0)?;
        let mut months = self.months.lock().unwrap_or_else(PoisonError::into_inner);
        if months.len() >= REMEMBERED_MAX {
            months.clear();
        }
        months.insert(campaign, month);
        Ok(month)
    }

    /// Where a campaign's deliveries are.
    pub(super) async fn kept(&self, campaign: CampaignId) -> Result<Kept> {
        Ok(Kept { campaign, month: self.month_of(campaign).await? })
    }

    /// The same; nothing when there is no such campaign.
    pub(super) async fn find_kept(&self, campaign: CampaignId) -> Result<Option<Kept>> {
        match self.kept(campaign).await {
            Ok(kept) => Ok(Some(kept)),
            Err(LedgerError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where deliveries are: their campaign and the month it is kept under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    pub(super) campaign: CampaignId,
    pub(super) month: i32,
}

/// The numbers of a batch, ascending.
#[derive(Debug, Clone, Copy)]
pub(super) enum Numbers<'a> {
    Run(i64, i64),
    These(&'a [i64]),
}

impl<'a> Numbers<'a> {
    pub(super) fn of(numbers: &'a [i64]) -> Self {
        match columns::run(numbers) {
            Some((first, last)) => Self::Run(first, last),
            None => Self::These(numbers),
        }
    }

    /// The condition on a column, whose parameters begin at `$at` and are the statement's last.
    pub(super) fn condition(&self, column: &str, at: usize) -> String {
        match self {
            Self::Run(..) => format!("{column} BETWEEN ${at} AND ${}", at + 1),
            Self::These(_) => among(column, at),
        }
    }

    /// Binds them.
    pub(super) fn bind<'q>(&'q self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        match self {
            Self::Run(first, last) => query.bind(first).bind(last),
            Self::These(numbers) => query.bind(*numbers),
        }
    }
}

/// Numbers as [`among`] and [`beside`] need them.
pub(super) fn ascending(numbers: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let mut numbers: Vec<i64> = numbers.into_iter().collect();
    numbers.sort_unstable();
    numbers
}

/// The condition that a column is among the numbers of the array `$at`, which is ascending.
pub(super) fn among(column: &str, at: usize) -> String {
    let numbers = format!("(${at}::bigint[])");
    format!("{column} BETWEEN {numbers}[1] AND {numbers}[cardinality{numbers}] AND {column} = ANY{numbers}")
}

/// What belongs to the number in `column`: the element of the array `values` at its place in the array `$numbers`,
/// which is ascending and has it.
pub(super) fn beside(column: &str, numbers: usize, values: &str) -> String {
    format!("({values})[width_bucket({column}, ${numbers}::bigint[])]")
}
