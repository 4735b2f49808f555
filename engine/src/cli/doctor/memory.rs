//! What the ledger may forget: its quarantine, and the second place that remembers for it.

use std::path::Path;

use super::Check;
use crate::{ledger::Quarantine, quarantine::MEND, settings::Settings};

/// The quarantine of a ledger that could be asked.
pub(super) fn quarantine(quarantine: Option<&Quarantine>) -> Check {
    match quarantine {
        None => Check::ok("ledger.quarantine", "there is none"),
        Some(Quarantine { reason, doubted, .. }) => {
            let text = format!("nothing is sent: {reason}; {doubted} deliveries were called unknown so far");
            Check::fail("ledger.quarantine", text, MEND)
        }
    }
}

/// Whether there is a second place, and this machine can write to it.
pub(super) fn second_place(settings: &Settings) -> Check {
    const NAME: &str = "second_place.folder";
    let Some(folder) = &settings.ledger.second_place_folder else {
        return Check::warn(
            NAME,
            "there is none: after a failover or a restore nobody knows what was sent and who opted out since the copy",
            "set ledger.second_place_folder to a folder apart from the ledger, the same for all its processes",
        );
    };
    if let Err(error) = tempfile::tempfile_in(folder) {
        return Check::fail(
            NAME,
            format!(
                "{} cannot be written to ({}), so closings are refused and nothing is sent",
                folder.display(),
                error.kind()
            ),
            format!("make it the user's that Dispatch runs as: install -d -m 700 -o dispatch {}", folder.display()),
        );
    }
    match settings.ledger.url.file().filter(|ledger| is_with(folder, ledger)) {
        Some(ledger) => Check::warn(
            NAME,
            format!("{} is on the disk of the ledger {}, and is lost with it", folder.display(), ledger.display()),
            "name a folder on another disk, or a share",
        ),
        None => Check::ok(NAME, format!("{} can be written to", folder.display())),
    }
}

/// Whether a folder is on the disk of a file.
fn is_with(folder: &Path, file: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let place = file.parent().filter(|place| !place.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let device = |path: &Path| std::fs::metadata(path).map(|about| about.dev()).ok();
        device(folder).is_some_and(|one| device(place) == Some(one))
    }
    #[cfg(not(unix))]
    {
        let _ = (folder, file);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::doctor::Level, settings::LedgerUrl};

    #[test]
    fn a_second_place_is_missed_and_must_be_writable_and_elsewhere() {
        let mut settings = Settings::default();
        assert_eq!(second_place(&settings).level, Level::Warn);
        settings.ledger.second_place_folder = Some("/nonexistent/second".into());
        let nowhere = second_place(&settings);
        assert!(nowhere.level == Level::Fail && nowhere.to_string().contains("install -d"), "{nowhere}");
        let folder = tempfile::tempdir().unwrap();
        settings.ledger.second_place_folder = Some(folder.path().to_owned());
        settings.ledger.url = LedgerUrl::sqlite(folder.path().join("ledger.db"));
        let beside = second_place(&settings);
        assert!(beside.level == Level::Warn && beside.to_string().contains("another disk"), "{beside}");
        settings.ledger.url = LedgerUrl::sqlite("/proc/ledger.db".into());
        assert_eq!(second_place(&settings).level, Level::Ok);
    }

    #[test]
    fn a_quarantine_fails_with_its_reason() {
        assert_eq!(quarantine(None).level, Level::Ok);
        let there = Quarantine { id: 1, entered_at_ms: 0, reason: "a failover".to_owned(), doubted: 7 };
        let said = quarantine(Some(&there)).to_string();
        assert!(said.starts_with("fail") && said.contains("a failover; 7 ") && said.contains("unquarantine"), "{said}");
    }
}
