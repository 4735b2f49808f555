//! A client of the API that keeps every answer.

use std::{
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
};

use dispatch_tests::support::{engine_process::EngineProcess, program};
use serde_json::Value;

/// Makes an API key that may do everything.
pub(crate) fn make_key(settings: &Path) -> String {
    let made = Command::new(program::dispatch())
        .args(["keys", "create", "--tenant", "shop", "--permissions", "read,write,send,erase", "--json", "--config"])
        .arg(settings)
        .output()
        .expect("the program can be started");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).expect("it prints JSON");
    made["key"].as_str().expect("with the key").to_owned()
}

/// The client.
pub(crate) struct Client<'a> {
    engine: &'a EngineProcess,
    key: String,
    http: reqwest::Client,
    answers: Mutex<Vec<String>>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(engine: &'a EngineProcess, key: String) -> Self {
        Self { engine, key, http: reqwest::Client::new(), answers: Mutex::default() }
    }

    /// Every answer there was, with its headers.
    pub(crate) fn answers(&self) -> Vec<String> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        let answer = request.bearer_auth(&self.key).send().await.expect("the engine answers");
        let (status, headers) = (answer.status().as_u16(), format!("{:?}", answer.headers()));
        let body = answer.text().await.expect("with text");
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{status} {headers}\n{body}"));
        (status, body)
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let call = self.answers().len().to_string();
        let request = self.http.post(self.engine.url(path)).header("content-type", "application/json");
        self.send(request.header("idempotency-key", call).body(body.to_string())).await
    }

    /// 201, and what was made.
    pub(crate) async fn made(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, &body).await;
        assert_eq!(status, 201, "{path}: {answer}");
        serde_json::from_str(&answer).expect("it is JSON")
    }

    /// 2xx.
    pub(crate) async fn done(&self, path: &str, body: Value) {
        let (status, answer) = self.post(path, &body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
    }

    /// 4xx.
    pub(crate) async fn refused(&self, path: &str, body: Value) {
        let (status, answer) = self.post(path, &body).await;
        assert!((400..500).contains(&status), "{path} {body}: {status} {answer}");
    }

    async fn csv(&self, path: &str, csv: String) -> (u16, String) {
        self.send(self.http.post(self.engine.url(path)).header("content-type", "text/csv").body(csv)).await
    }

    /// An upload that is taken.
    pub(crate) async fn upload(&self, path: &str, csv: String) -> Value {
        let (status, answer) = self.csv(path, csv).await;
        assert_eq!(status, 201, "{path}: {answer}");
        serde_json::from_str(&answer).expect("it is JSON")
    }

    /// An upload that is refused.
    pub(crate) async fn refused_upload(&self, path: &str, csv: String) {
        let (status, answer) = self.csv(path, csv).await;
        assert!((400..500).contains(&status), "{path}: {status} {answer}");
    }

    /// 200 with JSON.
    pub(crate) async fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).expect("it is JSON")
    }

    /// 200.
    pub(crate) async fn text(&self, path: &str) -> String {
        let (status, answer) = self.send(self.http.get(self.engine.url(path))).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}
