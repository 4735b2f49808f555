//! Files that are appended to and synced: what the journal of outcomes and the spool of callbacks are made of.
//!
//! A folder of numbered files, the segments, serves one process, which holds its lock. A segment is written by the
//! process that made it and by no other, so a torn end is always an end: nothing is ever written behind it. What stands
//! in a segment is [`frame`]s.

pub(crate) mod frame;

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process uses the folder.
    #[error("the folder {} is used by another process; give each process a folder of its own", .0.display())]
    InUse(PathBuf),
    /// The folder or a file in it cannot be used.
    #[error("the folder {} cannot be used: {}; check that it exists and is writable", .0.display(), .1)]
    Unusable(PathBuf, ErrorKind),
}

/// A folder of segments.
pub(crate) struct SegmentFolder {
    folder: PathBuf,
    /// What the segments' names begin with.
    stem: &'static str,
    next: u64,
    /// Held as long as the folder is used.
    _lock: File,
}

impl SegmentFolder {
    /// Takes the folder, making it if there is none; also the numbers of the segments an earlier process left, ascending.
    pub(crate) fn open(folder: &Path, stem: &'static str) -> Result<(Self, Vec<u64>), FolderError> {
        let unusable = |error: io::Error| FolderError::Unusable(folder.to_owned(), error.kind());
        match make_private(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(unusable(error)),
            _ => {}
        }
        let lock = private().create(true).truncate(false).open(folder.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(FolderError::InUse(folder.to_owned())),
            Err(std::fs::TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let mut left: Vec<u64> = Vec::new();
        for file in std::fs::read_dir(folder).map_err(unusable)? {
            left.extend(number(&file.map_err(unusable)?.path(), stem));
        }
        left.sort_unstable();
        let next = left.last().map_or(1, |number| number + 1);
        Ok((Self { folder: folder.to_owned(), stem, next, _lock: lock }, left))
    }

    /// Makes the next segment.
    pub(crate) fn create(&mut self) -> io::Result<(u64, File)> {
        let number = self.next;
        self.next += 1;
        let file = private().create_new(true).open(self.path(number))?;
        sync(&self.folder)?;
        Ok((number, file))
    }

    /// Where a segment is.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.places().path(number)
    }

    /// Removes a segment. One that cannot be removed is found again at the next start.
    pub(crate) fn remove(&self, number: u64) {
        let path = self.path(number);
        if let Err(error) = std::fs::remove_file(&path) {
            let kind = error.kind();
            tracing::warn!(%kind, file = %path.display(), "a finished file cannot be removed");
        }
    }

    /// The number the next segment will have.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Where the segments are, for whoever reads them beside the one that writes.
    pub(crate) fn places(&self) -> Places {
        Places { folder: self.folder.clone(), stem: self.stem }
    }
}

/// Where segments are.
pub(crate) struct Places {
    folder: PathBuf,
    stem: &'static str,
}

impl Places {
    /// Where a segment is.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}-{number:010}.log", self.stem))
    }
}

fn number(path: &Path, stem: &str) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(".log")?.parse().ok()
}

/// That a file is there must outlive a power cut as well as what is in it.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
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

    #[test]
    fn a_folder_serves_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let (_first, _) = SegmentFolder::open(folder.path(), "outcomes").unwrap();
        assert!(matches!(SegmentFolder::open(folder.path(), "outcomes"), Err(FolderError::InUse(_))));
    }

    #[test]
    fn what_an_earlier_process_left_is_found_and_never_written_to() {
        let folder = tempfile::tempdir().unwrap();
        {
            let (mut first, left) = SegmentFolder::open(folder.path(), "outcomes").unwrap();
            assert!(left.is_empty());
            first.create().unwrap();
            first.create().unwrap();
        }
        std::fs::write(folder.path().join("outcomes-x.log"), "").unwrap();
        let (mut second, left) = SegmentFolder::open(folder.path(), "outcomes").unwrap();
        assert_eq!(left, [1, 2]);
        assert_eq!(second.create().unwrap().0, 3);
        second.remove(1);
        drop(second);
        assert_eq!(SegmentFolder::open(folder.path(), "outcomes").unwrap().1, [2, 3]);
    }
}
