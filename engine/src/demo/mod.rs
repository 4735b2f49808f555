//! The demo: a whole campaign on this machine, against the sandbox, and the proof that ledger and witness agree.
//!
//! The sandbox is a process of its own; everything else runs here. A list is imported, some people are suppressed and
//! some erased, campaigns are launched and watched to their end, and then every recipient's state is compared with
//! what the fake providers logged.

mod agreement;
mod configuration;
mod content;
mod people;
mod sandbox_process;
mod services;
mod told;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use configuration::{kinds, settings};
use dispatch_schemas::{
    api::{
        campaigns::{CampaignContent, NewCampaign, Progress},
        imports::Mapping,
        limits::Windows,
        lists::{Import, NewList, NewSource},
        time::Moment,
    },
    ids::{CampaignId, ListId, TenantId},
    states::{CampaignState, Channel, DeliveryState, LegalBasis, Purpose, SourceKind, StopReason},
};
use dispatch_workers::sandbox::{CallbackCounts, witness::WitnessKey};
use futures_util::StreamExt as _;
use sandbox_process::SandboxProcess;
use serde::Serialize;
use services::Services;

use crate::{
    engine::{Engine, Roles, StartError, open_ledger},
    import::loading::LoadError,
    ledger::LedgerError,
    settings::{LedgerUrl, QueueUrl},
    telemetry::memory,
};

pub use people::Channels;
pub use sandbox_process::SandboxReady;

/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes read of a file at a time.
const READ_BYTES: usize = 256 << 10;

/// What to show.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// How many recipients to make up, when there is no file.
    pub recipients: u64,
    /// A contact file instead.
    pub csv: Option<PathBuf>,
    /// By which channels.
    pub channels: Channels,
    /// Providers by kind; the ones not named are SendGrid and Infobip.
    pub provider: Option<String>,
    /// Where the ledger is; in the demo's own folder when not given.
    pub ledger_url: Option<LedgerUrl>,
    /// Where RabbitMQ is; jobs stay in the process when not given.
    pub queue_url: Option<QueueUrl>,
    /// Where to keep ledger, key and witness; a folder that is removed in the end when not given.
    pub keep: Option<PathBuf>,
    /// The fault plan of the sandbox, such as `throttle=0.01,accept_then_drop=0.02`.
    pub faults: Option<String>,
    /// The seed of the fault plan.
    pub seed: u64,
    /// Recipients per request, instead of the provider's own number.
    pub batch: Option<usize>,
    /// Size of an e-mail, KiB.
    pub body_kb: usize,
    /// Whether the providers report what became of the messages they took.
    pub callbacks: bool,
}

/// Why the demo could not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The sandbox did not start.
    #[error("the sandbox did not start: {0}")]
    Sandbox(String),
    /// A file could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// An option does not fit.
    #[error("{0}")]
    Option(String),
    /// A campaign paused by itself.
    #[error("a campaign paused: {0}")]
    Paused(String),
    /// The engine did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The list could not be imported.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What the demo came to. Its JSON is the last line of `dispatch demo --json`.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Recipients of all campaigns together.
    pub audience: u64,
    /// How many stand where.
    pub states: BTreeMap<String, u64>,
    /// Stopped recipients by reason, failed ones by code.
    pub reasons: BTreeMap<String, u64>,
    /// Recipients that the ledger knows a report of, by its kind.
    pub reported: BTreeMap<String, u64>,
    /// What the providers told.
    pub callbacks: Callbacks,
    /// What the providers logged.
    pub witness: WitnessCounts,
    /// Whether each recipient's state matches the providers' log, and the reports what they told.
    pub agree: bool,
    /// Recipients whose state does not match.
    pub disagreements: u64,
    /// From launch to the last recipient final; the import is not counted.
    pub recipients_per_second: f64,
    /// From the first byte of the file to the commit.
    pub import_rows_per_second: f64,
    /// What became of the rows of the file.
    pub import: serde_json::Value,
    /// Peak resident memory of this process, MiB.
    pub rss_mb_peak: f64,
    /// Providers used.
    pub providers: Vec<String>,
}

/// What the providers told in callbacks.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Callbacks {
    /// Messages that something was told of, by what.
    pub told: BTreeMap<String, u64>,
    /// Calls that were taken.
    pub taken: u64,
    /// Calls that were refused, as those with a wrong signature must be.
    pub refused: u64,
}

/// What the providers logged.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct WitnessCounts {
    /// Messages accepted.
    pub accepted: u64,
    /// Messages accepted more than once for one recipient, beyond the resends a campaign's policy counted.
    pub duplicates: u64,
}

/// Hears how far the demo has come.
pub trait Watcher: Send {
    /// A new step begins.
    fn step(&mut self, text: &str);
    /// Of `total` things in this step, `done` are done.
    fn progress(&mut self, done: u64, total: u64);
}

/// Runs the demo.
///
/// # Errors
/// When it could not run to its end; a disagreement is not an error but in the [`Outcome`].
pub async fn run(options: &DemoOptions, watcher: &mut dyn Watcher) -> Result<Outcome, DemoError> {
    let temporary;
    let folder = match &options.keep {
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(io("the folder cannot be made"))?;
            folder.clone()
        }
        None => {
            temporary = tempfile::tempdir().map_err(io("no temporary folder can be made"))?;
            temporary.path().to_path_buf()
        }
    };
    let kinds = kinds(options)?;
    let (services, ledger_url) = Services::make(options).await?;
    let outcome = Box::pin(show(options, &folder, kinds, ledger_url, watcher)).await;
    // What went wrong in the demo matters more than what could not be cleaned up after it.
    let removed = services.remove().await;
    let outcome = outcome?;
    removed?;
    Ok(outcome)
}

async fn show(
    options: &DemoOptions,
    folder: &Path,
    kinds: BTreeMap<Channel, &'static str>,
    ledger_url: Option<LedgerUrl>,
    watcher: &mut dyn Watcher,
) -> Result<Outcome, DemoError> {
    watcher.step("starting the sandbox");
    let witness = folder.join("witness.jsonl");
    let sandbox = SandboxProcess::start(&witness, options).await?;
    let settings = settings(options, folder, &kinds, &sandbox, ledger_url)?;
    let opened = open_ledger(&settings).await?;
    let engine = Engine::start(&settings, opened, Roles::all()).await?;
    if let Some(desk) = &engine.callbacks {
        sandbox.call_back(desk.address).await?;
    }

    watcher.step("importing the contact list");
    let file = people::file(options, folder)?;
    let tenant = engine.opened.ledger.tenant("demo").await?.id;
    let list = list(&engine, tenant).await?;
    let began = engine.opened.clock.monotonic();
    let import = load(&engine, tenant, list, &file).await?;
    let import_seconds = (engine.opened.clock.monotonic() - began).as_secs_f64();

    watcher.step("suppressing and erasing some people");
    opt_out(&engine, tenant, &file).await?;

    watcher.step("sending");
    let campaigns = launch(&engine, tenant, list, options, &kinds).await?;
    let (progress, seconds) = watch(&engine, tenant, &campaigns, watcher).await?;
    let told = match &engine.callbacks {
        Some(desk) => {
            watcher.step("hearing what the providers report");
            told::heard(&sandbox, desk, watcher).await?
        }
        None => CallbackCounts::default(),
    };
    let reported = told::reported(&engine, tenant, &campaigns).await?;

    watcher.step("comparing the ledger with the providers' log, recipient by recipient");
    let ledger = engine.opened.ledger.clone();
    engine.drain().await;
    sandbox.stop().await;
    let key = WitnessKey::new(&SandboxProcess::witness_key(options.seed));
    let compared = agreement::compare(ledger.as_ref(), tenant, &campaigns, &witness, &key, folder).await;
    ledger.close().await;
    let compared = compared?;

    let audience = progress.iter().map(|p| p.audience).sum::<u64>();
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for progress in &progress {
        for (state, count) in &progress.states {
            *states.entry(state.clone()).or_default() += count;
        }
        for (reason, count) in &progress.reasons {
            *reasons.entry(reason.clone()).or_default() += count;
        }
    }
    Ok(Outcome {
        audience,
        agree: compared.disagreements == 0
            && told::agree(&told, &reported)
            && compared.recipients == audience
            && states.values().sum::<u64>() == audience,
        disagreements: compared.disagreements,
        states,
        reasons,
        reported,
        callbacks: Callbacks { told: told.told, taken: told.taken, refused: told.refused },
        witness: WitnessCounts { accepted: compared.accepted, duplicates: compared.duplicates },
        recipients_per_second: (audience as f64 / seconds.max(0.001)).round(),
        import_rows_per_second: (import.totals.rows as f64 / import_seconds.max(0.001)).round(),
        import: serde_json::json!({ "totals": import.totals, "report": import.report }),
        rss_mb_peak: memory::resident_bytes_peak()
            .map_or(0.0, |bytes| (bytes as f64 / 1_048_576.0 * 10.0).round() / 10.0),
        providers: kinds.values().map(|kind| (*kind).to_owned()).collect(),
    })
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> DemoError {
    move |source| DemoError::Io { what: what.to_owned(), source }
}

async fn list(engine: &Engine, tenant: TenantId) -> Result<ListId, DemoError> {
    let ledger = &engine.opened.ledger;
    let source = NewSource {
        name: "Demo list".to_owned(),
        kind: SourceKind::CustomerList,
        legal_basis: LegalBasis::Consent,
        reference: None,
    };
    let source = ledger.create_source(tenant, &source, None).await?.value.id;
    let name = format!("demo-{}", engine.opened.clock.now_ms());
    Ok(ledger.create_list(tenant, &NewList { name, source }, None).await?.value.id)
}

async fn load(engine: &Engine, tenant: TenantId, list: ListId, file: &Path) -> Result<Import, DemoError> {
    let file = tokio::fs::File::open(file).await.map_err(io("the contact file cannot be read"))?;
    let bytes = tokio_util::io::ReaderStream::with_capacity(file, READ_BYTES).boxed();
    let import = engine.opened.ledger.begin_import(tenant, list).await?;
    Ok(engine.loader.load(tenant, list, import, Mapping::default(), bytes).await?)
}

async fn opt_out(engine: &Engine, tenant: TenantId, file: &Path) -> Result<(), DemoError> {
    let ledger = &engine.opened.ledger;
    let keys = ledger.tenant_keys(tenant).await?;
    let chosen = people::choose(file)?;
    for channel in Channel::ALL {
        let hash = |addresses: &[(Channel, String)]| {
            let of_channel = addresses.iter().filter(|(of, _)| of == channel);
            of_channel.map(|(of, address)| keys.address_hash(*of, address)).collect::<Vec<_>>()
        };
        ledger.close_gates(tenant, *channel, &hash(&chosen.suppressed), StopReason::Suppressed).await?;
        for address in hash(&chosen.erased) {
            ledger.erase(tenant, &[(*channel, address)]).await?;
        }
    }
    Ok(())
}

async fn launch(
    engine: &Engine,
    tenant: TenantId,
    list: ListId,
    options: &DemoOptions,
    kinds: &BTreeMap<Channel, &'static str>,
) -> Result<Vec<CampaignId>, DemoError> {
    let ledger = &engine.opened.ledger;
    let mut campaigns = Vec::new();
    for (channel, kind) in kinds {
        let content = content::content(*channel, options.body_kb);
        let new = NewCampaign {
            name: format!("Demo by {channel}"),
            lists: vec![list],
            content: CampaignContent::Inline { content: content.clone() },
            purpose: Purpose::Marketing,
            unknown_policy: None,
            account: Some((*kind).to_owned()),
            limits: Windows::default(),
            send_at: None,
            expires_at: None,
            sending_window: None,
        };
        campaigns.push(ledger.create_campaign(tenant, &new, &content, kind, None).await?.value.id);
    }
    let mut launched = Vec::new();
    for campaign in campaigns {
        match ledger.launch(tenant, campaign, None).await {
            Ok(_) => launched.push(campaign),
            // A file without phone numbers has no recipients by SMS.
            Err(LedgerError::Conflict { code: "audience-empty", .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        engine.campaign_changed(campaign);
    }
    Ok(launched)
}

/// Watches the campaigns to their end; the seconds are from the first launch to the last recipient final.
async fn watch(
    engine: &Engine,
    tenant: TenantId,
    campaigns: &[CampaignId],
    watcher: &mut dyn Watcher,
) -> Result<(Vec<Progress>, f64), DemoError> {
    let ledger = &engine.opened.ledger;
    loop {
        let mut all = Vec::with_capacity(campaigns.len());
        for campaign in campaigns {
            all.push(ledger.progress(tenant, *campaign).await?);
        }
        let audience = all.iter().map(|p| p.audience).sum();
        watcher.progress(all.iter().map(finished).sum(), audience);
        if let Some(paused) = all.iter().find(|p| p.state == CampaignState::Paused) {
            return Err(DemoError::Paused(paused.pause_reason.clone().unwrap_or_default()));
        }
        if all.iter().all(|p| p.state == CampaignState::Completed) {
            let (mut first, mut last) = (i64::MAX, i64::MIN);
            for campaign in campaigns {
                let campaign = ledger.campaign(tenant, *campaign).await?;
                first = first.min(campaign.launched_at.map_or(i64::MAX, Moment::as_ms));
                last = last.max(campaign.ended_at.map_or(i64::MIN, Moment::as_ms));
            }
            return Ok((all, last.saturating_sub(first) as f64 / 1_000.0));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn finished(progress: &Progress) -> u64 {
    DeliveryState::ALL
        .iter()
        .filter(|state| state.is_final())
        .filter_map(|state| progress.states.get(state.as_str()))
        .sum()
}
