//! What a platform does with the ledger: tenants, lists, campaigns, single messages.

use std::collections::BTreeMap;

use bytes::Bytes;
use dispatch_engine::{
    engine::Opened,
    import::loading::Loader,
    ledger::{ContactRow, Ledger, MessageTerms, SealedMessage},
    operator::{Answer, Order, keys::NewKey},
};
use dispatch_schemas::{
    api::{
        campaigns::{CampaignContent, NewCampaign, Progress},
        imports::Mapping,
        keys::Permission,
        limits::Windows,
        lists::{Import, NewList, NewSource},
        templates::{Content, NewTemplate, Sender, StoredTemplate, TemplateSource},
    },
    ids::{CampaignId, ListId, SourceId, TenantId},
    states::{CampaignState, Channel, DeliveryState, LegalBasis, Purpose, SourceKind},
};
use dispatch_workers::sealing::{AddressHash, Column};

use super::people::People;

/// Bytes of a contact file handed over at a time.
const PIECE_BYTES: usize = 64 << 10;

/// One tenant's view of an open ledger.
#[derive(Debug, Clone)]
pub struct Platform {
    opened: Opened,
    /// The tenant.
    pub tenant: TenantId,
    /// Where its contacts come from.
    pub source: SourceId,
}

impl Platform {
    /// The tenant of this name, made if it is new.
    pub async fn new(opened: &Opened, name: &str) -> Self {
        let tenant = opened.ledger.tenant(name).await.expect("a tenant").id;
        let source = NewSource {
            name: "Shop".to_owned(),
            kind: SourceKind::CustomerList,
            legal_basis: LegalBasis::Consent,
            reference: None,
        };
        let source = opened.ledger.create_source(tenant, &source, None).await.expect("a source").value.id;
        Self { opened: opened.clone(), tenant, source }
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &dyn Ledger {
        self.opened.ledger.as_ref()
    }

    /// Makes a list and loads a contact file into it.
    pub async fn import(&self, name: &str, csv: String) -> (ListId, Import) {
        let list = NewList { name: name.to_owned(), source: self.source };
        let list = self.ledger().create_list(self.tenant, &list, None).await.expect("a list").value.id;
        let loader = Loader::new(self.opened.ledger.clone(), self.opened.master.clone(), self.opened.entropy.clone());
        let bytes = Bytes::from(csv);
        let pieces: Vec<_> = (0..bytes.len())
            .step_by(PIECE_BYTES)
            .map(|from| Ok(bytes.slice(from..(from + PIECE_BYTES).min(bytes.len()))))
            .collect();
        let import = self.ledger().begin_import(self.tenant, list).await.expect("an import can begin");
        let pieces = futures_util::stream::iter(pieces);
        let import = loader.load(self.tenant, list, import, Mapping::default(), pieces).await;
        (list, import.expect("the file is good"))
    }

    /// Makes a list of people and a campaign to them, not launched yet.
    pub async fn campaign_to(
        &self,
        people: People,
        account: &str,
        change: impl FnOnce(&mut NewCampaign),
    ) -> CampaignId {
        let (list, import) = self.import(people.word, people.csv()).await;
        assert_eq!(import.totals.added, people.count as u64);
        self.campaign(list, people.channel, account, change).await
    }

    /// A campaign to a list, not launched yet.
    pub async fn campaign(
        &self,
        list: ListId,
        channel: Channel,
        account: &str,
        change: impl FnOnce(&mut NewCampaign),
    ) -> CampaignId {
        let content = content(channel);
        let mut new = NewCampaign {
            name: format!("Campaign by {account}"),
            lists: vec![list],
            content: CampaignContent::Inline { content: content.clone() },
            purpose: Purpose::Marketing,
            unknown_policy: None,
            account: Some(account.to_owned()),
            limits: Windows::default(),
            send_at: None,
            expires_at: None,
            sending_window: None,
        };
        change(&mut new);
        self.ledger().create_campaign(self.tenant, &new, &content, account, None).await.expect("a campaign").value.id
    }

    /// Launches a campaign.
    pub async fn launch(&self, campaign: CampaignId) {
        self.ledger().launch(self.tenant, campaign, None).await.expect("the campaign can be launched");
    }

    /// How far a campaign is.
    pub async fn progress(&self, campaign: CampaignId) -> Progress {
        self.ledger().progress(self.tenant, campaign).await.expect("the campaign is there")
    }

    /// Its progress, once it has completed.
    pub async fn completed(&self, campaign: CampaignId) -> Option<Progress> {
        let progress = self.progress(campaign).await;
        (progress.state == CampaignState::Completed).then_some(progress)
    }

    /// What an address is looked up by.
    pub async fn address_hash(&self, channel: Channel, address: &str) -> AddressHash {
        self.ledger().tenant_keys(self.tenant).await.expect("the tenant's keys").address_hash(channel, address)
    }

    /// Stores a template for single messages.
    pub async fn template(&self, name: &str, channel: Channel) -> StoredTemplate {
        let new = NewTemplate { name: name.to_owned(), source: content(channel) };
        self.ledger().create_template(self.tenant, &new, None).await.expect("a template").value
    }

    /// Stores a single e-mail.
    pub async fn message(&self, template: &StoredTemplate, account: &str, to: &str, name: &str) -> (CampaignId, i64) {
        let (ledger, entropy) = (self.ledger(), self.opened.entropy.as_ref());
        let keys = ledger.tenant_keys(self.tenant).await.expect("the tenant's keys");
        let id = ledger.contact_ids(1).await.expect("an id");
        let (key, wrapped) = keys.new_contact(id, entropy);
        let hash = keys.address_hash(Channel::Email, to);
        let variables = BTreeMap::from([("first_name", name)]);
        let message = SealedMessage {
            address_hash: hash,
            channel: Channel::Email,
            contact: ContactRow {
                id,
                key: wrapped,
                email: Some((key.seal(Column::Email, to.as_bytes(), entropy), hash)),
                phone: None,
                fields: None,
                email_destination: None,
                phone_destination: None,
            },
            variables: serde_json::to_vec(&variables).expect("words are JSON"),
        };
        let terms = MessageTerms { source: self.source, purpose: Purpose::Service, account: account.to_owned() };
        let stored = ledger.create_message(self.tenant, template, &terms, message, None).await;
        stored.expect("the message is stored").value
    }
}

/// A key of this tenant that may do everything.
pub async fn api_key(opened: &Opened, tenant: &str) -> String {
    let (label, permissions) = ("test".to_owned(), Permission::ALL.to_vec());
    let new = NewKey { tenant: tenant.to_owned(), label, permissions, days: 1 };
    match Order::CreateKey(new).carry_out(opened).await {
        Ok(Answer::Created(key)) => key.key,
        other => unreachable!("a key can be made: {other:?}"),
    }
}

/// How many recipients are in a state.
#[must_use]
pub fn count(progress: &Progress, state: DeliveryState) -> u64 {
    progress.states.get(state.as_str()).copied().unwrap_or(0)
}

/// What is sent by a channel.
#[must_use]
pub fn content(channel: Channel) -> TemplateSource {
    let content = match channel {
        Channel::Email => Content::Email {
            from: Sender { address: "news@shop.example".to_owned(), name: Some("The Shop".to_owned()) },
            reply_to: None,
            subject: "News for {{ first_name }}".to_owned(),
            html: Some("<p>Hello {{ first_name }}, there is news.</p>".to_owned()),
            text: Some("Hello {{ first_name }}, there is news.".to_owned()),
        },
        Channel::Sms => {
            Content::Sms { sender: "Shop".to_owned(), text: "Hello {{ first_name }}, there is news.".to_owned() }
        }
    };
    TemplateSource { content, defaults: BTreeMap::from([("first_name".to_owned(), "friend".to_owned())]) }
}
