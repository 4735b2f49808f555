//! Single transactional messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{campaigns::Reports, time::Moment};
use crate::{
    ids::{SourceId, TemplateId},
    states::{DeliveryState, DeliveryStatus, Purpose},
};

/// One message to one person, sent ahead of all campaigns.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// A stored template; its channel is the message's.
    pub template: TemplateId,
    /// An e-mail address or a phone number in E.164, as the channel wants.
    pub to: String,
    /// Where this address comes from.
    pub source: SourceId,
    /// What the message is for; `service` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// Values for the template's variables; at most 100, 10,000 bytes together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

impl std::fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewMessage({})", self.template)
    }
}

/// Where a single message stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageStatus {
    /// Its id: a UUID.
    pub id: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// What became of it, by its state and its provider's reports.
    pub status: DeliveryStatus,
    /// The stop reason, refusal code or evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When that was last written.
    pub updated_at: Moment,
    /// What its provider reported, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reports: BTreeMap<String, Reports>,
}
