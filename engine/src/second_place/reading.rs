//! Reading what all processes have noted.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::note::Noted;
use crate::segments::frame;

/// How the files of notes end.
pub(super) const NOTES: &str = "notes";
/// How the files with a head end.
pub(super) const HEAD: &str = "head";

/// The files of a ledger with this ending, by name, each with the moment of its last change, milliseconds since 1970.
pub(super) fn files(folder: &Path, ledger: &str, ending: &str) -> std::io::Result<Vec<(PathBuf, i64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = name.strip_prefix(ledger).is_some_and(|rest| rest.starts_with('-'));
        if !is_ours || path.extension().is_none_or(|extension| extension != ending) {
            continue;
        }
        match entry.metadata().and_then(|about| about.modified()) {
            Ok(modified) => {
                let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
                files.push((path, i64::try_from(since.as_millis()).unwrap_or(i64::MAX)));
            }
            // Another process took it away meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    files.sort();
    Ok(files)
}

pub(super) fn head(folder: &Path, ledger: &str) -> std::io::Result<Option<i64>> {
    let mut heads = Vec::new();
    for (path, _) in files(folder, ledger, HEAD)? {
        heads.extend(frame::read_json::<i64>(&read(&path)?));
    }
    Ok(heads.into_iter().max())
}

pub(super) fn since(folder: &Path, ledger: &str, since_ms: i64) -> std::io::Result<Vec<Noted>> {
    let mut noted: Vec<Noted> = Vec::new();
    for (path, _) in files(folder, ledger, NOTES)? {
        noted.extend(frame::read_json::<Noted>(&read(&path)?).filter(|noted| noted.at_ms >= since_ms));
    }
    // Notes of one moment keep the order in which their process made them.
    noted.sort_by_key(|noted| noted.at_ms);
    Ok(noted)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}
