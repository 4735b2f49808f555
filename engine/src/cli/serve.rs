//! `dispatch serve`: the engine, or some of its roles.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dispatch_workers::delivery::RetryDelay;
use tokio::{net::TcpListener, sync::watch};

use super::{error::CliError, settings_file::SettingsArgs};
use crate::{
    api::{AccountInfo, Api, Bounds, Changeable, Context, server},
    engine::{Engine, EngineControl, Opened, Role, Roles, StartError, claim_ledger},
    ledger::LedgerError,
    settings::{Settings, listen_address},
    telemetry::{logging, metrics::Metrics},
};

const EXAMPLE: &str = "\
Examples:
  dispatch serve
  dispatch serve --config /etc/dispatch/dispatch.toml --listen 0.0.0.0:8025
  dispatch serve --config /etc/dispatch/dispatch.toml --roles worker --listen 127.0.0.1:8026

On its first start it makes the key file (and the ledger, if that is a file) and says where they are. Losing the key \
file loses the data. API keys are made with `dispatch keys create --tenant NAME`, before or while it runs.

With a ledger on PostgreSQL and a queue on RabbitMQ, any number of processes share the work, each with the roles it is \
given. Every process answers /healthz, /readyz and /metrics.";

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
    /// What this process does: api, scheduler, worker, callbacks
    #[arg(long, value_name = "ROLE,…", value_delimiter = ',', default_value = "api,scheduler,worker,callbacks")]
    pub roles: Vec<Role>,
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
    let roles = Roles::of(args.roles).ok_or_else(|| CliError::Usage("--roles names no role".to_owned()))?;
    logging::install(&settings.logging).map_err(|error| CliError::Usage(error.to_string()))?;
    let metrics = Metrics::install().map_err(|error| CliError::Failed(error.to_string()))?;
    // A second engine is told of the first by the ledger they share; and nothing is made before the port is ours.
    let claimed = claim_ledger(&settings).map_err(|error| CliError::Failed(error.to_string()))?;
    let listener = server::bind(settings.api.listen).await.map_err(|error| CliError::Failed(error.to_string()))?;
    let routes = Changeable::waiting_for("it is being opened");
    let (stop, stopping) = watch::channel(());
    let serving = tokio::spawn(serve(listener, routes.clone(), stop));
    let opened = tokio::select! {
        opened = open(&settings, claimed, &routes) => opened?,
        () = stopped(stopping.clone()) => return Ok(()),
    };
    if opened.made_key {
        tracing::warn!(
            key_file = %settings.ledger.key_file.display(),
            "made a master key; keep a copy in a safe place: losing it loses the data"
        );
    }
    let ledger = opened.ledger.clone();
    let worked = work(&settings, opened, roles, &routes, metrics, stopping).await;
    if worked.is_ok() && serving.await.is_err() {
        tracing::error!("the API ended in the middle of its work");
    }
    ledger.close().await;
    worked
}

/// Serves until a signal comes; then `stop` is gone, and this ends with the last call.
async fn serve(listener: TcpListener, routes: Changeable, stop: watch::Sender<()>) {
    let shutdown = async move {
        super::interrupted().await;
        drop(stop);
    };
    server::serve(listener, routes.router(), shutdown).await;
}

async fn stopped(mut stopping: watch::Receiver<()>) {
    // An error says that the sender is gone, which is the signal.
    while stopping.changed().await.is_ok() {}
}

/// Opens the ledger. One on a server that does not answer, or whose tables are still to be made, is waited for.
async fn open(
    settings: &Settings,
    mut claimed: crate::engine::ClaimedLedger<'_>,
    routes: &Changeable,
) -> Result<Opened, CliError> {
    let mut delay = RetryDelay::new(Duration::from_millis(500), Duration::from_secs(10));
    loop {
        let may_come = claimed.may_come();
        match claimed.open().await {
            Ok(opened) => return Ok(opened),
            Err(StartError::Ledger(
                error @ (LedgerError::Unavailable(_) | LedgerError::Disconnected | LedgerError::NotMade(_)),
            )) if may_come => {
                tracing::warn!(%error, "the ledger cannot be opened yet; waiting for it");
                routes.wait_for(&error.to_string());
            }
            Err(error) => return Err(CliError::Failed(error.to_string())),
        }
        tokio::time::sleep(delay.next_wait()).await;
        claimed = claim_ledger(settings).map_err(|error| CliError::Failed(error.to_string()))?;
    }
}

async fn work(
    settings: &Settings,
    opened: Opened,
    roles: Roles,
    routes: &Changeable,
    metrics: Metrics,
    stopping: watch::Receiver<()>,
) -> Result<(), CliError> {
    let engine = Engine::start(settings, opened, roles.clone()).await;
    let engine = Arc::new(engine.map_err(|error| CliError::Failed(error.to_string()))?);
    let upkeep = tokio::spawn({
        let metrics = metrics.clone();
        async move { metrics.keep_up().await }
    });
    let context = Context::new(Arc::new(api(settings, &engine, roles.clone(), metrics)));
    #[cfg(unix)]
    let orders = settings
        .ledger
        .url
        .file()
        .map(|file| tokio::spawn(take_orders(file.to_owned(), engine.opened.clone(), context.clone())));
    routes.change_to(context.router());
    tracing::info!(listen = %settings.api.listen, %roles, "ready");
    stopped(stopping).await;
    tracing::info!("stopping: requests under way are seen to their end");
    #[cfg(unix)]
    if let Some(orders) = orders {
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

fn api(settings: &Settings, engine: &Arc<Engine>, roles: Roles, metrics: Metrics) -> Api {
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
        roles,
    }
}
