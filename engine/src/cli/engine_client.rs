//! A client of a running engine.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use dispatch_schemas::api::{Page, lists::List, problems::ProblemDocument};
use dispatch_workers::clock::{SystemEntropy, random};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Serialize, de::DeserializeOwned};

use super::error::CliError;
use crate::api::credentials::ApiKeyText;

const KEY_VARIABLE: &str = "DISPATCH_API_KEY";
/// How long a connection may take to be made.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a call may take; uploads have no such limit, they are as long as their file.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read: a page of 1,000 recipients has some 300 KB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Which engine, and as whom.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which engine, and as whom")]
pub struct EngineArgs {
    /// The engine's address
    #[arg(long, value_name = "URL", env = "DISPATCH_URL", default_value = "http://127.0.0.1:8025")]
    url: Url,
    /// A file that holds the API key; without it DISPATCH_API_KEY is taken. The key is never an argument: those can
    /// be read by everybody on the machine
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

/// A client of one engine with one key.
#[derive(Debug)]
pub struct EngineClient {
    http: reqwest::Client,
    base: Url,
    key: SecretString,
}

impl EngineArgs {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// When there is no key, or it is not whole.
    pub fn client(&self) -> Result<EngineClient, CliError> {
        let key = match &self.api_key_file {
            Some(file) => crate::settings::read_secret_file(file)
                .map_err(|error| CliError::usage(error.to_string()))?
                .expose_secret()
                .to_owned(),
            None => std::env::var(KEY_VARIABLE).map_err(|_| {
                CliError::usage(format!(
                    "there is no API key; put one into {KEY_VARIABLE} or a file given with --api-key-file \
                     (`dispatch keys create --tenant NAME` makes one)"
                ))
            })?,
        };
        EngineClient::new(&self.url, key.trim())
    }
}

impl EngineClient {
    /// A client of the engine at `base`.
    ///
    /// # Errors
    /// When the key is not whole or the address cannot be used.
    pub fn new(base: &Url, key: &str) -> Result<Self, CliError> {
        ApiKeyText::parse(key).map_err(|error| CliError::usage(error.to_string()))?;
        if base.cannot_be_a_base() || !matches!(base.scheme(), "http" | "https") {
            return Err(CliError::usage("the engine's address begins with http:// or https://"));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIME_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| CliError::failed(format!("no HTTP client can be made: {error}")))?;
        Ok(Self { http, base: base.clone(), key: key.to_owned().into() })
    }

    /// Reads something.
    ///
    /// # Errors
    /// When the engine cannot be reached or refuses.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(String, String)]) -> Result<T, CliError> {
        self.answer(self.request(Method::GET, path, query).timeout(CALL_TIME_MAX)).await
    }

    /// Sends a body and reads what came of it.
    ///
    /// # Errors
    /// When the engine cannot be reached or refuses.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        idempotency_key: Option<&str>,
    ) -> Result<T, CliError> {
        let body = serde_json::to_vec(body).map_err(|error| CliError::failed(error.to_string()))?;
        let mut request = self.request(method, path, &[]).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        self.answer(request.timeout(CALL_TIME_MAX).body(body)).await
    }

    /// Uploads a file and waits for what came of it.
    ///
    /// # Errors
    /// When the engine cannot be reached or refuses.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(String, String)],
        body: reqwest::Body,
    ) -> Result<T, CliError> {
        let request = self.request(Method::POST, path, query).header(header::CONTENT_TYPE, "text/csv");
        self.answer(request.body(body)).await
    }

    /// The list of this id or name, when there is one.
    ///
    /// # Errors
    /// When the engine cannot be reached or refuses.
    pub async fn find_list(&self, id_or_name: &str) -> Result<Option<List>, CliError> {
        let lists: Page<List> = self.get("/v1/lists", &[]).await?;
        Ok(lists.data.into_iter().find(|list| list.name == id_or_name || list.id.to_string() == id_or_name))
    }

    fn request(&self, method: Method, path: &str, query: &[(String, String)]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.request(method, url).bearer_auth(self.key.expose_secret())
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CliError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = read(response).await.map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| self.strange(status));
        }
        match serde_json::from_slice::<ProblemDocument>(&body) {
            Ok(problem) if status.is_client_error() => Err(CliError::Refused(problem)),
            Ok(problem) => Err(CliError::Unavailable(format!("{} ({status})", problem.detail))),
            Err(_) => Err(self.strange(status)),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let what = if error.is_timeout() {
            "did not answer in time"
        } else if error.is_connect() {
            "cannot be reached; is `dispatch serve` running there? (--url or DISPATCH_URL names another address)"
        } else {
            "broke the connection; what it did is not known, so look before trying again"
        };
        CliError::Unavailable(format!("the engine at {} {what}", self.base))
    }

    fn strange(&self, status: StatusCode) -> CliError {
        CliError::Failed(format!("what answers at {} ({status}) is not a Dispatch engine of this version", self.base))
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An Idempotency-Key nobody has used.
pub(super) fn fresh_key() -> String {
    format!("cli-{:032x}", u128::from_be_bytes(random(&SystemEntropy::default())))
}
