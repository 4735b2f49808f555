//! Where the ledger is.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The place of a ledger: `sqlite:` and a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerUrl(PathBuf);

/// Why a text is not the place of a ledger. Never quotes the text: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerUrlError {
    /// It names a PostgreSQL server.
    #[error(
        "a PostgreSQL ledger is not part of this version; wanted: `sqlite:` and a file, as in `sqlite:dispatch.db`"
    )]
    Postgres,
    /// It names a ledger that would be gone with the process.
    #[error("a ledger in memory forgets who was sent what; wanted: `sqlite:` and a file, as in `sqlite:dispatch.db`")]
    InMemory,
    /// Anything else.
    #[error("wanted: `sqlite:` and a file, as in `sqlite:dispatch.db` or `sqlite:///var/lib/dispatch/dispatch.db`")]
    Form,
}

impl LedgerUrl {
    /// The SQLite ledger in this file.
    #[must_use]
    pub const fn sqlite(file: PathBuf) -> Self {
        Self(file)
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.0
    }
}

impl Default for LedgerUrl {
    fn default() -> Self {
        Self("dispatch.db".into())
    }
}

impl fmt::Display for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite:{}", self.0.display())
    }
}

impl FromStr for LedgerUrl {
    type Err = LedgerUrlError;

    fn from_str(text: &str) -> Result<Self, LedgerUrlError> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Err(LedgerUrlError::Postgres);
        }
        let file = text.strip_prefix("sqlite:").ok_or(LedgerUrlError::Form)?;
        let file = file.strip_prefix("//").unwrap_or(file);
        match file {
            ":memory:" => Err(LedgerUrlError::InMemory),
            _ if file.is_empty() || file.ends_with('/') || file.contains(['?', '\0']) => Err(LedgerUrlError::Form),
            file => Ok(Self(file.into())),
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
            assert_eq!(url.file(), Path::new(file));
            assert_eq!(url.to_string().parse::<LedgerUrl>(), Ok(url));
        }
    }

    #[test]
    fn what_this_version_cannot_serve_is_refused_by_name() {
        for (text, error) in [
            ("postgres://me:hunter2@db/dispatch", LedgerUrlError::Postgres),
            ("postgresql://db/dispatch", LedgerUrlError::Postgres),
            ("sqlite::memory:", LedgerUrlError::InMemory),
            ("sqlite:", LedgerUrlError::Form),
            ("sqlite:a.db?mode=ro", LedgerUrlError::Form),
            ("sqlite:/var/lib/", LedgerUrlError::Form),
            ("dispatch.db", LedgerUrlError::Form),
        ] {
            assert_eq!(text.parse::<LedgerUrl>(), Err(error), "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
