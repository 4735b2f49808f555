//! Campaigns: what is sent to whom, and how far it has come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{limits::Windows, sending_window::SendingWindow, templates::TemplateSource, time::Moment};
use crate::{
    facts::{Fact, Facts},
    ids::{CampaignId, ListId, TemplateId},
    states::{CampaignState, Channel, DeliveryState, DeliveryStatus, Purpose, StallReason, UnknownPolicy},
};

/// What a campaign sends: a stored template as it is at this moment, or content of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum CampaignContent {
    /// A stored template.
    Stored {
        /// Its id.
        template: TemplateId,
    },
    /// Content given here.
    Inline {
        /// The content.
        content: TemplateSource,
    },
}

/// A campaign to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewCampaign {
    /// A name for people, 1 to 200 characters.
    pub name: String,
    /// Whom it goes to: 1 to 100 lists. An address in several is written to once.
    pub lists: Vec<ListId>,
    /// What it sends.
    #[serde(flatten)]
    pub content: CampaignContent,
    /// What it is for.
    pub purpose: Purpose,
    /// What to do with recipients whose outcome stays unknown; `verify` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_policy: Option<UnknownPolicy>,
    /// Which provider account of the settings sends it; the channel's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// How fast it may go.
    #[serde(default)]
    pub limits: Windows,
    /// Not before; at once when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_at: Option<Moment>,
    /// Who was not sent to by then is `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// Only in these hours; around the clock when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending_window: Option<SendingWindow>,
}

/// A campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Campaign {
    /// Its id.
    pub id: CampaignId,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: CampaignState,
    /// Why it is paused, when it is: `operator`, or the provider's refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_reason: Option<String>,
    /// Its channel.
    pub channel: Channel,
    /// What it is for.
    pub purpose: Purpose,
    /// What is done with unknown outcomes.
    pub unknown_policy: UnknownPolicy,
    /// Which account sends it.
    pub account: String,
    /// How fast it may go.
    pub limits: Windows,
    /// Whom it goes to.
    pub lists: Vec<ListId>,
    /// Not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_at: Option<Moment>,
    /// Not after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// Only in these hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending_window: Option<SendingWindow>,
    /// When it was made.
    pub created_at: Moment,
    /// When it was launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<Moment>,
    /// When its last recipient became final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Moment>,
}

/// A campaign just made, with what its author should know before launching it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedCampaign {
    /// The campaign.
    #[serde(flatten)]
    pub campaign: Campaign,
    /// What may not come out as meant, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How far a campaign has come. The counts of `states` add up to `audience` at any moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Which campaign.
    pub id: CampaignId,
    /// Where it stands.
    pub state: CampaignState,
    /// Why it is paused, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_reason: Option<String>,
    /// Recipients found so far.
    pub audience: u64,
    /// Whether all recipients have been found.
    pub expanded: bool,
    /// How many recipients stand where; every state is there.
    pub states: BTreeMap<String, u64>,
    /// Stopped recipients by reason, failed ones by code.
    pub reasons: BTreeMap<String, u64>,
    /// How many recipients providers have reported something of, by kind: `delivered`, `bounced_hard`, `complained`, ….
    /// One recipient may count in several.
    #[serde(default)]
    pub reported: BTreeMap<String, u64>,
    /// Why it does not move, when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<StallReason>,
    /// When its sending window opens next, when it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Moment>,
}

/// What a pause or a cancel came to. True from the moment of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CampaignStopped {
    /// The campaign as it stands now.
    pub campaign: Campaign,
    /// Messages claimed before, which may still go out or have just gone.
    pub in_flight: u64,
}

/// One recipient of a campaign. Who it is: the keyed hash that suppressions are listed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecipientStatus {
    /// The recipient's number in the campaign, from 0.
    pub seq: i64,
    /// The id under which the provider knows the message: a UUID.
    pub send_key: String,
    /// The keyed hash of the address, 32 hexadecimal digits; absent once the person was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_hash: Option<String>,
    /// The address with its middle hidden, as `a***@e***.org`; absent once the person was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_masked: Option<String>,
    /// Where it stands.
    pub state: DeliveryState,
    /// What became of the message, by its state and its provider's reports.
    pub status: DeliveryStatus,
    /// The stop reason, refusal code or evidence. A code may name what it is about: `template_variable_missing:plan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Tries that counted: none for who failed before anything was sent.
    pub attempts: u32,
    /// The provider's own id for the message, where it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// When that was last written.
    pub updated_at: Moment,
    /// What its provider reported, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reports: BTreeMap<String, Reports>,
}

/// What a provider reported of one kind about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reports {
    /// When it first happened, by the provider's clock.
    pub first_at: Moment,
    /// When it last happened.
    pub last_at: Moment,
    /// How often it was reported.
    pub count: u64,
}

impl Reports {
    /// All there is of a message, by kind.
    #[must_use]
    pub fn of(facts: &Facts) -> BTreeMap<String, Self> {
        let reports = |fact: &Fact| Self {
            first_at: Moment::from_ms(fact.first_at_ms),
            last_at: Moment::from_ms(fact.last_at_ms),
            count: fact.reports,
        };
        facts.iter().map(|(kind, fact)| (kind.to_string(), reports(fact))).collect()
    }
}

/// Which recipients to try again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Only those that failed with this code; all failed ones when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What a retry came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Retried {
    /// Recipients that will be tried again.
    pub retried: u64,
}
