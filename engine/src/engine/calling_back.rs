//! The role that takes callbacks: its listener, its spool, and what applies them.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use dispatch_workers::providers;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Opened, StartError};
use crate::{
    api::{Health, server},
    callbacks::{
        apply::Applier,
        ingest::{Caller, Ingest},
        spool::{Room, Spool},
    },
    settings::Settings,
};

/// How often it is measured what waits.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Callbacks being taken.
#[derive(Debug, Clone)]
pub struct CallbackDesk {
    /// Where.
    pub address: SocketAddr,
    /// What waits to be applied.
    pub spool: Arc<Spool>,
}

impl CallbackDesk {
    /// Starts taking callbacks for the accounts whose settings say what they are known by; none when there is no such
    /// account. It stops, with what is in the spool left there, when `stop` says so.
    pub(super) async fn start(
        settings: &Settings,
        opened: &Opened,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, StartError> {
        let callers = callers(settings)?;
        if callers.is_empty() {
            return Ok(None);
        }
        let own = &settings.callbacks;
        let listener = TcpListener::bind(own.listen).await;
        let listener = listener.map_err(|error| StartError::Callbacks { listen: own.listen, why: error.kind() })?;
        let address =
            listener.local_addr().map_err(|error| StartError::Callbacks { listen: own.listen, why: error.kind() })?;
        let room = Room { bytes_max: own.spool_bytes_max, age_max: Duration::from_secs(own.spool_age_max_s) };
        let Opened { ledger, master, clock, entropy, .. } = opened;
        let (spool, reader) = Spool::open(&own.spool_folder, master.spool_keys(), room, clock.clone(), entropy.clone())
            .map_err(|why| StartError::Folder { setting: "callbacks.spool_folder", why })?;
        let proxies = own.proxies().unwrap_or_default();
        let ingest = Arc::new(Ingest::new(callers, spool.clone(), clock.clone(), proxies));
        let applier = Arc::new(Applier::new(ledger.clone(), master.clone(), clock.clone()));
        let stopped = || stop.clone().cancelled_owned();
        let (shutdown, applied, looked_after) = (stopped(), stopped(), stopped());
        tasks.spawn(async move { server::serve(listener, ingest.router(), shutdown).await });
        let looking = applier.clone();
        tasks.spawn(async move { applier.run(reader, applied).await });
        tasks.spawn(async move { looking.look_after(looked_after).await });
        let (measured, stop) = (spool.clone(), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled(measure(&measured)).await.unwrap_or(()) });
        tracing::info!(listen = %address, "taking callbacks");
        Ok(Some(Self { address, spool }))
    }

    /// How it is.
    pub(super) fn health(&self) -> Health {
        self.spool.trouble().map_or(Health::Well, Health::Down)
    }
}

async fn measure(spool: &Spool) {
    loop {
        metrics::gauge!("dispatch_callback_spool_bytes").set(spool.bytes() as f64);
        metrics::gauge!("dispatch_callback_spool_age_seconds").set(spool.age().as_secs_f64());
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

/// The accounts that are called back.
fn callers(settings: &Settings) -> Result<BTreeMap<String, Caller>, StartError> {
    let mut callers = BTreeMap::new();
    for (name, account) in &settings.providers {
        let Some(own) = &account.callbacks else { continue };
        let wrong = |why: String| StartError::Account { name: name.clone(), why };
        let Some((kind, callbacks)) =
            providers::entry(&account.kind).and_then(|entry| Some((entry.kind, entry.callbacks?)))
        else {
            return Err(wrong(format!("{} does not call back; remove its `callbacks`", account.kind)));
        };
        let credentials = own.credentials().map_err(|error| wrong(error.to_string()))?;
        let verifier = (callbacks.verifier)(&credentials).map_err(|error| wrong(error.to_string()))?;
        callers.insert(name.clone(), Caller { kind, callbacks, verifier });
    }
    Ok(callers)
}
