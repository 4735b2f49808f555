//! README's walk-through, run as it stands: its commands in bash, its answers compared with those that came.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod answers;
mod blocks;

use std::{io, net::TcpListener, path::PathBuf, process::Stdio, time::Duration};

use blocks::Step;
use tokio::{process::Command, time::timeout};

/// A walk-through that hangs is broken; this is far more than the slowest machine takes.
const HANGS_AFTER: Duration = Duration::from_secs(300);

/// Ports as README has them: the API, the sandbox's HTTP fakes, its relay.
const PORTS: [&str; 3] = ["8025", "8026", "2525"];

/// Printed after each step's output.
const END_OF_STEP: &str = "=== end of step ===";

#[tokio::test]
async fn the_walk_through_works_word_for_word() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let steps = blocks::steps(&readme, "## A walk-through");
    assert!(steps.len() > 10 && steps.iter().any(|step| step.answer.is_some()), "README has no walk-through any more");

    let outputs = run(&script(&steps)).await;
    assert_eq!(outputs.len(), steps.len(), "a step is missing:\n{}", outputs.join("\n"));
    for (step, output) in steps.iter().zip(&outputs) {
        let Some(shown) = &step.answer else { continue };
        let came =
            answers::last(output).unwrap_or_else(|| panic!("no answer came from\n{}\nbut\n{output}", step.commands));
        if let Err(difference) = answers::agree(shown, &came) {
            panic!("README shows another answer than comes from\n{}\n{difference}\nIt came:\n{came}", step.commands);
        }
    }
}

/// All steps as one script. Whatever it started ends with it.
fn script(steps: &[Step]) -> String {
    let mut script = String::from("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    for step in steps {
        script.push_str(&step.commands);
        script.push_str(&format!("\necho '{END_OF_STEP}'\n"));
    }
    for (fixed, free) in PORTS.iter().zip(free_ports()) {
        script = script.replace(fixed, &free.to_string());
    }
    script
}

/// Ports that are free now, all different.
fn free_ports() -> Vec<u16> {
    let listeners: io::Result<Vec<_>> = PORTS.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let ports = listeners.and_then(|all| all.iter().map(|one| Ok(one.local_addr()?.port())).collect());
    ports.expect("this machine has free ports")
}

/// Runs a script in an empty folder with the program on its path; the output of each step.
async fn run(script: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", program_folder().display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).current_dir(&folder).env("PATH", path).stdin(Stdio::null()).kill_on_drop(true);
    for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("DISPATCH_")) {
        bash.env_remove(variable);
    }
    let ended = timeout(HANGS_AFTER, bash.output()).await.expect("the walk-through hangs").unwrap();
    let output = String::from_utf8_lossy(&ended.stdout).into_owned();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "the walk-through broke off with {}\n{output}\n{errors}", ended.status);
    output.split_terminator(&format!("{END_OF_STEP}\n")).map(str::to_owned).collect()
}

/// Where `dispatch` is, built before the tests by `tests/run`.
fn program_folder() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.ancestors().nth(2).expect("test programs lie in a folder below the program's").to_path_buf();
    let program = folder.join("dispatch");
    assert!(program.exists(), "{} is missing: cargo build --package dispatch-engine --bin dispatch", program.display());
    folder
}
