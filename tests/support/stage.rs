//! A folder with a sandbox and the settings of an engine that sends through it.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use dispatch_engine::settings::Settings;
use dispatch_workers::{providers::REGISTRY, sandbox::SIGNATURE_HEADER};
use tempfile::TempDir;

use super::sandbox::{API_KEY, CALLBACK_SECRET, Sandbox};

/// The protocol's timers, shortened so that everything settles in seconds. Their order is the same.
const TIMING: &str = "[timing]
send_deadline_ms = 1000
answer_timeout_ms = 1000
reaper_grace_ms = 500
provider_lag_ms = 500
evidence_window_ms = 4000
retry_first_ms = 100
retry_max_ms = 1000
ask_again_ms = 300
";

/// Runs of a channel delivered side by side.
pub const RUNS: usize = 4;

/// A provider account, named after its kind.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// Its kind.
    pub kind: &'static str,
    /// Recipients in a request.
    pub batch: usize,
    /// Requests open at once.
    pub requests_open: usize,
    /// Messages in any second; handed out evenly, so a request holds few.
    pub per_second: Option<u32>,
    /// Messages in any minute; handed out in bunches, so a request can be full.
    pub per_minute: Option<u32>,
}

impl Account {
    /// One message a request, as many as it can.
    #[must_use]
    pub const fn new(kind: &'static str) -> Self {
        Self { kind, batch: 1, requests_open: 4, per_second: None, per_minute: None }
    }

    /// Deliveries that one claim takes: what one run can leave open when it is killed.
    #[must_use]
    pub const fn claim_size(&self) -> usize {
        if self.batch == 1 { self.requests_open * 4 } else { self.batch }
    }
}

/// The stage.
#[derive(Debug)]
pub struct Stage {
    folder: TempDir,
    /// The providers.
    pub sandbox: Sandbox,
    /// The engine's settings file.
    pub settings_file: PathBuf,
}

impl Stage {
    /// Sets everything up.
    #[must_use]
    pub fn new(accounts: &[Account], faults: &str, seed: u64) -> Self {
        Self::with(accounts, |folder| Sandbox::start(folder, faults, seed))
    }

    /// Sets everything up around the sandbox that `start` starts in the folder.
    pub fn with(accounts: &[Account], start: impl FnOnce(&Path) -> Sandbox) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let sandbox = start(folder.path());
        let key_file = folder.path().join("provider.key");
        write_secret(&key_file, API_KEY);
        let settings_file = folder.path().join("dispatch.toml");
        std::fs::write(&settings_file, settings_text(folder.path(), &sandbox, accounts)).expect("settings are written");
        Self { folder, sandbox, settings_file }
    }

    /// The engine's settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings::load(Some(&self.settings_file), std::iter::empty()).expect("the settings of the stage are right")
    }

    /// The folder everything is in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The settings, by their variables, with which these accounts are called back at an address.
    #[must_use]
    pub fn callback_variables(&self, kinds: &[&str], address: SocketAddr) -> Vec<(String, String)> {
        let mut variables = vec![
            ("DISPATCH_CALLBACKS__LISTEN".to_owned(), address.to_string()),
            ("DISPATCH_CALLBACKS__SPOOL_FOLDER".to_owned(), self.spool_folder().display().to_string()),
        ];
        let secret = self.folder().join("callbacks.secret");
        write_secret(&secret, CALLBACK_SECRET);
        for kind in kinds {
            let own = |name: &str| format!("DISPATCH_PROVIDERS__{}__CALLBACKS__{name}", kind.to_ascii_uppercase());
            if *kind == "sendgrid" {
                variables.push((own("PUBLIC_KEY"), self.sandbox.callback_public_key().to_owned()));
            } else {
                variables.push((own("SECRET_FILE"), secret.display().to_string()));
                variables.push((own("SIGNATURE_HEADER"), SIGNATURE_HEADER.to_owned()));
            }
        }
        variables
    }

    /// The folder in which callbacks wait.
    #[must_use]
    pub fn spool_folder(&self) -> PathBuf {
        self.folder.path().join("callbacks")
    }

    /// Whether no callback waits to be told to the ledger.
    #[must_use]
    pub fn spool_is_empty(&self) -> bool {
        std::fs::read_dir(self.spool_folder())
            .is_ok_and(|files| files.filter_map(Result::ok).all(|file| file.file_name() == "lock"))
    }

    /// The ledger's file.
    #[must_use]
    pub fn ledger_file(&self) -> PathBuf {
        self.folder.path().join("dispatch.db")
    }
}

fn settings_text(folder: &Path, sandbox: &Sandbox, accounts: &[Account]) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut text = format!("{TIMING}\n[workers]\nemail_runs = {RUNS}\nsms_runs = {RUNS}\nattempts_max = 20\n");
    let mut add = |line: String| writeln!(text, "{line}").expect("a string takes any line");
    add(format!(
        "\n[ledger]\nurl = {:?}\nkey_file = {:?}",
        format!("sqlite:{}", path("dispatch.db")),
        path("dispatch.key")
    ));
    add("\n[routes]".to_owned());
    for entry in REGISTRY {
        let first = accounts.iter().find(|account| channel_of(account.kind) == entry.channel.as_str());
        if let Some(first) = first.filter(|first| first.kind == entry.kind) {
            add(format!("{} = {:?}", entry.channel, first.kind));
        }
    }
    for account in accounts {
        let Account { kind, batch, requests_open, .. } = account;
        add(format!("\n[providers.{kind}]\nkind = {kind:?}\nurl = {:?}\nanswer_timeout_s = 1", sandbox.url(kind)));
        add(format!("requests_open_max = {requests_open}\nrecipients_per_request = {batch}"));
        if *kind != "smtp" {
            add(format!("key_file = {:?}", path("provider.key")));
        }
        add(format!("[providers.{kind}.limits]"));
        for (window, most) in [("per_second", account.per_second), ("per_minute", account.per_minute)] {
            if let Some(most) = most {
                add(format!("{window} = {most}"));
            }
        }
    }
    text
}

/// The channel of a provider's kind.
#[must_use]
pub fn channel_of(kind: &str) -> &'static str {
    REGISTRY.iter().find(|entry| entry.kind == kind).map_or("", |entry| entry.channel.as_str())
}

/// Writes a file that its owner alone can read; over one that is there.
fn write_secret(path: &Path, secret: &str) {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(secret.as_bytes())).expect("a key file can be written");
}
