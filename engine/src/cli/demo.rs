//! `dispatch demo`: a whole campaign on this machine.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::CliError;
use crate::{
    demo::{self, Channels, DemoOptions, Outcome, Watcher},
    settings::{LedgerUrl, QueueUrl},
};

/// A whole campaign on this machine, with proof.
///
/// Starts fakes of the providers as a process of its own, imports a contact list, suppresses and erases some people,
/// launches, shows how it goes, and compares the ledger with the providers' own log, recipient by recipient. Nothing
/// needs to be installed and nothing is left behind.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  dispatch demo\n  dispatch demo --recipients 200000 --json\n  \
    dispatch demo --csv contacts.csv --channel email --keep ./demo\n  \
    dispatch demo --provider brevo --faults accept_then_drop=0.05,throttle=0.02")]
pub struct DemoArgs {
    /// How many recipients to make up.
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    recipients: u64,
    /// A contact list of your own instead: CSV with a header.
    #[arg(long, value_name = "FILE", conflicts_with = "recipients")]
    csv: Option<PathBuf>,
    /// By which channels; both, or the one of the provider.
    #[arg(long)]
    channel: Option<ChannelArg>,
    /// Which provider: sendgrid, brevo, smtp, infobip or brevo_sms.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Print the outcome as one line of JSON, the last.
    #[arg(long)]
    json: bool,
    /// Where the ledger is; in a temporary folder when left out. On a PostgreSQL server the demo makes a schema of its own.
    #[arg(long, value_name = "URL")]
    ledger_url: Option<LedgerUrl>,
    /// Where RabbitMQ is, with a virtual host nobody uses; in the process when left out.
    #[arg(long, value_name = "URL")]
    queue_url: Option<QueueUrl>,
    /// Keep ledger, key and witness in this folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// What goes wrong at the providers how often, as `fault=rate,…`; see `dispatch sandbox --help`.
    #[arg(long, value_name = "PLAN")]
    faults: Option<String>,
    /// The seed that decides when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Recipients per request; the provider's own number when left out.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Size of an e-mail, KiB.
    #[arg(long, default_value_t = 2, value_name = "KIB")]
    body_kb: usize,
    /// The providers report nothing of what they took: what sending alone costs.
    #[arg(long)]
    no_callbacks: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ChannelArg {
    Email,
    Sms,
    Both,
}

/// Runs the demo and prints what it came to.
///
/// # Errors
/// When it could not run, or ledger and witness disagree.
pub async fn run(args: DemoArgs) -> Result<(), CliError> {
    let channels = match (args.channel, args.provider.as_deref()) {
        (Some(ChannelArg::Email), _) | (None, Some("sendgrid" | "brevo" | "smtp")) => Channels::Email,
        (Some(ChannelArg::Sms), _) | (None, Some("infobip" | "brevo_sms")) => Channels::Sms,
        (Some(ChannelArg::Both) | None, _) => Channels::Both,
    };
    let options = DemoOptions {
        recipients: args.recipients,
        csv: args.csv,
        channels,
        provider: args.provider,
        ledger_url: args.ledger_url,
        queue_url: args.queue_url,
        keep: args.keep,
        faults: args.faults,
        seed: args.seed,
        batch: args.batch,
        body_kb: args.body_kb,
        callbacks: !args.no_callbacks,
    };
    let mut watcher = Teller::new();
    let outcome = demo::run(&options, &mut watcher).await.map_err(|error| CliError::failed(error.to_string()))?;
    watcher.finish();
    let text = if args.json { serde_json::to_string(&outcome).unwrap_or_default() } else { for_people(&outcome) };
    writeln!(std::io::stdout().lock(), "{text}").map_err(|error| CliError::failed(error.to_string()))?;
    if outcome.agree && outcome.witness.duplicates == 0 {
        Ok(())
    } else {
        Err(CliError::disagree(format!(
            "the ledger and the providers' log disagree about {} recipients, and {} messages were doubled",
            outcome.disagreements, outcome.witness.duplicates
        )))
    }
}

fn for_people(outcome: &Outcome) -> String {
    let mut text = format!("\n{:>12}  recipients, through {}\n", outcome.audience, outcome.providers.join(" and "));
    for (state, count) in outcome.states.iter().filter(|(_, count)| **count > 0) {
        text.push_str(&format!("{count:>12}  {state}\n"));
    }
    for (reason, count) in &outcome.reasons {
        text.push_str(&format!("{count:>12}  … {reason}\n"));
    }
    for (kind, count) in outcome.reported.iter().filter(|(kind, _)| *kind != "accepted") {
        text.push_str(&format!("{count:>12}  reported {kind}\n"));
    }
    text.push_str(&format!("{:>12}  accepted by the providers, as their log says\n", outcome.witness.accepted));
    text.push_str(&format!("{:>12}  of them twice\n", outcome.witness.duplicates));
    text.push_str(&format!(
        "\n{:.0} recipients/s, import {:.0} rows/s, {:.0} MiB at most\n",
        outcome.recipients_per_second, outcome.import_rows_per_second, outcome.rss_mb_peak
    ));
    text.push_str(if outcome.agree {
        "The ledger agrees with the providers' log about every recipient, and with all they told of them later."
    } else {
        "The ledger and the providers DISAGREE."
    });
    text
}

/// Tells people how far the demo is: a bar on a terminal, a line per step elsewhere.
struct Teller {
    bar: Option<ProgressBar>,
}

impl Teller {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:<42} {bar:30} {human_pos}/{human_len} {per_sec}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        Self { bar }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Watcher for Teller {
    fn step(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            // Nobody can be told that telling failed.
            None => drop(writeln!(std::io::stderr().lock(), "{text}")),
        }
    }

    fn progress(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }
}
