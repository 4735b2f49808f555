//! Why the ledger did not do what it was asked.

/// What an operation of the ledger returns.
pub type Result<T> = std::result::Result<T, LedgerError>;

/// Why the ledger did not do what it was asked. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be reached, is busy or full. Worth trying again.
    #[error("the ledger cannot be used now: {0}")]
    Unavailable(String),
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
    /// The file cannot be opened as this program's ledger.
    #[error("{0}")]
    Open(String),
    /// Something in the ledger is not what this program wrote.
    #[error("the ledger holds something unreadable: {0}")]
    Corrupt(&'static str),
}

impl LedgerError {
    /// A conflict with a word for programs and a sentence for people.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict { code, message: message.into() }
    }

    /// What is wrong, without the words [`Self::Unavailable`] puts before it: for a sentence that has its own.
    #[must_use]
    pub fn into_reason(self) -> String {
        match self {
            Self::Unavailable(reason) => reason,
            error => error.to_string(),
        }
    }
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt("a column"),
            // The database's own words may quote values of a statement, so only its code is kept.
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                Self::Unavailable(match code.as_ref() {
                    "13" => "the disk is full (SQLite 13); free some space, nothing is lost".to_owned(),
                    // A write that failed, a file that could not be synced or made longer.
                    "778" | "1034" | "4874" => format!(
                        "the disk is full or failing (SQLite {code}); free some space or look at the disk, nothing is lost"
                    ),
                    "5" | "6" | "261" | "517" => "it is busy or locked (SQLite 5)".to_owned(),
                    "8" | "264" | "520" | "776" | "1032" | "1544" => {
                        "it is read-only (SQLite 8); check the file's and folder's rights".to_owned()
                    }
                    "11" | "26" => "the file is damaged or not a database (SQLite 11)".to_owned(),
                    code => format!("database error {code}"),
                })
            }
            sqlx::Error::Io(error) => Self::Unavailable(format!("{}", error.kind())),
            sqlx::Error::PoolTimedOut => Self::Unavailable("all its connections are busy".to_owned()),
            _ => Self::Unavailable("its connection broke".to_owned()),
        }
    }
}
