//! The spool: callbacks on this machine's own disk, from their 2xx until the ledger has them.
//!
//! Segments of sealed records. Those that come together are synced together (group commit): each waits for the sync that
//! is under way and its own, no longer. A segment is removed when the ledger has all that is in it, the one being written
//! too, so personal data stays for as short as can be. There is room for a fixed number of bytes, and callbacks are taken
//! only while the oldest of them is not too old; beyond that providers are told to come again.

mod reading;
mod writing;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use dispatch_workers::{
    clock::{Clock, Entropy},
    sealing::SpoolKeys,
};
use tokio::sync::{mpsc, oneshot, watch};

pub use reading::{Batch, SpoolReader};
use writing::{Step, Writer};

use super::Callback;
use crate::segments::{FolderError, SegmentFolder};

/// What the files' names begin with.
const STEM: &str = "callbacks";
/// Callbacks that wait to be written; more wait for room.
const WAITING_MAX: usize = 64;
/// Random bytes at the head of a segment, of which its key is made.
const HEAD_BYTES: usize = 32;
/// No callback waits.
const NONE_WAITS: i64 = i64::MAX;

/// How much the spool takes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Most bytes on disk.
    pub bytes_max: u64,
    /// How old the oldest callback may be while more are taken.
    pub age_max: Duration,
}

/// Why a callback is not in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// There is no room for it.
    #[error("the spool is full")]
    Full,
    /// It could not be written.
    #[error("the spool cannot be written")]
    Failed,
}

/// How far the spool is written: everything before is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    /// The segment that is written, or will be.
    segment: u64,
    /// Its bytes.
    bytes: u64,
}

/// What writer, reader and whoever asks how the spool is have in common.
#[derive(Debug)]
struct Shared {
    bytes: AtomicU64,
    /// When the oldest callback that is not applied came, milliseconds since 1970.
    oldest_ms: AtomicI64,
}

/// Where callbacks are put.
pub struct Spool {
    steps: mpsc::Sender<Step>,
    shared: Arc<Shared>,
    room: Room,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spool")
    }
}

impl Spool {
    /// Opens the spool in `folder`, making it if there is none. What an earlier process left is read first.
    ///
    /// # Errors
    /// [`FolderError`] with what to do.
    pub fn open(
        folder: &Path,
        keys: SpoolKeys,
        room: Room,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<(Arc<Self>, SpoolReader), FolderError> {
        let (folder, left) = SegmentFolder::open(folder, STEM)?;
        let keys = Arc::new(keys);
        let shared = Arc::new(Shared { bytes: AtomicU64::new(0), oldest_ms: AtomicI64::new(NONE_WAITS) });
        let (steps, waiting) = mpsc::channel(WAITING_MAX);
        let (written, end) = watch::channel(End { segment: folder.next(), bytes: 0 });
        let reader =
            SpoolReader::new(folder.places(), left.clone(), (keys.clone(), end, steps.clone(), shared.clone()));
        let writer = Writer::new(folder, left, (keys, entropy), (shared.clone(), room.bytes_max), written);
        tokio::task::spawn_blocking(move || writer.run(waiting));
        Ok((Arc::new(Self { steps, shared, room, clock }), reader))
    }

    /// Puts a callback in; it is on disk when this returns.
    ///
    /// # Errors
    /// [`NotKept`]: the provider must send it again.
    pub async fn keep(&self, callback: &Callback) -> Result<(), NotKept> {
        if self.age() > self.room.age_max {
            return Err(NotKept::Full);
        }
        let (reply, kept) = oneshot::channel();
        let step = Step::Keep { record: callback.write(), reply };
        self.steps.send(step).await.map_err(|_| NotKept::Failed)?;
        kept.await.map_err(|_| NotKept::Failed)?
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Acquire)
    }

    /// How long the oldest callback has waited to be applied.
    #[must_use]
    pub fn age(&self) -> Duration {
        let oldest_ms = self.shared.oldest_ms.load(Ordering::Relaxed);
        Duration::from_millis(u64::try_from(self.clock.now_ms().saturating_sub(oldest_ms)).unwrap_or(0))
    }

    /// Why no more is taken, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if self.bytes() >= self.room.bytes_max {
            return Some(format!("the spool is full ({} bytes); is the ledger away?", self.room.bytes_max));
        }
        let age = self.age();
        (age > self.room.age_max)
            .then(|| format!("the oldest callback has waited {} s to be applied; is the ledger away?", age.as_secs()))
    }
}
