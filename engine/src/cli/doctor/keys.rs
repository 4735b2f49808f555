//! The master key, and a settings file that holds a secret.

use dispatch_workers::sealing::MasterKey;

use super::{Check, Fingerprint};
use crate::settings::Settings;

/// The master key: its file, whether others can read it, and whether it is the ledger's.
pub(super) fn master_key(settings: &Settings, of_ledger: &Fingerprint) -> Check {
    let file = settings.ledger.key_file.as_path();
    let shown = file.display();
    if !file.exists() {
        return match of_ledger {
            Fingerprint::Known(_) => Check::fail(
                "key.master",
                format!("the ledger has a key, and its file {shown} is not there"),
                "put the key back from its copy, or name its file in ledger.key_file; without it nobody can read the \
                 ledger's contacts",
            ),
            _ => Check::ok("key.master", format!("{shown} is made at the first start")),
        };
    }
    let master = match MasterKey::read(file) {
        Ok(master) => master,
        Err(error) => return Check::refused("key.master", error.to_string()),
    };
    match of_ledger {
        Fingerprint::Known(theirs) if *theirs != master.fingerprint() => Check::fail(
            "key.master",
            format!("{shown} is not the key this ledger was made with"),
            "point ledger.key_file at that key, or ledger.url at that key's ledger",
        ),
        Fingerprint::Known(_) => {
            Check::ok("key.master", format!("{shown} is this ledger's, and only its owner can read it"))
        }
        Fingerprint::None => {
            Check::ok("key.master", format!("only its owner can read {shown}; the ledger has no key yet"))
        }
        Fingerprint::NotAsked => Check::warn(
            "key.master",
            format!("only its owner can read {shown}; whether it is this ledger's could not be told"),
            "mend the ledger first",
        ),
    }
}

/// A settings file with the database's password in it must be its owner's alone.
pub(super) fn settings_file(settings: &Settings) -> Vec<Check> {
    let Some(file) = &settings.source.file else {
        return vec![Check::warn(
            "settings.file",
            "there is none; the defaults are in force",
            "name one with --config, or put it at /etc/dispatch/dispatch.toml",
        )];
    };
    let from_file = !settings.source.variables.iter().any(|name| name == "DISPATCH_LEDGER__URL");
    #[cfg(unix)]
    if from_file && settings.ledger.url.has_password() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(file).map_or(0, |file| file.permissions().mode() & 0o777);
        if mode & 0o077 != 0 {
            return vec![Check::fail(
                "settings.file",
                format!("{} holds the database's password and others can read it (mode {mode:03o})", file.display()),
                format!("chmod 600 {}, or keep the password in ~/.pgpass or DISPATCH_LEDGER__URL", file.display()),
            )];
        }
    }
    vec![Check::ok("settings.file", format!("{} is read, and each setting is in range", file.display()))]
}
