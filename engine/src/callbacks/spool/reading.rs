//! Reading what is written, in its order.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, SeekFrom},
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use dispatch_workers::sealing::{SpoolKey, SpoolKeys};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::{mpsc, watch},
};

use super::{Callback, End, NONE_WAITS, Shared, writing::Step};
use crate::segments::{Places, frame::Frames};

/// Bytes read at a time: more than the largest record, and no more than that, because what is read is held twice over
/// while it is applied.
const READ_BYTES: u64 = 5 << 18;

/// Callbacks in the order they came.
#[derive(Debug, Default)]
pub struct Batch {
    /// The callbacks.
    pub callbacks: Vec<Callback>,
    segment: u64,
    bytes: u64,
}

/// Where the reader is.
struct Position {
    segment: u64,
    /// The segment's key, once its head is read.
    key: Option<SpoolKey>,
    /// Bytes before the next record.
    bytes: u64,
}

/// Reads the spool. There is one for each.
pub struct SpoolReader {
    places: Places,
    /// Segments of an earlier process, the next first.
    left: VecDeque<u64>,
    keys: Arc<SpoolKeys>,
    end: watch::Receiver<End>,
    steps: mpsc::Sender<Step>,
    shared: Arc<Shared>,
    position: Option<Position>,
    /// The segment to be read after those that were left.
    next: u64,
}

impl std::fmt::Debug for SpoolReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpoolReader")
    }
}

impl SpoolReader {
    pub(super) fn new(
        places: Places,
        left: Vec<u64>,
        (keys, end, steps, shared): (Arc<SpoolKeys>, watch::Receiver<End>, mpsc::Sender<Step>, Arc<Shared>),
    ) -> Self {
        let next = end.borrow().segment;
        Self { places, left: left.into(), keys, end, steps, shared, position: None, next }
    }

    /// The next callbacks; waits until there are some. Dropped while it waits it has read nothing. None when nothing is
    /// written any more.
    ///
    /// # Errors
    /// When a file cannot be read; the same may be tried again.
    pub async fn next(&mut self) -> io::Result<Option<Batch>> {
        loop {
            let end = *self.end.borrow_and_update();
            if self.position.is_none() {
                self.position = self.begin(end);
            }
            if let Some(position) = &mut self.position {
                let is_current = position.segment == end.segment;
                let until = if is_current { end.bytes } else { u64::MAX };
                let read = read(&self.places.path(position.segment), position, until, &self.keys).await?;
                if let Some(oldest) = read.callbacks.first() {
                    self.shared.oldest_ms.store(oldest.arrived_at_ms, Ordering::Relaxed);
                    return Ok(Some(read));
                }
                if !is_current {
                    // All of it is read, and was applied before it was asked for more.
                    self.finish().await;
                    continue;
                }
            }
            self.shared.oldest_ms.store(NONE_WAITS, Ordering::Relaxed);
            if self.end.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// The ledger has what was read last.
    pub async fn applied(&mut self, batch: &Batch) {
        // A writer that has ended removes nothing; the next process applies it again.
        let _ = self.steps.send(Step::Applied { segment: batch.segment, bytes: batch.bytes }).await;
    }

    fn begin(&mut self, end: End) -> Option<Position> {
        let segment = match self.left.pop_front() {
            Some(segment) => segment,
            None if self.next < end.segment || end.bytes > 0 => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        Some(Position { segment, key: None, bytes: 0 })
    }

    async fn finish(&mut self) {
        if let Some(position) = self.position.take() {
            let _ = self.steps.send(Step::Finished { segment: position.segment }).await;
        }
    }
}

/// Reads on in a segment, up to a byte. One that is not there has nothing more in it.
async fn read(path: &Path, position: &mut Position, until: u64, keys: &SpoolKeys) -> io::Result<Batch> {
    let mut batch = Batch { callbacks: Vec::new(), segment: position.segment, bytes: position.bytes };
    let mut file = match File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(batch),
        Err(error) => return Err(error),
    };
    while batch.callbacks.is_empty() {
        file.seek(SeekFrom::Start(position.bytes)).await?;
        let mut bytes = Vec::new();
        (&mut file).take(until.saturating_sub(position.bytes).min(READ_BYTES)).read_to_end(&mut bytes).await?;
        let mut frames = Frames::of(&bytes);
        if position.key.is_none() {
            position.key = frames.next().map(|head| keys.of_file(head));
        }
        let Some(key) = &position.key else { break };
        for sealed in frames.by_ref() {
            match key.open(sealed).ok().and_then(|record| Callback::read(&record)) {
                Some(callback) => batch.callbacks.push(callback),
                None => {
                    metrics::counter!("dispatch_callback_spool_failures_total").increment(1);
                    tracing::error!(
                        "a callback in the spool cannot be read; it was changed, or the key is another one"
                    );
                }
            }
        }
        let read = frames.read() as u64;
        if read == 0 {
            break;
        }
        position.bytes += read;
        batch.bytes = position.bytes;
    }
    Ok(batch)
}
