//! Starting the sandbox and stopping it.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    Faults, SeededFaults, Witness,
    brevo::{BrevoEmail, BrevoSms},
    callbacks::{CallbackPlan, Callbacks, call},
    http::{self, Desk},
    infobip::Infobip,
    sendgrid::SendGrid,
    smtp,
    witness::{WitnessKey, WitnessLog},
};
use crate::clock::Clock;

/// Longest a slow answer may take.
const SLOW_MS_MAX: u64 = 600_000;

/// What a sandbox is started with.
#[derive(Debug)]
pub struct SandboxSettings {
    /// Where the HTTP fakes listen, all of them: their paths differ. Loopback only; port 0 takes a free one.
    pub http: SocketAddr,
    /// Where the SMTP relay listens. Loopback only; port 0 takes a free one.
    pub smtp: SocketAddr,
    /// The witness's log; must not exist yet.
    pub witness: PathBuf,
    /// Names the recipients in it.
    pub witness_key: WitnessKey,
    /// The API key all HTTP fakes take.
    pub api_key: SecretString,
    /// What goes wrong.
    pub faults: Faults,
    /// Decides when.
    pub seed: u64,
    /// How late a slow answer is, milliseconds; at most ten minutes.
    pub slow_ms: u64,
    /// Where the fakes call back, if they do, and what they tell.
    pub callbacks: Option<(String, CallbackPlan)>,
    /// What they share with those they call: Brevo's token, Infobip's secret.
    pub callback_secret: SecretString,
    /// For how long Brevo remembers an idempotency key. Its own pages say 15 and 30 minutes.
    pub brevo_key_ttl: Duration,
}

/// Why a sandbox does not start or has ended.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// It takes any mail without a question, so it serves this machine alone.
    #[error("the sandbox listens on loopback only, and {0} is not; use 127.0.0.1")]
    NotLoopback(SocketAddr),
    /// A slow answer would take too long.
    #[error("a slow answer of {0} ms is too slow; at most 600000 ms")]
    TooSlow(u64),
    /// An address is taken or forbidden.
    #[error("the sandbox cannot listen on {address}: {cause}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        cause: io::Error,
    },
    /// The log is there already, or cannot be.
    #[error("the witness cannot create its log {}: {cause}", path.display())]
    Witness {
        /// Where.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// It cannot sign what it would call.
    #[error("the sandbox cannot make a key to sign its callbacks with")]
    NoKey,
    /// A fake has stopped.
    #[error("a fake of the sandbox has stopped: {0}")]
    Stopped(io::Error),
}

/// A sandbox that is running; dropped, it stops.
#[derive(Debug)]
pub struct Running {
    /// Where the HTTP fakes listen: `http://` and this is the base URL of each.
    pub http: SocketAddr,
    /// Where the SMTP relay listens.
    pub smtp: SocketAddr,
    /// The key SendGrid's callbacks are signed with, as the vendor shows it.
    pub callback_public_key: String,
    fakes: JoinSet<io::Result<()>>,
}

impl Running {
    /// Waits until a fake ends, which none does unless something is broken, and says what ended it. Safe to drop and
    /// to call again.
    pub async fn ended(&mut self) -> SandboxError {
        SandboxError::Stopped(match self.fakes.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => io::Error::other(error),
            Some(Ok(Ok(()))) | None => io::Error::other("it has nothing more to do"),
        })
    }

    /// Stops all fakes and closes their connections. What they answered is in the log.
    pub async fn shut_down(mut self) {
        self.fakes.shutdown().await;
    }
}

/// Starts the fakes and the witness.
///
/// # Errors
/// [`SandboxError`] when an address or the log cannot be had.
pub async fn run(settings: SandboxSettings, clock: Arc<dyn Clock>) -> Result<Running, SandboxError> {
    if settings.slow_ms > SLOW_MS_MAX {
        return Err(SandboxError::TooSlow(settings.slow_ms));
    }
    let (http_listener, http) = listen(settings.http).await?;
    let (smtp_listener, smtp) = listen(settings.smtp).await?;
    let witness = WitnessLog::create(&settings.witness, settings.witness_key, clock.clone())
        .map_err(|cause| SandboxError::Witness { path: settings.witness, cause })?;
    let witness: Arc<dyn Witness> = Arc::new(witness);
    let faults = Arc::new(SeededFaults::new(settings.faults, settings.seed));
    let secret = settings.callback_secret.expose_secret().to_owned();
    let callbacks = Arc::new(Callbacks::new(settings.seed, secret).map_err(|_| SandboxError::NoKey)?);
    callbacks.call_back_to(settings.callbacks);
    let desk = Desk {
        callbacks: callbacks.clone(),
        api_key: settings.api_key,
        keys_refused: Default::default(),
        witness: witness.clone(),
        faults: faults.clone(),
        slow: Duration::from_millis(settings.slow_ms),
        sendgrid: SendGrid::default(),
        brevo: BrevoEmail::new(settings.brevo_key_ttl),
        brevo_sms: BrevoSms::default(),
        infobip: Infobip::new(http::now(clock.as_ref())),
        clock: clock.clone(),
    };
    let callback_public_key = callbacks.public_key();
    let mut fakes = JoinSet::new();
    fakes.spawn(async move {
        let Err(error) = call(callbacks, clock).await;
        Err(error)
    });
    fakes.spawn(async move {
        let Err(error) = http::serve(http_listener, Arc::new(desk)).await;
        Err(error)
    });
    fakes.spawn(smtp::serve(smtp_listener, witness, faults, settings.slow_ms));
    Ok(Running { http, smtp, callback_public_key, fakes })
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), SandboxError> {
    if !address.ip().is_loopback() {
        return Err(SandboxError::NotLoopback(address));
    }
    let refused = |cause| SandboxError::Listen { address, cause };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}
