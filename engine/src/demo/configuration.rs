//! The settings a demo runs with: the sandbox's addresses, and timers short enough to watch.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use dispatch_schemas::states::Channel;
use dispatch_workers::{delivery::Timing, providers::REGISTRY, sandbox::SIGNATURE_HEADER};

use super::{
    DemoError, DemoOptions,
    sandbox_process::{CALLBACK_SECRET, SandboxProcess},
};
use crate::settings::{LedgerUrl, Settings};

/// Which provider serves which channel.
pub(super) fn kinds(options: &DemoOptions) -> Result<BTreeMap<Channel, &'static str>, DemoError> {
    let mut kinds = BTreeMap::from([(Channel::Email, "sendgrid"), (Channel::Sms, "infobip")]);
    if let Some(wanted) = &options.provider {
        let entry = REGISTRY.iter().find(|entry| entry.kind == wanted.as_str()).ok_or_else(|| {
            let known: Vec<&str> = REGISTRY.iter().map(|entry| entry.kind).collect();
            DemoError::Option(format!("no provider is called `{wanted}`; there are: {}", known.join(", ")))
        })?;
        kinds.insert(entry.channel, entry.kind);
    }
    kinds.retain(|channel, _| options.channels.includes(*channel));
    Ok(kinds)
}

/// The settings, over these providers.
pub(super) fn settings(
    options: &DemoOptions,
    folder: &Path,
    kinds: &BTreeMap<Channel, &'static str>,
    sandbox: &SandboxProcess,
    ledger_url: Option<LedgerUrl>,
) -> Result<Settings, DemoError> {
    let secret = secret_file(folder)?;
    let mut providers = toml::Table::new();
    for kind in kinds.values() {
        let mut account = toml::Table::new();
        account.insert("kind".into(), (*kind).into());
        account.insert("url".into(), sandbox.url(kind).into());
        account.insert("requests_open_max".into(), requests_open(kind, options.batch).into());
        account.insert("answer_timeout_s".into(), 5.into());
        if options.callbacks && dispatch_workers::providers::entry(kind).is_some_and(|entry| entry.callbacks.is_some())
        {
            account.insert("callbacks".into(), callbacks(kind, sandbox, &secret).into());
        }
        if let Some(batch) = options.batch {
            account.insert("recipients_per_request".into(), i64::try_from(batch).unwrap_or(i64::MAX).into());
        }
        providers.insert((*kind).to_owned(), account.into());
    }
    let document = toml::Table::from_iter([("providers".to_owned(), toml::Value::from(providers))]);
    let wrong = |error: String| DemoError::Option(format!("the demo's settings do not fit: {error}"));
    let mut settings: Settings = document.try_into().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    for provider in settings.providers.values_mut() {
        provider.key = Some(sandbox.api_key());
    }
    settings.ledger.url = ledger_url.unwrap_or_else(|| LedgerUrl::sqlite(folder.join("dispatch.db")));
    settings.queue.url.clone_from(&options.queue_url);
    settings.ledger.key_file = folder.join("dispatch.key");
    settings.callbacks.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    settings.callbacks.spool_folder = folder.join("callbacks");
    // Short, so that a demo with faults ends while one watches. The order of the protocol's steps is the same.
    settings.timing = Timing {
        send_deadline_ms: 2_000,
        answer_timeout_ms: 5_000,
        reaper_grace_ms: 1_000,
        provider_lag_ms: 1_000,
        evidence_window_ms: 15_000,
        retry_first_ms: 500,
        retry_max_ms: 5_000,
        ask_again_ms: 1_000,
    };
    Ok(settings)
}

/// What the callbacks of a provider are known by.
fn callbacks(kind: &str, sandbox: &SandboxProcess, secret: &Path) -> toml::Table {
    match kind {
        "sendgrid" => toml::Table::from_iter([("public_key".to_owned(), sandbox.callback_public_key().into())]),
        _ => toml::Table::from_iter([
            ("secret_file".to_owned(), secret.display().to_string().into()),
            ("signature_header".to_owned(), SIGNATURE_HEADER.into()),
        ]),
    }
}

/// The file with what Brevo and Infobip sign with.
fn secret_file(folder: &Path) -> Result<PathBuf, DemoError> {
    use std::io::Write as _;
    let path = folder.join("callbacks.secret");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&path).and_then(|mut file| file.write_all(CALLBACK_SECRET.as_bytes()));
    written.map_err(|source| DemoError::Io { what: "the secret of callbacks cannot be written".to_owned(), source })?;
    Ok(path)
}

/// Where a request holds one recipient, more of them are open: each waits for the sandbox's disk.
fn requests_open(kind: &str, batch: Option<usize>) -> i64 {
    if batch == Some(1) || matches!(kind, "smtp" | "brevo_sms") { 64 } else { 16 }
}
