//! What an answer that is not a 2xx means.
//!
//! The rule above all: only an answer in which the provider itself says that it did not take the request is a
//! refusal. Everything else may have been taken.

use super::{
    Client, Reply,
    wait::{self, Reset},
};
use crate::providers::{Answer, Code, Signal, Verdict};

/// An account whose requests are answered by something that is not its provider is left alone for this long.
const STRANGER_WAIT: std::time::Duration = std::time::Duration::from_secs(30);

/// What a status says, when the body is the provider's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::providers) enum Meaning {
    /// The request is refused for what it holds: one bad recipient may be the cause.
    Content,
    /// The account is refused, or what we do is not what the provider offers: every request would be.
    Account(&'static str),
    /// We are too fast.
    TooFast,
    /// The provider is not there now; a refusal only when it says when to come back.
    Away,
}

/// What a provider's error body says, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::providers) struct Complaint {
    /// The recipients it names, by their place in the request.
    pub(in crate::providers) culprits: Vec<usize>,
    /// It has had this request already.
    pub(in crate::providers) duplicate: bool,
    /// It says more precisely than its status that the account is refused, and why.
    pub(in crate::providers) account: Option<&'static str>,
}

/// How a provider refuses.
#[derive(Debug)]
pub(in crate::providers) struct Dialect {
    /// What its statuses mean. One that is not here tells nothing.
    pub(in crate::providers) statuses: &'static [(u16, Meaning)],
    /// Its own header about the end of a limit.
    pub(in crate::providers) reset: Option<Reset>,
    /// Reads an error body; `None` when it is not one of the provider's.
    pub(in crate::providers) complaint: fn(&[u8]) -> Option<Complaint>,
}

impl Client {
    /// The verdicts of an answer that is not a 2xx.
    pub(in crate::providers) fn refusal(&self, reply: &Reply, dialect: &Dialect, recipients: usize) -> Answer {
        let now_ms = self.clock.now_ms();
        let status = u32::from(reply.status);
        let complaint = reply.body.as_deref().and_then(dialect.complaint);
        match (meaning(reply.status, dialect), complaint) {
            (Some(Meaning::TooFast), _) => {
                let wait = wait::asked_for(&reply.headers, dialect.reset, now_ms);
                throttled(wait.unwrap_or_else(|| wait::unnamed(self.entropy())), status, recipients)
            }
            (Some(Meaning::Away), _) => match wait::retry_after(&reply.headers, now_ms) {
                Some(wait) => throttled(wait, status, recipients),
                None => Answer::all(&Verdict::Unknown(Code::numbered("http", status)), recipients),
            },
            (Some(_), Some(Complaint { duplicate: true, .. })) => Answer::all(&Verdict::Duplicate, recipients),
            (Some(Meaning::Account(_)), Some(Complaint { account: Some(why), .. }))
            | (Some(Meaning::Content), Some(Complaint { account: Some(why), .. }))
            | (Some(Meaning::Account(why)), Some(_)) => account_refused(Code::known(why), recipients),
            (Some(Meaning::Content), Some(complaint)) => {
                content_refused(&Code::numbered("http", status), &complaint.culprits, recipients)
            }
            (Some(Meaning::Account(_) | Meaning::Content), None) => stranger(recipients),
            (None, _) if matches!(reply.status, 300..=399) || (reply.status < 500 && reply.is_web_page()) => {
                stranger(recipients)
            }
            (None, _) => Answer::all(&Verdict::Unknown(Code::numbered("http", status)), recipients),
        }
    }
}

fn meaning(status: u16, dialect: &Dialect) -> Option<Meaning> {
    dialect.statuses.iter().find(|(known, _)| *known == status).map(|(_, meaning)| *meaning)
}

/// The answer came from something that is not the provider, or not from where it speaks for it.
pub(in crate::providers) fn stranger(recipients: usize) -> Answer {
    Answer::all(&Verdict::Unknown(Code::known("not_the_providers_answer")), recipients)
        .with_signal(Signal::Wait(STRANGER_WAIT))
}

fn account_refused(why: Code, recipients: usize) -> Answer {
    Answer::all(&Verdict::AccountRefused(why.clone()), recipients).with_signal(Signal::Stop(why))
}

/// The answer to a request that is too large for its provider, without asking it.
pub(in crate::providers) fn too_large(recipients: usize) -> Answer {
    content_refused(&Code::known("request_too_large"), &[], recipients)
}

fn throttled(wait: std::time::Duration, status: u32, recipients: usize) -> Answer {
    Answer::all(&Verdict::Throttled(Code::numbered("http", status)), recipients).with_signal(Signal::Wait(wait))
}

/// A request alone is refused for its recipient. Of several, those the provider names are; the others were refused
/// with them, and try again.
fn content_refused(code: &Code, culprits: &[usize], recipients: usize) -> Answer {
    if recipients == 1 {
        return Answer::all(&Verdict::Refused(code.clone()), 1);
    }
    let mut answer = Answer::all(&Verdict::Deferred(code.clone()), recipients);
    for culprit in culprits {
        if let Some(verdict) = answer.verdicts.get_mut(*culprit) {
            *verdict = Verdict::Refused(code.clone());
        }
    }
    answer
}
