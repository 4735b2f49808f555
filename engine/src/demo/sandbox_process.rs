//! The sandbox as a child process.

use std::{path::Path, process::Stdio, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{DemoError, DemoOptions};

/// How long the sandbox may take to start.
const START_WITHIN: Duration = Duration::from_secs(30);
/// The key the fakes want.
const API_KEY: &str = "sandbox-key";

/// What `dispatch sandbox --json` prints once it listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxReady {
    /// `http://127.0.0.1:port` of the HTTP fakes.
    pub http: String,
    /// `smtp://127.0.0.1:port` of the relay.
    pub smtp: String,
}

/// A running sandbox; ends with this value.
pub(super) struct SandboxProcess {
    child: Child,
    ready: SandboxReady,
}

impl SandboxProcess {
    /// The key of the witness' hashes: the demo must know it to compare.
    pub(super) fn witness_key(seed: u64) -> [u8; 32] {
        let mut key = [0x5a; 32];
        key[..8].copy_from_slice(&seed.to_be_bytes());
        key
    }

    /// Starts this very program as `dispatch sandbox` on free ports.
    pub(super) async fn start(witness: &Path, options: &DemoOptions) -> Result<Self, DemoError> {
        let failed = |why: std::io::Error| DemoError::Sandbox(why.to_string());
        let program = std::env::current_exe().map_err(failed)?;
        let key: String = Self::witness_key(options.seed).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut command = Command::new(program);
        command
            .args(["sandbox", "--json", "--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0"])
            .arg("--witness")
            .arg(witness)
            .args(["--seed", &options.seed.to_string()])
            // Longer than the demo waits for an answer, so that a slow one is a lost one.
            .args(["--slow-ms", "7000"])
            .env("DISPATCH_SANDBOX_WITNESS_KEY", key)
            .env("DISPATCH_SANDBOX_API_KEY", API_KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if let Some(faults) = &options.faults {
            command.args(["--faults", faults]);
        }
        let mut child = command.spawn().map_err(failed)?;
        let stdout = child.stdout.take().ok_or_else(|| DemoError::Sandbox("it has no output".to_owned()))?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(START_WITHIN, lines.next_line())
            .await
            .map_err(|_| DemoError::Sandbox("it did not say where it listens".to_owned()))?
            .map_err(failed)?
            .ok_or_else(|| DemoError::Sandbox("it ended at once; see its message above".to_owned()))?;
        let ready = serde_json::from_str(&line)
            .map_err(|_| DemoError::Sandbox("it said something else than where it listens".to_owned()))?;
        Ok(Self { child, ready })
    }

    /// Where the fake of a provider is reached.
    pub(super) fn url(&self, kind: &str) -> String {
        match kind {
            "smtp" => self.ready.smtp.clone(),
            _ => self.ready.http.clone(),
        }
    }

    /// The key the fakes want.
    #[expect(clippy::unused_self, reason = "the key is the sandbox's, even while all sandboxes share one")]
    pub(super) fn api_key(&self) -> SecretString {
        SecretString::from(API_KEY)
    }

    /// Ends it. Every line it acknowledged is on disk.
    pub(super) async fn stop(mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.child.kill().await;
    }
}
