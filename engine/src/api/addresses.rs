//! Addresses in requests: normalised, then only their keyed hash goes on.

use dispatch_schemas::{
    address::{AddressError, EmailAddress, PhoneNumber},
    api::problems::FieldError,
    states::Channel,
};
use dispatch_workers::sealing::{AddressHash, MasterKey, TenantKeys};

use crate::import::loading::country_number;

/// An address in its one form, with the channel it is of. Personal data: has no readable `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// An e-mail address.
    Email(EmailAddress),
    /// A phone number.
    Phone(PhoneNumber),
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({}, ***)", self.channel())
    }
}

impl Address {
    /// Reads an address of a channel; a phone number must have its country code.
    ///
    /// # Errors
    /// What is wrong and where, without the text.
    pub fn parse(channel: Channel, text: &str, pointer: &str) -> Result<Self, FieldError> {
        let address = match channel {
            Channel::Email => EmailAddress::parse(text).map(Self::Email),
            Channel::Sms => PhoneNumber::parse(text, None).map(Self::Phone),
        };
        let noun = match channel {
            Channel::Email => "an e-mail address",
            Channel::Sms => "a phone number",
        };
        address.map_err(|wrong| {
            let wrong = match wrong {
                // Only an upload has a country to give.
                AddressError::NoCountry => "it has no country code; write it with + and the country code".to_owned(),
                wrong => wrong.to_string(),
            };
            FieldError::new(pointer, format!("this is not {noun} that can be used: {wrong}"))
        })
    }

    /// Its channel.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Email(_) => Channel::Email,
            Self::Phone(_) => Channel::Sms,
        }
    }

    /// The normalised text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Email(email) => email.as_str(),
            Self::Phone(phone) => phone.as_str(),
        }
    }

    /// What the ledger knows it by.
    #[must_use]
    pub fn hash(&self, keys: &TenantKeys) -> AddressHash {
        keys.address_hash(self.channel(), self.as_str())
    }

    /// The domain or country it counts to in limits.
    #[must_use]
    pub fn destination(&self, master: &MasterKey) -> i64 {
        match self {
            Self::Email(email) => master.domain_hashes().hash(email.domain()),
            Self::Phone(phone) => country_number(phone.country().as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_its_channel_wants_it() {
        assert_eq!(Address::parse(Channel::Email, " Anna@Example.org ", "/to").unwrap().as_str(), "anna@example.org");
        assert_eq!(Address::parse(Channel::Sms, "+33 6 12 34 56 78", "/to").unwrap().as_str(), "+33612345678");
        for (channel, text) in [(Channel::Email, "+33612345678"), (Channel::Sms, "anna@example.org")] {
            let error = Address::parse(channel, text, "/to").unwrap_err();
            assert_eq!(error.pointer, "/to");
            assert!(!error.detail.contains(text), "{error:?}");
        }
        let domestic = Address::parse(Channel::Sms, "0612345678", "/to").unwrap_err();
        assert!(domestic.detail.ends_with("write it with + and the country code"), "{domestic:?}");
    }
}
