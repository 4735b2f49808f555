//! Callbacks that carry a signature of their body.

use aws_lc_rs::{
    hmac,
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::header::HeaderName;
use secrecy::ExposeSecret as _;

use super::{Call, Credentials, Rejection, Verifier, networks::Networks, nothing_to_know_by};
use crate::providers::AccountError;

/// A SubjectPublicKeyInfo of an uncompressed point on P-256 begins with this (RFC 5480).
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point on P-256.
const POINT_BYTES: usize = 65;

/// How old a signature may be, seconds: a provider tries for 24 hours, and does not say whether it signs again.
const AGE_MAX_S: i64 = 25 * 3_600;
/// How far ahead its clock may be, seconds.
const AHEAD_MAX_S: i64 = 5 * 60;

/// ECDSA on P-256 with SHA-256 over the time of signing and the body. The time is in a header of its own.
pub(in crate::providers) struct SignedWithTime {
    keys: Vec<UnparsedPublicKey<Vec<u8>>>,
    signature_header: &'static str,
    time_header: &'static str,
    networks: Networks,
}

impl SignedWithTime {
    pub(in crate::providers) fn build(
        credentials: &Credentials,
        signature_header: &'static str,
        time_header: &'static str,
    ) -> Result<Box<dyn Verifier>, AccountError> {
        if credentials.public_keys.is_empty() {
            return Err(nothing_to_know_by("`public_key` to the verification key the provider shows"));
        }
        let keys = credentials.public_keys.iter().map(|text| key(text)).collect::<Result<_, _>>()?;
        let networks = Networks::read(credentials.networks.as_deref())?;
        Ok(Box::new(Self { keys, signature_header, time_header, networks }))
    }
}

fn key(text: &str) -> Result<UnparsedPublicKey<Vec<u8>>, AccountError> {
    let der = STANDARD.decode(text.trim()).unwrap_or_default();
    let point = der.strip_prefix(&SPKI_P256).filter(|point| point.len() == POINT_BYTES && point[0] == 4);
    match point {
        Some(point) => Ok(UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point.to_vec())),
        None => Err(AccountError::Setting(
            "the public key of its callbacks is none for ECDSA on P-256; wanted: the base64 text the provider shows"
                .to_owned(),
        )),
    }
}

impl Verifier for SignedWithTime {
    fn verify(&self, call: &Call<'_>) -> Result<(), Rejection> {
        let (signature, time) = (call.header(self.signature_header)?, call.header(self.time_header)?);
        let signature = STANDARD.decode(signature).map_err(|_| Rejection::Forged)?;
        let signed = [time, call.body].concat();
        if !self.keys.iter().any(|key| key.verify(&signed, &signature).is_ok()) {
            return Err(Rejection::Forged);
        }
        // Signed, so it is the provider's.
        let at_s: i64 = std::str::from_utf8(time).ok().and_then(|time| time.parse().ok()).ok_or(Rejection::Stale)?;
        let now_s = call.now_ms / 1_000;
        if at_s < now_s.saturating_sub(AGE_MAX_S) || at_s > now_s.saturating_add(AHEAD_MAX_S) {
            return Err(Rejection::Stale);
        }
        if self.networks.have(call.source) { Ok(()) } else { Err(Rejection::Elsewhere) }
    }
}

/// Bytes of an HMAC-SHA-256. The shorter ones of MD5 and SHA-1 are none.
const TAG_BYTES: usize = 32;
/// Fewer bytes could be guessed.
const SECRET_BYTES_MIN: usize = 32;

/// HMAC-SHA-256 over the body, in hexadecimal digits or base64, with or without `sha256=` before it.
pub(in crate::providers) struct SignedBody {
    keys: Vec<hmac::Key>,
    header: String,
    networks: Networks,
}

impl SignedBody {
    pub(in crate::providers) fn build(credentials: &Credentials) -> Result<Box<dyn Verifier>, AccountError> {
        if credentials.secrets.is_empty() {
            return Err(nothing_to_know_by("`secret_file` to a file with the secret it signs with (HMAC_SHA_256)"));
        }
        let header = credentials.signature_header.as_deref().unwrap_or_default();
        if header.is_empty() || header.parse::<HeaderName>().is_err() {
            return Err(nothing_to_know_by("`signature_header` to the header that carries its signature"));
        }
        if credentials.secrets.iter().any(|secret| secret.expose_secret().len() < SECRET_BYTES_MIN) {
            return Err(AccountError::Setting(format!(
                "the secret of its callbacks is too short; wanted: {SECRET_BYTES_MIN} random characters or more"
            )));
        }
        let keys = credentials.secrets.iter();
        Ok(Box::new(Self {
            keys: keys.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret().as_bytes())).collect(),
            header: header.to_ascii_lowercase(),
            networks: Networks::read(credentials.networks.as_deref())?,
        }))
    }
}

impl Verifier for SignedBody {
    fn verify(&self, call: &Call<'_>) -> Result<(), Rejection> {
        let tag = tag(call.header(&self.header)?).ok_or(Rejection::Forged)?;
        if !self.keys.iter().any(|key| hmac::verify(key, call.body, &tag).is_ok()) {
            return Err(Rejection::Forged);
        }
        if self.networks.have(call.source) { Ok(()) } else { Err(Rejection::Elsewhere) }
    }
}

fn tag(value: &[u8]) -> Option<Vec<u8>> {
    let text = value.strip_prefix(b"sha256=").unwrap_or(value);
    let tag = if text.len() == TAG_BYTES * 2 { hexadecimal(text)? } else { STANDARD.decode(text).ok()? };
    (tag.len() == TAG_BYTES).then_some(tag)
}

fn hexadecimal(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}
