//! A job as it travels: read and written without an allocation, because there is one message per recipient.

use dispatch_schemas::{
    ids::CampaignId,
    job::{JOB_VERSION, Job},
};
use serde::Deserialize;
use serde_json::Value;

/// Longest job: three names, three numbers.
const JOB_BYTES_MAX: usize = 64;

/// Longest message of another version that is kept as it is.
const OTHER_VERSION_BYTES_MAX: usize = 256;

/// A job, written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    bytes: [u8; JOB_BYTES_MAX],
    len: usize,
}

impl Written {
    pub(super) fn new(campaign: CampaignId, seq: i64) -> Self {
        let mut bytes = [0; JOB_BYTES_MAX];
        let mut rest = bytes.as_mut_slice();
        // The longest job is shorter than the buffer, as a test shows.
        let left = serde_json::to_writer(&mut rest, &Job::new(campaign, seq)).map_or(JOB_BYTES_MAX, |()| rest.len());
        Self { bytes, len: JOB_BYTES_MAX - left }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Why a message is no job of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A job of a version this program does not know, with what can be kept of it.
    Version(Option<Vec<u8>>),
    /// Anything else.
    Malformed,
}

/// Reads a job.
pub(super) fn read(bytes: &[u8]) -> Result<(CampaignId, i64), Unreadable> {
    match serde_json::from_slice::<Job>(bytes) {
        Ok(Job { v: JOB_VERSION, c, s }) if c >= 0 && s >= 0 => Ok((CampaignId(c), s)),
        _ => Err(unreadable(bytes)),
    }
}

#[derive(Deserialize)]
struct AnyVersion {
    v: u64,
}

fn unreadable(bytes: &[u8]) -> Unreadable {
    match serde_json::from_slice::<AnyVersion>(bytes) {
        Ok(AnyVersion { v }) if v != u64::from(JOB_VERSION) => Unreadable::Version(only_numbers(bytes)),
        _ => Unreadable::Malformed,
    }
}

/// The message itself if it is a few numbers; anything else may be about a person and is not kept.
fn only_numbers(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > OTHER_VERSION_BYTES_MAX {
        return None;
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(bytes) else { return None };
    let short_name = |name: &str| name.len() <= 2;
    fields.iter().all(|(name, value)| short_name(name) && value.is_i64()).then(|| bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_written_as_the_schema_says_and_read_back() {
        for (campaign, seq) in [(0, 0), (7, 123_456), (i64::MAX, i64::MAX)] {
            let written = Written::new(CampaignId(campaign), seq);
            assert_eq!(written.as_bytes(), serde_json::to_vec(&Job::new(CampaignId(campaign), seq)).unwrap());
            assert_eq!(read(written.as_bytes()), Ok((CampaignId(campaign), seq)));
        }
        let longest = serde_json::to_vec(&Job { v: u8::MAX, c: i64::MIN, s: i64::MIN }).unwrap();
        assert!(longest.len() < JOB_BYTES_MAX);
    }

    #[test]
    fn another_version_is_told_from_garbage_and_only_numbers_are_kept() {
        let kept = br#"{"v":2,"c":1,"s":2,"p":3}"#;
        assert_eq!(read(kept), Err(Unreadable::Version(Some(kept.to_vec()))));
        assert_eq!(read(br#"{"v":2,"to":"a@b.eu"}"#), Err(Unreadable::Version(None)));
        for garbage in [
            b"".as_slice(),
            b"hello",
            b"{}",
            b"[1,2]",
            br#"{"v":1,"c":1}"#,
            br#"{"v":1,"c":-1,"s":2}"#,
            br#"{"v":1,"c":1,"s":2,"to":"a@b.eu"}"#,
            br#"{"v":"1","c":1,"s":2}"#,
            b"\xff\xfe",
        ] {
            assert_eq!(read(garbage), Err(Unreadable::Malformed));
        }
    }
}
