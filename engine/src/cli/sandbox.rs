//! `dispatch sandbox`: fakes of the providers.

use std::{
    io::{ErrorKind, Write as _},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use dispatch_workers::{
    clock::{SystemClock, SystemEntropy, random},
    sandbox::{self, CallbackPlan, Faults, SandboxError, SandboxSettings, witness::WitnessKey},
};
use secrecy::SecretString;

use super::CliError;
use crate::demo::SandboxReady;

/// Holds the witness' key, 64 hexadecimal digits, so that whoever started the sandbox can compare its log.
const WITNESS_KEY_VARIABLE: &str = "DISPATCH_SANDBOX_WITNESS_KEY";
/// Holds the API key the fakes want; `sandbox-key` when not set.
const API_KEY_VARIABLE: &str = "DISPATCH_SANDBOX_API_KEY";

/// Holds what the fakes sign callbacks with; fixed words when not set.
const CALLBACK_SECRET_VARIABLE: &str = "DISPATCH_SANDBOX_CALLBACK_SECRET";
/// What they sign with then.
pub const CALLBACK_SECRET: &str = "sandbox-callbacks-0123456789abcdef";

/// Fakes of SendGrid, Brevo, Infobip and an SMTP relay on this machine, with a log of everything they accept.
///
/// The fakes check requests as strictly as the vendors do, deduplicate as they do, and go wrong as often as you ask.
/// Each line of the log is on disk before the answer leaves; recipients are named in it by a keyed hash. The fakes
/// want the API key `sandbox-key`, or the one in DISPATCH_SANDBOX_API_KEY. With --callbacks they tell what becomes of each
/// message, signed as the vendors sign: Brevo's token and Infobip's secret (in the header x-signature) are
/// `sandbox-callbacks-0123456789abcdef`, or what DISPATCH_SANDBOX_CALLBACK_SECRET holds.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dispatch sandbox --faults throttle=0.02,accept_then_drop=0.01 --seed 7")]
pub struct SandboxArgs {
    /// Where the HTTP fakes listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8026", value_name = "ADDRESS")]
    http: SocketAddr,
    /// Where the SMTP relay listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:2525", value_name = "ADDRESS")]
    smtp: SocketAddr,
    /// The log to write; must not exist yet.
    #[arg(long, default_value = "witness.jsonl", value_name = "FILE")]
    witness: PathBuf,
    /// What goes wrong how often, as `fault=rate,…`.
    #[arg(long, default_value = "", value_name = "PLAN")]
    faults: Faults,
    /// The seed that decides when something goes wrong.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How late a slow answer is, milliseconds.
    #[arg(long, default_value_t = 40_000, value_name = "MS")]
    slow_ms: u64,
    /// Where the fakes call back: each at this URL and its name behind it, such as http://127.0.0.1:8035/callbacks.
    #[arg(long, value_name = "URL")]
    callbacks: Option<String>,
    /// What they tell how often, and how, as `what=rate,…`.
    #[arg(long, default_value = "", value_name = "PLAN", requires = "callbacks")]
    callback_plan: CallbackPlan,
    /// How long Brevo remembers an idempotency key, seconds.
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    brevo_key_ttl_s: u64,
    /// Say where it listens as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the sandbox until it is interrupted.
///
/// # Errors
/// When an address or the log cannot be had.
pub async fn run(args: SandboxArgs) -> Result<(), CliError> {
    let api_key = std::env::var(API_KEY_VARIABLE).unwrap_or_else(|_| "sandbox-key".to_owned());
    let callback_secret = std::env::var(CALLBACK_SECRET_VARIABLE).unwrap_or_else(|_| CALLBACK_SECRET.to_owned());
    let settings = SandboxSettings {
        http: args.http,
        smtp: args.smtp,
        witness: args.witness.clone(),
        witness_key: WitnessKey::new(&witness_key()?),
        api_key: SecretString::from(api_key),
        faults: args.faults,
        seed: args.seed,
        slow_ms: args.slow_ms,
        callbacks: args.callbacks.map(|url| (url, args.callback_plan)),
        callback_secret: SecretString::from(callback_secret.clone()),
        brevo_key_ttl: Duration::from_secs(args.brevo_key_ttl_s),
    };
    let mut running =
        sandbox::run(settings, Arc::new(SystemClock::new())).await.map_err(|error| not_started(&error))?;
    let ready = SandboxReady {
        http: format!("http://{}", running.http),
        smtp: format!("smtp://{}", running.smtp),
        callback_public_key: running.callback_public_key.clone(),
    };
    say(&ready, &args.witness, args.json)?;
    tokio::select! {
        error = running.ended() => Err(CliError::failed(error.to_string())),
        () = super::interrupted() => {
            running.shut_down().await;
            Ok(())
        }
    }
}

/// Why it does not start, and what to do when an earlier one is in the way.
fn not_started(error: &SandboxError) -> CliError {
    match error {
        SandboxError::Witness { path, cause } if cause.kind() == ErrorKind::AlreadyExists => CliError::usage(format!(
            "{} is there already, the log of an earlier sandbox, and is never written over; move or delete it, or name \
             another with --witness FILE",
            path.display()
        )),
        SandboxError::Listen { address, cause } if cause.kind() == ErrorKind::AddrInUse => CliError::failed(format!(
            "something listens on {address} already, another sandbox perhaps; stop it, or take another address with \
             --http or --smtp (port 0 takes a free one)"
        )),
        _ => CliError::failed(error.to_string()),
    }
}

fn say(ready: &SandboxReady, witness: &std::path::Path, as_json: bool) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let text = if as_json {
        serde_json::to_string(ready).unwrap_or_default()
    } else {
        format!(
            "HTTP fakes:  {}\nSMTP relay:  {}\nWitness:     {}\nPublic key of SendGrid's callbacks:\n{}",
            ready.http,
            ready.smtp,
            witness.display(),
            ready.callback_public_key
        )
    };
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| CliError::failed(error.to_string()))
}

fn witness_key() -> Result<[u8; 32], CliError> {
    let Ok(digits) = std::env::var(WITNESS_KEY_VARIABLE) else { return Ok(random(&SystemEntropy::default())) };
    let wrong = || CliError::usage(format!("{WITNESS_KEY_VARIABLE} must hold 64 hexadecimal digits"));
    let mut key = [0; 32];
    if digits.len() != 64 {
        return Err(wrong());
    }
    for (at, byte) in key.iter_mut().enumerate() {
        let pair = digits.get(at * 2..at * 2 + 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(key)
}
