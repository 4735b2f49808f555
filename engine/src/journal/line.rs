//! How a journal's entries are framed: a line each, a checksum before its JSON.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Serialize, de::DeserializeOwned};

/// Bytes of a line's checksum, in hexadecimal digits.
const CHECKSUM_DIGITS: usize = 16;

/// As one line: checksum, a space, JSON.
pub(crate) fn to_line<T: Serialize>(entry: &T) -> Vec<u8> {
    // A struct of numbers and texts always has a JSON form.
    let json = serde_json::to_vec(entry).unwrap_or_default();
    let mut line = checksum(&json).into_bytes();
    line.push(b' ');
    line.extend_from_slice(&json);
    line.push(b'\n');
    line
}

/// The entries of a file, without those that were not written whole: a torn line is the last of a process that died in
/// the middle of it, and what it was to say was not promised.
pub(crate) fn of_file<T: DeserializeOwned>(bytes: &[u8]) -> impl Iterator<Item = T> {
    bytes.split(|byte| *byte == b'\n').filter_map(from_line)
}

fn from_line<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (sum, json) = (line.get(..CHECKSUM_DIGITS)?, line.get(CHECKSUM_DIGITS + 1..)?);
    if sum != checksum(json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn checksum(json: &[u8]) -> String {
    digest(&SHA256, json).as_ref().iter().take(CHECKSUM_DIGITS / 2).fold(String::new(), |mut text, byte| {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
