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
mod replay;
mod segments;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use dispatch_workers::delivery::{Journal, Kept, Record};
pub use entry::Entry;
use segments::{Segments, Step};
use tokio::sync::{mpsc, oneshot};

use crate::segments::FolderError;

/// Records that wait to be written; more wait for room.
const WAITING_MAX: usize = 1_024;

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
    /// [`FolderError`] with what to do.
    pub fn open(folder: &Path) -> Result<(Arc<Self>, Vec<Entry>), FolderError> {
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
        let framed = Entry::of(record).framed();
        self.steps.send(Step::Keep { framed, reply }).await.ok()?;
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
