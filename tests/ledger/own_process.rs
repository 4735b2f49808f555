//! Tests that change their whole process run in one of their own: this program again, with that test alone.

use std::process::{Command, Stdio};

const MARK: &str = "DISPATCH_TEST_IN_OWN_PROCESS";

/// Whether this is the process made for the test.
pub(crate) fn is_own() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs the test `name` of this program through a shell, after `before`; fails as it fails.
pub(crate) fn run(name: &str, before: &str) {
    let run = Command::new("sh")
        .args(["-c", &format!("{before}exec \"$0\" --exact \"$1\" --include-ignored --nocapture")])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(MARK, "1")
        .stdin(Stdio::null())
        .output()
        .expect("a shell runs this program again");
    let told = [String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr)].concat();
    assert!(run.status.success(), "{}\n{told}", run.status);
    assert!(told.contains("1 passed"), "the test ran: {told}");
}
