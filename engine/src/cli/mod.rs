//! The command line.

mod demo;
mod sandbox;

use clap::{Parser, Subcommand};

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    message: String,
    code: u8,
}
impl CliError {
    pub(crate) fn failed(message: String) -> Self {
        Self { message, code: 1 }
    }
    pub(crate) fn usage(message: String) -> Self {
        Self { message, code: 2 }
    }
    pub(crate) fn disagree(message: String) -> Self {
        Self { message, code: 5 }
    }
}
pub(crate) async fn interrupted() {
    let _ = tokio::signal::ctrl_c().await;
}
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}
#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Sandbox(sandbox::SandboxArgs),
}
#[must_use]
pub fn run() -> std::process::ExitCode {
    let cli = Cli::parse();
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else { return 1.into() };
    let _ = crate::telemetry::logging::install(&Default::default());
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(args).await,
            Command::Sandbox(args) => sandbox::run(args).await,
        }
    });
    match outcome {
        Ok(()) => 0.into(),
        Err(e) => {
            eprintln!("error: {}", e.message);
            e.code.into()
        }
    }
}
