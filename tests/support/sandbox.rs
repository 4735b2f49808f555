//! The sandbox as a process of its own, which outlives whatever is done to the engine.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use dispatch_engine::demo::SandboxReady;
use dispatch_workers::sandbox::{
    CallbackCounts,
    witness::{WitnessKey, WitnessLine, read_lines},
};

use super::program;

/// The key the fakes want.
pub const API_KEY: &str = "sandbox-key";
/// What the fakes sign callbacks with.
pub const CALLBACK_SECRET: &str = "callbacks-of-tests-0123456789abcdef";
/// How late a slow answer is: later than the engines of these tests wait.
const SLOW_MS: u64 = 1_500;
const WITNESS_KEY: [u8; 32] = [0x7e; 32];

/// A running sandbox; ends with this value.
#[derive(Debug)]
pub struct Sandbox {
    child: Child,
    ready: SandboxReady,
    /// The witness's log.
    pub witness: PathBuf,
}

impl Sandbox {
    /// Starts one that logs into `folder`.
    #[must_use]
    pub fn start(folder: &Path, faults: &str, seed: u64) -> Self {
        Self::start_slow(folder, faults, seed, SLOW_MS)
    }

    /// The same with slow answers this late, milliseconds.
    #[must_use]
    pub fn start_slow(folder: &Path, faults: &str, seed: u64, slow_ms: u64) -> Self {
        let witness = folder.join("witness.jsonl");
        let key: String = WITNESS_KEY.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut child = Command::new(program::dispatch())
            .args(["sandbox", "--json", "--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0"])
            .args(["--faults", faults, "--seed", &seed.to_string(), "--slow-ms", &slow_ms.to_string()])
            .arg("--witness")
            .arg(&witness)
            .env("DISPATCH_SANDBOX_WITNESS_KEY", key)
            .env("DISPATCH_SANDBOX_API_KEY", API_KEY)
            .env("DISPATCH_SANDBOX_CALLBACK_SECRET", CALLBACK_SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the sandbox can be started");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the sandbox says where it listens");
        let ready = serde_json::from_str(&line).expect("the sandbox says where it listens");
        Self { child, ready, witness }
    }

    /// Where the fake of a provider is reached.
    #[must_use]
    pub fn url(&self, kind: &str) -> &str {
        if kind == "smtp" { &self.ready.smtp } else { &self.ready.http }
    }

    /// From now on, this goes wrong.
    pub async fn set_faults(&self, plan: &str) {
        self.control("faults", plan).await;
    }

    /// From now on, these providers refuse the key: names separated by commas, or `none`.
    pub async fn refuse_key(&self, providers: &str) {
        self.control("refuse-key", providers).await;
    }

    /// From now on, the fakes call back there, and tell what the plan says.
    pub async fn call_back(&self, url: &str, plan: &str) {
        self.control("callbacks", &format!("{url}\n{plan}")).await;
    }

    /// The public key of SendGrid's callbacks.
    #[must_use]
    pub fn callback_public_key(&self) -> &str {
        &self.ready.callback_public_key
    }

    /// What was told in callbacks so far.
    pub async fn told(&self) -> CallbackCounts {
        let answer = reqwest::get(format!("{}/sandbox/callbacks", self.ready.http)).await.expect("the sandbox answers");
        let text = answer.text().await.expect("the sandbox answers with text");
        serde_json::from_str(&text).expect("the sandbox says what it told")
    }

    async fn control(&self, what: &str, body: &str) {
        let url = format!("{}/sandbox/{what}", self.ready.http);
        let answer = reqwest::Client::new().post(url).body(body.to_owned()).send().await;
        let status = answer.expect("the sandbox answers").status();
        assert!(status.is_success(), "the sandbox refuses {what} {body:?}: {status}");
    }

    /// What the witness has logged so far.
    #[must_use]
    pub fn lines(&self) -> Vec<WitnessLine> {
        lines(&self.witness)
    }

    /// How many messages were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.lines().iter().map(accepted_in).sum()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards, and every line it acknowledged is on disk.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of an address in the witness's log.
#[must_use]
pub fn name_of(address: &str) -> String {
    WitnessKey::new(&WITNESS_KEY).hash(address)
}

/// Messages of a request that were accepted.
#[must_use]
pub fn accepted_in(line: &WitnessLine) -> usize {
    let accepted = |verdict| verdict == dispatch_workers::sandbox::witness::WitnessVerdict::Accepted;
    line.recipients.iter().filter(|recipient| accepted(recipient.verdict)).count()
}

/// The lines of a witness's log.
#[must_use]
pub fn lines(witness: &Path) -> Vec<WitnessLine> {
    read_lines(witness)
        .expect("the witness's log is there")
        .map(|line| line.expect("the witness's log can be read"))
        .collect()
}
