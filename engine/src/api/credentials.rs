//! The text of an API key: `dsp_live_<id, 13>_<secret, 43>_<checksum, 6>`.
//!
//! The prefix is for scanners that look for leaked secrets, the underscores let a double click select all of it, and
//! the checksum (CRC-32 of what stands before it) keeps typing errors and random strings away from the ledger. The
//! secret is 43 digits of base 62: 256 bits.

use std::fmt;

use dispatch_schemas::ids::KeyId;
use dispatch_workers::clock::{Entropy, random};
use secrecy::{ExposeSecret as _, SecretString};

/// What every key begins with.
pub const PREFIX: &str = "dsp_live_";

const ID_LEN: usize = 13;
const SECRET_LEN: usize = 43;
const CHECKSUM_LEN: usize = 6;
const KEY_LEN: usize = PREFIX.len() + ID_LEN + 1 + SECRET_LEN + 1 + CHECKSUM_LEN;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// An API key that has the right form. Whether it is taken is another matter.
#[derive(Clone)]
pub struct ApiKeyText {
    /// The public half.
    pub id: KeyId,
    secret: SecretString,
}

impl fmt::Debug for ApiKeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeyText({}, ***)", self.id)
    }
}

/// The text is not an API key of this program, or a part of it is missing or mistyped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a whole API key: {PREFIX} and 64 more characters are wanted")]
pub struct NotAKey;

impl ApiKeyText {
    /// Draws a new key.
    #[must_use]
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut secret = String::with_capacity(SECRET_LEN);
        while secret.len() < SECRET_LEN {
            // Bytes past the last whole multiple of 62 are drawn again, so that every digit is equally likely.
            let bytes: [u8; 64] = random(entropy);
            let digits =
                bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(DIGITS[usize::from(byte % 62)]));
            secret.extend(digits.take(SECRET_LEN - secret.len()));
        }
        Self { id: KeyId::from_random(random(entropy)), secret: secret.into() }
    }

    /// Reads a key.
    ///
    /// # Errors
    /// When the form or the checksum is wrong. Says nothing about the ledger.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        if text.len() != KEY_LEN || !text.is_ascii() {
            return Err(NotAKey);
        }
        let (body, sum) = text.rsplit_once('_').ok_or(NotAKey)?;
        let (id, secret) = body.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or(NotAKey)?;
        let is_digits = secret.len() == SECRET_LEN && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_digits || checksum(body) != sum {
            return Err(NotAKey);
        }
        let id: KeyId = format!("{}_{id}", KeyId::PREFIX).parse().map_err(|_| NotAKey)?;
        Ok(Self { id, secret: secret.into() })
    }

    /// The secret half, for hashing.
    #[must_use]
    pub fn secret(&self) -> &str {
        self.secret.expose_secret()
    }

    /// The whole key, to be shown once.
    #[must_use]
    pub fn reveal(&self) -> SecretString {
        let id = self.id.to_string();
        let id = id.split_once('_').map_or(id.as_str(), |(_, digits)| digits);
        let body = format!("{PREFIX}{id}_{}", self.secret());
        let sum = checksum(&body);
        format!("{body}_{sum}").into()
    }
}

/// CRC-32 (ISO 3309, as in gzip) of a text, as six digits of base 62.
fn checksum(text: &str) -> String {
    let mut rest = crc32(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().copied().map(char::from).collect()
}

fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use dispatch_workers::clock::SystemEntropy;
    use proptest::prelude::*;

    use super::*;

    fn key() -> (ApiKeyText, String) {
        let key = ApiKeyText::generate(&SystemEntropy::default());
        let text = key.reveal().expose_secret().to_owned();
        (key, text)
    }

    #[test]
    fn the_checksum_is_the_crc_32_of_gzip() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn every_key_that_was_made_reads_back() {
        for _ in 0..1_000 {
            let (key, text) = key();
            assert_eq!(text.len(), KEY_LEN);
            let read = ApiKeyText::parse(&text).unwrap();
            assert_eq!((read.id, read.secret()), (key.id, key.secret()));
        }
    }

    #[test]
    fn no_random_string_is_taken_for_a_key() {
        let entropy = SystemEntropy::default();
        for round in 0..100_000 {
            let bytes: [u8; KEY_LEN] = random(&entropy);
            let mut text: Vec<u8> = bytes.iter().map(|byte| DIGITS[usize::from(byte % 62)]).collect();
            // Half of them have the right form in all but the checksum.
            if round % 2 == 0 {
                text[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
                let (id, secret) = (PREFIX.len() + ID_LEN, PREFIX.len() + ID_LEN + 1 + SECRET_LEN);
                text[PREFIX.len()..id].fill(b'0');
                text[id] = b'_';
                text[secret] = b'_';
            }
            assert_eq!(ApiKeyText::parse(std::str::from_utf8(&text).unwrap()).err(), Some(NotAKey));
        }
    }

    #[test]
    fn one_wrong_character_or_a_cut_is_noticed() {
        let (_, text) = key();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'7' { b'8' } else { b'7' };
            assert!(ApiKeyText::parse(std::str::from_utf8(&changed).unwrap()).is_err(), "{at}");
            assert!(ApiKeyText::parse(&text[..at]).is_err(), "{at}");
        }
        assert!(ApiKeyText::parse(&text.replace("live", "test")).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,90}", tail in "[0-9A-Za-z_]{0,70}") {
            let _ = ApiKeyText::parse(&text);
            let _ = ApiKeyText::parse(&format!("{PREFIX}{tail}"));
        }
    }

    #[test]
    fn its_debug_output_hides_the_secret() {
        let (key, _) = key();
        assert!(!format!("{key:?}").contains(key.secret()));
    }
}
