//! The files of a journal: appended to, synced together, removed when the ledger has what is in them.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use tokio::sync::{mpsc, oneshot};

use super::{Entry, JournalError, line};

/// A segment of this size is followed by another.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;
/// Entries written with one sync: bounds how long the first waits for the last.
const TOGETHER_MAX: usize = 256;

/// What is to be done with the files.
pub(super) enum Step {
    /// Append a line; answers with its segment, or nothing when it could not be written.
    Keep { line: Vec<u8>, reply: oneshot::Sender<Option<u64>> },
    /// The ledger has an entry of this segment.
    Recorded { segment: u64 },
    /// The ledger has all that an earlier process left.
    ForgetLeft,
}

/// The files.
pub(super) struct Segments {
    folder: PathBuf,
    /// Segments of an earlier process, until the ledger has them.
    left: Vec<PathBuf>,
    current: Option<(u64, File, u64)>,
    next: u64,
    /// A segment of this size is followed by another.
    pub(super) bytes_max: u64,
    /// Entries by segment that the ledger does not have yet.
    open: BTreeMap<u64, u64>,
    failing: bool,
    /// Held as long as the journal is open.
    _lock: File,
}

impl Segments {
    pub(super) fn open(folder: &Path) -> Result<(Self, Vec<Entry>), JournalError> {
        let unusable = |error: std::io::Error| JournalError::Unusable(folder.to_owned(), error.kind());
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(unusable(error)),
            _ => {}
        }
        let lock = private().create(true).truncate(false).open(folder.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(JournalError::InUse(folder.to_owned())),
            Err(std::fs::TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let mut left: Vec<(u64, PathBuf)> = Vec::new();
        for file in std::fs::read_dir(folder).map_err(unusable)? {
            let path = file.map_err(unusable)?.path();
            if let Some(number) = number(&path) {
                left.push((number, path));
            }
        }
        left.sort();
        let mut entries = Vec::new();
        for (_, path) in &left {
            let bytes = std::fs::read(path).map_err(unusable)?;
            entries.extend(line::of_file::<Entry>(&bytes));
        }
        let next = left.last().map_or(1, |(number, _)| number + 1);
        let left = left.into_iter().map(|(_, path)| path).collect();
        let segments = Self {
            folder: folder.to_owned(),
            left,
            current: None,
            next,
            bytes_max: SEGMENT_BYTES_MAX,
            open: BTreeMap::new(),
            failing: false,
            _lock: lock,
        };
        Ok((segments, entries))
    }

    /// Does what it is told until nobody is left to tell it; blocks.
    pub(super) fn write(mut self, mut waiting: mpsc::Receiver<Step>) {
        let mut steps = Vec::with_capacity(TOGETHER_MAX);
        while waiting.blocking_recv_many(&mut steps, TOGETHER_MAX) > 0 {
            let mut lines = Vec::new();
            let mut replies = Vec::new();
            for step in steps.drain(..) {
                match step {
                    Step::Keep { line, reply } => {
                        lines.extend_from_slice(&line);
                        replies.push(reply);
                    }
                    Step::Recorded { segment } => self.recorded(segment),
                    Step::ForgetLeft => self.left.drain(..).for_each(|path| remove(&path)),
                }
            }
            if replies.is_empty() {
                continue;
            }
            let written = self.append(&lines);
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

    fn append(&mut self, lines: &[u8]) -> std::io::Result<u64> {
        if self.current.as_ref().is_some_and(|(_, _, bytes)| *bytes >= self.bytes_max) {
            self.finish();
        }
        let (number, mut file, bytes) = match self.current.take() {
            Some(current) => current,
            None => {
                let number = self.next;
                self.next += 1;
                let file = private().create_new(true).open(self.path(number))?;
                sync_folder(&self.folder)?;
                (number, file, 0)
            }
        };
        if let Err(error) = file.write_all(lines).and_then(|()| file.sync_data()) {
            self.give_up(number);
            return Err(error);
        }
        self.current = Some((number, file, bytes + lines.len() as u64));
        Ok(number)
    }

    fn recorded(&mut self, segment: u64) {
        let Some(open) = self.open.get_mut(&segment) else { return };
        *open -= 1;
        if *open == 0 && self.current.as_ref().is_none_or(|(number, ..)| *number != segment) {
            self.open.remove(&segment);
            remove(&self.path(segment));
        }
    }

    fn finish(&mut self) {
        if let Some((number, ..)) = self.current.take() {
            self.give_up(number);
        }
    }

    /// Nothing more goes into this segment: it is full, or half a line may be at its end. One whose entries the ledger
    /// has is removed, or each failure on a full disk would leave a file.
    fn give_up(&mut self, number: u64) {
        if self.open.get(&number).copied().unwrap_or(0) == 0 {
            self.open.remove(&number);
            remove(&self.path(number));
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("outcomes-{number:010}.log"))
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

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("outcomes-")?.strip_suffix(".log")?.parse().ok()
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        let kind = error.kind();
        tracing::warn!(%kind, file = %path.display(), "a finished part of the journal cannot be removed");
    }
}

/// That a file is there must outlive a power cut as well as what is in it.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Readable by its owner only.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_is_full_for_long_is_not_filled_with_files() {
        let folder = tempfile::tempdir().unwrap();
        let (mut segments, _) = Segments::open(folder.path()).unwrap();
        let files = || {
            std::fs::read_dir(folder.path())
                .unwrap()
                .filter(|file| number(&file.as_ref().unwrap().path()).is_some())
                .count()
        };
        for _ in 0..3 {
            let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
            let next = segments.next;
            segments.next += 1;
            std::fs::write(segments.path(next), "half a li").unwrap();
            segments.current = Some((next, full, 0));
            assert!(segments.append(b"a line\n").is_err());
            assert_eq!(files(), 0);
        }
        // One that the ledger still needs stays until it does not.
        let segment = segments.append(b"a line\n").unwrap();
        segments.open.insert(segment, 1);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        segments.current = Some((segment, full, 7));
        assert!(segments.append(b"another\n").is_err());
        assert_eq!(files(), 1);
        segments.recorded(segment);
        assert_eq!(files(), 0);
    }
}
