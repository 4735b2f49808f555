//! What goes into the ledger and comes out of it, where it is not a type of the API.

use dispatch_schemas::{
    api::{
        keys::ApiKey, limits::Windows, lists::ImportTotals, sending_window::SendingWindow, templates::TemplateSource,
    },
    ids::{AttemptId, CampaignId, ContactId, ImportId, ListId, SourceId, TenantId},
    states::{Channel, DeliveryState, ImportState, Lane, Purpose, StallReason, UnknownPolicy},
};
use dispatch_workers::{delivery::SealedContact, message::Token, sealing::AddressHash};

/// An API key as it is checked.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// The key.
    pub key: ApiKey,
    /// HMAC of its secret.
    pub secret_hash: [u8; 32],
}

/// "Do this once": an Idempotency-Key, written in the transaction of its effect and kept for 24 hours.
#[derive(Debug, Clone)]
pub struct Once {
    /// The route it was sent to, such as `POST /v1/campaigns`.
    pub route: &'static str,
    /// What the client sent, 1 to 255 characters.
    pub key: String,
    /// SHA-256 of the request's body and path.
    pub fingerprint: [u8; 32],
}

/// A result that may be the repeated one of an earlier call with the same Idempotency-Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayable<T> {
    /// The result.
    pub value: T,
    /// Whether it is an earlier call's.
    pub replayed: bool,
}

/// One contact to be stored, sealed.
#[derive(Debug)]
pub struct ContactRow {
    /// Its id, from [`Imports::contact_ids`](super::Imports::contact_ids).
    pub id: ContactId,
    /// Its key, wrapped by the tenant's.
    pub key: Vec<u8>,
    /// Its e-mail address, sealed, and what it is looked up by.
    pub email: Option<(Vec<u8>, AddressHash)>,
    /// Its phone number, sealed, and what it is looked up by.
    pub phone: Option<(Vec<u8>, AddressHash)>,
    /// Its fields, sealed.
    pub fields: Option<Vec<u8>>,
    /// Its mail domain, as a keyed hash.
    pub email_destination: Option<i64>,
    /// Its country, as a number.
    pub phone_destination: Option<i64>,
}

/// Contacts of one upload, in the order of the file.
#[derive(Debug)]
pub struct NewContacts {
    /// The upload.
    pub import: ImportId,
    /// Into which list.
    pub list: ListId,
    /// Whose.
    pub tenant: TenantId,
    /// The contacts.
    pub contacts: Vec<ContactRow>,
}

/// What storing contacts came to, in numbers of contacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreCounts {
    /// New ones.
    pub added: u64,
    /// There before the upload; they get the new values when it completes.
    pub updated: u64,
    /// There from an earlier row of the upload.
    pub duplicate: u64,
    /// Not stored: every address they have is behind a closed gate.
    pub blocked: u64,
}

/// An unfinished upload found at start.
#[derive(Debug, Clone)]
pub struct Import {
    /// Which.
    pub id: ImportId,
    /// Into which list.
    pub list: ListId,
    /// Where it stands.
    pub state: ImportState,
    /// What became of its rows.
    pub totals: ImportTotals,
}

/// A single message to be stored, sealed.
#[derive(Debug)]
pub struct SealedMessage {
    /// What it is looked up by.
    pub address_hash: AddressHash,
    /// Its channel.
    pub channel: Channel,
    /// The person, should they not be known in the list of single messages yet.
    pub contact: ContactRow,
    /// The variables of the message as JSON, to be sealed with the key of the contact it is stored under.
    pub variables: Vec<u8>,
}

/// On what terms a single message is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageTerms {
    /// Where the person's address comes from.
    pub source: SourceId,
    /// What the message is for.
    pub purpose: Purpose,
    /// Which account sends it.
    pub account: String,
}

/// Which recipients of a campaign to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecipientFilter {
    /// Only those in this state.
    pub state: Option<DeliveryState>,
    /// Only those with a number above this one.
    pub after: Option<i64>,
    /// At most this many, 1 to 1,000.
    pub limit: u32,
}

/// A delivery as whoever checks it sees it.
#[derive(Debug)]
pub struct EvidenceRow {
    /// Its number.
    pub seq: i64,
    /// Where it stands.
    pub state: DeliveryState,
    /// How often it was sent again on the campaign's policy.
    pub resends: u32,
    /// The person; `None` once erased.
    pub contact: Option<SealedContact>,
}

/// What the scheduler knows of an unfinished campaign.
#[derive(Debug, Clone)]
pub struct CampaignBrief {
    /// Which.
    pub id: CampaignId,
    /// Whose.
    pub tenant: TenantId,
    /// Its channel.
    pub channel: Channel,
    /// Its lane.
    pub lane: Lane,
    /// Where it stands.
    pub state: dispatch_schemas::states::CampaignState,
    /// Which account sends it.
    pub account: String,
    /// What is done with unknown outcomes.
    pub unknown_policy: UnknownPolicy,
    /// Not before, milliseconds since 1970.
    pub send_at_ms: Option<i64>,
    /// Not after, milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// Only in these hours.
    pub sending_window: Option<SendingWindow>,
    /// Whether its tenant's gate is closed.
    pub is_tenant_closed: bool,
    /// Whether all recipients have been found.
    pub expanded: bool,
    /// Deliveries that may be claimed now.
    pub ready: u64,
    /// Deliveries in an open attempt.
    pub claimed: u64,
    /// Deliveries whose outcome is unknown.
    pub unknown: u64,
    /// Deliveries that wait for their next try.
    pub waiting: u64,
    /// Deliveries that are done.
    pub finished: u64,
    /// Why it does not move, as it was last noted.
    pub stall: Option<StallReason>,
}

impl CampaignBrief {
    /// Whether recipients are left that are not final.
    #[must_use]
    pub const fn has_open_deliveries(&self) -> bool {
        self.ready + self.claimed + self.unknown + self.waiting > 0
    }

    /// What keeps it from being sent at a moment, milliseconds since 1970.
    #[must_use]
    pub fn held(&self, at_ms: i64) -> Option<Held> {
        if self.is_tenant_closed {
            return Some(Held::Gate);
        }
        let is_outside = self.sending_window.as_ref().is_some_and(|window| !window.is_open(at_ms));
        is_outside.then_some(Held::OutsideWindow)
    }
}

/// What keeps a running campaign from being sent, whatever its workers and providers could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Its tenant's gate is closed.
    Gate,
    /// Its sending window is not open.
    OutsideWindow,
}

/// What workers need to know of a campaign.
#[derive(Debug, Clone)]
pub struct CampaignPlan {
    /// Which.
    pub id: CampaignId,
    /// Whose.
    pub tenant: TenantId,
    /// Its channel.
    pub channel: Channel,
    /// Its lane.
    pub lane: Lane,
    /// What it is for.
    pub purpose: Purpose,
    /// Whether it is running and its tenant's gate open.
    pub is_running: bool,
    /// Which account sends it.
    pub account: String,
    /// How fast it may go.
    pub limits: Windows,
    /// How fast its tenant may go.
    pub tenant_limits: Windows,
    /// What it sends.
    pub content: TemplateSource,
    /// Not after, milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// Only in these hours.
    pub sending_window: Option<SendingWindow>,
}

/// Deliveries claimed in one minute.
#[derive(Debug, Clone)]
pub struct PastSends {
    /// Whose.
    pub tenant: TenantId,
    /// Of which campaign.
    pub campaign: CampaignId,
    /// Through which account.
    pub account: String,
    /// When the minute began, milliseconds since 1970.
    pub minute_ms: i64,
    /// How many.
    pub sends: u64,
}

/// Deliveries that have become ready again.
#[derive(Debug, Clone)]
pub struct Due {
    /// Whose.
    pub campaign: CampaignId,
    /// Their numbers, ascending.
    pub seqs: Vec<i64>,
}

/// Deliveries of one attempt whose outcome is unknown and due to be looked at.
#[derive(Debug, Clone)]
pub struct UnknownGroup {
    /// Whose.
    pub campaign: CampaignId,
    /// The attempt that got no answer.
    pub attempt: AttemptId,
    /// Its token.
    pub token: Token,
    /// When it was claimed, milliseconds since 1970.
    pub claimed_at_ms: i64,
    /// The token that made the request's key.
    pub root_token: Token,
    /// Whether the attempt stands for requests that were forgotten: nobody knows their keys, nor which of the deliveries
    /// were in any.
    pub is_forgotten: bool,
    /// The deliveries, ascending.
    pub deliveries: Vec<UnknownDelivery>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct UnknownDelivery {
    /// Its number.
    pub seq: i64,
    /// Its key's epoch.
    pub key_epoch: u8,
    /// When its key was first used, milliseconds since 1970.
    pub first_sent_at_ms: i64,
    /// Tries that counted.
    pub attempts: u32,
    /// Whether its provider called its last request a duplicate, and that proved nothing: it would say so again.
    pub is_duplicate: bool,
}
