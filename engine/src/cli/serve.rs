//! `dispatch serve`: the engine.

use std::net::SocketAddr;

use super::{error::CliError, settings_file::SettingsArgs};

const EXAMPLE: &str = "\
Examples:
  dispatch serve
  dispatch serve --config /etc/dispatch/dispatch.toml --listen 0.0.0.0:8025

On its first start it makes the ledger and its key file and says where they are. Losing the key file \
loses the data. Make an API key before: dispatch keys create --tenant NAME";

/// What `dispatch serve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Which settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// The address to listen on, in place of the settings' `api.listen`
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
}

/// Runs `dispatch serve` until it is asked to stop.
///
/// # Errors
/// When something cannot be started.
pub async fn run(args: Args) -> Result<(), CliError> {
    drop(args);
    Err(CliError::Failed("the engine is not wired yet".to_owned()))
}
