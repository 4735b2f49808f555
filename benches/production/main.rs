//! The load harness of the production mode: a campaign over PostgreSQL and RabbitMQ, beside what both do bare.
//!
//! `cargo run --release --package dispatch-benches --bin production -- --dispatch target/release/dispatch \
//!  --ledger-url postgres://… --queue-url amqp://… [--recipients 200000]`
//!
//! It measures in one run: RabbitMQ alone (jobs published with confirms and consumed), PostgreSQL alone (rows claimed
//! and recorded in batches), and campaigns of three sizes end to end by `dispatch demo`. It prints rates, their ratios,
//! the processor time of each process per recipient, and the engine's memory over the campaign's size. None of it is a
//! test.

#![expect(clippy::print_stdout, reason = "figures are printed")]

mod bare_broker;
mod bare_database;
mod campaign;
mod processes;

use std::{error::Error, path::PathBuf, time::Duration};

use dispatch_workers::clock::{Clock as _, SystemClock};

/// Messages and rows of the bare references.
const BARE: usize = 200_000;

/// What is measured with.
struct Options {
    dispatch: PathBuf,
    ledger_url: String,
    queue_url: String,
    recipients: u64,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        dispatch: "target/release/dispatch".into(),
        ledger_url: String::new(),
        queue_url: String::new(),
        recipients: 200_000,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--dispatch" => options.dispatch = value.into(),
            "--ledger-url" => options.ledger_url = value,
            "--queue-url" => options.queue_url = value,
            "--recipients" => options.recipients = value.parse()?,
            _ => return Err(format!("{word} is not known; see the top of benches/production/main.rs").into()),
        }
    }
    if options.ledger_url.is_empty() || options.queue_url.is_empty() {
        return Err("--ledger-url and --queue-url are needed".into());
    }
    Ok(options)
}

/// Things per second.
fn rate(things: usize, took: Duration) -> f64 {
    things as f64 / took.as_secs_f64().max(0.000_001)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let clock = SystemClock::new();

    let broker = bare_broker::measure(&options.queue_url, BARE, &clock).await?;
    println!("RabbitMQ alone, {BARE} jobs, quorum queue, persistent, confirmed:");
    println!("  published           {:>9.0}/s", rate(BARE, broker.published));
    println!("  consumed            {:>9.0}/s", rate(BARE, broker.consumed));
    println!("  both at once        {:>9.0}/s", rate(BARE, broker.together));

    let database = bare_database::measure(&options.ledger_url, BARE, &clock).await?;
    println!("PostgreSQL alone, {BARE} rows in batches of {}:", bare_database::BATCH);
    println!("  claimed             {:>9.0}/s", rate(BARE, database.claimed));
    println!("  recorded            {:>9.0}/s", rate(BARE, database.recorded));

    let bare = 1.0
        / (1.0 / rate(BARE, broker.together)
            + 1.0 / rate(BARE, database.claimed)
            + 1.0 / rate(BARE, database.recorded));
    println!("One after the other that is {bare:.0} recipients/s.");

    for recipients in [options.recipients / 4, options.recipients, options.recipients * 4] {
        let before = processes::processor_time()?;
        let began = clock.monotonic();
        let outcome = campaign::run(&options.dispatch, &options.ledger_url, &options.queue_url, recipients).await?;
        let took = clock.monotonic().saturating_sub(began);
        let spent = processes::processor_time()?.since(&before, &outcome.processor);
        println!(
            "Campaign, {recipients} recipients: {:.0}/s ({:.0} % of bare), import {:.0} rows/s, {:.0} MiB, agree: {}, \
             duplicates: {}, {:.0} s in all",
            outcome.recipients_per_second,
            outcome.recipients_per_second / bare * 100.0,
            outcome.import_rows_per_second,
            outcome.rss_mb_peak,
            outcome.agree,
            outcome.duplicates,
            took.as_secs_f64(),
        );
        for (name, seconds) in spent {
            println!(
                "  {name:<12} {:>7.1} µs of processor per recipient, import and comparison included",
                seconds * 1e6 / recipients as f64
            );
        }
    }
    Ok(())
}
