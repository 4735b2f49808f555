//! The settings a command works with.

use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use crate::settings::Settings;

/// Which settings.
#[derive(Debug, Clone, Args)]
pub struct SettingsArgs {
    /// The settings file; without it `dispatch.toml` here, then `/etc/dispatch/dispatch.toml`, then the defaults
    #[arg(long, value_name = "FILE", env = "DISPATCH_CONFIG", global = true)]
    pub config: Option<PathBuf>,
}

impl SettingsArgs {
    /// Reads them, with what the environment overrides.
    ///
    /// # Errors
    /// [`CliError::Usage`] with each wrong place.
    pub fn load(&self) -> Result<Settings, CliError> {
        Settings::load(self.config.as_deref(), std::env::vars()).map_err(|error| CliError::Usage(error.to_string()))
    }
}
