//! Where the ledger is.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use sqlx::postgres::PgConnectOptions;

use crate::ledger::postgres::connect_options;

/// The place of a ledger. Shown without its password.
#[derive(Clone)]
pub enum LedgerUrl {
    /// A file of SQLite's, for one process.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server, for any number of processes.
    Postgres(SecretString),
}

/// Why a text is not the place of a ledger. Never quotes the text: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerUrlError {
    /// It names a PostgreSQL server in a way that cannot be used.
    #[error("{0}")]
    Postgres(String),
    /// It names a ledger that would be gone with the process.
    #[error("a ledger in memory forgets who was sent what; wanted: `sqlite:` and a file, as in `sqlite:dispatch.db`")]
    InMemory,
    /// Anything else.
    #[error(
        "wanted: `sqlite:` and a file, as in `sqlite:dispatch.db` or `sqlite:///var/lib/dispatch/dispatch.db`, or \
         `postgres://role@host/database?sslmode=verify-full`"
    )]
    Form,
}

impl LedgerUrl {
    /// The SQLite ledger in this file.
    #[must_use]
    pub const fn sqlite(file: PathBuf) -> Self {
        Self::Sqlite(file)
    }

    /// The server, of a ledger on one. An address that was read once can be read again.
    ///
    /// # Errors
    /// Never for one that came from [`FromStr`].
    pub fn server(&self) -> Option<crate::ledger::Result<PgConnectOptions>> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(url) => Some(connect_options(url.expose_secret())),
        }
    }

    /// The same server, with all tables in this schema.
    #[must_use]
    pub fn within_schema(&self, name: &str) -> Self {
        match self {
            Self::Sqlite(file) => Self::Sqlite(file.clone()),
            Self::Postgres(url) => {
                let url = url.expose_secret();
                let joint = if url.contains('?') { '&' } else { '?' };
                Self::Postgres(format!("{url}{joint}options[search_path]={name}").into())
            }
        }
    }

    /// The file, of a ledger that is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(file) => Some(file),
            Self::Postgres(_) => None,
        }
    }

    /// Whether it holds a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(url) => {
                let url = url.expose_secret().split(['?', '#']).next().unwrap_or_default();
                let login = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
                login.is_some_and(|(login, _)| login.contains(':'))
            }
        }
    }
}

impl Default for LedgerUrl {
    fn default() -> Self {
        Self::Sqlite("dispatch.db".into())
    }
}

impl fmt::Display for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
            Self::Postgres(url) => f.write_str(&without_password(url.expose_secret())),
        }
    }
}

impl fmt::Debug for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The address with stars for the password between `user:` and `@`, and without its parameters, one of which may be
/// another.
fn without_password(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return "postgres://".to_owned() };
    match rest.rsplit_once('@') {
        None => format!("{scheme}://{rest}"),
        Some((login, place)) => match login.split_once(':') {
            None => format!("{scheme}://{login}@{place}"),
            Some((user, _)) => format!("{scheme}://{user}:***@{place}"),
        },
    }
}

impl FromStr for LedgerUrl {
    type Err = LedgerUrlError;

    fn from_str(text: &str) -> Result<Self, LedgerUrlError> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            connect_options(text).map_err(|error| LedgerUrlError::Postgres(error.to_string()))?;
            return Ok(Self::Postgres(text.into()));
        }
        let file = text.strip_prefix("sqlite:").ok_or(LedgerUrlError::Form)?;
        let file = file.strip_prefix("//").unwrap_or(file);
        match file {
            ":memory:" => Err(LedgerUrlError::InMemory),
            _ if file.is_empty() || file.ends_with('/') || file.contains(['?', '\0']) => Err(LedgerUrlError::Form),
            file => Ok(Self::Sqlite(file.into())),
        }
    }
}

impl Serialize for LedgerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LedgerUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_in_any_of_the_usual_ways() {
        for (text, file) in [
            ("sqlite:dispatch.db", "dispatch.db"),
            ("sqlite://dispatch.db", "dispatch.db"),
            ("sqlite:/var/lib/dispatch.db", "/var/lib/dispatch.db"),
            ("sqlite:///var/lib/dispatch.db", "/var/lib/dispatch.db"),
        ] {
            let url: LedgerUrl = text.parse().unwrap();
            assert_eq!(url.file(), Some(Path::new(file)));
            assert_eq!(url.to_string().parse::<LedgerUrl>().unwrap().file(), url.file());
        }
    }

    #[test]
    fn a_server_is_shown_without_its_password() {
        for (text, shown) in [
            ("postgres://me:hunter2@127.0.0.1/dispatch", "postgres://me:***@127.0.0.1/dispatch"),
            ("postgresql://me@[::1]:5433/dispatch", "postgresql://me@[::1]:5433/dispatch"),
            ("postgres://me:hunter2@db/d?sslmode=verify-full", "postgres://me:***@db/d"),
        ] {
            let url: LedgerUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
            assert_eq!(url.has_password(), shown.contains("***"));
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name() {
        for text in [
            "postgres://me:hunter2@db/dispatch",
            "sqlite::memory:",
            "sqlite:",
            "sqlite:a.db?mode=ro",
            "sqlite:/var/lib/",
            "dispatch.db",
        ] {
            let error = text.parse::<LedgerUrl>().unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
