//! The outcome journal: what providers answered, on this machine's own disk until the ledger has it.
//!
//! Between a provider's answer and its record in a database on another machine the database may be away for a while,
//! and the process may die meanwhile. What was answered would then be `unknown`. The journal narrows that to the
//! moment between the answer and one write: a worker that starts replays what the ledger has not taken. It is evidence,
//! not truth: a replay is a compare-and-set like any record, a lost journal costs nothing but certainty, and there is no
//! personal data in it.
//!
//! It is a folder of segments. Entries are appended and synced together (group commit); a full segment whose entries
//! the ledger has is removed.

mod entry;
pub(crate) mod line;
mod replay;
mod segments;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use dispatch_workers::delivery::{Journal, Kept, Record};
pub use entry::Entry;
use segments::{Segments, Step};
pub(crate) use segments::{private, sync_folder};
use tokio::sync::{mpsc, oneshot};

/// Records that wait to be written; more wait for room.
const WAITING_MAX: usize = 1_024;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process uses the folder.
    #[error(
        "the journal folder {} is used by another process; give each worker a folder of its own \
         (workers.journal_folder)", .0.display()
    )]
    InUse(PathBuf),
    /// The folder or a file in it cannot be used.
    #[error("the journal folder {} cannot be used: {}; check that it exists and is writable", .0.display(), .1)]
    Unusable(PathBuf, std::io::ErrorKind),
}

/// The journal of this process.
#[derive(Debug)]
pub struct OutcomeJournal {
    steps: mpsc::Sender<Step>,
}

impl OutcomeJournal {
    /// Opens the journal in `folder`, making it if there is none, and returns what an earlier process left in it. What
    /// it left stays until [`replay`] has told the ledger.
    ///
    /// # Errors
    /// [`JournalError`] with what to do.
    pub fn open(folder: &Path) -> Result<(Arc<Self>, Vec<Entry>), JournalError> {
        let (segments, left) = Segments::open(folder)?;
        let (steps, waiting) = mpsc::channel(WAITING_MAX);
        tokio::task::spawn_blocking(move || segments.write(waiting));
        Ok((Arc::new(Self { steps }), left))
    }

    /// What an earlier process left is with the ledger now.
    async fn forget_left(&self) {
        // A writer that has ended has nothing to forget.
        let _ = self.steps.send(Step::ForgetLeft).await;
    }
}

#[async_trait]
impl Journal for OutcomeJournal {
    async fn keep(&self, record: &Record<'_>) -> Option<Box<dyn Kept>> {
        let (reply, written) = oneshot::channel();
        let line = line::to_line(&Entry::of(record));
        self.steps.send(Step::Keep { line, reply }).await.ok()?;
        let segment = written.await.ok()??;
        Some(Box::new(Slip { steps: self.steps.clone(), segment }))
    }
}

/// An entry, by the segment it is in.
struct Slip {
    steps: mpsc::Sender<Step>,
    segment: u64,
}

impl Kept for Slip {
    fn recorded(self: Box<Self>) {
        let step = Step::Recorded { segment: self.segment };
        // With no room the segment stays until the next start, which finds that the ledger has it all.
        let _ = self.steps.try_send(step);
    }
}

#[cfg(test)]
mod tests;
