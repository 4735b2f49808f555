//! The files of a journal: appended to, synced together, removed when the ledger has what is in them.

use std::{collections::BTreeMap, fs::File, io::Write as _, path::Path};

use tokio::sync::{mpsc, oneshot};

use super::Entry;
use crate::segments::{FolderError, SegmentFolder, frame};

/// A segment of this size is followed by another.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;
/// Entries written with one sync: bounds how long the first waits for the last.
const TOGETHER_MAX: usize = 256;
/// What the files' names begin with.
const STEM: &str = "outcomes";

/// What is to be done with the files.
pub(super) enum Step {
    /// Append an entry in its frame; answers with its segment, or nothing when it could not be written.
    Keep { framed: Vec<u8>, reply: oneshot::Sender<Option<u64>> },
    /// The ledger has an entry of this segment.
    Recorded { segment: u64 },
    /// The ledger has all that an earlier process left.
    ForgetLeft,
}

/// The files.
pub(super) struct Segments {
    folder: SegmentFolder,
    /// Segments of an earlier process, until the ledger has them.
    left: Vec<u64>,
    current: Option<(u64, File, u64)>,
    /// A segment of this size is followed by another.
    pub(super) bytes_max: u64,
    /// Entries by segment that the ledger does not have yet.
    open: BTreeMap<u64, u64>,
    failing: bool,
}

impl Segments {
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Entry>), FolderError> {
        let (folder, left) = SegmentFolder::open(path, STEM)?;
        let mut entries = Vec::new();
        for number in &left {
            let bytes = std::fs::read(folder.path(*number))
                .map_err(|error| FolderError::Unusable(path.to_owned(), error.kind()))?;
            entries.extend(frame::read_json::<Entry>(&bytes));
        }
        let segments =
            Self { folder, left, current: None, bytes_max: SEGMENT_BYTES_MAX, open: BTreeMap::new(), failing: false };
        Ok((segments, entries))
    }

    /// Does what it is told until nobody is left to tell it; blocks.
    pub(super) fn write(mut self, mut waiting: mpsc::Receiver<Step>) {
        let mut steps = Vec::with_capacity(TOGETHER_MAX);
        while waiting.blocking_recv_many(&mut steps, TOGETHER_MAX) > 0 {
            let mut entries = Vec::new();
            let mut replies = Vec::new();
            for step in steps.drain(..) {
                match step {
                    Step::Keep { framed, reply } => {
                        entries.extend_from_slice(&framed);
                        replies.push(reply);
                    }
                    Step::Recorded { segment } => self.recorded(segment),
                    Step::ForgetLeft => self.left.drain(..).for_each(|number| self.folder.remove(number)),
                }
            }
            if replies.is_empty() {
                continue;
            }
            let written = self.append(&entries);
            if let Ok(segment) = written {
                *self.open.entry(segment).or_default() += replies.len() as u64;
            }
            self.report(written.as_ref().err());
            for reply in replies {
                // A worker that went away needs no answer.
                let _ = reply.send(written.as_ref().ok().copied());
            }
        }
    }

    fn append(&mut self, entries: &[u8]) -> std::io::Result<u64> {
        if self.current.as_ref().is_some_and(|(_, _, bytes)| *bytes >= self.bytes_max) {
            self.finish();
        }
        let (number, mut file, bytes) = match self.current.take() {
            Some(current) => current,
            None => {
                let (number, file) = self.folder.create()?;
                (number, file, 0)
            }
        };
        if let Err(error) = file.write_all(entries).and_then(|()| file.sync_data()) {
            self.give_up(number);
            return Err(error);
        }
        self.current = Some((number, file, bytes + entries.len() as u64));
        Ok(number)
    }

    fn recorded(&mut self, segment: u64) {
        let Some(open) = self.open.get_mut(&segment) else { return };
        *open -= 1;
        if *open == 0 && self.current.as_ref().is_none_or(|(number, ..)| *number != segment) {
            self.open.remove(&segment);
            self.folder.remove(segment);
        }
    }

    fn finish(&mut self) {
        if let Some((number, ..)) = self.current.take() {
            self.give_up(number);
        }
    }

    /// Nothing more goes into this segment: it is full, or half an entry may be at its end. One whose entries the ledger
    /// has is removed, or each failure on a full disk would leave a file.
    fn give_up(&mut self, number: u64) {
        if self.open.get(&number).copied().unwrap_or(0) == 0 {
            self.open.remove(&number);
            self.folder.remove(number);
        }
    }

    fn report(&mut self, error: Option<&std::io::Error>) {
        match error {
            None => self.failing = false,
            Some(error) => {
                metrics::counter!("dispatch_journal_failures_total").increment(1);
                if !std::mem::replace(&mut self.failing, true) {
                    let kind = error.kind();
                    tracing::error!(%kind, "outcomes cannot be written to the journal; sending goes on without it");
                }
            }
        }
    }
}

impl Drop for Segments {
    /// After a clean stop the ledger has everything, and nothing is left.
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_is_full_for_long_is_not_filled_with_files() {
        let path = tempfile::tempdir().unwrap();
        let (mut segments, _) = Segments::open(path.path()).unwrap();
        let files = || {
            std::fs::read_dir(path.path()).unwrap().filter(|file| file.as_ref().unwrap().file_name() != "lock").count()
        };
        let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        for _ in 0..3 {
            let (number, mut file) = segments.folder.create().unwrap();
            file.write_all(b"half an ent").unwrap();
            segments.current = Some((number, full(), 0));
            assert!(segments.append(b"an entry").is_err());
            assert_eq!(files(), 0);
        }
        // One that the ledger still needs stays until it does not.
        let segment = segments.append(b"an entry").unwrap();
        segments.open.insert(segment, 1);
        segments.current = Some((segment, full(), 7));
        assert!(segments.append(b"another").is_err());
        assert_eq!(files(), 1);
        segments.recorded(segment);
        assert_eq!(files(), 0);
    }
}
