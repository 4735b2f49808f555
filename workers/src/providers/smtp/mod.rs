//! A mail relay, over SMTP.
//!
//! **Contract.** One mail, one recipient, one transaction. A relay knows nothing about repeats (class
//! [`Class::Nothing`]) and keeps no log that can be asked: what is unknown stays so until the campaign's policy
//! decides. The mail is the relay's from its 2xx to the final dot on, and not before (RFC 5321 §4.2.5, §6.1).
//!
//! **Settings.** `url` is `smtp://host:port` (STARTTLS is demanded; the default port is 587) or `smtps://host:port`
//! (TLS from the first octet; 465). Certificate and name are verified against the system's authorities and `ca_file`.
//! Without TLS the engine speaks to loopback addresses only, and there only as long as no `ca_file` is set. With
//! `user`, the secret is the password for AUTH PLAIN or LOGIN.
//!
//! **Verdicts.** A refusal up to MAIL is about the account or its sender, from RCPT on about the recipient:
//!
//! | ends with | verdict | account |
//! |---|---|---|
//! | DNS, TCP, TLS, EHLO failed; broken or silent before the mail's first octet | not sent | |
//! | 421 to anything; 4xx as greeting, to AUTH or MAIL | throttled | waits 5 s |
//! | 5xx as greeting | account refused | waits 60 s |
//! | 5xx to AUTH or MAIL; 4xx to AUTH that speaks of credit; no AUTH offered | account refused | stops |
//! | 4xx, 5xx to RCPT, DATA or the final dot | deferred, refused | |
//! | 2xx to the final dot | accepted | |
//! | anything else once the mail's first octet is out | unknown | |

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use dispatch_schemas::states::Channel;

use super::{
    AccountError, Answer, Class, Code, Contract, Finding, Ingredients, LookUpError, Provider, Question, Request,
    Signal, Verdict,
};
use crate::{
    clock::Clock,
    message::{Message, Recipient},
};

mod connection;
mod dialogue;
pub mod mime;
mod opening;
mod pool;
mod relay;
mod replies;
#[cfg(test)]
mod tests;

use mime::Mail;
use pool::Pool;
use relay::Relay;
use replies::{Ending, Stage, judge};

/// Most connections to one relay: more than any relay takes from one client (SendGrid: 10,000).
const OPEN_MAX: usize = 10_000;

const LATE: Code = Code::known("send_deadline");

/// Builds the account.
///
/// # Errors
/// [`AccountError::Setting`] when a setting is missing or out of range.
pub fn build(ingredients: Ingredients) -> Result<Arc<dyn Provider>, AccountError> {
    let Ingredients { settings, secret, clock, .. } = ingredients;
    if settings.recipients_per_request.is_some_and(|recipients| recipients != 1) {
        return Err(AccountError::Setting("`recipients_per_request` must be 1 for SMTP, or left out".to_owned()));
    }
    if !(1..=OPEN_MAX).contains(&settings.requests_open_max) {
        return Err(AccountError::Setting(format!("`requests_open_max` must be 1 to {OPEN_MAX}")));
    }
    let relay = Relay::from_settings(&settings, secret)?;
    let contract = Contract { kind: "smtp", channel: Channel::Email, class: Class::Nothing, recipients_per_request: 1 };
    Ok(Arc::new(Smtp { contract, pool: Pool::new(relay, settings.requests_open_max, Arc::clone(&clock)), clock }))
}

struct Smtp {
    contract: Contract,
    pool: Arc<Pool>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Provider for Smtp {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    async fn send(&self, request: &Request<'_>) -> Answer {
        let mut answer = Answer { verdicts: Vec::with_capacity(request.recipients.len()), signal: None };
        for recipient in request.recipients {
            let (verdict, signal) = self.send_one(request.message, recipient, request.send_by).await;
            answer.verdicts.push(verdict);
            answer.signal = signal.or(answer.signal);
        }
        answer
    }

    async fn look_up(&self, questions: &[Question]) -> Result<Vec<Finding>, LookUpError> {
        Ok(vec![Finding::CannotTell; questions.len()])
    }
}

impl Smtp {
    async fn send_one(&self, message: &Message, recipient: &Recipient, send_by: Duration) -> (Verdict, Option<Signal>) {
        let mail = match mime::compose(message, recipient, self.clock.now_ms()) {
            Ok(mail) => mail,
            Err(unmailable) => return (Verdict::Refused(unmailable.code()), None),
        };
        let Some(_slot) = self.pool.slot().await else { return (Verdict::NotSent(LATE), None) };
        // A connection may have died on the shelf in a way that shows only when it is used: nothing was said over it
        // then, and the mail goes over a new one.
        if let Some(used) = self.pool.idle() {
            match self.hand_over(used, &mail, send_by).await {
                Handed::Ended(Ending::Broken(Stage::Reset | Stage::Sender | Stage::SenderUtf8, _)) => {}
                handed => return handed.judged(),
            }
        }
        match self.pool.open().await {
            Ok(opened) => self.hand_over(opened, &mail, send_by).await.judged(),
            Err(ending) => judge(ending),
        }
    }

    async fn hand_over(&self, mut connection: connection::Connection, mail: &Mail, send_by: Duration) -> Handed {
        let handed = match connection.check(mail) {
            Err(misfit) => Handed::Unfit(misfit.code()),
            Ok(()) if self.clock.monotonic() >= send_by => Handed::Late,
            Ok(()) => Handed::Ended(connection.transact(mail).await),
        };
        self.pool.give_back(connection).await;
        handed
    }
}

/// What became of a mail on a connection.
enum Handed {
    /// The transaction was begun, and ended so.
    Ended(Ending),
    /// It was too late to begin it.
    Late,
    /// The relay does not take such a mail.
    Unfit(Code),
}

impl Handed {
    fn judged(self) -> (Verdict, Option<Signal>) {
        match self {
            Self::Ended(ending) => judge(ending),
            Self::Late => (Verdict::NotSent(LATE), None),
            Self::Unfit(code) => (Verdict::Refused(code), None),
        }
    }
}
