//! People who must not be written to: suppressions and erasures.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::Moment;
use crate::states::{Channel, StopReason};

/// Addresses to suppress.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Suppress {
    /// E-mail addresses or phone numbers of one channel, at most 10,000.
    pub addresses: Vec<String>,
    /// The channel they are addresses of.
    pub channel: Channel,
    /// Why; `suppressed` when left out. `erased` is not taken here: erasing has its own call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<StopReason>,
}

impl std::fmt::Debug for Suppress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Suppress({} addresses)", self.addresses.len())
    }
}

/// What closing gates came to. True from the moment of the answer: nothing new is sent to these people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct GatesClosed {
    /// Gates closed now.
    pub closed: u64,
    /// Gates that were closed for this reason already.
    pub already_closed: u64,
    /// Messages to these people that were claimed before and may still go out, or have just gone.
    pub in_flight: u64,
}

/// What opening gates came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct GatesOpened {
    /// Gates that were closed for this reason and are open now. A gate closed for another reason too stays closed.
    pub opened: u64,
}

/// One person to erase, by any of their addresses.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Erase {
    /// An e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// A phone number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

impl std::fmt::Debug for Erase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Erase(***)")
    }
}

/// What an erasure came to. The same for people we knew and people we did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Erased {
    /// Messages to this person that were claimed before and may still go out, or have just gone.
    pub in_flight: u64,
}

/// One closed gate: who it is for is a keyed hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Suppression {
    /// The keyed hash of the address, 32 hexadecimal digits.
    pub address_hash: String,
    /// The channel.
    pub channel: Channel,
    /// Why.
    pub reason: StopReason,
    /// Since when.
    pub closed_at: Moment,
}
