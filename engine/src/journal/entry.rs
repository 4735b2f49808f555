//! One entry: a record as JSON.

use dispatch_schemas::ids::{AttemptId, CampaignId};
use dispatch_workers::{
    delivery::{Counts, Outcome, Record},
    providers::Code,
};
use serde::{Deserialize, Serialize};

use crate::segments::frame;

/// A record that a process made or was about to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose deliveries they are.
    pub campaign: CampaignId,
    /// The attempt that held them.
    pub attempt: AttemptId,
    /// When it was to be recorded, milliseconds since 1970.
    pub now_ms: i64,
    /// What each came to.
    outcomes: Vec<(i64, Written)>,
}

/// An outcome in the journal's own words, so that the program may change its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Written {
    Accepted(Option<String>),
    Duplicate,
    Failed(String),
    Unsendable(String),
    Retry { at_ms: i64, code: String, counts: bool, alone: bool },
    Released { alone: bool },
    Unknown { code: String, look_at_ms: i64 },
    Erased,
}

impl Written {
    fn of(outcome: &Outcome) -> Self {
        let text = |code: &Code| code.as_str().to_owned();
        match outcome {
            Outcome::Accepted { provider_id } => Self::Accepted(provider_id.clone()),
            Outcome::Duplicate => Self::Duplicate,
            Outcome::Failed(code) => Self::Failed(text(code)),
            Outcome::Unsendable(code) => Self::Unsendable(text(code)),
            Outcome::Retry { at_ms, code, counts, alone } => {
                Self::Retry { at_ms: *at_ms, code: text(code), counts: *counts == Counts::AsAttempt, alone: *alone }
            }
            Outcome::Released { alone } => Self::Released { alone: *alone },
            Outcome::Unknown { code, look_at_ms } => Self::Unknown { code: text(code), look_at_ms: *look_at_ms },
            Outcome::Erased => Self::Erased,
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        Some(match self {
            Self::Accepted(provider_id) => Outcome::Accepted { provider_id: provider_id.clone() },
            Self::Duplicate => Outcome::Duplicate,
            Self::Failed(code) => Outcome::Failed(Code::written(code)?),
            Self::Unsendable(code) => Outcome::Unsendable(Code::written(code)?),
            Self::Retry { at_ms, code, counts, alone } => Outcome::Retry {
                at_ms: *at_ms,
                code: Code::written(code)?,
                counts: if *counts { Counts::AsAttempt } else { Counts::Not },
                alone: *alone,
            },
            Self::Released { alone } => Outcome::Released { alone: *alone },
            Self::Unknown { code, look_at_ms } => {
                Outcome::Unknown { code: Code::written(code)?, look_at_ms: *look_at_ms }
            }
            Self::Erased => Outcome::Erased,
        })
    }
}

impl Entry {
    /// What a record says.
    pub(super) fn of(record: &Record<'_>) -> Self {
        Self {
            campaign: record.plan.campaign,
            attempt: record.attempt,
            now_ms: record.now_ms,
            outcomes: record.outcomes.iter().map(|(seq, outcome)| (*seq, Written::of(outcome))).collect(),
        }
    }

    /// What each delivery came to, by number; without those that this program has no word for.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(i64, Outcome)> {
        self.outcomes.iter().filter_map(|(seq, written)| Some((*seq, written.outcome()?))).collect()
    }

    /// In its frame, as it stands in a file.
    pub(super) fn framed(&self) -> Vec<u8> {
        let mut framed = Vec::new();
        frame::write_json(self, &mut framed);
        framed
    }
}
