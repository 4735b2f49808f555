//! A client of a running engine.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use dispatch_schemas::{
    api::{Page, lists::List, problems::ProblemDocument},
    ids::{CampaignId, ImportId, ListId, SourceId, TemplateId},
};
use dispatch_workers::clock::{SystemEntropy, random};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Serialize, de::DeserializeOwned};

use super::error::CliError;
use crate::api::credentials::ApiKeyText;

const KEY_VARIABLE: &str = "DISPATCH_API_KEY";
/// How a key is had.
const MAKE_A_KEY: &str = "`dispatch keys create --tenant NAME` makes one";
/// What a broken connection means for a call that only reads, and for one that changes something.
const READ_LOST: &str = "broke the connection";
const CHANGE_LOST: &str = "broke the connection; what it did is not known, so look before trying again";
/// The status of what is not there, in a problem document.
const NOT_FOUND: u16 = StatusCode::NOT_FOUND.as_u16();
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
    /// Where the key came from, for messages about it.
    key_from: String,
}

impl EngineArgs {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// When there is no key, or it is not whole.
    pub fn client(&self) -> Result<EngineClient, CliError> {
        match &self.api_key_file {
            Some(file) => {
                let key = crate::settings::read_secret_file(file)
                    .map_err(|error| CliError::usage(format!("--api-key-file: {error}; {MAKE_A_KEY}")))?;
                let from = format!("the file {} (--api-key-file)", file.display());
                EngineClient::new(&self.url, key.expose_secret(), from)
            }
            None => match std::env::var_os(KEY_VARIABLE) {
                // What is no text is no key either, and is told so.
                Some(key) if !key.is_empty() => {
                    EngineClient::new(&self.url, key.to_string_lossy().trim(), format!("the variable {KEY_VARIABLE}"))
                }
                _ => Err(CliError::usage(format!(
                    "there is no API key; put one into the variable {KEY_VARIABLE} or a file given with \
                     --api-key-file; {MAKE_A_KEY}"
                ))),
            },
        }
    }
}

impl EngineClient {
    /// A client of the engine at `base`; `key_from` says in words where the key came from.
    ///
    /// # Errors
    /// When the key is not whole or the address cannot be used.
    pub fn new(base: &Url, key: &str, key_from: String) -> Result<Self, CliError> {
        ApiKeyText::parse(key)
            .map_err(|error| CliError::usage(format!("the key in {key_from} cannot be used: {error}; {MAKE_A_KEY}")))?;
        if base.cannot_be_a_base() || !matches!(base.scheme(), "http" | "https") {
            return Err(CliError::usage("the engine's address begins with http:// or https://"));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIME_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| CliError::failed(format!("no HTTP client can be made: {error}")))?;
        Ok(Self { http, base: base.clone(), key: key.to_owned().into(), key_from })
    }

    /// Reads something.
    ///
    /// # Errors
    /// When the engine cannot be reached or refuses.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(String, String)]) -> Result<T, CliError> {
        self.answer(self.request(Method::GET, path, query).timeout(CALL_TIME_MAX), READ_LOST).await
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
        self.answer(request.timeout(CALL_TIME_MAX).body(body), CHANGE_LOST).await
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
        self.answer(request.body(body), CHANGE_LOST).await
    }

    /// The list of this id or name; none when there is none of this name. What looks like an id is never taken for
    /// the name of a list to be made.
    ///
    /// # Errors
    /// When there is no list of this id, or the engine cannot be reached or refuses.
    pub async fn find_list(&self, id_or_name: &str) -> Result<Option<List>, CliError> {
        if let Ok(id) = id_or_name.parse::<ListId>() {
            return match self.get(&format!("/v1/lists/{id}"), &[]).await {
                Err(CliError::Refused(problem)) if problem.status == NOT_FOUND => Err(CliError::usage(format!(
                    "there is no list {id}, or it is not of the tenant whose key this is; check the id, or give the \
                     list's name"
                ))),
                found => found.map(Some),
            };
        }
        let lists: Page<List> = self.get("/v1/lists", &[]).await?;
        let named = lists.data.into_iter().find(|list| list.name == id_or_name);
        if named.is_none() && looks_like_an_id(id_or_name) {
            return Err(CliError::usage(format!(
                "`{id_or_name}` looks like an id and is not a list's: those are `{}_` and 13 characters of 0-9 and A-Z \
                 without I, L, O, U",
                ListId::PREFIX
            )));
        }
        Ok(named)
    }

    fn request(&self, method: Method, path: &str, query: &[(String, String)]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.request(method, url).bearer_auth(self.key.expose_secret())
    }

    /// Sends a request; `lost` says what to do when the connection breaks in the middle.
    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder, lost: &str) -> Result<T, CliError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error, lost))?;
        let status = response.status();
        let body = read(response).await.map_err(|error| self.unreachable(&error, lost))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| self.strange(status));
        }
        match serde_json::from_slice::<ProblemDocument>(&body) {
            Ok(problem) if status == StatusCode::UNAUTHORIZED => Err(self.key_refused(problem)),
            Ok(problem) if status.is_client_error() => Err(CliError::Refused(problem)),
            Ok(problem) => Err(CliError::Unavailable(format!("{} ({status})", problem.detail))),
            // What stands before the engine answers in its place.
            Err(_) if status.is_server_error() => {
                Err(CliError::Unavailable(format!("the engine at {} is not available now ({status})", self.base)))
            }
            Err(_) => Err(self.strange(status)),
        }
    }

    fn key_refused(&self, mut problem: ProblemDocument) -> CliError {
        problem.detail = format!(
            "the engine at {} does not take the key in {}: it is another installation's, expired or revoked; \
             `dispatch keys list` shows which are good, {MAKE_A_KEY}",
            self.base, self.key_from
        );
        CliError::Refused(problem)
    }

    fn unreachable(&self, error: &reqwest::Error, lost: &str) -> CliError {
        let what = if error.is_timeout() {
            "did not answer in time"
        } else if error.is_connect() {
            "cannot be reached; is `dispatch serve` running there? (--url or DISPATCH_URL names another address)"
        } else {
            lost
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

/// Whether a text begins as the ids of lists do, or is an id of something else.
fn looks_like_an_id(text: &str) -> bool {
    text.strip_prefix(ListId::PREFIX).is_some_and(|rest| rest.starts_with('_'))
        || text.parse::<SourceId>().is_ok()
        || text.parse::<ImportId>().is_ok()
        || text.parse::<TemplateId>().is_ok()
        || text.parse::<CampaignId>().is_ok()
}

/// An Idempotency-Key nobody has used.
pub(super) fn fresh_key() -> String {
    format!("cli-{:032x}", u128::from_be_bytes(random(&SystemEntropy::default())))
}
