//! `dispatch doctor`: checks a deployment, and says how to mend what is wrong.
//!
//! One file for each area: [`database`], [`file`](ledger_file), [`memory`], [`keys`], [`broker`], [`providers`], [`disk`]. They look
//! and change nothing, so an engine may be running; no message is sent.

mod broker;
mod database;
mod disk;
mod finding;
mod keys;
mod ledger_file;
mod memory;
mod providers;
mod reach;

use super::{error::CliError, output::Output, settings_file::SettingsArgs};
use crate::settings::Settings;

use finding::{Check, Level};

const EXAMPLE: &str = "\
Examples:
  dispatch doctor --config /etc/dispatch/dispatch.toml
  dispatch doctor --json | jq 'select(.level != \"ok\")'
  dispatch doctor --offline --strict

Run it as the user Dispatch runs as, on each of its machines. It changes nothing and sends nothing: a provider's host is \
connected to (TCP and TLS) and not asked anything. An engine may be running.

`fail` is what keeps Dispatch from working or from keeping its promises; `warn` is what will, or what was meant \
otherwise more likely than not.

Exit codes: 0 nothing failed (with --strict: and no warning), 1 something did, 2 the command line or the settings are \
wrong.";

/// What `dispatch doctor` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Do not connect to the providers
    #[arg(long)]
    offline: bool,
    /// Let warnings count as failures
    #[arg(long)]
    strict: bool,
    /// Which settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Runs `dispatch doctor`.
///
/// # Errors
/// When the settings cannot be read, or something is not as it must be.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let settings = args.settings.load()?;
    let checks = examine(&settings, if args.offline { Providers::LeftAlone } else { Providers::Reached }).await;
    for check in &checks {
        if args.json {
            out.json(check)?;
        } else {
            out.line(&check.to_string())?;
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let (failed, warned) = (count(Level::Fail), count(Level::Warn));
    let all = checks.len();
    if failed == 0 && (warned == 0 || !args.strict) {
        return Ok(());
    }
    Err(CliError::Failed(format!("of {all} checks {failed} failed and {warned} warn; each says above how to mend it")))
}

/// Whether the providers' hosts are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Providers {
    Reached,
    LeftAlone,
}

async fn examine(settings: &Settings, providers: Providers) -> Vec<Check> {
    let mut checks = keys::settings_file(settings);
    let fingerprint = match settings.ledger.url.server() {
        None => ledger_file::examine(settings, &mut checks).await,
        Some(server) => database::examine(server, settings, &mut checks).await,
    };
    checks.push(keys::master_key(settings, &fingerprint));
    checks.extend(broker::examine(settings).await);
    checks.extend(providers::examine(settings, providers).await);
    checks.push(memory::second_place(settings));
    checks.extend(disk::examine(settings));
    checks
}

/// Which key the ledger was made with.
enum Fingerprint {
    /// The ledger says.
    Known(Vec<u8>),
    /// There is no ledger yet, or it was never started on.
    None,
    /// The ledger could not be asked.
    NotAsked,
}
