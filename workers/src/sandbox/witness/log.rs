//! Writing the log: every line is on disk before [`Witness::log`] returns, and requests in flight share a sync.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    mem,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{WitnessKey, format};
use crate::{
    clock::Clock,
    sandbox::{Observation, Witness},
};

/// The witness of a sandbox: appends to one file.
///
/// A thread of its own writes and syncs whatever has gathered since its last sync, then tells all who wait for it. So
/// a request waits for two syncs at most, however many are in flight; and because each waits for its line, the lines
/// that gather are at most one per open connection.
pub struct WitnessLog {
    key: WitnessKey,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    writer: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    gathered: Mutex<Gathered>,
    changed: Condvar,
}

#[derive(Default)]
struct Gathered {
    /// The number of the next line.
    seq: u64,
    lines: Vec<u8>,
    waiting: Vec<oneshot::Sender<io::Result<()>>>,
    /// The log is being dropped: write what is there and end.
    closing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WitnessLog {
    /// Creates the file; a log that is there already is never written over.
    ///
    /// # Errors
    /// When the file exists or cannot be created, or no thread can be started.
    pub fn create(path: &Path, key: WitnessKey, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        let shared = Arc::new(Shared::default());
        let writer = {
            let shared = shared.clone();
            thread::Builder::new().name("witness".into()).spawn(move || write(file, &shared))?
        };
        Ok(Self { key, clock, shared, writer: Some(writer) })
    }
}

#[async_trait]
impl Witness for WitnessLog {
    async fn log(&self, seen: Observation) -> io::Result<()> {
        let t_ms = self.clock.now_ms();
        let rest = format::rest(&seen);
        let (on_disk, told) = oneshot::channel();
        {
            let mut gathered = self.shared.lock();
            let seq = gathered.seq;
            gathered.seq += 1;
            format::start(seq, t_ms, &mut gathered.lines);
            gathered.lines.extend_from_slice(&rest);
            gathered.waiting.push(on_disk);
        }
        self.shared.changed.notify_one();
        told.await.unwrap_or_else(|_| Err(io::Error::other("the witness has stopped writing")))
    }

    fn hash(&self, address: &str) -> String {
        self.key.hash(address)
    }
}

impl Drop for WitnessLog {
    /// Waits for the last sync.
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            // It ends in any case; a panic in it has told every waiting request already.
            let _ = writer.join();
        }
    }
}

impl std::fmt::Debug for WitnessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WitnessLog")
    }
}

/// Writes until the log is dropped. After the first failure nothing more is written: a log with a hole in it proves
/// nothing, so every later request hears of the failure too.
fn write(mut file: File, shared: &Shared) {
    let mut failed: Option<(io::ErrorKind, String)> = None;
    let mut lines = Vec::new();
    loop {
        let waiting = {
            let mut gathered = shared
                .changed
                .wait_while(shared.lock(), |gathered| gathered.waiting.is_empty() && !gathered.closing)
                .unwrap_or_else(PoisonError::into_inner);
            if gathered.waiting.is_empty() {
                return;
            }
            mem::swap(&mut gathered.lines, &mut lines);
            mem::take(&mut gathered.waiting)
        };
        if failed.is_none()
            && let Err(error) = file.write_all(&lines).and_then(|()| file.sync_data())
        {
            failed = Some((error.kind(), error.to_string()));
        }
        lines.clear();
        for waiter in waiting {
            let outcome = match &failed {
                None => Ok(()),
                Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            };
            // Whoever no longer waits has lost its connection; the line stands.
            let _ = waiter.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        clock::SystemClock,
        sandbox::witness::{WitnessRecipient, WitnessVerdict, read_lines},
    };

    fn log_in(directory: &Path) -> (WitnessLog, std::path::PathBuf) {
        let path = directory.join("witness.jsonl");
        let log = WitnessLog::create(&path, WitnessKey::new(&[7; 32]), Arc::new(SystemClock::new())).unwrap();
        (log, path)
    }

    fn seen(token: &str) -> Observation {
        Observation {
            provider: "sendgrid",
            token: Some(token.into()),
            batch_key: None,
            mode: "ok",
            status: 202,
            recipients: vec![WitnessRecipient { key: None, to: "x".into(), verdict: WitnessVerdict::Accepted }],
        }
    }

    #[tokio::test]
    async fn a_line_is_in_the_file_when_log_returns_however_many_are_in_flight() {
        let directory = tempfile::tempdir().unwrap();
        let (log, path) = log_in(directory.path());
        let log = Arc::new(log);
        let writers: Vec<_> = (0..200)
            .map(|number| {
                let (log, path) = (log.clone(), path.clone());
                tokio::spawn(async move {
                    let token = format!("token-{number}");
                    log.log(seen(&token)).await.unwrap();
                    let text = fs::read_to_string(path).unwrap();
                    assert!(text.contains(&format!("\"{token}\"")), "{token} was not on disk when its log returned");
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let numbers: Vec<u64> = read_lines(&path).unwrap().map(|line| line.unwrap().seq).collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_log_that_is_there_is_not_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let (log, path) = log_in(directory.path());
        log.log(seen("first")).await.unwrap();
        drop(log);
        let again = WitnessLog::create(&path, WitnessKey::new(&[7; 32]), Arc::new(SystemClock::new()));
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read_lines(&path).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_disk_that_takes_no_more_fails_this_line_and_all_after_it() {
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let shared = Arc::new(Shared::default());
        let writer = {
            let shared = shared.clone();
            thread::spawn(move || write(full, &shared))
        };
        let log = WitnessLog {
            key: WitnessKey::new(&[7; 32]),
            clock: Arc::new(SystemClock::new()),
            shared,
            writer: Some(writer),
        };
        assert_eq!(log.log(seen("first")).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(log.log(seen("second")).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
