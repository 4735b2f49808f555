//! What a limit is of.

use std::{str::FromStr, sync::Arc};

use dispatch_schemas::ids::{CampaignId, TenantId};

/// What a limit is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// A provider account, by its name in the settings.
    Account(Arc<str>),
    /// A tenant.
    Tenant(TenantId),
    /// A campaign.
    Campaign(CampaignId),
    /// A recipient domain (keyed hash of its name) or country (its two letters as a number).
    Destination(i64),
}

impl Scope {
    /// The bounded word for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Account(_) => "account",
            Self::Tenant(_) => "tenant",
            Self::Campaign(_) => "campaign",
            Self::Destination(_) => "destination",
        }
    }

    /// The text a ledger keeps it by; [`FromStr`] reads it back.
    #[must_use]
    pub fn to_key(&self) -> String {
        let label = self.label();
        match self {
            Self::Account(name) => format!("{label}:{name}"),
            Self::Tenant(TenantId(id)) | Self::Campaign(CampaignId(id)) | Self::Destination(id) => {
                format!("{label}:{id}")
            }
        }
    }
}

/// The text is not one that [`Scope::to_key`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the key of a limit")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(key: &str) -> Result<Self, UnknownScope> {
        let (label, rest) = key.split_once(':').ok_or(UnknownScope)?;
        let number = || rest.parse().map_err(|_| UnknownScope);
        Ok(match label {
            "account" => Self::Account(rest.into()),
            "tenant" => Self::Tenant(TenantId(number()?)),
            "campaign" => Self::Campaign(CampaignId(number()?)),
            "destination" => Self::Destination(number()?),
            _ => return Err(UnknownScope),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_is_read_back_from_its_key() {
        for scope in [
            Scope::Account("main:eu".into()),
            Scope::Tenant(TenantId(7)),
            Scope::Campaign(CampaignId(8)),
            Scope::Destination(-9),
        ] {
            assert_eq!(scope.to_key().parse(), Ok(scope));
        }
        assert_eq!("moon:1".parse::<Scope>(), Err(UnknownScope));
    }
}
