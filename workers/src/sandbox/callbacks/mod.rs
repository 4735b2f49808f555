//! The fakes call back: what becomes of each message they took, in their vendors' forms, signed as theirs are.
//!
//! What happens to a message is drawn from the seed and its address, so a run can be repeated. How it is told is drawn by
//! the [`CallbackPlan`] too: in batches, some reports doubled, late or out of order, some with a wrong signature. What was
//! told is counted, once for each message and kind, so that a ledger can be held against it. Addresses are kept until
//! they have been told and no longer.

mod calling;
mod forms;
mod plan;
mod signing;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BinaryHeap},
    sync::{Mutex, PoisonError, RwLock},
    time::Duration,
};

pub(super) use calling::call;
pub use plan::{CallbackPlan, CallbackPlanError};
use serde::{Deserialize, Serialize};
use signing::Signer;

use self::plan::Draw;
use super::{fake::Now, faults::mixed};

/// The header in which the fake of Infobip signs; the vendor lets its customers choose, and does not document it.
pub const SIGNATURE_HEADER: &str = "x-signature";

/// A message that a fake took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// The key the request gave this recipient.
    pub(super) key: Option<String>,
    /// The request's token.
    pub(super) token: Option<String>,
    /// The first of the request's tags.
    pub(super) tag: Option<String>,
    /// The fake's own id.
    pub(super) message_id: Option<String>,
    /// Whom it is for.
    pub(super) address: String,
}

/// What is told of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    Accepted,
    Deferred,
    Delivered,
    BouncedSoft,
    BouncedHard,
    Rejected,
    Complained,
    Unsubscribed,
}

impl Told {
    /// The word it is counted by: the one the ledger has for it.
    const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Deferred => "deferred",
            Self::Delivered => "delivered",
            Self::BouncedSoft => "bounced_soft",
            Self::BouncedHard => "bounced_hard",
            Self::Rejected => "rejected_by_provider",
            Self::Complained => "complained",
            Self::Unsubscribed => "unsubscribed",
        }
    }
}

/// A report on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    /// When it is told, by the monotonic clock, milliseconds.
    due_ms: u64,
    provider: &'static str,
    told: Told,
    /// When it happened, milliseconds since 1970.
    at_ms: i64,
    /// Names it.
    number: u64,
    /// Whether it is told with a wrong signature.
    forged: bool,
    message: Taken,
}

impl Ord for Report {
    /// The greatest is the next.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due_ms, other.number, other.forged).cmp(&(self.due_ms, self.number, self.forged))
    }
}

impl PartialOrd for Report {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What was told so far. `GET /sandbox/callbacks` answers with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallbackCounts {
    /// Reports that are not told yet, or were not taken.
    pub pending: u64,
    /// Calls that were taken with a 2xx.
    pub taken: u64,
    /// Calls that were refused with a 401.
    pub refused: u64,
    /// Messages that something was told of, by what.
    pub told: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Waiting {
    reports: BinaryHeap<Report>,
    next: u64,
    counts: CallbackCounts,
}

/// The reports that wait to be told, and how.
pub(super) struct Callbacks {
    seed: u64,
    signer: Signer,
    /// Where to, and how it is told; nothing is while there is none.
    target: RwLock<Option<(String, CallbackPlan)>>,
    waiting: Mutex<Waiting>,
}

impl Callbacks {
    pub(super) fn new(seed: u64, secret: String) -> Result<Self, signing::NoKey> {
        Ok(Self { seed, signer: Signer::new(secret)?, target: RwLock::default(), waiting: Mutex::default() })
    }

    /// The key the fake of SendGrid signs with, as the vendor shows it.
    pub(super) fn public_key(&self) -> String {
        self.signer.public_key()
    }

    /// From now on, tells what is taken to this URL and the provider's name behind it; nothing without one.
    pub(super) fn call_back_to(&self, target: Option<(String, CallbackPlan)>) {
        *self.target.write().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// What was told so far.
    pub(super) fn counts(&self) -> CallbackCounts {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).counts.clone()
    }

    /// A fake took these.
    pub(super) fn taken(&self, provider: &'static str, messages: impl Iterator<Item = Taken>, now: Now) {
        let target = self.target.read().unwrap_or_else(PoisonError::into_inner);
        let Some((_, plan)) = &*target else { return };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            let fate = plan.fate(provider, draw(self.seed, &message.address));
            for (nth, told) in fate.story().iter().enumerate() {
                waiting.add(provider, *told, &message, (nth as u64, now), plan, self.seed);
            }
        }
    }
}

impl Waiting {
    fn add(
        &mut self,
        provider: &'static str,
        told: Told,
        message: &Taken,
        (nth, now): (u64, Now),
        plan: &CallbackPlan,
        seed: u64,
    ) {
        if !forms::has_a_form(provider, told) {
            return;
        }
        let number = self.next;
        self.next += 1;
        let mut draws = Draw::new(mixed(seed ^ mixed(number)));
        let now_ms = u64::try_from(now.monotonic.as_millis()).unwrap_or(u64::MAX);
        let report = Report {
            due_ms: now_ms + nth + plan.delay(&mut draws),
            provider,
            told,
            at_ms: now.wall_ms + i64::try_from(nth).unwrap_or(0) * 1_000,
            number,
            forged: false,
            message: message.clone(),
        };
        // A STOP is sent to our number and names no message.
        if provider != "infobip" || told != Told::Unsubscribed {
            *self.counts.told.entry(told.word().to_owned()).or_default() += 1;
        }
        if plan.doubles(&mut draws) {
            self.push(Report { due_ms: report.due_ms + plan.delay(&mut draws), ..report.clone() });
        }
        if plan.forges(&mut draws) {
            self.push(Report { forged: true, told: Told::BouncedHard, ..report.clone() });
        }
        self.push(report);
    }

    fn push(&mut self, report: Report) {
        self.counts.pending += 1;
        self.reports.push(report);
    }

    /// Reports that are due, at most so many, all of one provider and all signed alike.
    fn due(&mut self, now: Duration, most: impl Fn(&str) -> usize) -> Vec<Report> {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut due: Vec<Report> = Vec::new();
        let mut others = Vec::new();
        while let Some(next) = self.reports.peek()
            && next.due_ms <= now_ms
            && due.first().is_none_or(|first| due.len() < most(first.provider))
            && others.len() < OTHERS_MAX
        {
            let Some(next) = self.reports.pop() else { break };
            match due.first() {
                Some(first) if (first.provider, first.forged) != (next.provider, next.forged) => others.push(next),
                _ => due.push(next),
            }
        }
        self.reports.extend(others);
        due
    }
}

/// Reports of other providers that are looked past while a call is filled.
const OTHERS_MAX: usize = 2_000;

/// A number from 0 to 1 that depends on the seed and the address alone.
fn draw(seed: u64, address: &str) -> f64 {
    let hash = address.bytes().fold(seed, |hash, byte| mixed(hash ^ u64::from(byte)));
    Draw::new(hash).next()
}
