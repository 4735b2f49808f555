//! Signing calls as the vendors do.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A SubjectPublicKeyInfo of an uncompressed point on P-256 begins with this (RFC 5480).
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// No key could be made.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox cannot make a key to sign its callbacks with")]
pub(in crate::sandbox) struct NoKey;

/// What the fakes sign with.
pub(super) struct Signer {
    pair: EcdsaKeyPair,
    secret: String,
}

impl Signer {
    pub(super) fn new(secret: String) -> Result<Self, NoKey> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| NoKey)?;
        Ok(Self { pair, secret })
    }

    /// The public key as SendGrid shows it.
    pub(super) fn public_key(&self) -> String {
        STANDARD.encode([SPKI_P256.as_slice(), self.pair.public_key().as_ref()].concat())
    }

    /// The headers of a call by this provider.
    pub(super) fn headers(&self, provider: &str, body: &[u8], now_s: i64) -> Vec<(&'static str, String)> {
        match provider {
            "sendgrid" => {
                let time = now_s.to_string();
                let signed = self.pair.sign(&SystemRandom::new(), &[time.as_bytes(), body].concat());
                let signature = signed.map(|signature| STANDARD.encode(signature)).unwrap_or_default();
                vec![
                    ("x-twilio-email-event-webhook-signature", signature),
                    ("x-twilio-email-event-webhook-timestamp", time),
                ]
            }
            "infobip" => {
                let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes()), body);
                vec![(super::SIGNATURE_HEADER, STANDARD.encode(tag))]
            }
            _ => vec![("authorization", format!("Bearer {}", self.secret))],
        }
    }
}
