//! Addresses that can only be made valid.
//!
//! An [`EmailAddress`] and a [`PhoneNumber`] exist only in the one form they are stored, hashed and sent in, so two
//! spellings of one mailbox are one recipient. Neither shows its value through `Debug`; an [`AddressError`] says what
//! is wrong without repeating the text. Numbering plans come from the `phonenumber` crate's metadata.

mod country;
mod domain;
mod email;
mod error;
mod phone;
mod phone_text;
mod plan;

pub use country::{Country, UnknownCountry};
pub use email::EmailAddress;
pub use error::AddressError;
pub use phone::PhoneNumber;
