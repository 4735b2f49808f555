//! What the API and the import may do, by what it is about.
//!
//! Each operation is one transaction, durable when it returns. One that takes a tenant sees that tenant's things only;
//! another's are [`NotFound`](super::LedgerError::NotFound).

use async_trait::async_trait;
use dispatch_schemas::{
    api::{
        campaigns::{Campaign, CampaignStopped, NewCampaign, Progress, RecipientStatus, Retried, Retry},
        contacts::{Erased, GatesClosed, Suppression},
        keys::{ApiKey, Permission, Tenant, TenantStopped},
        limits::Windows,
        lists::{Import as ImportStatus, ImportTotals, List, NewList, NewSource, Source},
        messages::MessageStatus,
        templates::{NewTemplate, StoredTemplate, TemplateSource},
    },
    ids::{CampaignId, ContactId, ImportId, KeyId, ListId, TemplateId, TenantId},
    states::{Channel, StopReason},
};
use dispatch_workers::{
    delivery::Claims,
    sealing::{AddressHash, TenantKeys},
};

use super::{
    Epochs, FactBook, OperatorLimits, Result, Schedule,
    records::{
        EvidenceRow, MessageTerms, NewContacts, Once, RecipientFilter, Replayable, SealedMessage, StoreCounts,
        StoredKey,
    },
};

/// Tenants, their keys and their limits.
#[async_trait]
pub trait Tenants: Send + Sync + 'static {
    /// Makes a tenant, or returns the one of this name.
    async fn tenant(&self, name: &str) -> Result<Tenant>;
    /// The tenant of this name, if there is one.
    async fn find_tenant(&self, name: &str) -> Result<Option<Tenant>>;
    /// The keys a tenant's data is sealed with.
    async fn tenant_keys(&self, tenant: TenantId) -> Result<TenantKeys>;
    /// A tenant's limits.
    async fn tenant_limits(&self, tenant: TenantId) -> Result<Windows>;
    /// Sets a tenant's limits.
    async fn set_tenant_limits(&self, tenant: TenantId, limits: Windows) -> Result<()>;
    /// All tenants, by name.
    async fn tenants(&self) -> Result<Vec<Tenant>>;
    /// Closes a tenant. From the commit on nothing of it is claimed, its single messages included; the answer says what
    /// was claimed before. Its campaigns stay in their states. One that is closed stays so since then, with the new
    /// reason.
    async fn close_tenant(&self, tenant: TenantId, reason: &str) -> Result<TenantStopped>;
    /// Opens a tenant: its campaigns go on where they were. Harmless for one that is open.
    async fn open_tenant(&self, tenant: TenantId) -> Result<Tenant>;
    /// Stores an API key.
    async fn create_key(
        &self,
        id: KeyId,
        tenant: TenantId,
        label: &str,
        permissions: &[Permission],
        secret_hash: [u8; 32],
        expires_at_ms: i64,
    ) -> Result<ApiKey>;
    /// The key of this id, revoked and expired ones too.
    async fn find_key(&self, id: KeyId) -> Result<Option<StoredKey>>;
    /// All keys, or one tenant's.
    async fn keys(&self, tenant: Option<TenantId>) -> Result<Vec<ApiKey>>;
    /// Takes a key out of use.
    async fn revoke_key(&self, id: KeyId) -> Result<ApiKey>;
}

/// Sources and contact lists.
#[async_trait]
pub trait Lists: Send + Sync + 'static {
    /// Stores a source.
    async fn create_source(&self, tenant: TenantId, new: &NewSource, once: Option<&Once>)
    -> Result<Replayable<Source>>;
    /// A tenant's sources, newest first, at most 1,000.
    async fn sources(&self, tenant: TenantId) -> Result<Vec<Source>>;
    /// Makes a list.
    async fn create_list(&self, tenant: TenantId, new: &NewList, once: Option<&Once>) -> Result<Replayable<List>>;
    /// A tenant's lists, by name, at most 1,000.
    async fn lists(&self, tenant: TenantId) -> Result<Vec<List>>;
    /// One list.
    async fn list(&self, tenant: TenantId, list: ListId) -> Result<List>;
}

/// Uploads into lists.
#[async_trait]
pub trait Imports: Send + Sync + 'static {
    /// Begins an upload; one at a time per list.
    async fn begin_import(&self, tenant: TenantId, list: ListId) -> Result<ImportId>;
    /// Ids for `count` new contacts, never given twice.
    async fn contact_ids(&self, count: usize) -> Result<ContactId>;
    /// Stores contacts of an upload. They can be mailed only once it has completed.
    async fn store_contacts(&self, contacts: NewContacts) -> Result<StoreCounts>;
    /// Writes an upload's progress down.
    async fn note_import(&self, import: ImportId, totals: &ImportTotals, report: &serde_json::Value) -> Result<()>;
    /// Completes an upload: applies its changes and makes its contacts mailable. `fields` are the names of the fields
    /// it has brought; the list has them from then on, with those it had.
    async fn complete_import(
        &self,
        import: ImportId,
        totals: &ImportTotals,
        fields: &[String],
        report: &serde_json::Value,
    ) -> Result<()>;
    /// Removes an upload whole and says why.
    async fn roll_back_import(&self, import: ImportId, why: &str) -> Result<()>;
    /// Rolls back or finishes the uploads that a dead process left: one that was not heard of for long, and of a ledger
    /// that is not shared every one. Returns how many.
    async fn recover_imports(&self) -> Result<u64>;
    /// One upload.
    async fn import(&self, tenant: TenantId, import: ImportId) -> Result<ImportStatus>;
}

/// Who must not be written to.
#[async_trait]
pub trait Gates: Send + Sync + 'static {
    /// Closes gates. From the commit on nothing is claimed through them; the answer says what was claimed before.
    async fn close_gates(
        &self,
        tenant: TenantId,
        channel: Channel,
        addresses: &[AddressHash],
        reason: StopReason,
    ) -> Result<GatesClosed>;
    /// Opens gates that were closed for this reason; those closed for another stay closed. Returns how many.
    async fn open_gates(&self, tenant: TenantId, addresses: &[AddressHash], reason: StopReason) -> Result<u64>;
    /// Closed gates after a cursor, by hash.
    async fn suppressions(
        &self,
        tenant: TenantId,
        after: Option<(AddressHash, StopReason)>,
        limit: u32,
    ) -> Result<Vec<Suppression>>;
    /// Erases the person behind these addresses: closes their gates with `erased`, destroys their keys and removes
    /// their contacts.
    async fn erase(&self, tenant: TenantId, addresses: &[(Channel, AddressHash)]) -> Result<Erased>;
}

/// Stored templates.
#[async_trait]
pub trait Templates: Send + Sync + 'static {
    /// Stores a template.
    async fn create_template(
        &self,
        tenant: TenantId,
        new: &NewTemplate,
        once: Option<&Once>,
    ) -> Result<Replayable<StoredTemplate>>;
    /// A tenant's templates, by name, at most 1,000.
    async fn templates(&self, tenant: TenantId) -> Result<Vec<StoredTemplate>>;
    /// One template.
    async fn template(&self, tenant: TenantId, template: TemplateId) -> Result<StoredTemplate>;
}

/// Campaigns as the platform sees them.
#[async_trait]
pub trait Campaigns: Send + Sync + 'static {
    /// Makes a campaign in state `draft`. `content` is what it will send, `account` the account that sends it. Refused
    /// for a closed tenant, as are `launch`, `resume` and `retry`.
    async fn create_campaign(
        &self,
        tenant: TenantId,
        new: &NewCampaign,
        content: &TemplateSource,
        account: &str,
        once: Option<&Once>,
    ) -> Result<Replayable<Campaign>>;
    /// A tenant's campaigns, newest first, after the one made at that moment (milliseconds since 1970) with that id.
    async fn campaigns(&self, tenant: TenantId, after: Option<(i64, CampaignId)>, limit: u32) -> Result<Vec<Campaign>>;
    /// One campaign.
    async fn campaign(&self, tenant: TenantId, campaign: CampaignId) -> Result<Campaign>;
    /// Launches a draft: `scheduled`, or `running` at once. Refused when its audience is empty or it has expired.
    async fn launch(&self, tenant: TenantId, campaign: CampaignId, once: Option<&Once>)
    -> Result<Replayable<Campaign>>;
    /// Pauses a campaign. From the commit on nothing of it is claimed.
    async fn pause(&self, tenant: TenantId, campaign: CampaignId, reason: &str) -> Result<CampaignStopped>;
    /// Lets a paused campaign go on.
    async fn resume(&self, tenant: TenantId, campaign: CampaignId) -> Result<Campaign>;
    /// Cancels a campaign for good. From the commit on nothing of it is claimed.
    async fn cancel(&self, tenant: TenantId, campaign: CampaignId) -> Result<CampaignStopped>;
    /// Sets its limits. Refused for one that is cancelled.
    async fn set_campaign_limits(&self, tenant: TenantId, campaign: CampaignId, limits: Windows) -> Result<Campaign>;
    /// How far it has come.
    async fn progress(&self, tenant: TenantId, campaign: CampaignId) -> Result<Progress>;
    /// Its recipients by number.
    async fn recipients(
        &self,
        tenant: TenantId,
        campaign: CampaignId,
        filter: RecipientFilter,
    ) -> Result<Vec<RecipientStatus>>;
    /// A campaign's deliveries with their sealed addresses, by number: for whoever checks what was sent.
    async fn evidence(
        &self,
        campaign: CampaignId,
        channel: Channel,
        after: i64,
        limit: u32,
    ) -> Result<Vec<EvidenceRow>>;
    /// Lets failed recipients try again, with a new key each: they were definitely not accepted.
    async fn retry(&self, tenant: TenantId, campaign: CampaignId, which: &Retry) -> Result<Retried>;
}

/// Single messages.
#[async_trait]
pub trait Messages: Send + Sync + 'static {
    /// Stores a single message and its person; ready to be claimed when it returns. Refused for a closed tenant.
    async fn create_message(
        &self,
        tenant: TenantId,
        template: &StoredTemplate,
        terms: &MessageTerms,
        message: SealedMessage,
        once: Option<&Once>,
    ) -> Result<Replayable<(CampaignId, i64)>>;
    /// Where a single message stands.
    async fn message(&self, tenant: TenantId, campaign: CampaignId, seq: i64) -> Result<MessageStatus>;
}

/// The whole ledger.
#[async_trait]
pub trait Ledger:
    Tenants
    + Lists
    + Imports
    + Gates
    + Templates
    + Campaigns
    + Messages
    + FactBook
    + OperatorLimits
    + Schedule
    + Claims
    + Epochs
{
    /// Answers when it can read and write.
    async fn check(&self) -> Result<()>;
    /// What time it is for the ledger, milliseconds since 1970: the time all who share it go by.
    async fn time_ms(&self) -> Result<i64>;
    /// Whether other processes may have it open too. Of one that is not shared, everything that is open at the start
    /// was left by a process that died.
    fn is_shared(&self) -> bool;
    /// Finishes what it was given and closes it: when this returns nothing is written any more, another process may
    /// open it, and a SQLite ledger's file alone is whole. Operations after it are refused. Waits for a bounded time;
    /// what could not be done by then is logged, and nothing that was answered is lost.
    async fn close(&self);
}
