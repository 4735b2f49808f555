//! The second place: what must not be forgotten even when the ledger is.
//!
//! A database that fails over to a standby that was behind, or is restored from a copy, has lost its last commits: people
//! who opted out since would be written to, and messages sent since would be sent again. So each closing of a gate, and
//! each claim before its first byte leaves, is noted in a folder apart from the ledger as well, synced before the caller
//! is answered. Beside the notes each process writes how far the ledger was ([`SecondPlace::remember_head`]); a ledger
//! that is behind that has forgotten, and [`crate::quarantine`] tells it what.
//!
//! The folder is one for all processes of a ledger. Each appends to files of its own, framed as the outcome
//! journal's, so none waits for another. There is no address, name or content in it: ids, numbers and keyed hashes.

mod note;
mod reading;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use note::{Claimed, Hash, Note, Noted};
use tokio::sync::{mpsc, oneshot};
use writer::{Files, Step};

/// Notes that wait to be written; more wait for room.
const WAITING_MAX: usize = 1_024;
/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 3_600_000;

/// Why the second place cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the second place {} cannot be used: {kind}; ledger.second_place_folder names a folder that every process of this \
     ledger can write to", folder.display()
)]
pub struct SecondPlaceError {
    folder: PathBuf,
    kind: std::io::ErrorKind,
}

/// The second place of a ledger, or none.
#[derive(Debug, Clone, Default)]
pub struct SecondPlace(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// What the files of this ledger begin with.
    ledger: String,
    kept_ms: i64,
    steps: mpsc::Sender<Step>,
}

/// How the second place of a ledger is found and kept.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The folder, which must be there.
    pub folder: &'a Path,
    /// How long a note is kept, days: as long as a copy of the ledger may be restored.
    pub days: u32,
    /// The fingerprint of the ledger's key, by which its files are told from another ledger's.
    pub fingerprint: &'a [u8],
    /// Names this process among those of the ledger: drawn at random.
    pub process: [u8; 8],
}

impl SecondPlace {
    /// Without one: nothing is noted, and what a ledger forgot is nowhere.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Opens it for this process. Files are made with the first note.
    ///
    /// # Errors
    /// When the folder is not there or may not be written to.
    pub fn open(place: Place<'_>) -> Result<Self, SecondPlaceError> {
        let folder = place.folder.to_owned();
        let unusable = |error: std::io::Error| SecondPlaceError { folder: folder.clone(), kind: error.kind() };
        let ledger: String = hex(place.fingerprint.get(..8).unwrap_or(place.fingerprint));
        let kept_ms = i64::from(place.days).saturating_mul(DAY_MS);
        let files = Files::open(&folder, format!("{ledger}-{}", hex(&place.process)), kept_ms).map_err(unusable)?;
        let (steps, waiting) = mpsc::channel(WAITING_MAX);
        std::thread::Builder::new()
            .name("second-place".to_owned())
            .spawn(move || files.write(waiting))
            .map_err(unusable)?;
        Ok(Self(Some(Arc::new(Inner { folder, ledger, kept_ms, steps }))))
    }

    /// Whether there is one.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Notes something, durable when it returns.
    ///
    /// # Errors
    /// When it could not be written; it may be tried again, a note made twice counts once.
    pub async fn note(&self, at_ms: i64, note: Note) -> Result<(), SecondPlaceError> {
        let Some(inner) = &self.0 else { return Ok(()) };
        inner.ask(|reply| Step::Note { noted: Noted { at_ms, note }, reply }).await
    }

    /// Remembers that the ledger was as far as this, in place of what this process remembered before.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn remember_head(&self, head: i64) -> Result<(), SecondPlaceError> {
        let Some(inner) = &self.0 else { return Ok(()) };
        inner.ask(|reply| Step::Head { head, reply }).await
    }

    /// How far the ledger was, as far as any process remembers.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn head(&self) -> Result<Option<i64>, SecondPlaceError> {
        let Some(inner) = self.0.clone() else { return Ok(None) };
        inner.reading(|inner| reading::head(&inner.folder, &inner.ledger)).await
    }

    /// Everything noted from that moment on (milliseconds since 1970), by any process, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn since(&self, since_ms: i64) -> Result<Vec<Noted>, SecondPlaceError> {
        let Some(inner) = self.0.clone() else { return Ok(Vec::new()) };
        inner.reading(move |inner| reading::since(&inner.folder, &inner.ledger, since_ms)).await
    }

    /// Whether notes of that moment are still kept now.
    #[must_use]
    pub fn keeps(&self, at_ms: i64, now_ms: i64) -> bool {
        self.0.as_ref().is_some_and(|inner| at_ms > now_ms.saturating_sub(inner.kept_ms))
    }
}

impl Inner {
    async fn ask(
        &self,
        step: impl FnOnce(oneshot::Sender<std::io::Result<()>>) -> Step,
    ) -> Result<(), SecondPlaceError> {
        let (reply, written) = oneshot::channel();
        // A writer that has ended writes nothing any more.
        let written = match self.steps.send(step(reply)).await {
            Ok(()) => written.await.unwrap_or_else(|_| Err(std::io::ErrorKind::BrokenPipe.into())),
            Err(_) => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|error| self.unusable(&error))
    }

    async fn reading<T: Send + 'static>(
        self: Arc<Self>,
        read: impl FnOnce(&Self) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, SecondPlaceError> {
        let inner = self.clone();
        let done = tokio::task::spawn_blocking(move || read(&inner)).await;
        done.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into())).map_err(|error| self.unusable(&error))
    }

    fn unusable(&self, error: &std::io::Error) -> SecondPlaceError {
        SecondPlaceError { folder: self.folder.clone(), kind: error.kind() }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
