//! Which deliveries of a batch may be claimed.

use std::collections::BTreeSet;

use dispatch_schemas::{
    ids::{AttemptId, CampaignId, TenantId},
    states::{Channel, DeliveryState, Lane, Purpose, StopReason},
};
use dispatch_workers::{
    delivery::{Claim, Claimed, ClaimedDelivery, SealedContact},
    message::{SendKey, Token},
    providers::Class,
    sealing::SendKeys,
};

/// What a claim needs to know of its campaign, apart from the plan's borrowed parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimer {
    pub(super) campaign: CampaignId,
    pub(super) tenant: TenantId,
    pub(super) channel: Channel,
    pub(super) purpose: Purpose,
    pub(super) lane: Lane,
    pub(super) token: Token,
    pub(super) now_ms: i64,
    /// Class A: for how long the provider remembers a key, milliseconds.
    key_safe_ms: Option<i64>,
    /// Whether each delivery travels in a request of its own, with a key of its own.
    pub(super) singles: bool,
}

impl Claimer {
    pub(super) fn new(claim: &Claim<'_>) -> Self {
        let plan = claim.plan;
        let contract = plan.account.contract();
        let key_safe_ms = match contract.class {
            Class::KeyWithTtl { safe_for } => Some(i64::try_from(safe_for.as_millis()).unwrap_or(i64::MAX / 4)),
            Class::ClientId | Class::EchoOnly | Class::Nothing => None,
        };
        Self {
            key_safe_ms,
            singles: contract.recipients_per_request == 1,
            campaign: plan.campaign,
            tenant: plan.tenant,
            channel: plan.channel,
            purpose: plan.purpose,
            lane: plan.lane,
            token: claim.token,
            now_ms: 0,
        }
    }

    /// At the moment of the transaction: a claim that waited for the ledger is as old as its commit.
    pub(super) const fn at(self, now_ms: i64) -> Self {
        Self { now_ms, ..self }
    }

    /// The key of the request that a new attempt makes, where all its recipients share one.
    pub(super) fn request_key(&self) -> Option<SendKey> {
        self.key_safe_ms.map(|_| SendKeys::batch_key(self.token))
    }

    pub(super) fn nothing(&self) -> Claimed {
        Claimed { attempt: None, token: self.token, root: self.token, deliveries: Vec::new(), again: Vec::new() }
    }
}

/// The columns of a contact's address for a channel: sealed, its keyed hash, its destination.
pub(super) const fn address_columns(channel: Channel) -> (&'static str, &'static str, &'static str) {
    match channel {
        Channel::Email => ("email", "email_hash", "email_destination"),
        Channel::Sms => ("phone", "phone_hash", "phone_destination"),
    }
}

/// The reasons of closed gates that stop a campaign of this purpose, as an SQL list of our own words.
pub(super) fn stopping_reasons(purpose: Purpose) -> String {
    let words: Vec<String> = StopReason::ALL
        .iter()
        .filter(|reason| reason.stops(purpose))
        .map(|reason| format!("'{}'", reason.as_str()))
        .collect();
    words.join(",")
}

/// A ready delivery as it is looked at.
pub(super) struct Candidate {
    pub(super) seq: i64,
    pub(super) key_epoch: i64,
    pub(super) attempts: i64,
    pub(super) alone: bool,
    /// Whether an earlier attempt with its key may have been accepted.
    pub(super) doubted: bool,
    pub(super) root: Option<AttemptId>,
    pub(super) first_sent_at_ms: Option<i64>,
    /// The person; `None` once erased.
    pub(super) contact: Option<SealedContact>,
    /// The first closed gate that stops it.
    pub(super) gate: Option<StopReason>,
}

impl Candidate {
    /// Whether it may have been accepted under a key that its provider has forgotten by now.
    fn is_too_late(&self, claimer: &Claimer) -> bool {
        let (Some(first), Some(safe_ms)) = (self.first_sent_at_ms, claimer.key_safe_ms) else { return false };
        self.doubted && first.saturating_add(safe_ms) <= claimer.now_ms
    }

    /// The request it must be repeated with, when its provider remembers the key of a whole request.
    fn root_to_ask(&self, claimer: &Claimer) -> Option<AttemptId> {
        let asks = claimer.key_safe_ms.is_some() && self.doubted && !self.alone && !self.is_too_late(claimer);
        self.root.filter(|_| asks)
    }
}

/// A delivery that may not be sent.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) seq: i64,
    /// What it becomes: one that may have been accepted before can't be called stopped.
    pub(super) state: DeliveryState,
    pub(super) reason: StopReason,
}

/// A batch's candidates: those to claim, and those that may not be sent.
#[derive(Default)]
pub(super) struct Sifted {
    pub(super) claimed: Vec<ClaimedDelivery>,
    pub(super) closed: Vec<Closed>,
    /// May have been accepted under a key that the provider has forgotten by now: not to be repeated.
    pub(super) too_late: Vec<i64>,
    /// Requests that must be repeated whole instead, by their first attempt.
    pub(super) roots: BTreeSet<AttemptId>,
}

impl Sifted {
    /// Takes a candidate, unless it must be repeated with a whole request.
    pub(super) fn take_or_ask(&mut self, candidate: Candidate, claimer: &Claimer) {
        match candidate.root_to_ask(claimer) {
            Some(root) => drop(self.roots.insert(root)),
            None => self.take(candidate, claimer),
        }
    }

    /// Takes a candidate, alone or as the member of the request that is repeated.
    pub(super) fn take(&mut self, candidate: Candidate, claimer: &Claimer) {
        let Candidate { seq, doubted, .. } = candidate;
        if candidate.is_too_late(claimer) {
            self.too_late.push(seq);
            return;
        }
        let reason = if candidate.contact.is_none() { Some(StopReason::Erased) } else { candidate.gate };
        if let Some(reason) = reason {
            let state = if doubted { DeliveryState::UnknownFinal } else { DeliveryState::Stopped };
            self.closed.push(Closed { seq, state, reason });
            return;
        }
        self.claimed.push(ClaimedDelivery {
            seq,
            key_epoch: u8::try_from(candidate.key_epoch).unwrap_or(u8::MAX),
            attempt_no: u8::try_from(candidate.attempts.saturating_add(1)).unwrap_or(u8::MAX),
            alone: candidate.alone,
            contact: candidate.contact,
        });
    }
}
