//! `dispatch unquarantine`: lets a ledger send again that has forgotten, by an operator's word.

use super::{
    error::CliError,
    orders::{self, Form},
    output::Output,
    settings_file::SettingsArgs,
};
use crate::operator::Order;

const EXAMPLE: &str = "\
Examples:
  dispatch unquarantine --accept-duplicates

A ledger that failed over or was restored from a copy has forgotten what came after. It is then in quarantine: nothing is \
sent until all that may have been sent and forgotten is marked, which takes seconds to minutes, and ends by itself. \
`dispatch doctor` and /readyz say so, and why.

This ends it at once. What was sent since the copy and is not marked yet is sent again. Whoever opted out or was erased \
since is still not written to, as far as the second place (ledger.second_place_folder) remembers. Who ordered it is kept in \
the ledger and logged.";

/// What `dispatch unquarantine` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Let messages be sent a second time
    #[arg(long, required = true)]
    accept_duplicates: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Which settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Runs `dispatch unquarantine`.
///
/// # Errors
/// When there is no ledger, it cannot be opened, or it refuses.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let settings = args.settings.load()?;
    if let Some(file) = settings.ledger.url.file()
        && !file.exists()
    {
        return Err(CliError::Usage(format!("there is no ledger at {}, and so no quarantine", file.display())));
    }
    let operator =
        std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "unknown".to_owned());
    let order = Order::AcceptDuplicates { operator };
    orders::print(orders::carried_out(&settings, order).await?, Form::of(args.json), out)
}
