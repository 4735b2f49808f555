//! `dispatch jobs`: messages on RabbitMQ that nobody could work on.

use std::collections::BTreeMap;

use clap::Subcommand;
use dispatch_schemas::api::time::Moment;

use super::{error::CliError, output::Output, settings_file::SettingsArgs};
use crate::{
    queue::rabbitmq::{
        BrokerError, Link,
        set_aside::{Kept, Reason, SetAside},
    },
    settings::QueueUrl,
};

const EXAMPLE: &str = "\
Examples:
  dispatch jobs count
  dispatch jobs list --limit 20
  dispatch jobs replay --reason unknown_version
  dispatch jobs drop --reason malformed

A job set aside is not lost: the ledger publishes it again while its delivery is due, and a job that is put back \
when it is done is a no-op. A message that is no job stays until it is dropped; what it held is not kept. While one \
of these commands runs, no other sees the messages.

Exit codes: 0 done, 1 the broker is not as it must be, 2 wrong command line or settings, 4 the broker cannot be \
reached.";

/// Most messages in one list: what a person reads.
const LIST_MAX: u32 = 100_000;

/// What `dispatch jobs` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// Where RabbitMQ is; without it `queue.url` of the settings
    #[arg(long, value_name = "URL", global = true)]
    queue_url: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Which settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Count the messages set aside, by reason
    Count,
    /// List the oldest ones: ids and reasons
    List {
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIST_MAX)))]
        limit: u32,
    },
    /// Put jobs back into their queues
    Replay(Only),
    /// Drop messages for good
    Drop(Only),
}

#[derive(Debug, clap::Args)]
struct Only {
    /// Only those with this reason: malformed, unknown_version, campaign_gone, delivery_limit, unknown
    #[arg(long, value_name = "REASON")]
    reason: Option<Reason>,
}

/// Runs `dispatch jobs`.
///
/// # Errors
/// When no broker is named, or it cannot be reached or refuses.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let set_aside = SetAside::open(link(&args)?).await?;
    match args.action {
        Action::Count => count(&set_aside.count().await?, args.json, out),
        Action::List { limit } => {
            let kept = set_aside.list(usize::try_from(limit).unwrap_or(usize::MAX)).await?;
            list(&kept, args.json, out)
        }
        Action::Replay(Only { reason }) => {
            let outcome = set_aside.replay(reason).await?;
            if args.json {
                return Ok(out.json(&outcome)?);
            }
            Ok(out.line(&format!("{} put back, {} left.", outcome.done, outcome.left))?)
        }
        Action::Drop(Only { reason }) => {
            let outcome = set_aside.drop(reason).await?;
            if args.json {
                return Ok(out.json(&outcome)?);
            }
            Ok(out.line(&format!("{} dropped, {} left.", outcome.done, outcome.left))?)
        }
    }
}

fn link(args: &Args) -> Result<Link, CliError> {
    let settings = args.settings.load()?.queue;
    let wrong = |error: &dyn std::fmt::Display| CliError::Usage(error.to_string());
    let named: Option<QueueUrl> = match &args.queue_url {
        Some(url) => Some(url.parse().map_err(|error| CliError::Usage(format!("--queue-url: {error}")))?),
        None => None,
    };
    // A password on the command line is that of the URL beside it, whatever the settings hold for theirs.
    let own = named.as_ref().and_then(|url| url.password().cloned());
    let Some(url) = named.or_else(|| settings.url.clone()) else {
        return Err(CliError::usage(
            "no broker is named: set queue.url, or pass --queue-url; without one, jobs stay in the engine's memory and \
             none is set aside",
        ));
    };
    let password = match own {
        Some(own) => Some(own),
        None => settings.password().map_err(|error| wrong(&error))?,
    };
    Ok(Link::new(&url, password.as_ref(), settings.authority().map_err(|error| wrong(&error))?))
}

fn count(counts: &BTreeMap<Reason, u64>, json: bool, out: &mut Output) -> Result<(), CliError> {
    if json {
        return Ok(out.json(counts)?);
    }
    if counts.is_empty() {
        return Ok(out.line("Nothing is set aside.")?);
    }
    let rows: Vec<_> = counts.iter().map(|(reason, count)| [reason.as_str().to_owned(), count.to_string()]).collect();
    Ok(out.table(["REASON", "MESSAGES"], &rows)?)
}

fn list(kept: &[Kept], json: bool, out: &mut Output) -> Result<(), CliError> {
    if json {
        return Ok(kept.iter().try_for_each(|kept| out.json(kept))?);
    }
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let rows: Vec<_> = kept
        .iter()
        .map(|kept| {
            [
                kept.reason.as_str().to_owned(),
                or_none(kept.queue.clone()),
                or_none(kept.at_ms.map(|at| Moment::from_ms(at).to_string())),
                or_none(kept.campaign.map(|campaign| dispatch_schemas::ids::CampaignId(campaign).to_string())),
                or_none(kept.seq.map(|seq| seq.to_string())),
                if kept.replayable { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    Ok(out.table(["REASON", "QUEUE", "SINCE", "CAMPAIGN", "NUMBER", "REPLAYABLE"], &rows)?)
}

impl From<BrokerError> for CliError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Unreachable { .. } | BrokerError::Lost { .. } => Self::Unavailable(error.to_string()),
            BrokerError::Refused { .. } | BrokerError::Topology { .. } => Self::Failed(error.to_string()),
        }
    }
}
