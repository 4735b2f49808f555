//! The program under test.

use std::{path::PathBuf, process::Command, sync::OnceLock};

static DISPATCH: OnceLock<PathBuf> = OnceLock::new();

/// The `dispatch` program of this build. Cargo builds a program for the tests of its own package only, so this asks
/// for it; it is quick when the program is there.
pub fn dispatch() -> &'static PathBuf {
    DISPATCH.get_or_init(|| {
        // A test is in `target/debug/deps`, the program in `target/debug`.
        let test = std::env::current_exe().expect("a test knows its own path");
        let folder = test.parent().and_then(|deps| deps.parent()).expect("a test is in the target directory");
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--quiet", "--locked", "--package", "dispatch-engine", "--bin", "dispatch", "--target-dir"])
            .arg(folder.parent().expect("a profile is in the target directory"))
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo can be started").success(), "the program `dispatch` does not build");
        let program = folder.join(format!("dispatch{}", std::env::consts::EXE_SUFFIX));
        assert!(program.exists(), "{} is not there after its build", program.display());
        program
    })
}
