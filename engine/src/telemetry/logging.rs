//! The log: what happened, on standard error, never about whom.

use std::{
    io::{self, IsTerminal as _},
    panic::{self, PanicHookInfo},
};

use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

use crate::settings::{LogFormat, LoggingSettings};

/// What libraries say is said again by the engine, with what it means; a filter that names one of them hears it.
const LIBRARIES: &str = "lapin=off,sqlx=warn";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error("`logging.filter` (or DISPATCH_LOG) is not a log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else writes a log in this process already.
    #[error("the log is set up already")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts the log, and lets panics go through it.
///
/// # Errors
/// When the filter cannot be read or the process has a log already.
pub fn install(settings: &LoggingSettings) -> Result<(), LoggingError> {
    let filter = EnvFilter::builder().parse(format!("{LIBRARIES},{}", settings.filter))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let on_terminal = io::stderr().is_terminal();
    match (settings.format, on_terminal) {
        (LogFormat::Json, _) | (LogFormat::Auto, false) => log.json().flatten_event(true).finish().try_init()?,
        (LogFormat::Text | LogFormat::Auto, _) => log.with_ansi(on_terminal).finish().try_init()?,
    }
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(location, message = panic_text(info.payload()), "a task panicked; this is a bug");
}

/// What a panic may say: a literal of the source. A text made at run time may hold an address.
fn panic_text(payload: &(dyn std::any::Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(not shown: it may hold personal data)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_shows_a_literal_and_hides_a_made_up_text() {
        let literal = panic::catch_unwind(|| panic!("the table is empty")).unwrap_err();
        assert_eq!(panic_text(&*literal), "the table is empty");
        let address = String::from("canary@example.org");
        let made_up = panic::catch_unwind(|| panic!("no such contact: {address}")).unwrap_err();
        assert!(!panic_text(&*made_up).contains("canary"));
    }
}
