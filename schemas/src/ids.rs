//! Ids.
//!
//! Inside, an id is an `i64`. Outside it is a prefixed text such as `cmp_01ARZ3NDEKTSV`: the prefix says what it
//! names, the 13 digits are Crockford base 32 of the number. Ids that leave the house are drawn at random (62 bits),
//! so they tell nothing about how many there are; a contact's id is sequential and never leaves.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const TEXT_LEN: usize = 13;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The prefix is another one, or there is none.
    #[error("an id that begins with `{expected}_` is wanted here")]
    Prefix {
        /// The prefix this kind of id has.
        expected: &'static str,
    },
    /// What follows the prefix is not 13 digits of Crockford base 32.
    #[error("after `{expected}_` an id has 13 characters of 0-9 and A-Z without I, L, O, U")]
    Digits {
        /// The prefix this kind of id has.
        expected: &'static str,
    },
}

fn encode(value: i64) -> [u8; TEXT_LEN] {
    let mut rest = value.cast_unsigned();
    let mut text = [b'0'; TEXT_LEN];
    for slot in text.iter_mut().rev() {
        *slot = DIGITS[(rest & 31) as usize];
        rest >>= 5;
    }
    text
}

fn decode(text: &str) -> Option<i64> {
    if text.len() != TEXT_LEN {
        return None;
    }
    let mut value: u64 = 0;
    for byte in text.bytes() {
        let digit = DIGITS.iter().position(|d| *d == byte.to_ascii_uppercase())?;
        value = value.checked_mul(32)?.checked_add(digit as u64)?;
    }
    i64::try_from(value).ok()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub i64);

        impl $name {
            /// What the text form of this kind of id begins with, before the `_`.
            pub const PREFIX: &str = $prefix;

            /// Makes an id from 8 random bytes: 62 bits of them, never negative.
            #[must_use]
            pub fn from_random(bytes: [u8; 8]) -> Self {
                Self(i64::from_be_bytes(bytes) & (i64::MAX >> 1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!($prefix, "_"))?;
                for byte in encode(self.0) {
                    fmt::Write::write_char(f, char::from(byte))?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits = text
                    .strip_prefix(concat!($prefix, "_"))
                    .ok_or(IdError::Prefix { expected: $prefix })?;
                decode(digits).map(Self).ok_or(IdError::Digits { expected: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "_[0-9A-HJKMNP-TV-Z]{13}$")))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    )+};
}

ids! {
    /// A customer of the platform; the wall between one's data and another's.
    TenantId = "ten";
    /// Where contacts come from and on what legal basis.
    SourceId = "src";
    /// A contact list of a tenant.
    ListId = "lst";
    /// One upload into a list.
    ImportId = "imp";
    /// One person or mailbox in one list. Sequential: never shown outside.
    ContactId = "con";
    /// A stored template.
    TemplateId = "tpl";
    /// A campaign.
    CampaignId = "cmp";
    /// An API key's public half.
    KeyId = "key";
    /// One claim of a batch of deliveries.
    AttemptId = "att";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_reads_back_as_itself(bytes: [u8; 8]) {
            let id = CampaignId::from_random(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<CampaignId>();
            let _ = format!("cmp_{text}").parse::<CampaignId>();
        }
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let list = ListId(7).to_string();
        assert_eq!(list.parse::<CampaignId>(), Err(IdError::Prefix { expected: "cmp" }));
    }

    #[test]
    fn a_number_past_63_bits_is_refused() {
        assert_eq!("cmp_ZZZZZZZZZZZZZ".parse::<CampaignId>(), Err(IdError::Digits { expected: "cmp" }));
    }
}
