//! What an operator asks for on the command line and the ledger must do: API keys, closing and opening tenants, limits.
//!
//! An [`Order`] is carried out by whoever has the ledger open. That is the command itself, or the engine that runs on
//! the ledger, which takes orders on a [`socket`] beside it and acts on what an order has [changed](Change).

pub mod keys;
pub mod limits;
#[cfg(unix)]
pub mod socket;
pub mod tenants;

use dispatch_schemas::{
    api::{
        keys::{ApiKey, Tenant, TenantStopped},
        limits::Windows,
    },
    ids::{KeyId, TenantId},
};
use serde::{Deserialize, Serialize};

use self::keys::{CreatedKey, ListedKey, NewKey};
use crate::{
    engine::Opened,
    ledger::{LedgerError, LimitTarget, OperatorLimit, Quarantine},
    quarantine,
};

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Make a key.
    CreateKey(NewKey),
    /// List the keys.
    ListKeys {
        /// Only those of the tenant of this name.
        tenant: Option<String>,
    },
    /// Take a key out of use.
    RevokeKey {
        /// Which.
        id: KeyId,
    },
    /// List the tenants.
    ListTenants,
    /// Let nothing of a tenant be sent.
    CloseTenant {
        /// Its name or id.
        tenant: String,
        /// Why; the tenant is told.
        reason: String,
    },
    /// Let a closed tenant send again.
    OpenTenant {
        /// Its name or id.
        tenant: String,
    },
    /// End the quarantine of the ledger, whatever may be sent twice then.
    AcceptDuplicates {
        /// Who orders it.
        operator: String,
    },
    /// List the limits that operators set.
    ListLimits,
    /// Limit an account or a destination.
    SetLimit {
        /// What.
        of: LimitTarget,
        /// How much it lets through; without any window everything.
        limits: Windows,
    },
    /// Let the settings' limit hold again.
    ClearLimit {
        /// Of what.
        of: LimitTarget,
    },
}

/// What came of an order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The key that was made.
    Created(CreatedKey),
    /// The keys there are.
    Keys(Vec<ListedKey>),
    /// The key that is no longer taken.
    Revoked(ApiKey),
    /// The tenants there are.
    Tenants(Vec<Tenant>),
    /// The tenant that is closed now.
    Closed(TenantStopped),
    /// The tenant that is open now.
    Opened(Tenant),
    /// The quarantine that is over; nothing when there was none.
    Unquarantined(Option<Quarantine>),
    /// The limits that operators set.
    Limits(Vec<OperatorLimit>),
    /// The limit that holds from now on.
    LimitSet(OperatorLimit),
    /// What the settings limit again.
    LimitCleared(LimitTarget),
}

/// What a running engine must take note of at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A key was revoked.
    KeyRevoked(KeyId),
    /// A tenant was closed or opened.
    Tenant(TenantId),
}

impl Answer {
    /// What an engine that runs on the ledger must take note of.
    #[must_use]
    pub const fn change(&self) -> Option<Change> {
        match self {
            Self::Revoked(key) => Some(Change::KeyRevoked(key.id)),
            Self::Closed(stopped) => Some(Change::Tenant(stopped.tenant.id)),
            Self::Opened(tenant) => Some(Change::Tenant(tenant.id)),
            // The engine looks at the limits that operators set by itself.
            Self::Created(_)
            | Self::Keys(_)
            | Self::Tenants(_)
            | Self::Unquarantined(_)
            | Self::Limits(_)
            | Self::LimitSet(_)
            | Self::LimitCleared(_) => None,
        }
    }
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The order is wrong.
    #[error("{0}")]
    Wrong(String),
    /// The ledger is not available now.
    #[error("{0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Unavailable(_) => Self::Unavailable(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl Order {
    /// Does what is to be done.
    ///
    /// # Errors
    /// Says why not; nothing was changed then.
    pub async fn carry_out(self, opened: &Opened) -> Result<Answer, Refusal> {
        match self {
            Self::CreateKey(new) => keys::create(opened, new).await.map(Answer::Created),
            Self::ListKeys { tenant } => keys::list(opened, tenant.as_deref()).await.map(Answer::Keys),
            Self::RevokeKey { id } => Ok(Answer::Revoked(opened.ledger.revoke_key(id).await?)),
            Self::ListTenants => Ok(Answer::Tenants(opened.ledger.tenants().await?)),
            Self::CloseTenant { tenant, reason } => {
                tenants::close(opened.ledger.as_ref(), &tenant, &reason).await.map(Answer::Closed)
            }
            Self::OpenTenant { tenant } => tenants::open(opened.ledger.as_ref(), &tenant).await.map(Answer::Opened),
            Self::AcceptDuplicates { operator } => {
                Ok(Answer::Unquarantined(quarantine::accept_duplicates(opened.ledger.as_ref(), &operator).await?))
            }
            Self::ListLimits => Ok(Answer::Limits(opened.ledger.operator_limits().await?)),
            Self::SetLimit { of, limits } => limits::set(opened, of, limits).await.map(Answer::LimitSet),
            Self::ClearLimit { of } => {
                opened.ledger.clear_operator_limit(&of).await?;
                Ok(Answer::LimitCleared(of))
            }
        }
    }

    /// The command that shows what there is of the kind this order is about.
    #[must_use]
    pub const fn listing(&self) -> &'static str {
        match self {
            Self::CreateKey(_) | Self::ListKeys { .. } | Self::RevokeKey { .. } => "dispatch keys list",
            Self::ListTenants | Self::CloseTenant { .. } | Self::OpenTenant { .. } => "dispatch tenants list",
            Self::AcceptDuplicates { .. } => "dispatch doctor",
            Self::ListLimits | Self::SetLimit { .. } | Self::ClearLimit { .. } => "dispatch limits list",
        }
    }
}
