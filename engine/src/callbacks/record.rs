//! One callback as it lies in the spool.

use bytes::Bytes;
use dispatch_workers::clock::TimestampMs;

/// A provider's callback, known to be its.
#[derive(Clone, PartialEq, Eq)]
pub struct Callback {
    /// When it came, milliseconds since 1970.
    pub arrived_at_ms: TimestampMs,
    /// Which kind of provider sent it.
    pub kind: String,
    /// For which account.
    pub account: String,
    /// Its body as it came. Personal data.
    pub body: Bytes,
}

impl std::fmt::Debug for Callback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Callback({}, {} bytes)", self.account, self.body.len())
    }
}

impl Callback {
    /// Time, two short texts with their lengths, and the body.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut record = Vec::with_capacity(10 + self.kind.len() + self.account.len() + self.body.len());
        record.extend_from_slice(&self.arrived_at_ms.to_be_bytes());
        for text in [&self.kind, &self.account] {
            let length = text.len().min(usize::from(u8::MAX));
            // Kinds are ours, and settings allow no account's name of this length.
            record.push(u8::try_from(length).unwrap_or(u8::MAX));
            record.extend_from_slice(&text.as_bytes()[..length]);
        }
        record.extend_from_slice(&self.body);
        record
    }

    /// Reads one back; `None` for what is none.
    pub(super) fn read(record: &[u8]) -> Option<Self> {
        let (time, mut rest) = record.split_at_checked(8)?;
        let mut text = || {
            let (length, after) = rest.split_first()?;
            let (text, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            String::from_utf8(text.to_vec()).ok()
        };
        let (kind, account) = (text()?, text()?);
        Some(Self {
            arrived_at_ms: i64::from_be_bytes(time.try_into().ok()?),
            kind,
            account,
            body: Bytes::copy_from_slice(rest),
        })
    }
}
