//! The keys of files that personal data waits in, outside the ledger.
//!
//! Each file has a key of its own, made from the master key and random bytes at the file's head. So no key seals more
//! than a file's worth of records, and random nonces do not meet.

use aws_lc_rs::aead::LessSafeKey;
use dispatch_schemas::ids::{ContactId, TenantId};

use super::{
    Column, SealError,
    cipher::{KEY_BYTES, aad, cipher, expand, open, seal},
};
use crate::clock::Entropy;

/// Makes the keys of files.
pub struct SpoolKeys([u8; KEY_BYTES]);

impl std::fmt::Debug for SpoolKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpoolKeys(***)")
    }
}

impl SpoolKeys {
    pub(super) const fn new(key: [u8; KEY_BYTES]) -> Self {
        Self(key)
    }

    /// The key of the file with these random bytes at its head.
    #[must_use]
    pub fn of_file(&self, head: &[u8]) -> SpoolKey {
        SpoolKey(cipher(&expand(&self.0, &[b"dispatch/spool-file", head])))
    }
}

/// The key of one file.
pub struct SpoolKey(LessSafeKey);

impl std::fmt::Debug for SpoolKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpoolKey(***)")
    }
}

impl SpoolKey {
    /// Seals a record: nonce, ciphertext, tag.
    #[must_use]
    pub fn seal(&self, record: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        seal(&self.0, &place(), record, entropy)
    }

    /// Opens a record.
    ///
    /// # Errors
    /// When it is another file's, or was changed.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        open(&self.0, &place(), sealed)
    }
}

/// No tenant's: whose messages it is about is not known yet.
fn place() -> [u8; 18] {
    aad(TenantId(0), ContactId(0), Column::Callback)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn a_record_opens_with_the_key_of_its_own_file_only() {
        let entropy = SystemEntropy::default();
        let keys = SpoolKeys::new([3; KEY_BYTES]);
        let sealed = keys.of_file(b"one").seal(b"[{}]", &entropy);
        assert_eq!(keys.of_file(b"one").open(&sealed).unwrap(), b"[{}]");
        assert_eq!(keys.of_file(b"two").open(&sealed), Err(SealError));
        assert_eq!(SpoolKeys::new([4; KEY_BYTES]).of_file(b"one").open(&sealed), Err(SealError));
    }
}
