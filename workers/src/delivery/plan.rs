//! What a worker knows of a campaign: made once, shared by all its deliveries.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use dispatch_schemas::{
    api::sending_window::SendingWindow,
    ids::{CampaignId, TenantId},
    states::{Channel, Lane, Purpose},
};
use tokio::sync::Semaphore;

use crate::{
    limits::Scope,
    message::Message,
    providers::{Class, Contract, Provider},
    sealing::TenantKeys,
    template::Template,
};

/// A provider account and the requests it may have open.
pub struct Account {
    /// Its name in the settings.
    pub name: Arc<str>,
    /// Sends.
    pub provider: Arc<dyn Provider>,
    /// One permit per open request.
    pub requests: Semaphore,
    /// How many requests may be open.
    pub requests_open_max: usize,
    /// Requests without an answer since the last one with an answer.
    pub(super) unanswered: AtomicU32,
    /// A request is out to see whether a silent provider answers again.
    probing: AtomicBool,
}

/// Requests in a row without an answer after which an account counts as silent.
pub(super) const SILENT_REQUESTS: u32 = 3;

/// Leave to make a request; of a silent account there is one at a time.
pub(super) struct Leave<'a>(Option<&'a AtomicBool>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(probing) = self.0 {
            probing.store(false, Ordering::Release);
        }
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({})", self.name)
    }
}

/// Most deliveries in one claim of several requests. Counts in what an opt-out may find in flight.
const CLAIM_MAX: usize = 1_000;

/// Most deliveries in one claim when each travels in a request of its own.
const SINGLES_PER_CLAIM_MAX: usize = 256;

impl Account {
    /// An account with `requests_open_max` open requests.
    #[must_use]
    pub fn new(name: Arc<str>, provider: Arc<dyn Provider>, requests_open_max: usize) -> Self {
        Self {
            name,
            provider,
            requests: Semaphore::new(requests_open_max),
            requests_open_max,
            unanswered: AtomicU32::new(0),
            probing: AtomicBool::new(false),
        }
    }

    /// Leave to make a request now.
    pub(super) fn may_ask(&self) -> Option<Leave<'_>> {
        if self.unanswered.load(Ordering::Relaxed) < SILENT_REQUESTS {
            return Some(Leave(None));
        }
        (!self.probing.swap(true, Ordering::AcqRel)).then(|| Leave(Some(&self.probing)))
    }

    /// Whether it is silent and somebody is finding out whether it still is: until then nobody else has leave.
    pub(super) fn is_probed(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) >= SILENT_REQUESTS && self.probing.load(Ordering::Acquire)
    }

    /// The fixed facts of its provider.
    #[must_use]
    pub fn contract(&self) -> &Contract {
        self.provider.contract()
    }

    /// How many deliveries one claim for this account takes. Where the key of a request is its claim's (class A), one
    /// request's worth. Else as many requests as share the cost of a claim and its record; where a request holds one
    /// recipient, what the open requests send within a fraction of the send deadline.
    #[must_use]
    pub fn claim_size(&self) -> usize {
        let contract = self.contract();
        match (contract.class, contract.recipients_per_request) {
            (_, 1) => (self.requests_open_max * 4).clamp(1, SINGLES_PER_CLAIM_MAX),
            (Class::KeyWithTtl { .. }, batch) => batch,
            (Class::ClientId | Class::EchoOnly | Class::Nothing, batch) => batch * (CLAIM_MAX / batch).max(1),
        }
    }
}

/// A campaign, ready to be sent.
pub struct Plan {
    /// Which.
    pub campaign: CampaignId,
    /// Whose.
    pub tenant: TenantId,
    /// Opens its contacts.
    pub keys: TenantKeys,
    /// By which channel.
    pub channel: Channel,
    /// Which lane its jobs take.
    pub lane: Lane,
    /// What for: decides which gates stop it.
    pub purpose: Purpose,
    /// Through which account.
    pub account: Arc<Account>,
    /// The fixed part of what is sent.
    pub message: Message,
    /// What is filled in per recipient.
    pub template: Template,
    /// Whose limits it passes.
    pub scopes: Vec<Scope>,
    /// Tries before a delivery that is refused for now fails.
    pub attempts_max: u8,
    /// After this moment nothing of it is claimed, milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// Only in these hours anything of it is claimed.
    pub sending_window: Option<Arc<SendingWindow>>,
    /// Closed the moment a pause or cancel commits in this process; the ledger decides at the claim anyway.
    pub open: AtomicBool,
}

impl Plan {
    /// Whether the campaign is running, as far as this process has heard.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether its sending window is open at a moment, milliseconds since 1970.
    #[must_use]
    pub fn is_in_window(&self, at_ms: i64) -> bool {
        self.sending_window.as_ref().is_none_or(|window| window.is_open(at_ms))
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan({})", self.campaign)
    }
}
