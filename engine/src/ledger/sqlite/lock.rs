//! The lock that keeps a second process out of a ledger.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::ledger::{LedgerError, Result};

/// The right to open the ledger of a path. While it lives no other process has it, and the system takes it back from a
/// process that dies.
#[derive(Debug)]
pub struct LedgerLock {
    path: PathBuf,
    _file: File,
}

impl LedgerLock {
    /// Takes the lock of the ledger at `path`, which need not exist yet.
    ///
    /// # Errors
    /// [`LedgerError::InUse`] when another process has it; [`LedgerError::Open`] when there can be no ledger at `path`.
    pub fn take(path: &Path) -> Result<Self> {
        refuse_place(path)?;
        let lock_path = PathBuf::from(format!("{}.lock", path.display()));
        let cannot = |error: &io::Error| {
            LedgerError::Open(format!(
                "the ledger {} cannot be locked: {} cannot be written ({}); check the rights of that file and its folder",
                path.display(),
                lock_path.display(),
                error.kind()
            ))
        };
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let file = opened.map_err(|error| cannot(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _file: file }),
            Err(TryLockError::WouldBlock) => Err(LedgerError::InUse(path.display().to_string())),
            Err(TryLockError::Error(error)) => Err(cannot(&error)),
        }
    }

    /// The ledger's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Says why there can be no ledger at a path: its folder is missing, or it is a folder itself.
///
/// # Errors
/// [`LedgerError::Open`] with what to do.
pub(super) fn refuse_place(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(LedgerError::Open(format!(
            "{path} is a folder; ledger.url names a file, such as {path}/dispatch.db",
            path = path.display()
        )));
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(LedgerError::Open(format!(
            "the folder {folder} of the ledger {path} does not exist; make it (mkdir -p -m 700 {folder}), or name \
             another file in ledger.url",
            folder = folder.display(),
            path = path.display()
        ))),
        _ => Ok(()),
    }
}
