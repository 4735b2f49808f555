//! The job as it travels through the queue: ids, nothing else.
//!
//! The queue is a wake-up hint. A job that is lost, doubled or late changes nothing but delay, because the ledger
//! decides at the claim whether there is anything to send.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of [`Job`] this program writes.
pub const JOB_VERSION: u8 = 1;

/// "Delivery `s` of campaign `c` may be due."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Version of this shape: [`JOB_VERSION`].
    pub v: u8,
    /// The campaign's number.
    pub c: i64,
    /// The delivery's number within the campaign, from 0.
    pub s: i64,
}

impl Job {
    /// A job of the current version.
    #[must_use]
    pub const fn new(campaign: crate::ids::CampaignId, seq: i64) -> Self {
        Self { v: JOB_VERSION, c: campaign.0, s: seq }
    }
}
