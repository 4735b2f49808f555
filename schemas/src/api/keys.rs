//! Tenants and their API keys.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::Moment;
use crate::ids::{KeyId, TenantId};

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Permission {
    /// Read lists, imports, campaigns, templates and who received what.
    #[serde(rename = "read")]
    Read,
    /// Create and change lists, templates, campaigns and suppressions.
    #[serde(rename = "write")]
    Write,
    /// Launch campaigns and send single messages.
    #[serde(rename = "send")]
    Send,
    /// Erase people.
    #[serde(rename = "erase")]
    Erase,
}

impl Permission {
    /// All there are.
    pub const ALL: &[Self] = &[Self::Read, Self::Write, Self::Send, Self::Erase];

    /// The word it is stored and shown by.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Send => "send",
            Self::Erase => "erase",
        }
    }
}

/// A customer of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, unique.
    pub name: String,
    /// Since when.
    pub created_at: Moment,
    /// Since when nothing of it is sent, and why, while the operator has closed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<TenantClosure>,
}

/// Why a tenant is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantClosure {
    /// Since when.
    pub at: Moment,
    /// The operator's reason, 1 to 200 characters. The tenant is told it.
    pub reason: String,
}

/// What closing a tenant came to. True from the moment of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantStopped {
    /// The tenant as it stands now.
    pub tenant: Tenant,
    /// Messages claimed before, which may still go out or have just gone.
    pub in_flight: u64,
}

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    /// Its public half.
    pub id: KeyId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it is for.
    pub label: String,
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// Since when.
    pub created_at: Moment,
    /// Until when.
    pub expires_at: Moment,
    /// Since when it is no longer taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Moment>,
}
