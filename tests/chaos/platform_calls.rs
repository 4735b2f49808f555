//! The platform's side: calls of the API that are tried again until they are answered.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dispatch_schemas::{ids::CampaignId, states::Channel};
use dispatch_tests::support::{checker::Closing, sandbox::name_of, wait};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{audience::Audience, fleet::Addresses, plan::What};

/// How long a call may take before it is tried elsewhere.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// The wait before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(150);

/// Somebody with an API key.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    client: Client,
    key: String,
    addresses: Addresses,
    /// One pause of a campaign at a time. Tells whether a call to resume it may still be under way somewhere: one that
    /// was given up on in a process that stands still.
    pauses: Arc<[Mutex<bool>]>,
}

/// What came of a call.
#[derive(Debug, Clone)]
struct Answered {
    status: StatusCode,
    body: Value,
    /// Whether it was tried more than once: an earlier try may have been carried out.
    again: bool,
}

impl Caller {
    pub(crate) fn new(key: String, addresses: Addresses, audiences: usize) -> Self {
        let client = Client::builder().timeout(ANSWERED_WITHIN).pool_max_idle_per_host(0).build();
        let pauses = (0..audiences).map(|_| Mutex::new(false)).collect();
        Self { client: client.expect("a client can be made"), key, addresses, pauses }
    }

    /// Carries out a wish; returns what may not be sent from its answer on.
    pub(crate) async fn wish(&self, what: What, audiences: &[Audience], campaigns: &[CampaignId]) -> Option<Closing> {
        let person = |audience: usize, number: usize| {
            let about = &audiences[audience];
            (about.address(number), about.channel)
        };
        match what {
            What::Suppress { audience, number } => {
                let (address, channel) = person(audience, number);
                let body = json!({"addresses": [address], "channel": channel});
                let answer = self.call("/v1/suppressions", &body).await;
                Some(closing("suppressed", [name_of(&address)], &expected(answer).body))
            }
            What::Erase { audience, number } => {
                let (address, channel) = person(audience, number);
                let body = match channel {
                    Channel::Email => json!({"email": address}),
                    Channel::Sms => json!({"phone": address}),
                };
                let answer = self.call("/v1/erasures", &body).await;
                Some(closing("erased", [name_of(&address)], &expected(answer).body))
            }
            What::Cancel { audience } => {
                let answer = self.call(&path(campaigns[audience], "cancel"), &Value::Null).await;
                // On a quick machine it may have ended before.
                let ended = answer.status == StatusCode::CONFLICT;
                (!ended).then(|| closing("cancelled", audiences[audience].names(), &expected(answer).body))
            }
            What::Pause { audience, lasts } => {
                let mut straying = self.pauses[audience].lock().await;
                let answer = self.call(&path(campaigns[audience], "pause"), &Value::Null).await;
                // It has ended, or an earlier try paused it and nobody knows how many messages were on their way.
                let paused = answer.status.is_success() && !*straying;
                let mut closed = paused.then(|| closing("paused", audiences[audience].names(), &answer.body));
                tokio::time::sleep(lasts).await;
                if let Some(closed) = &mut closed {
                    closed.until_ms = Some(wait::now_ms());
                }
                *straying |= self.resume(campaigns[audience]).await.again;
                closed
            }
        }
    }

    /// Resumes a campaign, if it is paused.
    async fn resume(&self, campaign: CampaignId) -> Answered {
        self.call(&path(campaign, "resume"), &Value::Null).await
    }

    /// Resumes a campaign that a straying call has paused.
    pub(crate) async fn go_on(&self, campaign: CampaignId) {
        self.resume(campaign).await;
    }

    /// Posts until there is an answer that says something about the call.
    async fn call(&self, path: &str, body: &Value) -> Answered {
        let mut nth = 0;
        loop {
            if let Some(address) = self.addresses.nth(nth)
                && let Some((status, body)) = self.post(address, path, body).await
                && !status.is_server_error()
                && status != StatusCode::TOO_MANY_REQUESTS
            {
                return Answered { status, body, again: nth > 0 };
            }
            nth += 1;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn post(&self, address: SocketAddr, path: &str, body: &Value) -> Option<(StatusCode, Value)> {
        let mut request = self.client.post(format!("http://{address}{path}")).bearer_auth(&self.key);
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.ok()?;
        let status = answer.status();
        Some((status, serde_json::from_slice(&answer.bytes().await.ok()?).ok()?))
    }
}

fn path(campaign: CampaignId, what: &str) -> String {
    format!("/v1/campaigns/{campaign}/{what}")
}

fn expected(answer: Answered) -> Answered {
    assert!(answer.status.is_success(), "the API refuses what it must take: {} {}", answer.status, answer.body);
    answer
}

fn closing(what: &'static str, people: impl IntoIterator<Item = String>, answer: &Value) -> Closing {
    Closing {
        what,
        people: people.into_iter().collect(),
        from_ms: wait::now_ms(),
        until_ms: None,
        in_flight: answer["in_flight"].as_u64().expect("the answer says how many were on their way"),
    }
}
