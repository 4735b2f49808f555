//! The HTTP mechanism the providers share.
//!
//! One client per account: TLS only (plain HTTP to this machine alone), HTTP/1.1 with kept connections, no redirects,
//! no proxy from the environment, no retries behind our back. A request either certainly stayed here
//! ([`Verdict::NotSent`]) or may have been taken ([`Verdict::Unknown`]); the module `departure` decides which, not the kind of
//! error. What an answer means is data of each provider (a `Dialect`).

mod departure;
mod json;
mod refusal;
mod reply;
mod settings;
#[cfg(test)]
pub(super) mod test_server;
#[cfg(test)]
mod tests;
mod wait;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Body, Url,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret as _, SecretString};

use departure::{Departing, Departure};
pub(super) use json::{Finished, KeyText, TokenText, write};
pub(super) use refusal::{Complaint, Dialect, Meaning, stranger, too_large};
pub(super) use reply::{Reply, answer_bytes_max, bounded_id};
pub(super) use settings::recipients_per_request;
pub(super) use wait::Reset;

use super::{AccountError, AccountSettings, Code, Ingredients, Verdict};
use crate::clock::{Clock, Entropy};

/// How long a connection waits for its next request. Short, because a provider that closes an idle connection just
/// as we write to it leaves a request whose outcome nobody knows; the providers keep theirs for a minute and more.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// What carries the API key: the header's name, and what stands before the key in its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyHeader {
    pub(super) name: &'static str,
    pub(super) scheme: &'static str,
}

/// The HTTP side of one account.
pub(super) struct Client {
    client: reqwest::Client,
    base: Url,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Client {
    /// The client of an account. `default_url` is used when the settings name none; it is not used for providers
    /// that give each account a host of its own.
    ///
    /// # Errors
    /// When a setting is out of range, the URL is not one a key may be sent to, or the certificate file is unusable.
    pub(super) fn build(
        ingredients: Ingredients,
        default_url: Option<&str>,
        key_header: KeyHeader,
    ) -> Result<Self, AccountError> {
        let Ingredients { settings, secret, clock, entropy } = ingredients;
        let settings = &settings;
        settings::check(settings)?;
        let base = settings::base_url(settings, default_url)?;
        let headers = headers(settings, key_header, &secret)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("dispatch/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .http1_only()
            .https_only(base.scheme() == "https")
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(settings.requests_open_max)
            .pool_idle_timeout(IDLE_MAX)
            .connect_timeout(Duration::from_secs(settings.connect_timeout_s))
            .timeout(Duration::from_secs(settings.answer_timeout_s));
        if base.scheme() == "http" {
            // The name of this machine is not asked of anybody: it is this machine.
            builder = builder.resolve("localhost", (std::net::Ipv4Addr::LOCALHOST, 0).into());
        }
        for certificate in settings::certificates(settings)? {
            builder = builder.tls_certs_merge([certificate]);
        }
        let client = builder.build().map_err(|_| {
            let from = settings.ca_file.as_ref().map_or_else(
                || "the system's certificate authorities".to_owned(),
                |file| format!("the certificate authorities of the system and of {}", file.display()),
            );
            AccountError::Setting(format!("TLS cannot be set up with {from}"))
        })?;
        Ok(Self { client, base, clock, entropy })
    }

    /// The URL of `path` (no leading slash) under the account's own.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let whole = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&whole);
        url
    }

    /// Sends `body` and reads at most `answer_max` bytes of the answer.
    ///
    /// # Errors
    /// The verdict for every recipient, when there is no answer: [`Verdict::NotSent`] when no byte of `body` left
    /// before `send_by` ([`Clock::monotonic`]) and none can leave any more, else [`Verdict::Unknown`].
    pub(super) async fn post(
        &self,
        url: Url,
        body: Vec<u8>,
        send_by: Duration,
        answer_max: usize,
    ) -> Result<Reply, Verdict> {
        if self.clock.monotonic() >= send_by {
            return Err(Verdict::NotSent(departure::TOO_LATE));
        }
        let departure = Arc::new(Departure::default());
        let length = body.len();
        let body = Departing::new(Bytes::from(body), send_by, self.clock.clone(), departure.clone());
        let sent = self
            .client
            .post(url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(CONTENT_LENGTH, length)
            .body(Body::wrap(body))
            .send()
            .await;
        match sent {
            Ok(response) => Ok(Reply::read(response, answer_max).await),
            Err(error) if departure.call_off() => Err(Verdict::NotSent(not_sent(&error, &departure))),
            Err(error) if error.is_timeout() => Err(Verdict::Unknown(Code::known("answer_timeout"))),
            Err(_) => Err(Verdict::Unknown(Code::known("connection_lost"))),
        }
    }

    /// Asks for `url` and reads at most `answer_max` bytes of the answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn get(&self, url: Url, answer_max: usize) -> Result<Reply, Code> {
        match self.client.get(url).send().await {
            Ok(response) => Ok(Reply::read(response, answer_max).await),
            Err(error) if error.is_connect() => Err(Code::known("connect_failed")),
            Err(error) if error.is_timeout() => Err(Code::known("answer_timeout")),
            Err(_) => Err(Code::known("connection_lost")),
        }
    }

    /// Randomness, for what a request must not repeat.
    pub(super) fn entropy(&self) -> &dyn Entropy {
        self.entropy.as_ref()
    }
}

fn not_sent(error: &reqwest::Error, departure: &Departure) -> Code {
    if departure.was_too_late() {
        departure::TOO_LATE
    } else if error.is_timeout() {
        Code::known("connect_timeout")
    } else {
        Code::known("connect_failed")
    }
}

fn headers(
    settings: &AccountSettings,
    key_header: KeyHeader,
    secret: &SecretString,
) -> Result<HeaderMap, AccountError> {
    let key = secret.expose_secret().trim();
    if key.is_empty() {
        return Err(AccountError::Setting(format!("the API key of this {} account is empty", settings.kind)));
    }
    let mut value = HeaderValue::from_str(&format!("{}{key}", key_header.scheme)).map_err(|_| {
        AccountError::Setting(format!(
            "the API key of this {} account holds characters that no API key has; its file must hold the key alone",
            settings.kind
        ))
    })?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(HeaderName::from_static(key_header.name), value);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    Ok(headers)
}
