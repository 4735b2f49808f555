//! Sealing: how personal data is kept.
//!
//! One master key, in a file beside the ledger but never in it, opens everything. Each tenant has a root key wrapped
//! by it; each contact has a random key of its own wrapped by its tenant's. Fields are AES-256-GCM with tenant,
//! contact, column and key version as associated data, so a value moved to another row or column does not open.
//! Look-ups go through a keyed hash ([`AddressHash`]) of the normalised address; the hash key differs per tenant, so
//! one tenant's list can't be matched with another's. Destroying a contact's key destroys its data (crypto-shredding).

mod cipher;
mod keys;
mod send_keys;
mod spool_keys;

pub use keys::{ContactKey, DomainHashes, KeyFileError, MasterKey, TenantKeys};
pub use send_keys::SendKeys;
pub use spool_keys::{SpoolKey, SpoolKeys};

use std::fmt;

/// The version of keys and associated data this program writes.
pub const KEY_VERSION: u8 = 1;

/// What a sealed value is: part of its associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Column {
    /// The contact's own key, wrapped by the tenant's.
    ContactKey = 1,
    /// The e-mail address.
    Email = 2,
    /// The phone number.
    Phone = 3,
    /// Name, locale and the list's other fields, as a JSON object of strings.
    Fields = 4,
    /// The variables of a single transactional message, as a JSON object of strings.
    Message = 5,
    /// A tenant's root key, wrapped by the master key.
    TenantKey = 6,
    /// A provider's callback that waits to be applied.
    Callback = 7,
}

/// A sealed value did not open: the key is another one, or the value was changed or moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value did not open: the key is another one, or the value was changed or moved")]
pub struct SealError;

/// The keyed hash of a normalised address: what suppressions, gates and look-ups hold in its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressHash(pub [u8; 16]);

impl fmt::Debug for AddressHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AddressHash(")?;
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…)")
    }
}
