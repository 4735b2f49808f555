//! Frames: how records stand in a segment, so that half a record and a damaged one are known.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Serialize, de::DeserializeOwned};

/// The length and the checksum that stand before a record.
const HEAD_BYTES: usize = 4 + CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 8;

/// Appends a record in its frame. A record is far smaller than 4 GiB.
pub(crate) fn write(record: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEAD_BYTES + record.len());
    out.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&checksum(record));
    out.extend_from_slice(record);
}

/// The same with the JSON of something made of numbers and texts, which always has one.
pub(crate) fn write_json<T: Serialize>(record: &T, out: &mut Vec<u8>) {
    write(&serde_json::to_vec(record).unwrap_or_default(), out);
}

/// What [`write_json`] has written to a file, without what another program wrote and what was not written whole: that is
/// the last of a process that died in the middle of it, and what it was to say was not promised.
pub(crate) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> impl Iterator<Item = T> {
    Frames::of(bytes).filter_map(|record| serde_json::from_slice(record).ok())
}

/// The records of a segment. A damaged one is passed over; with one that is not whole they end.
pub(crate) struct Frames<'a> {
    rest: &'a [u8],
    /// Bytes of the frames that were read.
    read: usize,
}

impl<'a> Frames<'a> {
    /// Of these bytes.
    pub(crate) const fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, read: 0 }
    }

    /// Bytes of the frames that were read so far.
    pub(crate) const fn read(&self) -> usize {
        self.read
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let (head, rest) = self.rest.split_at_checked(HEAD_BYTES)?;
            let (length, sum) = head.split_at_checked(4)?;
            let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
            let (record, rest) = rest.split_at_checked(length)?;
            self.rest = rest;
            self.read += HEAD_BYTES + length;
            if checksum(record) == sum {
                return Some(record);
            }
        }
    }
}

fn checksum(record: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&digest(&SHA256, record).as_ref()[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| write(record, &mut bytes));
        bytes
    }

    proptest! {
        #[test]
        fn records_cut_off_anywhere_read_back_up_to_the_cut(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6), cut in 0_usize..300,
        ) {
            let whole = framed(&records);
            let cut = cut.min(whole.len());
            let read: Vec<Vec<u8>> = Frames::of(&whole[..cut]).map(<[u8]>::to_vec).collect();
            prop_assert!(records.starts_with(&read));
            prop_assert!(cut < whole.len() || read.len() == records.len());
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::of(&bytes);
            while frames.next().is_some() {}
            prop_assert!(frames.read() <= bytes.len());
        }
    }

    #[test]
    fn a_damaged_record_is_passed_over() {
        let records = [b"first".to_vec(), b"second".to_vec(), b"third".to_vec()];
        let mut bytes = framed(&records);
        let second = HEAD_BYTES * 2 + records[0].len();
        bytes[second] ^= 1;
        let mut frames = Frames::of(&bytes);
        assert_eq!(frames.by_ref().collect::<Vec<_>>(), [b"first".as_slice(), b"third"]);
        assert_eq!(frames.read(), bytes.len());
    }
}
