//! The settings: a TOML file, overridden by environment variables, complete without either.
//!
//! A variable's name is `DISPATCH_` and the path of the setting with `__` between its parts: `ledger.url` is
//! `DISPATCH_LEDGER__URL`. An empty variable counts as not set. Relative paths start at the working directory.
//!
//! [`Settings::load`] reads ([`document`], [`environment`]), fills the types ([`reading`]) and checks what types cannot
//! say ([`validate`]). It reports every problem it can find at once, each with the setting's name, its place and what
//! is wanted; never with the value, which may be a secret in the wrong place. `config/dispatch.toml` explains each
//! setting and is compiled in: it is also where the nearest known name is looked up ([`catalogue`]).

mod accounts;
mod callbacks;
mod catalogue;
mod document;
mod environment;
mod ledger_url;
mod problem;
mod queue_settings;
mod queue_url;
mod reading;
mod secret_file;
mod validate;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use dispatch_schemas::api::limits::Windows;
use dispatch_workers::delivery::Timing;
use serde::{Deserialize, Serialize};

pub use accounts::{AccountSecretError, ProviderSettings, Routes};
pub use callbacks::{AccountCallbacks, CallbackSettings};
pub use catalogue::EXAMPLE;
pub use ledger_url::{LedgerUrl, LedgerUrlError};
pub use problem::{Place, Problem, SettingsError};
pub use queue_settings::{BrokerSecretError, QueueSettings};
pub use queue_url::{QueueUrl, QueueUrlError};
pub use reading::listen_address;
pub use secret_file::{SecretFileError, read_secret_file};

use document::Document;

/// The settings file in the working directory, taken when none is named.
pub const FILE_HERE: &str = "dispatch.toml";

/// The settings file of the machine, taken when there is none in the working directory.
pub const FILE_OF_MACHINE: &str = "/etc/dispatch/dispatch.toml";

/// All settings.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where everything is kept.
    pub ledger: LedgerSettings,
    /// The window of jobs between ledger and workers.
    pub queue: QueueSettings,
    /// The HTTP API.
    pub api: ApiSettings,
    /// Providers' callbacks.
    pub callbacks: CallbackSettings,
    /// The log.
    pub logging: LoggingSettings,
    /// The workers.
    pub workers: WorkerSettings,
    /// The protocol's timers.
    #[serde(serialize_with = "serialize_timing")]
    pub timing: Timing,
    /// Which account serves a channel; see [`Settings::route`].
    pub routes: Routes,
    /// The provider accounts, by name.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// What a tenant gets that has no settings of its own.
    pub tenants: TenantsSettings,
    /// Limits of recipients' domains and countries, over all tenants.
    pub limits: DestinationLimits,
    /// Where these settings came from.
    #[serde(skip)]
    pub source: Source,
}

/// Where settings came from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file, if one was read.
    pub file: Option<PathBuf>,
    /// The names of the environment variables that were used.
    pub variables: Vec<String>,
}

/// `[ledger]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerSettings {
    /// Where the ledger is.
    pub url: LedgerUrl,
    /// The file with the master key, mode 0600. Made at the first start; without it the ledger cannot be read.
    pub key_file: PathBuf,
    /// The second place: where closings and claims are noted as well, for all processes of the ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_place_folder: Option<PathBuf>,
    /// How long its notes are kept, days: as long as a copy of the ledger may be restored.
    pub second_place_days: u32,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            url: LedgerUrl::default(),
            key_file: "dispatch.key".into(),
            second_place_folder: None,
            second_place_days: 90,
        }
    }
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// The address and port the API, `/healthz`, `/readyz` and `/metrics` are served on. Plain HTTP: a TLS proxy
    /// stands in front of whatever is reachable from other machines.
    #[serde(deserialize_with = "reading::socket_address")]
    pub listen: SocketAddr,
    /// Largest JSON body, bytes.
    pub body_bytes_max: u64,
    /// Largest contact file, bytes; it is streamed, so this costs no memory.
    pub import_bytes_max: u64,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8025)),
            body_bytes_max: 1 << 20,
            import_bytes_max: 10 << 30,
        }
    }
}

/// `[logging]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingSettings {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: a `tracing` filter such as `info` or `warn,dispatch_engine=debug`. `DISPATCH_LOG` is a short
    /// name for its variable.
    pub filter: String,
}

impl Default for LoggingSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".into() }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[workers]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// Runs of e-mail delivered side by side.
    pub email_runs: usize,
    /// Runs of text messages delivered side by side.
    pub sms_runs: usize,
    /// Tries before a delivery that is refused for now fails.
    pub attempts_max: u8,
    /// Where outcomes are kept until a ledger on a server has them; a folder for each process. None are without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_folder: Option<PathBuf>,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self { email_runs: 8, sms_runs: 8, attempts_max: 5, journal_folder: None }
    }
}

/// `[tenants]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantsSettings {
    /// `[tenants.defaults]`
    pub defaults: TenantDefaults,
}

/// `[tenants.defaults]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantDefaults {
    /// How fast all campaigns of one tenant may send together.
    pub limits: Windows,
}

/// `[limits]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationLimits {
    /// By recipient domain, lower-case as in DNS.
    pub domains: BTreeMap<String, Windows>,
    /// By the recipient's country, two capital letters (ISO 3166-1).
    pub countries: BTreeMap<String, Windows>,
}

impl Settings {
    /// Reads the settings file and the environment over it.
    ///
    /// Without `path` the file is [`FILE_HERE`] if there is one, else [`FILE_OF_MACHINE`] if there is one, else none.
    /// No secret file is opened here; see [`Settings::check`].
    ///
    /// # Errors
    /// When the file cannot be read or is not TOML, or with every problem found in it and in the variables.
    pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, SettingsError> {
        let file = match path {
            Some(path) => Some(path.to_owned()),
            None => [FILE_HERE, FILE_OF_MACHINE].into_iter().map(PathBuf::from).find(|path| path.exists()),
        };
        let mut document = match &file {
            Some(file) => Document::read(file)?,
            None => Document::default(),
        };
        let mut problems = document.secrets_in_file();
        let overrides = environment::overlay(&mut document, env);
        problems.extend(overrides.problems);

        let settings: Option<Self> = reading::read(&document, &mut problems);
        if let Some(settings) = &settings {
            problems.extend(validate::validate(settings, &document));
        }
        match settings {
            Some(mut settings) if problems.is_empty() => {
                settings.source = Source { file, variables: overrides.used };
                Ok(settings)
            }
            _ => Err(SettingsError::Problems(problems)),
        }
    }

    /// All settings as TOML, every secret as `***`, headed by where they came from.
    ///
    /// # Errors
    /// When a number is too large for TOML, which [`Settings::load`] lets nobody set.
    pub fn print_masked(&self) -> Result<String, toml::ser::Error> {
        let file = match &self.source.file {
            Some(file) => file.display().to_string(),
            None => "none; these are the defaults".to_owned(),
        };
        let variables = match self.source.variables.as_slice() {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        Ok(format!("# File: {file}\n# Variables: {variables}\n\n{}", toml::to_string(self)?))
    }
}

/// The form in which [`Timing`] is printed.
#[derive(Serialize)]
#[serde(remote = "Timing")]
struct TimingForm {
    send_deadline_ms: u64,
    answer_timeout_ms: u64,
    reaper_grace_ms: u64,
    provider_lag_ms: u64,
    evidence_window_ms: u64,
    retry_first_ms: u64,
    retry_max_ms: u64,
    ask_again_ms: u64,
}

fn serialize_timing<S: serde::Serializer>(timing: &Timing, serializer: S) -> Result<S::Ok, S::Error> {
    TimingForm::serialize(timing, serializer)
}

#[cfg(test)]
mod tests;
