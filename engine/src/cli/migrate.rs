//! `dispatch migrate`: makes the tables of a ledger on PostgreSQL, or brings them up to this version.

use dispatch_workers::clock::{Clock as _, SystemClock};

use super::{error::CliError, output::Output, settings_file::SettingsArgs};
use crate::{
    ledger::postgres::{Migrated, PostgresLedger},
    settings::LedgerUrl,
};

const EXAMPLE: &str = "\
Examples:
  dispatch migrate --config /etc/dispatch/dispatch.toml
  dispatch migrate --ledger-url 'postgres://dispatch@db.example.com/dispatch?sslmode=verify-full'

Run it once before the first `dispatch serve`, and once with each new version before its processes start. Several at \
once are fine: one works, the others wait and find it done. The role must own the ledger's tables. Everyone on the \
machine can read a command line, so the password belongs into the settings' variable DISPATCH_LEDGER__URL, PGPASSWORD \
or ~/.pgpass.

Exit codes: 0 the ledger is at this version; 1 it is refused, as it is (another program's database, a newer version's \
schema, a role the server refuses); 2 the command line or the settings are wrong; 4 the server does not answer, so \
trying again may help.";

/// What `dispatch migrate` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The ledger, in place of the settings' `ledger.url`
    // A text, because a refusal of the command line would quote its password.
    #[arg(long, value_name = "URL")]
    ledger_url: Option<String>,
    /// Which settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Runs `dispatch migrate`.
///
/// # Errors
/// When the settings are wrong, the server cannot be reached, or the database is not to be changed.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let url: LedgerUrl = match args.ledger_url {
        Some(url) => url.parse().map_err(|error| CliError::Usage(format!("--ledger-url: {error}")))?,
        None => args.settings.load()?.ledger.url,
    };
    let Some(server) = url.server() else {
        return Ok(out.line(&format!(
            "{url} needs no migration: a SQLite ledger is made, and brought up to its version, by the engine that starts \
             on it."
        ))?);
    };
    let done = PostgresLedger::migrate(&server?, SystemClock::new().now_ms()).await?;
    let said = match done {
        Migrated { from: None, to } => format!("Made the ledger {url}, schema {to}."),
        Migrated { from: Some(from), to } if from == to => {
            format!("The ledger {url} is at schema {to} already; its tables were not changed.")
        }
        Migrated { from: Some(from), to } => format!("Brought the ledger {url} from schema {from} to {to}."),
    };
    Ok(out.line(&said)?)
}
