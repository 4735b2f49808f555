//! Callbacks: where they are taken, how much of them is kept, and what a provider's are known by.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use dispatch_workers::providers::callbacks::Credentials;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    reading,
    secret_file::{SecretFileError, read_secret_file},
};

/// `[callbacks]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallbackSettings {
    /// The address and port providers' callbacks are taken on. Plain HTTP: a TLS proxy stands in front.
    #[serde(deserialize_with = "reading::socket_address")]
    pub listen: SocketAddr,
    /// The proxies whose `X-Forwarded-For` is believed: networks, separated by commas. None without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<String>,
    /// Where callbacks wait until the ledger has them; a folder for each process.
    pub spool_folder: PathBuf,
    /// Most bytes that wait.
    pub spool_bytes_max: u64,
    /// How old the oldest that waits may be while more are taken, seconds.
    pub spool_age_max_s: u64,
}

impl Default for CallbackSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8035)),
            proxies: None,
            spool_folder: "dispatch-callbacks".into(),
            spool_bytes_max: 1 << 30,
            spool_age_max_s: 48 * 3_600,
        }
    }
}

impl CallbackSettings {
    /// The proxies in front; `None` when one is no network.
    #[must_use]
    pub fn proxies(&self) -> Option<Vec<IpNet>> {
        let parts = self.proxies.as_deref().unwrap_or_default().split(',');
        parts.map(str::trim).filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
    }
}

/// `[providers.NAME.callbacks]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountCallbacks {
    /// The public key the provider signs with, as it shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// A second one, while one takes the other's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key_next: Option<String>,
    /// File with the secret shared with the provider, mode 0600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// A second one, while one takes the other's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file_next: Option<PathBuf>,
    /// The header with the signature, where the provider's customers choose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature_header: Option<String>,
    /// The networks the provider calls from, separated by commas; any without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<String>,
}

impl AccountCallbacks {
    /// What the provider's calls are known by, as its files are now.
    ///
    /// # Errors
    /// When a secret file cannot be read or can be read by others.
    pub fn credentials(&self) -> Result<Credentials, SecretFileError> {
        let files = self.secret_file.iter().chain(&self.secret_file_next);
        Ok(Credentials {
            public_keys: self.public_key.iter().chain(&self.public_key_next).cloned().collect(),
            secrets: files.map(|file| read_secret_file(file)).collect::<Result<_, _>>()?,
            signature_header: self.signature_header.clone(),
            networks: self.networks.clone(),
        })
    }
}
