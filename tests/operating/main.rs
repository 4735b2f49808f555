//! What whoever runs an installation does: migrates, checks, changes limits, and starts it from the files in `config/`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "functions of tests; a failed expectation is the failed test"
)]

mod broker;
mod database;
mod deployment;
mod doctor;
mod first_start;
mod limits;
mod migrate;
mod quarantine;

use std::process::{Command, Output, Stdio};

use dispatch_tests::support::program;

/// Runs a command line in a folder of its own, with these variables.
async fn dispatch(line: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    dispatch_in(folder.path(), line, variables).await
}

/// The same in this folder.
async fn dispatch_in(folder: &std::path::Path, line: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program::dispatch());
    command.args(line).envs(variables.iter().copied()).current_dir(folder).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What was printed, to both outputs.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
