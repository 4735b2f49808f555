//! `dispatch serve`: the engine.

use std::{net::SocketAddr, sync::Arc};

use super::{error::CliError, settings_file::SettingsArgs};
use crate::{
    api::{AccountInfo, Api, Bounds, router, server},
    engine::{Engine, EngineControl, open_ledger},
    settings::Settings,
    telemetry::{logging, metrics::Metrics},
};

const EXAMPLE: &str = "\
Examples:
  dispatch serve
  dispatch serve --config /etc/dispatch/dispatch.toml --listen 0.0.0.0:8025

On its first start it makes the ledger and its key file and says where they are. Losing the key file \
loses the data. Make an API key before: dispatch keys create --tenant NAME";

/// What `dispatch serve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Which settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// The address to listen on, in place of the settings' `api.listen`
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
}

/// Runs `dispatch serve` until it is asked to stop.
///
/// # Errors
/// When something cannot be started.
pub async fn run(args: Args) -> Result<(), CliError> {
    let mut settings = args.settings.load()?;
    if let Some(listen) = args.listen {
        settings.api.listen = listen;
    }
    logging::install(&settings.logging).map_err(|error| CliError::Usage(error.to_string()))?;
    let metrics = Metrics::install().map_err(|error| CliError::Failed(error.to_string()))?;
    // The port first: a second engine on this machine is told so before it touches anything.
    let listener = server::bind(settings.api.listen).await.map_err(|error| CliError::Failed(error.to_string()))?;
    let opened = open_ledger(&settings).await.map_err(|error| CliError::Failed(error.to_string()))?;
    if opened.made_key {
        tracing::warn!(
            key_file = %settings.ledger.key_file.display(),
            "made a master key; keep a copy in a safe place: losing it loses the data"
        );
    }
    let engine = Arc::new(Engine::start(&settings, opened).await.map_err(|error| CliError::Failed(error.to_string()))?);
    let upkeep = tokio::spawn({
        let metrics = metrics.clone();
        async move { metrics.keep_up().await }
    });
    let router = router(Arc::new(api(&settings, &engine, metrics)));
    tracing::info!(listen = %settings.api.listen, "ready");
    server::serve(listener, router, super::interrupted()).await;
    tracing::info!("stopping: requests under way are seen to their end");
    engine.drain().await;
    upkeep.abort();
    Ok(())
}

fn api(settings: &Settings, engine: &Arc<Engine>, metrics: Metrics) -> Api {
    let opened = &engine.opened;
    let accounts = settings.providers.iter().filter_map(|(name, provider)| {
        let channel = provider.channel()?;
        Some(AccountInfo { name: name.clone(), channel, is_default: settings.route(channel) == Some(name.as_str()) })
    });
    Api {
        ledger: opened.ledger.clone(),
        master: opened.master.clone(),
        clock: opened.clock.clone(),
        entropy: opened.entropy.clone(),
        control: Arc::new(EngineControl::new(engine.clone(), metrics)),
        accounts: accounts.collect(),
        bounds: Bounds {
            body_bytes_max: usize::try_from(settings.api.body_bytes_max).unwrap_or(usize::MAX),
            import_bytes_max: settings.api.import_bytes_max,
        },
    }
}
