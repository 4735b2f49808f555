//! The command line: one file per subcommand.
//!
//! `keys`, `tenants` and `unquarantine` open the ledger itself, or ask the engine that has it open ([`orders`]); `jobs` speaks to
//! RabbitMQ; `import`, `suppress` and `campaign` are clients of a running engine ([`engine_client`]). What people read goes to standard output, what goes wrong to standard error, and the exit code
//! says which kind of wrong ([`error`]).

pub mod campaign;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod engine_client;
pub mod error;
pub mod import;
pub mod jobs;
pub mod keys;
pub mod limits;
pub mod migrate;
mod orders;
pub mod output;
pub mod sandbox;
pub mod serve;
pub mod settings_file;
pub mod suppress;
pub mod tenants;
pub mod unquarantine;
pub mod upload_progress;

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};

pub use self::error::CliError;
use self::output::Output;
use crate::settings::LoggingSettings;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line or the settings are wrong
  3  the engine refused (a 4xx answer; the message says what to do)
  4  the engine cannot be reached or is not available now; trying again may help
  5  the demo's ledger and its providers' logs disagree
  6  done in part; the message says what was not done";

/// Sends campaigns by e-mail and text message, and knows what became of every recipient.
#[derive(Debug, Parser)]
#[command(name = "dispatch", version, after_help = EXIT_CODES, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(Box<demo::DemoArgs>),
    /// Run the engine
    Serve(serve::Args),
    /// Make the tables of a ledger on PostgreSQL, or bring them up to this version
    Migrate(migrate::Args),
    /// Check a deployment, and say how to mend what is wrong
    Doctor(doctor::Args),
    Sandbox(Box<sandbox::SandboxArgs>),
    /// Make, list and revoke API keys
    Keys(keys::Args),
    /// Limit provider accounts and destinations, while the engine runs
    Limits(limits::Args),
    /// List, close and open tenants
    Tenants(tenants::Args),
    /// Let a ledger send again that was restored or failed over
    Unquarantine(unquarantine::Args),
    /// Upload contacts into a list of a running engine
    Import(import::Args),
    /// Suppress addresses in a running engine, or lift that
    Suppress(suppress::Args),
    /// Make, launch, watch and stop campaigns of a running engine
    Campaign(Box<campaign::Args>),
    /// Look at, put back or drop messages on RabbitMQ that nobody could work on
    Jobs(jobs::Args),
    /// Check or print the settings
    Config(config::Args),
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(execute(cli.command, &mut Output::to_stdout())),
        Err(error) => Err(CliError::Failed(format!("the runtime cannot be started: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell it to when standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            error.exit_code()
        }
    }
}

async fn execute(command: Command, out: &mut Output) -> Result<(), CliError> {
    match command {
        Command::Demo(args) => {
            log_as_by_default()?;
            demo::run(*args).await
        }
        Command::Serve(args) => serve::run(args).await,
        Command::Sandbox(args) => {
            log_as_by_default()?;
            sandbox::run(*args).await
        }
        Command::Migrate(args) => migrate::run(args, out).await,
        Command::Doctor(args) => doctor::run(args, out).await,
        Command::Keys(args) => keys::run(args, out).await,
        Command::Limits(args) => limits::run(args, out).await,
        Command::Tenants(args) => tenants::run(args, out).await,
        Command::Unquarantine(args) => unquarantine::run(args, out).await,
        Command::Import(args) => import::run(args, out).await,
        Command::Suppress(args) => suppress::run(args, out).await,
        Command::Campaign(args) => campaign::run(*args, out).await,
        Command::Jobs(args) => jobs::run(args, out).await,
        Command::Config(args) => config::run(args, out).await,
    }
}

/// Logging for commands that read no settings.
fn log_as_by_default() -> Result<(), CliError> {
    crate::telemetry::logging::install(&LoggingSettings::default()).map_err(|error| CliError::failed(error.to_string()))
}

/// Ends when the process is asked to stop: Ctrl-C, or SIGTERM from a supervisor.
pub(crate) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    // Without a handler the process can still be killed, which loses nothing.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
