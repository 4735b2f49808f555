//! One campaign end to end, as `dispatch demo` runs it.

use std::{collections::BTreeMap, error::Error, path::Path, process::Stdio};

use serde_json::Value;

/// What it came to.
pub(super) struct Outcome {
    pub(super) recipients_per_second: f64,
    pub(super) import_rows_per_second: f64,
    pub(super) rss_mb_peak: f64,
    pub(super) agree: bool,
    pub(super) duplicates: u64,
    /// Processor time of the demo's own processes, seconds.
    pub(super) processor: BTreeMap<String, f64>,
}

pub(super) async fn run(
    dispatch: &Path,
    ledger_url: &str,
    queue_url: &str,
    recipients: u64,
) -> Result<Outcome, Box<dyn Error>> {
    let demo = tokio::process::Command::new(dispatch)
        .args(["demo", "--json", "--recipients", &recipients.to_string()])
        .args(["--ledger-url", ledger_url, "--queue-url", queue_url])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let watched = demo.id().map(super::processes::watch);
    let done = demo.wait_with_output().await?;
    let processor = match watched {
        Some(watched) => watched.end().await,
        None => BTreeMap::new(),
    };
    let text = String::from_utf8(done.stdout)?;
    let last = text.lines().last().ok_or("the demo printed nothing; run it by hand to see why")?;
    let outcome: Value = serde_json::from_str(last)?;
    let number = |name: &str| outcome[name].as_f64().unwrap_or(f64::NAN);
    Ok(Outcome {
        recipients_per_second: number("recipients_per_second"),
        import_rows_per_second: number("import_rows_per_second"),
        rss_mb_peak: number("rss_mb_peak"),
        agree: outcome["agree"] == Value::Bool(true),
        duplicates: outcome["witness"]["duplicates"].as_u64().unwrap_or(u64::MAX),
        processor,
    })
}
