//! API keys, as an operator makes, lists and revokes them.

use std::{collections::HashMap, fmt};

use dispatch_schemas::{
    api::{
        keys::{ApiKey, Permission, Tenant},
        time::Moment,
    },
    ids::{KeyId, TenantId},
};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::{api::credentials::ApiKeyText, engine::Opened};

const DAY_MS: i64 = 86_400_000;
/// Longest name of a tenant and longest label of a key, characters.
const NAME_CHARS_MAX: usize = 200;
/// For how many days a key may be good.
pub const DAYS_MAX: u16 = 3_650;

/// A key that is to be made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// The tenant's name; made when there is none of this name.
    pub tenant: String,
    /// What the key is for, for people.
    pub label: String,
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// For how many days it is good, 1 to [`DAYS_MAX`].
    pub days: u16,
}

/// A key that was made just now.
#[derive(Serialize, Deserialize)]
pub struct CreatedKey {
    /// The whole key. It is kept nowhere.
    pub key: String,
    /// Its public half.
    pub id: KeyId,
    /// Whose it is.
    pub tenant: Tenant,
    /// What it is for.
    pub label: String,
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// Until when it is good.
    pub expires_at: Moment,
}

impl fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreatedKey({}, ***)", self.id)
    }
}

/// A key and its tenant's name.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListedKey {
    /// The key.
    #[serde(flatten)]
    pub key: ApiKey,
    /// The name of the tenant whose it is.
    pub tenant_name: String,
}

pub(super) async fn create(opened: &Opened, new: NewKey) -> Result<CreatedKey, Refusal> {
    for (what, text) in [("tenant", &new.tenant), ("label", &new.label)] {
        let is_name =
            !text.trim().is_empty() && text.chars().count() <= NAME_CHARS_MAX && !text.chars().any(char::is_control);
        if !is_name {
            return Err(Refusal::Wrong(format!("--{what} must have 1 to {NAME_CHARS_MAX} characters, on one line")));
        }
    }
    let mut permissions = new.permissions;
    permissions.sort_unstable();
    permissions.dedup();
    let tenant = opened.ledger.tenant(&new.tenant).await?;
    let text = ApiKeyText::generate(opened.entropy.as_ref());
    let hash = opened.master.api_key_hash(text.secret());
    let expires_at_ms = opened.clock.now_ms() + i64::from(new.days.clamp(1, DAYS_MAX)) * DAY_MS;
    let key = opened.ledger.create_key(text.id, tenant.id, &new.label, &permissions, hash, expires_at_ms).await?;
    Ok(CreatedKey {
        key: text.reveal().expose_secret().to_owned(),
        id: key.id,
        tenant,
        label: key.label,
        permissions: key.permissions,
        expires_at: key.expires_at,
    })
}

pub(super) async fn list(opened: &Opened, tenant: Option<&str>) -> Result<Vec<ListedKey>, Refusal> {
    let tenants = opened.ledger.tenants().await?;
    let only = match tenant {
        None => None,
        Some(name) => match tenants.iter().find(|tenant| tenant.name == name) {
            Some(tenant) => Some(tenant.id),
            None => return Err(Refusal::Wrong(format!("there is no tenant `{name}`"))),
        },
    };
    let names: HashMap<TenantId, String> = tenants.into_iter().map(|tenant| (tenant.id, tenant.name)).collect();
    let keys = opened.ledger.keys(only).await?;
    let listed = keys.into_iter().map(|key| ListedKey {
        // A tenant made between the two looks has no name yet.
        tenant_name: names.get(&key.tenant).cloned().unwrap_or_else(|| key.tenant.to_string()),
        key,
    });
    Ok(listed.collect())
}
