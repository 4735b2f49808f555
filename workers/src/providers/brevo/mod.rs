//! Brevo: e-mail by `POST /v3/smtp/email`, text messages by `POST /v3/transactionalSMS/send`.
//!
//! For e-mail Brevo remembers a key of ours for a while and refuses a repeat, so a request without an answer is
//! settled by asking again; later by its event log, as far as that shows the request. It runs a template language over all mail content; the module `braces` keeps content out of it.
//! For text messages it remembers nothing. Wire contract: the vendor's API reference,
//! <https://developers.brevo.com/reference/send-transac-email> and
//! <https://developers.brevo.com/reference/send-transac-sms>.

mod answer;
mod braces;
mod email;
mod events;
mod log;
mod sms;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use dispatch_schemas::states::Channel;
use reqwest::Url;

pub use email::body as email_body;
pub(super) use events::{EMAIL_CALLBACKS, SMS_CALLBACKS};
pub use sms::body as sms_body;

use super::{
    AccountError, Answer, Class, Contract, Finding, Ingredients, LookUpError, Provider, Question, Request,
    http::{Client, KeyHeader, answer_bytes_max, recipients_per_request, too_large},
};
use crate::message::{Message, Recipient};

/// The one host of this French company.
pub(super) const DEFAULT_URL: &str = "https://api.brevo.com";

const KEY_HEADER: KeyHeader = KeyHeader { name: "api-key", scheme: "" };

/// The vendor's guide allows 1,000 versions in a request. The default is less, because they share one key and one
/// fate.
const RECIPIENTS_MAX: usize = 1_000;
const RECIPIENTS_DEFAULT: usize = 100;

/// The vendor names 30 minutes on one page and 15 in an announcement; this is the shorter less two minutes for clocks
/// and queues.
const KEY_SAFE_FOR: Duration = Duration::from_secs(13 * 60);

/// "20 MB" is the most one mail may have; a request of many is not known to be allowed more.
const REQUEST_BYTES_MAX: usize = 20_000_000;

/// Builds a Brevo account for e-mail.
///
/// # Errors
/// When a setting is out of range.
pub fn build_email(ingredients: Ingredients) -> Result<Arc<dyn Provider>, AccountError> {
    let contract = Contract {
        kind: "brevo",
        channel: Channel::Email,
        class: Class::KeyWithTtl { safe_for: KEY_SAFE_FOR },
        recipients_per_request: recipients_per_request(&ingredients.settings, RECIPIENTS_DEFAULT, RECIPIENTS_MAX)?,
    };
    let client = Client::build(ingredients, Some(DEFAULT_URL), KEY_HEADER)?;
    let (send_url, log_url) = (client.url("v3/smtp/email"), client.url("v3/smtp/statistics/events"));
    Ok(Arc::new(Email { contract, client, send_url, log_url }))
}

/// Builds a Brevo account for text messages.
///
/// # Errors
/// When a setting is out of range.
pub fn build_sms(ingredients: Ingredients) -> Result<Arc<dyn Provider>, AccountError> {
    let contract = Contract {
        kind: "brevo_sms",
        channel: Channel::Sms,
        class: Class::EchoOnly,
        recipients_per_request: recipients_per_request(&ingredients.settings, 1, 1)?,
    };
    let client = Client::build(ingredients, Some(DEFAULT_URL), KEY_HEADER)?;
    let send_url = client.url("v3/transactionalSMS/send");
    Ok(Arc::new(Sms { contract, client, send_url }))
}

struct Email {
    contract: Contract,
    client: Client,
    send_url: Url,
    log_url: Url,
}

#[async_trait]
impl Provider for Email {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    /// A header of one's own, such as the one-click unsubscribe, is documented for a whole request only.
    fn fits_batch(&self, message: &Message, recipient: &Recipient) -> bool {
        recipient.list_unsubscribe.is_none()
            && email::params_fit(message, recipient, self.contract.recipients_per_request)
    }

    async fn send(&self, request: &Request<'_>) -> Answer {
        let recipients = request.recipients.len();
        let body = email_body(request);
        if body.len() > REQUEST_BYTES_MAX {
            return too_large(recipients);
        }
        let answer_max = answer_bytes_max(recipients);
        match self.client.post(self.send_url.clone(), body, request.send_by, answer_max).await {
            Ok(reply) => answer::email_verdicts(&reply, &self.client, recipients),
            Err(verdict) => Answer::all(&verdict, recipients),
        }
    }

    /// A question is about the whole request that a delivery was in.
    async fn look_up(&self, questions: &[Question]) -> Result<Vec<Finding>, LookUpError> {
        log::look_up(questions, &self.client, &self.log_url).await
    }
}

struct Sms {
    contract: Contract,
    client: Client,
    send_url: Url,
}

#[async_trait]
impl Provider for Sms {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    async fn send(&self, request: &Request<'_>) -> Answer {
        let recipients = request.recipients.len();
        let [recipient] = request.recipients else { return too_large(recipients) };
        let body = sms_body(request.message, recipient);
        match self.client.post(self.send_url.clone(), body, request.send_by, answer_bytes_max(1)).await {
            Ok(reply) => answer::sms_verdict(&reply, &self.client),
            Err(verdict) => Answer::all(&verdict, 1),
        }
    }

    /// Its event log is asked by phone number and day; two messages of a day to one number look the same.
    async fn look_up(&self, questions: &[Question]) -> Result<Vec<Finding>, LookUpError> {
        Ok(vec![Finding::CannotTell; questions.len()])
    }
}
