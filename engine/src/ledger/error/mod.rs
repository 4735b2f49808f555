//! Why the ledger did not do what it was asked.

mod postgres;
mod sqlite;

use std::io::ErrorKind;

use dispatch_schemas::states::CampaignState;
use dispatch_workers::delivery::LedgerUnavailable;
use sqlx::{error::DatabaseError, postgres::PgDatabaseError};

use crate::second_place::SecondPlaceError;

/// What an operation of the ledger returns.
pub type Result<T> = std::result::Result<T, LedgerError>;

/// Why the ledger did not do what it was asked. Nothing was changed then, but for [`Self::Disconnected`], and where the
/// [second place](crate::second_place) could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be reached, is busy or full. Worth trying again.
    #[error("the ledger cannot be used now: {0}")]
    Unavailable(String),
    /// Other transactions were in its way and the database took it back. Worth trying again at once.
    #[error("the ledger cannot be used now: other calls were in its way")]
    Contended,
    /// The connection broke before the answer came: whether anything was changed is not known.
    #[error("the ledger cannot be used now: its connection broke")]
    Disconnected,
    /// There is no such thing, or it is another tenant's.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The thing is in a state that does not allow it.
    #[error("{message}")]
    Conflict {
        /// A short stable word for programs.
        code: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// The tenant is closed: nothing is made, launched or sent for it.
    #[error("this tenant is closed: {reason}; ask whoever runs this installation")]
    TenantClosed {
        /// The operator's reason.
        reason: String,
    },
    /// The same idempotency key was used with another request.
    #[error("this Idempotency-Key was used before with another request; use a new key for a new request")]
    KeyReused,
    /// Another process has the ledger at this path open.
    #[error("the ledger {0} is open in another process; stop that one first (a SQLite ledger serves one process)")]
    InUse(String),
    /// It cannot be opened as this program's ledger.
    #[error("{0}")]
    Open(String),
    /// The database is there and its tables are not, or not yet those of this version: somebody has to make them.
    #[error("{0}")]
    NotMade(String),
    /// Something in the ledger is not what this program wrote.
    #[error("the ledger holds something unreadable: {0}")]
    Corrupt(&'static str),
}

impl LedgerError {
    /// A conflict with a word for programs and a sentence for people.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict { code, message: message.into() }
    }

    /// `done` is what was asked for, as in "cannot be paused".
    pub(in crate::ledger) fn not_now(done: &str, state: CampaignState) -> Self {
        Self::conflict("campaign-state", format!("a campaign that is {state} cannot be {done}"))
    }

    /// What is wrong, without the words [`Self::Unavailable`] puts before it: for a sentence that has its own.
    #[must_use]
    pub fn into_reason(self) -> String {
        match self {
            Self::Unavailable(reason) => reason,
            Self::Contended => "other calls were in its way".to_owned(),
            Self::Disconnected => "its connection broke".to_owned(),
            error => error.to_string(),
        }
    }
}

impl From<LedgerError> for LedgerUnavailable {
    fn from(error: LedgerError) -> Self {
        Self(error.into_reason())
    }
}

impl From<SecondPlaceError> for LedgerError {
    /// What was asked is done in the ledger; only whoever asks again hears that it will not be forgotten either.
    fn from(error: SecondPlaceError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt("a column"),
            sqlx::Error::Database(error) => explained(error.as_ref()),
            sqlx::Error::Io(error) => match error.kind() {
                ErrorKind::BrokenPipe
                | ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset
                | ErrorKind::TimedOut
                | ErrorKind::UnexpectedEof => Self::Disconnected,
                kind => Self::Unavailable(format!("{kind}")),
            },
            sqlx::Error::PoolClosed => Self::Unavailable("it was closed".to_owned()),
            sqlx::Error::PoolTimedOut => Self::Unavailable("all its connections are busy".to_owned()),
            sqlx::Error::Tls(_) => Self::Unavailable("the server's certificate is not accepted".to_owned()),
            _ => Self::Disconnected,
        }
    }
}

/// The database's own words may quote values of a statement, so only its code is kept.
fn explained(error: &dyn DatabaseError) -> LedgerError {
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<PgDatabaseError>().is_some() {
        postgres::explained(&code)
    } else {
        sqlite::explained(&code)
    }
}
