//! `[queue]`: how much of a campaign waits outside the ledger, and where.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    accounts, queue_url,
    queue_url::QueueUrl,
    reading,
    secret_file::{SecretFileError, read_secret_file},
};

/// `[queue]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// Where RabbitMQ is; without it jobs stay in this process.
    #[serde(deserialize_with = "queue_url::optional", skip_serializing_if = "Option::is_none")]
    pub url: Option<QueueUrl>,
    /// File that holds RabbitMQ's password, mode 0600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// RabbitMQ's password, from its environment variable.
    #[serde(
        deserialize_with = "reading::secret",
        serialize_with = "accounts::masked",
        skip_serializing_if = "Option::is_none"
    )]
    pub password: Option<SecretString>,
    /// PEM file with the certificate authority of RabbitMQ, to trust beside the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Most jobs of a campaign in the queue.
    pub window_max: usize,
    /// All campaigns of a channel and lane have as many jobs in the queue as workers take in this many seconds.
    pub window_seconds: u64,
    /// Most jobs in the queue, over all campaigns of a channel and lane.
    pub capacity: usize,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            url: None,
            password_file: None,
            password: None,
            ca_file: None,
            window_max: 50_000,
            window_seconds: 2,
            capacity: 200_000,
        }
    }
}

/// What RabbitMQ's connection needs cannot be read from its file.
#[derive(Debug, thiserror::Error)]
pub enum BrokerSecretError {
    /// The password.
    #[error(transparent)]
    Password(#[from] SecretFileError),
    /// The certificate authority.
    #[error("the certificate file {path} (queue.ca_file) cannot be read: {source}")]
    Authority {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl QueueSettings {
    /// RabbitMQ's password: its variable's, else its file's as it is now, else the URL's.
    ///
    /// # Errors
    /// When the file cannot be read or can be read by others.
    pub fn password(&self) -> Result<Option<SecretString>, BrokerSecretError> {
        match (&self.password, &self.password_file) {
            (Some(password), _) => Ok(Some(password.clone())),
            (None, Some(file)) => Ok(Some(read_secret_file(file)?)),
            (None, None) => Ok(self.url.as_ref().and_then(QueueUrl::password).cloned()),
        }
    }

    /// The certificate authority to trust beside the public ones, as PEM.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn authority(&self) -> Result<Option<String>, BrokerSecretError> {
        let Some(file) = &self.ca_file else { return Ok(None) };
        std::fs::read_to_string(file)
            .map(Some)
            .map_err(|source| BrokerSecretError::Authority { path: file.display().to_string(), source })
    }
}
