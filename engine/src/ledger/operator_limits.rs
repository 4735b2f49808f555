//! Limits an operator sets while the engine runs: they are kept here, and win over the settings.

use std::fmt;

use async_trait::async_trait;
use dispatch_schemas::api::{limits::Windows, time::Moment};
use serde::{Deserialize, Serialize};

use super::{LedgerError, Result};

/// Longest name of an account, characters.
const ACCOUNT_CHARS_MAX: usize = 64;
/// Longest name of a domain, bytes (RFC 1035, section 2.3.4).
const DOMAIN_BYTES_MAX: usize = 253;

/// What an operator limits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum LimitTarget {
    /// A provider account, by its name in the settings.
    Account(String),
    /// Recipients of a mail domain, lower-case as in DNS.
    Domain(String),
    /// Recipients of a country, by its two capital letters (ISO 3166-1).
    Country(String),
}

impl LimitTarget {
    /// The words for the kinds.
    pub const KINDS: [&str; 3] = ["account", "domain", "country"];

    /// A target by the word for its kind; none of another kind.
    #[must_use]
    pub fn new(kind: &str, name: String) -> Option<Self> {
        match kind {
            "account" => Some(Self::Account(name)),
            "domain" => Some(Self::Domain(name)),
            "country" => Some(Self::Country(name)),
            _ => None,
        }
    }

    /// The word for its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Account(_) => "account",
            Self::Domain(_) => "domain",
            Self::Country(_) => "country",
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Account(name) | Self::Domain(name) | Self::Country(name) => name,
        }
    }

    /// What is wrong with its name.
    ///
    /// # Errors
    /// Says what is wanted.
    pub fn check(&self) -> std::result::Result<(), &'static str> {
        match self {
            Self::Account(name) => {
                let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                let is_name = (1..=ACCOUNT_CHARS_MAX).contains(&name.len()) && name.chars().all(letter);
                if is_name { Ok(()) } else { Err("wanted: the name of an account under [providers]") }
            }
            Self::Domain(name) if is_domain(name) => Ok(()),
            Self::Domain(_) => Err(
                "wanted: a domain as in DNS, lower-case, such as gmail.com; one with other letters in its xn-- form",
            ),
            Self::Country(name) if is_country(name) => Ok(()),
            Self::Country(_) => Err("wanted: a country's two capital letters (ISO 3166-1), such as FR"),
        }
    }
}

impl fmt::Display for LimitTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// Whether this is a domain as in DNS, lower-case.
pub(crate) fn is_domain(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= DOMAIN_BYTES_MAX
        && name.contains('.')
        && name.split('.').all(|part| (1..=63).contains(&part.len()) && part.bytes().all(letter))
}

/// Whether this looks like a country's two letters.
pub(crate) fn is_country(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// A limit as an operator set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorLimit {
    /// What it is of.
    #[serde(flatten)]
    pub of: LimitTarget,
    /// How much it lets through; without any window everything, whatever the settings say.
    pub limits: Windows,
    /// When it was set.
    pub set_at: Moment,
}

impl OperatorLimit {
    /// From a row of a ledger.
    pub(super) fn from_row(kind: &str, name: String, limits: Windows, set_at_ms: i64) -> Result<Self> {
        let of = LimitTarget::new(kind, name).ok_or(LedgerError::Corrupt("the kind of an operator's limit"))?;
        Ok(Self { of, limits, set_at: Moment::from_ms(set_at_ms) })
    }
}

/// The limits operators set.
#[async_trait]
pub trait OperatorLimits: Send + Sync + 'static {
    /// All of them, by kind and name.
    async fn operator_limits(&self) -> Result<Vec<OperatorLimit>>;
    /// Sets one, in place of the one there was.
    async fn set_operator_limit(&self, of: &LimitTarget, limits: Windows) -> Result<()>;
    /// Removes one, so that the settings' holds again. False when there was none.
    async fn clear_operator_limit(&self, of: &LimitTarget) -> Result<bool>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_named_as_in_the_settings() {
        for (kind, good, wrong) in [
            ("account", vec!["main", "sendgrid_2"], vec!["", "Main", "a b", "a\n"]),
            ("domain", vec!["gmail.com", "xn--bcher-kva.example"], vec!["gmail", "Gmail.com", "a..b", ".com", "é.fr"]),
            ("country", vec!["FR"], vec!["fr", "F", "FRA", "F1"]),
        ] {
            let target = |name: &str| LimitTarget::new(kind, name.to_owned()).unwrap();
            good.iter().for_each(|name| assert_eq!(target(name).check(), Ok(()), "{name}"));
            wrong.iter().for_each(|name| assert!(target(name).check().is_err(), "{name}"));
        }
        assert_eq!(LimitTarget::new("tenant", "acme".to_owned()), None);
    }
}
