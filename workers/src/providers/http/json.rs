//! Writing requests as JSON.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::message::{Piece, SendKey, Skeleton, Slots, Token};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Writes `value` into one buffer of at least `capacity` bytes.
pub(in crate::providers) fn write<T: Serialize>(value: &T, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    #[expect(clippy::expect_used, reason = "a buffer takes every byte, and the requests have text for keys")]
    serde_json::to_writer(&mut out, value).expect("a request is JSON");
    out
}

/// A send key as it stands in a request: a UUID, without an allocation.
#[derive(Debug, Clone, Copy)]
pub(in crate::providers) struct KeyText([u8; 36]);

impl KeyText {
    pub(in crate::providers) fn new(key: SendKey) -> Self {
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (number, byte) in key.0.iter().enumerate() {
            if matches!(number, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        Self(text)
    }

    pub(in crate::providers) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("")
    }
}

impl Serialize for KeyText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A request's token as it stands in a request: 32 hexadecimal digits, without an allocation.
#[derive(Debug, Clone, Copy)]
pub(in crate::providers) struct TokenText([u8; 32]);

impl TokenText {
    pub(in crate::providers) fn new(token: Token) -> Self {
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(token.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        Self(text)
    }
}

impl Serialize for TokenText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.0).unwrap_or(""))
    }
}

/// A finished part of a message, written without being put together first.
#[derive(Clone, Copy)]
pub(in crate::providers) struct Finished<'a>(pub(in crate::providers) &'a Skeleton, pub(in crate::providers) &'a Slots);

impl fmt::Display for Finished<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.pieces.iter().try_for_each(|piece| match piece {
            Piece::Fixed(text) => f.write_str(text),
            Piece::Slot(number) => f.write_str(self.1.get(*number)),
        })
    }
}

impl Serialize for Finished<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_and_tokens_are_written_as_they_are_shown(bytes: [u8; 16]) {
            let key = SendKey(bytes);
            let text = KeyText::new(key);
            prop_assert_eq!(text.as_str(), key.to_string());
            let token = Token(bytes);
            prop_assert_eq!(write(&TokenText::new(token), 0), format!("\"{token}\"").into_bytes());
        }
    }
}
