//! The sandbox as a child process.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use dispatch_workers::sandbox::CallbackCounts;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{DemoError, DemoOptions};

/// How long the sandbox may take to start.
const START_WITHIN: Duration = Duration::from_secs(30);
/// What the fakes sign callbacks with.
pub(super) const CALLBACK_SECRET: &str = "demo-callbacks-0123456789abcdef0123";
/// The key the fakes want.
const API_KEY: &str = "sandbox-key";

/// What `dispatch sandbox --json` prints once it listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxReady {
    /// `http://127.0.0.1:port` of the HTTP fakes.
    pub http: String,
    /// `smtp://127.0.0.1:port` of the relay.
    pub smtp: String,
    /// The public key of SendGrid's callbacks, as the vendor shows it.
    pub callback_public_key: String,
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
            .env("DISPATCH_SANDBOX_CALLBACK_SECRET", CALLBACK_SECRET)
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

    /// The public key SendGrid's callbacks are signed with.
    pub(super) fn callback_public_key(&self) -> String {
        self.ready.callback_public_key.clone()
    }

    /// From now on, the fakes call back there.
    pub(super) async fn call_back(&self, address: SocketAddr) -> Result<(), DemoError> {
        let url = format!("{}/sandbox/callbacks", self.ready.http);
        let asked = reqwest::Client::new().post(url).body(format!("http://{address}/callbacks")).send().await;
        match asked {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(DemoError::Sandbox(format!("it does not call back: {}", answer.status()))),
            Err(error) => Err(DemoError::Sandbox(error.without_url().to_string())),
        }
    }

    /// What it told in callbacks.
    pub(super) async fn told(&self) -> Result<CallbackCounts, DemoError> {
        let failed = |error: reqwest::Error| DemoError::Sandbox(error.without_url().to_string());
        let answer = reqwest::get(format!("{}/sandbox/callbacks", self.ready.http)).await.map_err(failed)?;
        let text = answer.text().await.map_err(failed)?;
        serde_json::from_str(&text).map_err(|error| DemoError::Sandbox(error.to_string()))
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
