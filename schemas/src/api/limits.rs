//! How fast a thing may be sent.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most messages in any window of a second, a minute, an hour and a day. A window left out has no limit; 0 lets
/// nothing through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// Messages in any second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
    /// Messages in any minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
    /// Messages in any hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<u32>,
    /// Messages in any 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_day: Option<u32>,
}

impl Windows {
    /// Whether there is no limit at all.
    #[must_use]
    pub const fn is_unlimited(&self) -> bool {
        matches!(self, Self { per_second: None, per_minute: None, per_hour: None, per_day: None })
    }

    /// The windows that are limited: `(length, most messages in it)`.
    pub fn iter(&self) -> impl Iterator<Item = (Duration, u32)> {
        [(1, self.per_second), (60, self.per_minute), (3_600, self.per_hour), (86_400, self.per_day)]
            .into_iter()
            .filter_map(|(seconds, most)| most.map(|most| (Duration::from_secs(seconds), most)))
    }
}
