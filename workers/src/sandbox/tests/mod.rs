//! The sandbox from outside: real sockets, the bodies the vendors document.

mod brevo;
mod control;
mod faults;
mod infobip;
mod sendgrid;

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    Running, SandboxSettings, run,
    witness::{WitnessKey, WitnessLine, WitnessVerdict, read_lines},
};
use crate::clock::SystemClock;

/// The key all fakes take in these tests.
const KEY: &str = "a-key";

/// The witness's key in these tests.
fn witness_key() -> WitnessKey {
    WitnessKey::new(&[7; 32])
}

struct Sandbox {
    running: Running,
    client: reqwest::Client,
    directory: TempDir,
}

/// An answer that came whole.
#[derive(Debug)]
struct Answered {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

fn settings(directory: &TempDir, faults: &str) -> SandboxSettings {
    SandboxSettings {
        http: "127.0.0.1:0".parse().unwrap(),
        smtp: "127.0.0.1:0".parse().unwrap(),
        witness: directory.path().join("witness.jsonl"),
        witness_key: witness_key(),
        api_key: KEY.into(),
        faults: faults.parse().unwrap(),
        seed: 1,
        slow_ms: 1,
        callbacks: None,
        callback_secret: KEY.into(),
        brevo_key_ttl: Duration::from_secs(900),
    }
}

impl Sandbox {
    async fn start(faults: &str) -> Self {
        Self::start_slow(faults, 1).await
    }

    async fn start_slow(faults: &str, slow_ms: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = SandboxSettings { slow_ms, ..settings(&directory, faults) };
        let running = run(settings, Arc::new(SystemClock::new())).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { running, client, directory }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.http)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answered> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answered { status, headers, body: response.text().await? })
    }

    async fn try_post(&self, path: &str, auth: (&str, &str), body: &Value) -> reqwest::Result<Answered> {
        let request = self.client.post(self.url(path)).header(auth.0, auth.1);
        self.send(request.header("content-type", "application/json").body(body.to_string())).await
    }

    async fn post(&self, path: &str, auth: (&str, &str), body: &Value) -> Answered {
        self.try_post(path, auth, body).await.unwrap()
    }

    async fn get(&self, path: &str, auth: (&str, &str)) -> Answered {
        self.send(self.client.get(self.url(path)).header(auth.0, auth.1)).await.unwrap()
    }

    async fn control(&self, path: &str, body: &str) -> Answered {
        self.send(self.client.post(self.url(path)).body(body.to_owned())).await.unwrap()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("witness.jsonl")
    }

    fn lines(&self) -> Vec<WitnessLine> {
        read_lines(&self.log()).unwrap().map(Result::unwrap).collect()
    }

    fn last_line(&self) -> WitnessLine {
        self.lines().pop().unwrap()
    }
}

/// What the log says became of each recipient.
fn verdicts(line: &WitnessLine) -> Vec<WitnessVerdict> {
    line.recipients.iter().map(|recipient| recipient.verdict).collect()
}

fn keys(line: &WitnessLine) -> Vec<Option<&str>> {
    line.recipients.iter().map(|recipient| recipient.key.as_deref()).collect()
}
