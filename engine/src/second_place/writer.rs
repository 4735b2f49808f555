//! The files of one process: notes appended and synced together, followed by another file when one is full or old, and
//! removed when no copy of the ledger can be as old as they are.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    note::Noted,
    reading::{self, HEAD, NOTES},
};
use crate::segments::{self, frame};

/// A file of this size is followed by another.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// So is one whose first note is this old, so that old notes go: milliseconds.
const FILE_MS_MAX: i64 = 24 * 3_600_000;
/// Notes written with one sync: bounds how long the first waits for the last.
const TOGETHER_MAX: usize = 256;

/// What is to be written.
pub(super) enum Step {
    /// Append a note.
    Note { noted: Noted, reply: oneshot::Sender<std::io::Result<()>> },
    /// Put the head in place of the one before.
    Head { head: i64, reply: oneshot::Sender<std::io::Result<()>> },
}

/// The files.
pub(super) struct Files {
    folder: PathBuf,
    /// What the names of this process's files begin with, the ledger's part before the `-`.
    name: String,
    kept_ms: i64,
    current: Option<Current>,
    next: u64,
}

/// The file that is appended to.
struct Current {
    file: File,
    bytes: u64,
    first_ms: i64,
}

impl Files {
    pub(super) fn open(folder: &Path, name: String, kept_ms: i64) -> std::io::Result<Self> {
        // Readable, and writable: a folder that is not is better refused now than at the first opt-out.
        std::fs::read_dir(folder)?;
        drop(tempfile::tempfile_in(folder)?);
        Ok(Self { folder: folder.to_owned(), name, kept_ms, current: None, next: 1 })
    }

    /// Does what it is told until nobody is left to tell it; blocks.
    pub(super) fn write(mut self, mut waiting: mpsc::Receiver<Step>) {
        let mut steps = Vec::with_capacity(TOGETHER_MAX);
        while waiting.blocking_recv_many(&mut steps, TOGETHER_MAX) > 0 {
            let (mut notes, mut replies, mut last_ms) = (Vec::new(), Vec::new(), i64::MIN);
            for step in steps.drain(..) {
                match step {
                    Step::Note { noted, reply } => {
                        last_ms = last_ms.max(noted.at_ms);
                        frame::write_json(&noted, &mut notes);
                        replies.push(reply);
                    }
                    // Whoever asked may be gone, here and below.
                    Step::Head { head, reply } => drop(reply.send(self.put_head(head))),
                }
            }
            if replies.is_empty() {
                continue;
            }
            let written = self.append(&notes, last_ms);
            if let Err(error) = &written {
                metrics::counter!("dispatch_second_place_failures_total").increment(1);
                tracing::error!(kind = %error.kind(), "the second place cannot be written; closings and claims are refused");
            }
            for reply in replies {
                drop(reply.send(written.as_ref().map_err(|error| error.kind().into()).copied()));
            }
        }
    }

    fn append(&mut self, notes: &[u8], now_ms: i64) -> std::io::Result<()> {
        let is_done = |current: &Current| {
            current.bytes >= FILE_BYTES_MAX || now_ms.saturating_sub(current.first_ms) >= FILE_MS_MAX
        };
        if self.current.as_ref().is_none_or(is_done) {
            self.current = None;
            let path = self.folder.join(format!("{}-{:010}.{NOTES}", self.name, self.next));
            self.next += 1;
            let file = segments::private().create_new(true).open(path)?;
            segments::sync(&self.folder)?;
            self.current = Some(Current { file, bytes: 0, first_ms: now_ms });
            self.remove_old(now_ms);
        }
        let Some(current) = &mut self.current else { return Err(std::io::ErrorKind::NotFound.into()) };
        if let Err(error) = current.file.write_all(notes).and_then(|()| current.file.sync_data()) {
            // Half a note may be at its end: nothing is written behind it.
            self.current = None;
            return Err(error);
        }
        current.bytes += notes.len() as u64;
        Ok(())
    }

    /// A head is replaced whole: whoever reads sees the one before or this one.
    fn put_head(&self, head: i64) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        let mut framed = Vec::new();
        frame::write_json(&head, &mut framed);
        file.write_all(&framed)?;
        file.as_file().sync_data()?;
        file.persist(self.folder.join(format!("{}.{HEAD}", self.name))).map_err(|error| error.error)?;
        segments::sync(&self.folder)
    }

    /// Files of any process of this ledger in which no note is young enough to be needed.
    fn remove_old(&self, now_ms: i64) {
        let ledger = self.name.split('-').next().unwrap_or_default();
        let before_ms = now_ms.saturating_sub(self.kept_ms);
        let old = [NOTES, HEAD].into_iter().flat_map(|ending| {
            let files = reading::files(&self.folder, ledger, ending).unwrap_or_default();
            files.into_iter().filter(|(_, changed_ms)| *changed_ms < before_ms)
        });
        for (path, _) in old {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(kind = %error.kind(), file = %path.display(), "old notes of the second place cannot be removed");
            }
        }
    }
}
