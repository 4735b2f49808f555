//! What is noted: closings of gates, and claims.

use std::fmt;

use dispatch_schemas::{
    ids::{AttemptId, CampaignId, KeyId, TenantId},
    states::{Channel, StopReason},
};
use dispatch_workers::{delivery::Claimed as ClaimedBatch, message::Token, sealing::AddressHash};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::hex;

/// A note and its moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// When the ledger had it, by the ledger's clock, milliseconds since 1970.
    pub at_ms: i64,
    /// What.
    pub note: Note,
}

/// Something the ledger has committed and must not forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Gates of addresses were closed.
    Closed {
        /// Whose.
        tenant: TenantId,
        /// The addresses' channel.
        channel: Channel,
        /// Why.
        reason: StopReason,
        /// The addresses, by the keyed hash the ledger looks them up by.
        addresses: Vec<Hash>,
    },
    /// Gates that were closed for this reason were opened again.
    Opened {
        /// Whose.
        tenant: TenantId,
        /// The reason they had been closed for.
        reason: StopReason,
        /// The addresses.
        addresses: Vec<Hash>,
    },
    /// A person was erased.
    Erased {
        /// Whose.
        tenant: TenantId,
        /// All addresses that were closed for it, the ones found with the person too.
        addresses: Vec<(Channel, Hash)>,
    },
    /// A campaign was cancelled.
    Cancelled {
        /// Whose.
        tenant: TenantId,
        /// Which.
        campaign: CampaignId,
    },
    /// A campaign was paused.
    Paused {
        /// Whose.
        tenant: TenantId,
        /// Which.
        campaign: CampaignId,
    },
    /// A campaign was resumed.
    Resumed {
        /// Whose.
        tenant: TenantId,
        /// Which.
        campaign: CampaignId,
    },
    /// A tenant was closed.
    TenantClosed {
        /// Which.
        tenant: TenantId,
        /// Why, in the operator's words.
        reason: String,
    },
    /// A tenant was opened.
    TenantOpened {
        /// Which.
        tenant: TenantId,
    },
    /// An API key was revoked.
    KeyRevoked {
        /// Which.
        key: KeyId,
    },
    /// Deliveries were claimed: their requests may leave from here on.
    Claimed(Claimed),
}

/// A claim, with all that asking about it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// Whose.
    pub tenant: TenantId,
    /// Of which campaign.
    pub campaign: CampaignId,
    /// The attempt that was made.
    pub attempt: AttemptId,
    /// Its token.
    pub token: Hash,
    /// The attempt whose token made the request's key.
    pub root: AttemptId,
    /// The deliveries by number: `[[first, last], …]`.
    pub ranges: Vec<(i64, i64)>,
    /// Those of them whose key is not their first, with its epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub epochs: Vec<(i64, u8)>,
    /// Those of them that travel in a request of their own, likewise in ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alone: Vec<(i64, i64)>,
}

impl Claimed {
    /// What a claim got; nothing when it got nothing. `root` is the attempt whose key is used again, `singles` that each
    /// delivery travels in a request of its own.
    pub(crate) fn of(
        (tenant, campaign): (TenantId, CampaignId),
        claimed: &ClaimedBatch,
        root: Option<AttemptId>,
        singles: bool,
    ) -> Option<Self> {
        let attempt = claimed.attempt?;
        let numbers = |is: &dyn Fn(bool) -> bool| {
            let of_them = claimed.deliveries.iter().filter(|delivery| is(delivery.alone));
            ranges(of_them.map(|delivery| delivery.seq))
        };
        let is_single = singles && root.is_none();
        Some(Self {
            tenant,
            campaign,
            attempt,
            token: Hash(claimed.token.0),
            root: root.unwrap_or(attempt),
            ranges: numbers(&|_| true),
            epochs: claimed
                .deliveries
                .iter()
                .filter(|delivery| delivery.key_epoch > 0)
                .map(|delivery| (delivery.seq, delivery.key_epoch))
                .collect(),
            alone: numbers(&|alone| alone || is_single),
        })
    }

    /// The attempt's token.
    #[must_use]
    pub const fn token(&self) -> Token {
        Token(self.token.0)
    }

    /// The deliveries, ascending, each with its key's epoch and whether it travels alone.
    #[must_use]
    pub fn deliveries(&self) -> Vec<(i64, u8, bool)> {
        let epoch = |seq| self.epochs.iter().find(|(of, _)| *of == seq).map_or(0, |(_, epoch)| *epoch);
        let alone = |seq| self.alone.iter().any(|(first, last)| (*first..=*last).contains(&seq));
        let seqs = self.ranges.iter().flat_map(|(first, last)| *first..=*last);
        seqs.map(|seq| (seq, epoch(seq), alone(seq))).collect()
    }
}

fn ranges(numbers: impl Iterator<Item = i64>) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

/// 16 bytes, as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash(pub [u8; 16]);

impl From<AddressHash> for Hash {
    fn from(hash: AddressHash) -> Self {
        Self(hash.0)
    }
}

impl From<Hash> for AddressHash {
    fn from(hash: Hash) -> Self {
        Self(hash.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AddressHash(self.0).fmt(f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| text.len() == 32);
        number.map(|number| Self(number.to_be_bytes())).ok_or_else(|| de::Error::custom("32 hexadecimal digits"))
    }
}
