//! A look at the file before anything is set on it. It takes no lock and changes nothing.

use std::{path::Path, time::Duration};

use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{
    epochs::{QUARANTINE, quarantine_of},
    lock,
    open::{APPLICATION_ID, unusable},
};
use crate::ledger::{LedgerError, Quarantine, Result};

/// How long a look waits for whoever writes to the file.
const BUSY_TIME_MAX: Duration = Duration::from_secs(10);

/// What is at the path of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or an empty file: a ledger can be made there.
    Nothing,
    /// A ledger, with the fingerprint of its key; none in one whose making was cut off.
    Ledger(Option<Vec<u8>>),
}

/// Looks at what is at `path`. An engine may be running on it.
///
/// # Errors
/// [`LedgerError::Open`] when there is something else, or there can be no ledger there.
pub async fn look(path: &Path) -> Result<Found> {
    lock::refuse_place(path)?;
    if !std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        return Ok(Found::Nothing);
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIME_MAX);
    let mut conn = SqliteConnection::connect_with(&options).await.map_err(|error| unusable(path, error))?;
    let found = read(&mut conn).await;
    conn.close().await.map_err(|error| unusable(path, error))?;
    found.map_err(|error| unusable(path, error))?.ok_or_else(|| {
        LedgerError::Open(format!(
            "{} is a database of another program; give another path in ledger.url, nothing was changed",
            path.display()
        ))
    })
}

/// The quarantine that the ledger at `path` is in; none in one of an older version. An engine may be running on it.
///
/// # Errors
/// [`LedgerError::Open`] when it cannot be read.
pub async fn look_for_quarantine(path: &Path) -> Result<Option<Quarantine>> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIME_MAX);
    let mut conn = SqliteConnection::connect_with(&options).await.map_err(|error| unusable(path, error))?;
    let known = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'quarantine'").fetch_optional(&mut conn).await?;
    let found = match known {
        Some(_) => sqlx::query(QUARANTINE).fetch_optional(&mut conn).await?,
        None => None,
    };
    conn.close().await.map_err(|error| unusable(path, error))?;
    found.as_ref().map(quarantine_of).transpose()
}

/// None is for a database of another program.
async fn read(conn: &mut SqliteConnection) -> sqlx::Result<Option<Found>> {
    let tables = sqlx::query("SELECT name FROM sqlite_schema WHERE type = 'table'").fetch_all(&mut *conn).await?;
    let application: i32 = sqlx::query("PRAGMA application_id").fetch_one(&mut *conn).await?.get(0);
    if tables.is_empty() {
        return Ok(Some(Found::Nothing));
    }
    if i64::from(application) != APPLICATION_ID {
        return Ok(None);
    }
    if !tables.iter().any(|table| table.get::<&str, _>(0) == "ledger") {
        return Ok(Some(Found::Ledger(None)));
    }
    let row = sqlx::query("SELECT key_fingerprint FROM ledger").fetch_optional(conn).await?;
    Ok(Some(Found::Ledger(row.map(|row| row.try_get(0)).transpose()?)))
}
