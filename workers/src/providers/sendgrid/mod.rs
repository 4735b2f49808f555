//! SendGrid: `POST /v3/mail/send`.
//!
//! One request carries the page once and, for each recipient, what differs. SendGrid takes a request as a whole or
//! refuses it as a whole, remembers no key of ours, and echoes one in its events; so a request without an answer is
//! settled by events alone. Wire contract: the vendor's OpenAPI document (`twilio/sendgrid-oai`, `mail_v3`) and
//! <https://www.twilio.com/docs/sendgrid/api-reference/mail-send>.

mod answer;
mod events;
mod request;
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
    http::{Client, KeyHeader, answer_bytes_max, recipients_per_request, too_large},
};
use crate::message::{Message, Recipient};

/// The host of European regional subusers, whose keys work nowhere else: mail that is to stay in Europe must not
/// leave it by an oversight.
pub(super) const DEFAULT_URL: &str = "https://api.eu.sendgrid.com";

/// The vendor takes 1,000 personalizations in a request. The default is less, because a request without an answer
/// leaves the outcome of all its recipients open.
const RECIPIENTS_MAX: usize = 1_000;
const RECIPIENTS_DEFAULT: usize = 250;

/// "Less than 30 MB" with everything in it.
const REQUEST_BYTES_MAX: usize = 29_999_999;

/// Builds a SendGrid account.
///
/// # Errors
/// When a setting is out of range.
pub fn build(ingredients: Ingredients) -> Result<Arc<dyn Provider>, AccountError> {
    let contract = Contract {
        kind: "sendgrid",
        channel: Channel::Email,
        class: Class::EchoOnly,
        recipients_per_request: recipients_per_request(&ingredients.settings, RECIPIENTS_DEFAULT, RECIPIENTS_MAX)?,
    };
    let key_header = KeyHeader { name: "authorization", scheme: "Bearer " };
    let client = Client::build(ingredients, Some(DEFAULT_URL), key_header)?;
    let send_url = client.url("v3/mail/send");
    Ok(Arc::new(SendGrid { contract, client, send_url }))
}

struct SendGrid {
    contract: Contract,
    client: Client,
    send_url: Url,
}

#[async_trait]
impl Provider for SendGrid {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn fits_batch(&self, message: &Message, recipient: &Recipient) -> bool {
        request::substitutions_fit(message, recipient)
    }

    async fn send(&self, request: &Request<'_>) -> Answer {
        let recipients = request.recipients.len();
        let body = body(request, self.client.entropy());
        if body.len() > REQUEST_BYTES_MAX {
            return too_large(recipients);
        }
        let answer_max = answer_bytes_max(recipients);
        match self.client.post(self.send_url.clone(), body, request.send_by, answer_max).await {
            Ok(reply) => answer::verdicts(&reply, &self.client, recipients),
            Err(verdict) => Answer::all(&verdict, recipients),
        }
    }

    /// Its message log is a paid extra, is empty for European subusers, and cannot be asked by our key.
    async fn look_up(&self, questions: &[Question]) -> Result<Vec<Finding>, LookUpError> {
        Ok(vec![Finding::CannotTell; questions.len()])
    }
}
