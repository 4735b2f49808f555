//! Provider accounts and which of them serves a channel.

use std::path::PathBuf;

use dispatch_schemas::{api::limits::Windows, states::Channel};
use dispatch_workers::providers::{self, AccountSettings};
use secrecy::SecretString;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    AccountCallbacks, Settings, environment, reading,
    secret_file::{SecretFileError, read_secret_file},
};

/// `[providers.NAME]`: an [`AccountSettings`] with its limits and key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// Which provider: a `kind` of [`providers::REGISTRY`].
    pub kind: String,
    /// Where it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The user name, where the provider has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File that holds the API key or password, mode 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The API key or password, from its environment variable.
    #[serde(
        default,
        deserialize_with = "reading::secret",
        serialize_with = "masked",
        skip_serializing_if = "Option::is_none"
    )]
    pub key: Option<SecretString>,
    /// Most recipients in one request; the provider's own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients_per_request: Option<usize>,
    /// Most requests open at once.
    #[serde(default = "requests_open_max")]
    pub requests_open_max: usize,
    /// Time to connect, seconds.
    #[serde(default = "connect_timeout_s")]
    pub connect_timeout_s: u64,
    /// Time from the first byte out to the last byte in, seconds; at most `timing.answer_timeout_ms`.
    #[serde(default = "answer_timeout_s")]
    pub answer_timeout_s: u64,
    /// PEM file with a certificate authority to trust beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How fast this account may send, over all tenants.
    #[serde(default)]
    pub limits: Windows,
    /// What its callbacks are known by; without it none are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callbacks: Option<AccountCallbacks>,
}

const fn requests_open_max() -> usize {
    16
}

const fn connect_timeout_s() -> u64 {
    5
}

const fn answer_timeout_s() -> u64 {
    30
}

pub(super) fn masked<S: Serializer>(_: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("***")
}

/// `[routes]`: the account that serves a channel for campaigns that name none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Routes {
    /// For e-mail: a name in `[providers]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// For text messages: a name in `[providers]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sms: Option<String>,
}

impl Routes {
    /// The name given for a channel.
    #[must_use]
    pub fn of(&self, channel: Channel) -> Option<&str> {
        match channel {
            Channel::Email => self.email.as_deref(),
            Channel::Sms => self.sms.as_deref(),
        }
    }
}

/// Why an account has no key to log in with.
#[derive(Debug, thiserror::Error)]
pub enum AccountSecretError {
    /// None is set.
    #[error("it has no key; put the key in a file of mode 0600 and set `key_file`, or set {variable}")]
    Missing {
        /// The variable that may hold it.
        variable: String,
    },
    /// Its file cannot be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
}

impl ProviderSettings {
    /// The channel its provider serves; none when there is no provider of this kind.
    #[must_use]
    pub fn channel(&self) -> Option<Channel> {
        providers::entry(&self.kind).map(|entry| entry.channel)
    }

    /// What the provider is built from.
    #[must_use]
    pub fn account(&self) -> AccountSettings {
        AccountSettings {
            kind: self.kind.clone(),
            url: self.url.clone(),
            user: self.user.clone(),
            key_file: self.key_file.clone(),
            recipients_per_request: self.recipients_per_request,
            requests_open_max: self.requests_open_max,
            connect_timeout_s: self.connect_timeout_s,
            answer_timeout_s: self.answer_timeout_s,
            ca_file: self.ca_file.clone(),
        }
    }

    /// Where the key of the account called `name` comes from: its variable, or the setting that names its file. None
    /// for a relay that needs none.
    #[must_use]
    pub fn key_place(&self, name: &str) -> Option<String> {
        let setting = |part| format!("providers.{name}.{part}");
        match (&self.key, &self.key_file) {
            (Some(_), _) => Some(environment::variable(&setting("key"))),
            (None, Some(_)) => Some(format!("the file of `{}`", setting("key_file"))),
            (None, None) => None,
        }
    }

    /// The key of the account called `name`: its variable's, else its file's as it is now. A relay without a user
    /// needs none and gets an empty one.
    ///
    /// # Errors
    /// When there is none, or its file cannot be read or can be read by others.
    pub fn secret(&self, name: &str) -> Result<SecretString, AccountSecretError> {
        match (&self.key, &self.key_file) {
            (Some(key), _) => Ok(key.clone()),
            (None, Some(file)) => Ok(read_secret_file(file)?),
            (None, None) if self.kind == "smtp" && self.user.is_none() => Ok(SecretString::default()),
            (None, None) => {
                Err(AccountSecretError::Missing { variable: environment::variable(&format!("providers.{name}.key")) })
            }
        }
    }
}

impl Settings {
    /// The account that serves a channel by default: the one `[routes]` names, else the only one there is.
    #[must_use]
    pub fn route(&self, channel: Channel) -> Option<&str> {
        self.routes.of(channel).or_else(|| {
            let mut serving = self.providers.iter().filter(|(_, account)| account.channel() == Some(channel));
            match (serving.next(), serving.next()) {
                (Some((only, _)), None) => Some(only),
                _ => None,
            }
        })
    }
}
