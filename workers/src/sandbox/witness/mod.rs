//! The witness: what the fakes saw, one line of JSON per request, on disk before the answer goes out.
//!
//! A line never holds an address: recipients are named by a keyed hash ([`WitnessKey::hash`]) that whoever knows the
//! key and the address can compute again.
//!
//! [`WitnessLog`] writes the lines, [`read_lines`] reads them back.

mod format;
mod log;
mod read;

pub use log::WitnessLog;
pub use read::{WitnessLines, WitnessReadError, read_lines};

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

/// What a fake decided for one recipient of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WitnessVerdict {
    /// The message would be delivered. Two of these for one key are a duplicate mail.
    Accepted,
    /// The key was known already; nothing would be delivered.
    Duplicate,
    /// Nothing would be delivered.
    Refused,
}

/// One recipient of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessRecipient {
    /// The delivery's send key where the request carried one per recipient.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// [`WitnessKey::hash`] of the address the request was for.
    pub to: String,
    /// What was decided.
    pub verdict: WitnessVerdict,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessLine {
    /// Counts the requests, from 0.
    pub seq: u64,
    /// When it was read to its end, milliseconds since 1970.
    pub t_ms: i64,
    /// `sendgrid`, `brevo`, `brevo_sms`, `infobip`, `smtp`.
    pub provider: String,
    /// The request's token, where it carried one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<String>,
    /// The idempotency key of the whole request, where it carried one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch_key: Option<String>,
    /// The fault the plan drew for it, or `ok`.
    pub mode: String,
    /// The HTTP status or SMTP code it was to be answered with; 0 when the connection was dropped instead.
    pub status: u16,
    /// Each recipient.
    pub recipients: Vec<WitnessRecipient>,
}

/// The key of the recipients' hashes.
#[derive(Clone)]
pub struct WitnessKey(hmac::Key);

impl WitnessKey {
    /// The key from its 32 bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The first 16 bytes of the HMAC-SHA-256 of the address, as 32 hexadecimal digits. Phone numbers count with
    /// their digits alone, because providers differ about the `+`.
    #[must_use]
    pub fn hash(&self, address: &str) -> String {
        const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        let tag = hmac::sign(&self.0, address.trim_start_matches('+').as_bytes());
        let mut text = String::with_capacity(32);
        for byte in tag.as_ref().iter().take(16) {
            text.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        text
    }
}

impl std::fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WitnessKey")
    }
}
