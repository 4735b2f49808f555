//! The thread that writes.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write as _},
    sync::{Arc, atomic::Ordering},
};

use dispatch_workers::{
    clock::{Entropy, random},
    sealing::{SpoolKey, SpoolKeys},
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{End, HEAD_BYTES, NotKept, Shared};
use crate::segments::{SegmentFolder, frame};

/// A segment of this size is followed by another.
const SEGMENT_BYTES_MAX: u64 = 8 << 20;
/// Callbacks written with one sync: bounds how long the first waits for the last.
const TOGETHER_MAX: usize = 64;

/// What is to be done with the files.
pub(super) enum Step {
    /// Append a record; answers when it is on disk.
    Keep { record: Vec<u8>, reply: oneshot::Sender<Result<(), NotKept>> },
    /// The ledger has everything of this segment up to this byte.
    Applied { segment: u64, bytes: u64 },
    /// The ledger has all there is to read of this segment, into which nothing more goes.
    Finished { segment: u64 },
}

/// A segment that is written.
struct Current {
    number: u64,
    file: File,
    bytes: u64,
    key: SpoolKey,
}

/// Writes the files.
pub(super) struct Writer {
    folder: SegmentFolder,
    keys: Arc<SpoolKeys>,
    entropy: Arc<dyn Entropy>,
    shared: Arc<Shared>,
    /// Most bytes of all segments together.
    room: u64,
    written: watch::Sender<End>,
    current: Option<Current>,
    /// Bytes of each segment there is.
    sizes: BTreeMap<u64, u64>,
    failing: bool,
}

impl Writer {
    pub(super) fn new(
        folder: SegmentFolder,
        left: Vec<u64>,
        (keys, entropy): (Arc<SpoolKeys>, Arc<dyn Entropy>),
        (shared, room): (Arc<Shared>, u64),
        written: watch::Sender<End>,
    ) -> Self {
        let size = |number: &u64| std::fs::metadata(folder.path(*number)).map_or(0, |file| file.len());
        let sizes: BTreeMap<u64, u64> = left.into_iter().map(|number| (number, size(&number))).collect();
        shared.bytes.store(sizes.values().sum(), Ordering::Relaxed);
        Self { folder, keys, entropy, shared, room, written, current: None, sizes, failing: false }
    }

    /// Does what it is told until nobody is left to tell it; blocks.
    pub(super) fn run(mut self, mut waiting: mpsc::Receiver<Step>) {
        let mut steps = Vec::with_capacity(TOGETHER_MAX);
        while waiting.blocking_recv_many(&mut steps, TOGETHER_MAX) > 0 {
            let (mut records, mut replies) = (Vec::new(), Vec::new());
            for step in steps.drain(..) {
                match step {
                    Step::Keep { record, reply } => {
                        records.push(record);
                        replies.push(reply);
                    }
                    Step::Applied { segment, bytes } => self.applied(segment, bytes),
                    Step::Finished { segment } => self.remove(segment),
                }
            }
            if !records.is_empty() {
                self.keep(&records, replies);
            }
        }
    }

    fn keep(&mut self, records: &[Vec<u8>], replies: Vec<oneshot::Sender<Result<(), NotKept>>>) {
        let mut room = self.room.saturating_sub(self.shared.bytes.load(Ordering::Relaxed));
        let fits: Vec<bool> = records
            .iter()
            .map(|record| {
                let rest = room.checked_sub(record.len() as u64);
                room = rest.unwrap_or(room);
                rest.is_some()
            })
            .collect();
        let taken = records.iter().zip(&fits).filter(|(_, fits)| **fits).map(|(record, _)| record.as_slice());
        let written = if fits.contains(&true) { self.append(taken) } else { Ok(()) };
        self.report(written.as_ref().err());
        for (reply, fits) in replies.into_iter().zip(fits) {
            let answer = match (&written, fits) {
                (_, false) => Err(NotKept::Full),
                (Ok(()), true) => Ok(()),
                (Err(_), true) => Err(NotKept::Failed),
            };
            // A caller that went away needs no answer; its provider sends again.
            let _ = reply.send(answer);
        }
    }

    fn append<'a>(&mut self, records: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        if self.current.as_ref().is_some_and(|current| current.bytes >= SEGMENT_BYTES_MAX) {
            self.current = None;
        }
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.begin()?,
        };
        let mut frames = Vec::new();
        for record in records {
            frame::write(&current.key.seal(record, self.entropy.as_ref()), &mut frames);
        }
        // What a failed write has left may be half a record, so that segment is given up with whatever is whole in it.
        current.file.write_all(&frames).and_then(|()| current.file.sync_data()).inspect_err(|_| self.publish_next())?;
        current.bytes += frames.len() as u64;
        self.grow(current.number, frames.len() as u64);
        self.written.send_replace(End { segment: current.number, bytes: current.bytes });
        self.current = Some(current);
        Ok(())
    }

    /// A new segment, with its head.
    fn begin(&mut self) -> io::Result<Current> {
        let (number, mut file) = self.folder.create()?;
        let head: [u8; HEAD_BYTES] = random(self.entropy.as_ref());
        let mut framed = Vec::new();
        frame::write(&head, &mut framed);
        self.grow(number, framed.len() as u64);
        file.write_all(&framed).inspect_err(|_| self.publish_next())?;
        Ok(Current { number, file, bytes: framed.len() as u64, key: self.keys.of_file(&head) })
    }

    fn grow(&mut self, number: u64, bytes: u64) {
        *self.sizes.entry(number).or_default() += bytes;
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Nothing more goes into the segments there are.
    fn publish_next(&self) {
        self.written.send_replace(End { segment: self.folder.next(), bytes: 0 });
    }

    fn applied(&mut self, segment: u64, bytes: u64) {
        if self.sizes.get(&segment).is_none_or(|size| *size > bytes) {
            // There is more in it.
            return;
        }
        if self.current.as_ref().is_some_and(|current| current.number == segment) {
            self.current = None;
            self.publish_next();
        }
        self.remove(segment);
    }

    fn remove(&mut self, segment: u64) {
        if let Some(bytes) = self.sizes.remove(&segment) {
            // In this order: what is counted as gone is gone.
            self.folder.remove(segment);
            self.shared.bytes.fetch_sub(bytes, Ordering::Release);
        }
    }

    fn report(&mut self, error: Option<&io::Error>) {
        match error {
            None => self.failing = false,
            Some(error) => {
                metrics::counter!("dispatch_callback_spool_failures_total").increment(1);
                if !std::mem::replace(&mut self.failing, true) {
                    let kind = error.kind();
                    tracing::error!(%kind, "callbacks cannot be written to the spool; providers are told to come again");
                }
            }
        }
    }
}
