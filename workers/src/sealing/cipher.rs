//! The ciphers under the keys: AES-256-GCM, HKDF and HMAC, of `aws-lc-rs`.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
};
use dispatch_schemas::ids::{ContactId, TenantId};

use super::{Column, KEY_VERSION, SealError};
use crate::clock::{Entropy, random};

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;

/// What a sealed value is bound to: its row, its column and the version of its key.
pub(super) fn aad(tenant: TenantId, contact: ContactId, column: Column) -> [u8; 18] {
    let mut data = [0; 18];
    data[..8].copy_from_slice(&tenant.0.to_be_bytes());
    data[8..16].copy_from_slice(&contact.0.to_be_bytes());
    data[16] = column as u8;
    data[17] = KEY_VERSION;
    data
}

/// AES-256-GCM with this key.
pub(super) fn cipher(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    #[expect(clippy::expect_used, reason = "AES-256 takes any 32 bytes, and the type says 32")]
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are an AES-256 key"))
}

/// Nonce, ciphertext and tag.
pub(super) fn seal(cipher: &LessSafeKey, aad: &[u8; 18], value: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
    let nonce: [u8; NONCE_LEN] = random(entropy);
    let mut sealed = Vec::with_capacity(NONCE_LEN + value.len() + AES_256_GCM.tag_len());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(value);
    #[expect(clippy::expect_used, reason = "GCM refuses only values past 64 GiB, which no column holds")]
    let tag = cipher
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed[NONCE_LEN..])
        .expect("a value of bounded size seals");
    sealed.extend_from_slice(tag.as_ref());
    sealed
}

/// What was sealed, if it was with this key and for this place.
pub(super) fn open(cipher: &LessSafeKey, aad: &[u8; 18], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
    let mut value = rest.to_vec();
    let length = cipher.open_in_place(nonce, Aad::from(aad), &mut value).map_err(|_| SealError)?.len();
    value.truncate(length);
    Ok(value)
}

/// A key out of a key (HKDF-SHA-256, RFC 5869).
pub(super) fn expand(key: &[u8; KEY_BYTES], info: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut out = [0; KEY_BYTES];
    #[expect(clippy::expect_used, reason = "HKDF-SHA-256 gives up to 8,160 bytes, and 32 are asked for")]
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key)
        .expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .expect("HKDF gives 32 bytes");
    out
}

/// HMAC-SHA-256.
pub(super) fn mac(key: &hmac::Key, value: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(key, value).as_ref());
    out
}
