//! A mail relay that delivers nothing: strict about the protocol, fast, and a witness of what it accepted.
//!
//! It speaks ESMTP with PIPELINING, 8BITMIME, SIZE and AUTH (any user and password will do) over plain TCP, for
//! loopback only. What would be delivered is on the witness's disk before the final dot is answered. A mail's send key
//! is read from its `Message-ID`; its content is looked at once and kept nowhere.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinSet};

use super::{Fault, FaultPlan, Observation, Witness, witness::WitnessRecipient};

mod content;
mod input;
mod session;
#[cfg(test)]
mod tests;

use session::Session;

/// How the witness names this provider.
const PROVIDER: &str = "smtp";

/// Most sessions at once; a client beyond that waits to be accepted.
const SESSIONS_MAX: usize = 10_000;

/// Serves clients until the listener fails or the future is dropped; sessions end with it.
///
/// # Errors
/// When the listener cannot accept any more.
pub async fn serve(
    listener: TcpListener,
    witness: Arc<dyn Witness>,
    faults: Arc<dyn FaultPlan>,
    slow_ms: u64,
) -> io::Result<()> {
    let office =
        Arc::new(Office { witness, faults, slow: Duration::from_millis(slow_ms), accepted: AtomicU64::new(0) });
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
            accepted = listener.accept(), if sessions.len() < SESSIONS_MAX => {
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    // The client was gone before it was accepted.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                    Err(error) => return Err(error),
                };
                stream.set_nodelay(true)?;
                let office = Arc::clone(&office);
                sessions.spawn(async move {
                    if let Err(error) = Session::new(stream, office).run().await {
                        tracing::debug!(%error, "a client of the fake relay went away");
                    }
                });
            }
        }
    }
}

/// What all sessions share.
struct Office {
    witness: Arc<dyn Witness>,
    faults: Arc<dyn FaultPlan>,
    slow: Duration,
    accepted: AtomicU64,
}

impl Office {
    /// Reports one mail; it is on disk when this returns.
    async fn log(&self, fault: Fault, status: u16, recipients: Vec<WitnessRecipient>) -> io::Result<()> {
        let mode = mode(fault);
        let seen = Observation { provider: PROVIDER, token: None, batch_key: None, mode, status, recipients };
        self.witness.log(seen).await
    }

    fn next_queue_id(&self) -> u64 {
        self.accepted.fetch_add(1, Ordering::Relaxed)
    }
}

/// How the witness names a fault.
const fn mode(fault: Fault) -> &'static str {
    match fault {
        Fault::None => "ok",
        Fault::AcceptThenDrop => "accept_then_drop",
        Fault::AcceptSlow => "accept_slow",
        Fault::Refuse => "refuse",
        Fault::Throttle => "throttle",
        Fault::Unavailable => "unavailable",
        Fault::FailBefore => "fail_before",
        Fault::FailAfterAccept => "fail_after_accept",
        Fault::Garbage => "garbage",
        Fault::DropBefore => "drop_before",
        Fault::HalfAnswer => "half_answer",
    }
}
