//! `dispatch serve`: the engine.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;

use super::{error::CliError, settings_file::SettingsArgs};
use crate::{
    api::{AccountInfo, Api, Bounds, Context, server},
    engine::{Engine, EngineControl, Opened, claim_ledger},
    settings::{Settings, listen_address},
    telemetry::{logging, metrics::Metrics},
};

const EXAMPLE: &str = "\
Examples:
  dispatch serve
  dispatch serve --config /etc/dispatch/dispatch.toml --listen 0.0.0.0:8025

On its first start it makes the ledger and its key file and says where they are. Losing the key file \
loses the data. API keys are made with `dispatch keys create --tenant NAME`, before or while it runs.";

/// What `dispatch serve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Which settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// The address to listen on, in place of the settings' `api.listen`
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address)]
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
    // A second engine is told of the first by the ledger they share; and nothing is made before the port is ours.
    let claimed = claim_ledger(&settings).map_err(|error| CliError::Failed(error.to_string()))?;
    let listener = server::bind(settings.api.listen).await.map_err(|error| CliError::Failed(error.to_string()))?;
    let opened = claimed.open().await.map_err(|error| CliError::Failed(error.to_string()))?;
    if opened.made_key {
        tracing::warn!(
            key_file = %settings.ledger.key_file.display(),
            "made a master key; keep a copy in a safe place: losing it loses the data"
        );
    }
    let ledger = opened.ledger.clone();
    let served = serve(&settings, opened, listener, metrics).await;
    ledger.close().await;
    served
}

async fn serve(settings: &Settings, opened: Opened, listener: TcpListener, metrics: Metrics) -> Result<(), CliError> {
    let engine = Engine::start(settings, opened).await.map_err(|error| CliError::Failed(error.to_string()))?;
    let engine = Arc::new(engine);
    let upkeep = tokio::spawn({
        let metrics = metrics.clone();
        async move { metrics.keep_up().await }
    });
    let context = Context::new(Arc::new(api(settings, &engine, metrics)));
    #[cfg(unix)]
    let orders =
        tokio::spawn(take_orders(settings.ledger.url.file().to_owned(), engine.opened.clone(), context.clone()));
    tracing::info!(listen = %settings.api.listen, "ready");
    server::serve(listener, context.router(), super::interrupted()).await;
    tracing::info!("stopping: requests under way are seen to their end");
    #[cfg(unix)]
    {
        // The socket is gone before the ledger is free: the next engine's is not taken for ours.
        orders.abort();
        let _ = orders.await;
    }
    engine.drain().await;
    upkeep.abort();
    Ok(())
}

/// Takes the orders of `dispatch keys` and `dispatch tenants` as long as this task lives.
#[cfg(unix)]
async fn take_orders(ledger: std::path::PathBuf, opened: Opened, context: Arc<Context>) {
    use crate::operator::Change;
    match crate::operator::socket::OperatorSocket::bind(&ledger) {
        Ok(socket) => {
            let changed = |change| match change {
                Change::KeyRevoked(key) => context.key_revoked(key),
                Change::Tenant(tenant) => context.api.control.tenant_changed(tenant),
            };
            socket.serve(&opened, changed).await;
        }
        Err(error) => tracing::warn!(
            socket = %crate::operator::socket::path_of(&ledger).display(), %error,
            "the socket for operators cannot be made: `dispatch keys` and `dispatch tenants` have to wait until this \
             engine has stopped"
        ),
    }
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
