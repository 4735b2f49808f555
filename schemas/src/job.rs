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

/// The JSON Schema of [`Job`]; `schemas/job.schema.json` is this, checked in.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CampaignId;

    #[test]
    fn the_checked_in_schema_is_the_one_the_type_gives() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/job.schema.json");
        let generated = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &generated).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), generated, "run: BLESS=1 cargo test -p dispatch-schemas");
    }

    #[test]
    fn a_job_is_a_few_dozen_bytes_of_ids() {
        let json = serde_json::to_string(&Job::new(CampaignId(i64::MAX >> 1), 9_999_999)).unwrap();
        assert_eq!(json, r#"{"v":1,"c":4611686018427387903,"s":9999999}"#);
        assert!(serde_json::from_str::<Job>(r#"{"v":1,"c":1,"s":2,"to":"x"}"#).is_err(), "nothing else travels");
    }
}
