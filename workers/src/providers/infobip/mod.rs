//! Infobip SMS: `POST /sms/3/messages`.
//!
//! A message's id is ours, so a repeat is refused and the log can be asked: a request without an answer is settled
//! for sure. A 200 is not yet an acceptance: the body has a status for each message. Wire contract: the vendor's
//! OpenAPI document of its SMS API, and
//! <https://www.infobip.com/docs/essentials/api-essentials/response-status-and-error-codes>.

mod answer;
mod events;
mod logs;
mod request;
mod statuses;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use dispatch_schemas::states::Channel;
use reqwest::Url;

pub(super) use events::CALLBACKS;
pub use request::body;

use super::{
    AccountError, Answer, Class, Contract, Finding, Ingredients, LookUpError, Provider, Question, Request,
    http::{Client, KeyHeader, answer_bytes_max, recipients_per_request},
};

/// The vendor names no limit on the messages of a request; this many were never heard to be refused.
const RECIPIENTS_MAX: usize = 500;
const RECIPIENTS_DEFAULT: usize = 100;

/// Builds an Infobip account.
///
/// # Errors
/// When a setting is out of range, or `url` is missing: each account has a host of its own.
pub fn build(ingredients: Ingredients) -> Result<Arc<dyn Provider>, AccountError> {
    let contract = Contract {
        kind: "infobip",
        channel: Channel::Sms,
        class: Class::ClientId,
        recipients_per_request: recipients_per_request(&ingredients.settings, RECIPIENTS_DEFAULT, RECIPIENTS_MAX)?,
    };
    let client = Client::build(ingredients, None, KeyHeader { name: "authorization", scheme: "App " })?;
    let send_url = client.url("sms/3/messages");
    let logs_url = client.url("sms/3/logs");
    Ok(Arc::new(Infobip { contract, client, send_url, logs_url }))
}

struct Infobip {
    contract: Contract,
    client: Client,
    send_url: Url,
    logs_url: Url,
}

#[async_trait]
impl Provider for Infobip {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    async fn send(&self, request: &Request<'_>) -> Answer {
        let recipients = request.recipients.len();
        let answer_max = answer_bytes_max(recipients);
        match self.client.post(self.send_url.clone(), body(request), request.send_by, answer_max).await {
            Ok(reply) => answer::verdicts(&reply, &self.client, request.recipients),
            Err(verdict) => Answer::all(&verdict, recipients),
        }
    }

    fn questions_per_request(&self) -> usize {
        logs::IDS_PER_REQUEST
    }

    async fn look_up(&self, questions: &[Question]) -> Result<Vec<Finding>, LookUpError> {
        logs::look_up(questions, &self.client, &self.logs_url).await
    }
}
