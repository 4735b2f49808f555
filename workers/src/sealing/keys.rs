//! The keys: master, tenant, contact.

use std::{fmt, path::Path};

use aws_lc_rs::{aead::LessSafeKey, hmac};
use dispatch_schemas::{
    ids::{ContactId, TenantId},
    states::Channel,
};

use super::{
    AddressHash, Column, SealError, SendKeys, SpoolKeys,
    cipher::{KEY_BYTES, aad, cipher, expand, mac, open, seal},
};
use crate::clock::{Entropy, random};

const FIRST_LINE: &str = "dispatch-master-key-v1";

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It could not be read or written.
    #[error("the key file {path} cannot be {verb}: {source}")]
    Io {
        /// The file.
        path: String,
        /// `read` or `written`.
        verb: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a key file.
    #[error(
        "{path} is not a key file of this program: it must hold the line `{FIRST_LINE}` and then 64 hexadecimal digits"
    )]
    Form {
        /// The file.
        path: String,
    },
    /// Others can read it.
    #[error("the key file {path} can be read by others (mode {mode:03o}); run: chmod 600 {path}")]
    Mode {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
}

/// The key that opens everything. Lives in a file of mode 0600; losing it loses the data.
#[derive(Clone)]
pub struct MasterKey([u8; KEY_BYTES]);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

impl MasterKey {
    /// A new random key.
    #[must_use]
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(random(entropy))
    }

    /// Reads the key from its file.
    ///
    /// # Errors
    /// When the file is missing, readable by others, or not a key file.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let name = path.display().to_string();
        let io = |source| KeyFileError::Io { path: name.clone(), verb: "read", source };
        let text = std::fs::read_to_string(path).map_err(io)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeyFileError::Mode { path: name, mode });
            }
        }
        let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let (Some(FIRST_LINE), Some(digits), None) = (lines.next().map(str::trim), lines.next(), lines.next()) else {
            return Err(KeyFileError::Form { path: name });
        };
        parse_hex(digits.trim()).map(Self).ok_or(KeyFileError::Form { path: name })
    }

    /// Writes the key to a new file of mode 0600.
    ///
    /// # Errors
    /// When the file exists already or cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyFileError> {
        use std::io::Write as _;
        let io = |source| KeyFileError::Io { path: path.display().to_string(), verb: "written", source };
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        // Whoever finds the file finds all of it: another process may be waiting for it.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".new-{}", std::process::id()));
        let new = Path::new(&name);
        let mut file = options.open(new).map_err(io)?;
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!(
            "# The master key of a Dispatch ledger. Without it the ledger's contacts cannot be read by anyone.\n\
             # Keep a copy in a safe place apart from the ledger's backups; let nobody else read it.\n\
             {FIRST_LINE}\n{digits}\n"
        );
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let placed = written.and_then(|()| std::fs::hard_link(new, path));
        // What it was made of is of no use any more, whatever came of it.
        let _ = std::fs::remove_file(new);
        placed.map_err(io)
    }

    /// 32 bytes for one purpose, the same each time (HKDF-SHA-256, RFC 5869).
    #[must_use]
    pub fn derive(&self, purpose: &'static str) -> [u8; KEY_BYTES] {
        expand(&self.0, &[b"dispatch/", purpose.as_bytes()])
    }

    /// What the ledger keeps to tell a wrong key file from its own.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 8] {
        let mut print = [0; 8];
        print.copy_from_slice(&self.derive("fingerprint")[..8]);
        print
    }

    /// The maker and reader of send keys.
    #[must_use]
    pub fn send_keys(&self) -> SendKeys {
        SendKeys::new(&self.derive("send-keys"))
    }

    /// The maker of the keys of the files that callbacks wait in.
    #[must_use]
    pub fn spool_keys(&self) -> SpoolKeys {
        SpoolKeys::new(self.derive("spool"))
    }

    /// What is kept of an address that no message is known for: it tells whether two are the same, and no more.
    #[must_use]
    pub fn orphan_hash(&self, address: &str) -> [u8; 16] {
        let hash = mac(&hmac::Key::new(hmac::HMAC_SHA256, &self.derive("orphans")), address.as_bytes());
        let mut head = [0; 16];
        head.copy_from_slice(&hash[..16]);
        head
    }

    /// The stored form of an API key's secret: a table of these without the key file is of no use.
    #[must_use]
    pub fn api_key_hash(&self, secret: &str) -> [u8; 32] {
        mac(&hmac::Key::new(hmac::HMAC_SHA256, &self.derive("api-keys")), secret.as_bytes())
    }

    /// The maker of keyed hashes of mail domains.
    #[must_use]
    pub fn domain_hashes(&self) -> DomainHashes {
        DomainHashes(hmac::Key::new(hmac::HMAC_SHA256, &self.derive("domains")))
    }

    /// Makes a tenant's root key; the second part is its wrapped form, to be stored.
    #[must_use]
    pub fn new_tenant(&self, tenant: TenantId, entropy: &dyn Entropy) -> (TenantKeys, Vec<u8>) {
        let root: [u8; KEY_BYTES] = random(entropy);
        let wrapping = cipher(&self.derive("tenant-keys"));
        let wrapped = seal(&wrapping, &aad(tenant, ContactId(0), Column::TenantKey), &root, entropy);
        (TenantKeys::new(tenant, &root), wrapped)
    }

    /// Opens a tenant's stored root key.
    ///
    /// # Errors
    /// When it was wrapped by another master key.
    pub fn open_tenant(&self, tenant: TenantId, wrapped: &[u8]) -> Result<TenantKeys, SealError> {
        let wrapping = cipher(&self.derive("tenant-keys"));
        let root = open(&wrapping, &aad(tenant, ContactId(0), Column::TenantKey), wrapped)?;
        let root: [u8; KEY_BYTES] = root.try_into().map_err(|_| SealError)?;
        Ok(TenantKeys::new(tenant, &root))
    }
}

/// Makes keyed hashes of mail domains, for limits per domain: the same for all tenants, they say nothing outside.
pub struct DomainHashes(hmac::Key);

impl DomainHashes {
    /// The hash of a domain in its ASCII form.
    #[must_use]
    pub fn hash(&self, domain: &str) -> i64 {
        let hash = mac(&self.0, domain.as_bytes());
        let mut head = [0; 8];
        head.copy_from_slice(&hash[..8]);
        i64::from_be_bytes(head)
    }
}

impl fmt::Debug for DomainHashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DomainHashes(***)")
    }
}

/// A tenant's keys.
#[derive(Clone)]
pub struct TenantKeys {
    tenant: TenantId,
    wrapping: std::sync::Arc<LessSafeKey>,
    lookup: hmac::Key,
}

impl fmt::Debug for TenantKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantKeys({}, ***)", self.tenant)
    }
}

impl TenantKeys {
    fn new(tenant: TenantId, root: &[u8; KEY_BYTES]) -> Self {
        Self {
            tenant,
            wrapping: std::sync::Arc::new(cipher(&expand(root, &[b"dispatch/contact-keys"]))),
            lookup: hmac::Key::new(hmac::HMAC_SHA256, &expand(root, &[b"dispatch/addresses"])),
        }
    }

    /// The keyed hash of a normalised address. The channel is part of it.
    #[must_use]
    pub fn address_hash(&self, channel: Channel, address: &str) -> AddressHash {
        let mut context = hmac::Context::with_key(&self.lookup);
        context.update(&[match channel {
            Channel::Email => b'e',
            Channel::Sms => b's',
        }]);
        context.update(address.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&context.sign().as_ref()[..16]);
        AddressHash(hash)
    }

    /// Makes a contact's key; the second part is its wrapped form, to be stored.
    #[must_use]
    pub fn new_contact(&self, contact: ContactId, entropy: &dyn Entropy) -> (ContactKey, Vec<u8>) {
        let key: [u8; KEY_BYTES] = random(entropy);
        let wrapped = seal(&self.wrapping, &aad(self.tenant, contact, Column::ContactKey), &key, entropy);
        (ContactKey { tenant: self.tenant, contact, cipher: cipher(&key) }, wrapped)
    }

    /// Opens a contact's stored key.
    ///
    /// # Errors
    /// When it belongs to another contact or tenant, or was changed.
    pub fn open_contact(&self, contact: ContactId, wrapped: &[u8]) -> Result<ContactKey, SealError> {
        let key = open(&self.wrapping, &aad(self.tenant, contact, Column::ContactKey), wrapped)?;
        let key: [u8; KEY_BYTES] = key.try_into().map_err(|_| SealError)?;
        Ok(ContactKey { tenant: self.tenant, contact, cipher: cipher(&key) })
    }
}

/// A contact's key.
pub struct ContactKey {
    tenant: TenantId,
    contact: ContactId,
    cipher: LessSafeKey,
}

impl fmt::Debug for ContactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContactKey(***)")
    }
}

impl ContactKey {
    /// Seals one column's value: nonce, ciphertext, tag.
    #[must_use]
    pub fn seal(&self, column: Column, value: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        seal(&self.cipher, &aad(self.tenant, self.contact, column), value, entropy)
    }

    /// Opens one column's value.
    ///
    /// # Errors
    /// When it belongs to another row or column, or was changed.
    pub fn open(&self, column: Column, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        open(&self.cipher, &aad(self.tenant, self.contact, column), sealed)
    }
}

fn parse_hex(digits: &str) -> Option<[u8; KEY_BYTES]> {
    if digits.len() != KEY_BYTES * 2 || !digits.is_ascii() {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    fn tenant() -> TenantKeys {
        MasterKey::generate(&SystemEntropy::default()).new_tenant(TenantId(7), &SystemEntropy::default()).0
    }

    #[test]
    fn a_sealed_value_opens_in_its_own_place_only() {
        let entropy = SystemEntropy::default();
        let tenant = tenant();
        let (key, wrapped) = tenant.new_contact(ContactId(1), &entropy);
        let sealed = key.seal(Column::Email, b"anna@example.org", &entropy);

        let again = tenant.open_contact(ContactId(1), &wrapped).unwrap();
        assert_eq!(again.open(Column::Email, &sealed).unwrap(), b"anna@example.org");
        assert_eq!(again.open(Column::Phone, &sealed), Err(SealError));
        assert!(tenant.open_contact(ContactId(2), &wrapped).is_err());
        let (other, _) = tenant.new_contact(ContactId(2), &entropy);
        assert_eq!(other.open(Column::Email, &sealed), Err(SealError));
    }

    #[test]
    fn one_flipped_bit_or_a_cut_is_noticed() {
        let entropy = SystemEntropy::default();
        let (key, _) = tenant().new_contact(ContactId(1), &entropy);
        let sealed = key.seal(Column::Fields, b"{}", &entropy);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(Column::Fields, &changed), Err(SealError));
            assert_eq!(key.open(Column::Fields, &sealed[..at]), Err(SealError));
        }
    }

    #[test]
    fn two_tenants_hash_the_same_address_differently() {
        let hash = |keys: &TenantKeys| keys.address_hash(Channel::Email, "anna@example.org");
        let one = tenant();
        assert_eq!(hash(&one), hash(&one));
        assert_ne!(hash(&one), hash(&tenant()));
        assert_ne!(hash(&one), one.address_hash(Channel::Sms, "anna@example.org"));
    }

    #[test]
    fn a_key_file_reads_back_and_must_not_be_readable_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let key = MasterKey::generate(&SystemEntropy::default());
        key.write_new(&path).unwrap();
        assert_eq!(MasterKey::read(&path).unwrap().fingerprint(), key.fingerprint());
        assert!(matches!(key.write_new(&path), Err(KeyFileError::Io { verb: "written", .. })));

        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            assert!(matches!(MasterKey::read(&path), Err(KeyFileError::Mode { mode: 0o640, .. })));
        }
    }

    #[test]
    fn a_tenant_key_wrapped_by_another_master_does_not_open() {
        let entropy = SystemEntropy::default();
        let (_, wrapped) = MasterKey::generate(&entropy).new_tenant(TenantId(1), &entropy);
        assert!(MasterKey::generate(&entropy).open_tenant(TenantId(1), &wrapped).is_err());
    }
}
