//! Room on the disks of this machine, and the journal's folder.

use std::path::Path;

use super::Check;
use crate::settings::Settings;

/// Below this the engine stops soon: a busy hour writes more.
const FREE_FAIL_BYTES: u64 = 256 << 20;
/// Below this somebody should look: a campaign of ten million recipients takes about that much.
const FREE_WARN_BYTES: u64 = 4 << 30;
/// Free space in a unit people read, MiB.
const MIB: u64 = 1 << 20;

pub(super) fn examine(settings: &Settings) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(file) = settings.ledger.url.file() {
        checks.extend(room("disk.ledger", folder_of(file)));
    }
    match (&settings.workers.journal_folder, settings.ledger.url.file()) {
        (None, None) => checks.push(Check::warn(
            "journal.folder",
            "there is none: what a provider answered while the database was away is unknown when a worker dies then",
            "set workers.journal_folder on machines with the role worker, a folder for each process",
        )),
        (None, Some(_)) => {}
        (Some(folder), Some(_)) => checks.push(Check::warn(
            "journal.folder",
            format!("{} is not used: a SQLite ledger is on this machine's disk itself", folder.display()),
            "take workers.journal_folder out",
        )),
        (Some(folder), None) => {
            checks.push(journal(folder));
            checks.extend(room("disk.journal", existing(folder)));
        }
    }
    checks
}

/// Whether a worker can write its journal. Its lock is left alone: a running worker holds it.
fn journal(folder: &Path) -> Check {
    let place = existing(folder);
    match tempfile::tempfile_in(place) {
        Ok(_) => Check::ok("journal.folder", format!("{} can be written to", place.display())),
        Err(error) => Check::fail(
            "journal.folder",
            format!("{} cannot be written to ({})", place.display(), error.kind()),
            format!("make it the user's that Dispatch runs as: install -d -m 700 -o dispatch {}", folder.display()),
        ),
    }
}

/// The folder itself, or the one it is made in at the first start.
fn existing(folder: &Path) -> &Path {
    if folder.is_dir() { folder } else { folder_of(folder) }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Room for one who is not root.
fn room(name: &'static str, folder: &Path) -> Option<Check> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(folder).ok()?;
        Some(judge(name, folder, disk.f_bavail.saturating_mul(disk.f_frsize)))
    }
    #[cfg(not(unix))]
    {
        let _ = (name, folder);
        None
    }
}

fn judge(name: &'static str, folder: &Path, free: u64) -> Check {
    let text = format!("{} MiB are free at {}", free / MIB, folder.display());
    match free {
        _ if free < FREE_FAIL_BYTES => {
            Check::fail(name, text, "free some space now: nothing can be recorded, and so nothing sent, without it")
        }
        _ if free < FREE_WARN_BYTES => Check::warn(name, text, "free some space, or move it to a larger disk"),
        _ => Check::ok(name, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn a_disk_is_warned_of_before_it_fails() {
        let level = |free| judge("disk.ledger", Path::new("/srv"), free).level;
        assert_eq!(
            [FREE_WARN_BYTES, FREE_WARN_BYTES - 1, FREE_FAIL_BYTES, FREE_FAIL_BYTES - 1, 0].map(level),
            [Level::Ok, Level::Warn, Level::Warn, Level::Fail, Level::Fail]
        );
    }

    #[test]
    fn a_journal_is_judged_by_the_folder_it_is_made_in() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(journal(&folder.path().join("journal")).level, Level::Ok);
        assert!(!folder.path().join("journal").exists(), "looking makes none");
        let nowhere = journal(Path::new("/nonexistent/journal/1"));
        assert!(nowhere.level == Level::Fail && nowhere.to_string().contains("install -d"), "{nowhere}");
    }
}
