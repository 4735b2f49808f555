//! `dispatch campaign`: campaigns of a running engine.

mod create;
mod list;
mod reasons;
mod recipients;
mod status;
mod watch;
mod window;

use clap::Subcommand;
use dispatch_schemas::{
    api::campaigns::{Campaign, CampaignStopped, Retried, Retry},
    ids::CampaignId,
};
use reqwest::Method;
use serde_json::json;

use super::{
    engine_client::{EngineArgs, EngineClient, fresh_key},
    error::CliError,
    output::Output,
};

const EXAMPLE: &str = "\
Examples:
  dispatch campaign create --name Spring --list newsletter --content spring.json --purpose marketing
  dispatch campaign launch cmp_01H2M9ZQK7W3C
  dispatch campaign status cmp_01H2M9ZQK7W3C --watch
  dispatch campaign recipients cmp_01H2M9ZQK7W3C --state failed";

/// What `dispatch campaign` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

/// One campaign, and how to print what came of it.
#[derive(Debug, clap::Args)]
pub struct One {
    /// The campaign's id
    id: CampaignId,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Which engine.
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a campaign; nothing is sent before its launch
    Create(Box<create::Args>),
    /// List the campaigns, newest first
    List(list::Args),
    /// Launch a campaign
    Launch(Launch),
    /// Say how far a campaign has come
    Status(status::Args),
    /// Stop a campaign for now; nothing of it is begun from the answer on
    Pause(One),
    /// Let a paused campaign go on
    Resume(One),
    /// Stop a campaign for good
    Cancel(One),
    /// Try the failed recipients of a campaign again
    Retry(RetryFailed),
    /// List who of a campaign got what
    Recipients(recipients::Args),
}

/// What `launch` takes.
#[derive(Debug, clap::Args)]
struct Launch {
    #[command(flatten)]
    one: One,
    /// A word of your own that makes a repeat harmless; a random one when left out
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// What `retry` takes.
#[derive(Debug, clap::Args)]
struct RetryFailed {
    #[command(flatten)]
    one: One,
    /// Only those that failed with this code, as `campaign status` lists them
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
}

/// Runs `dispatch campaign`.
///
/// # Errors
/// When the engine cannot be reached or refuses.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    match args.action {
        Action::Create(args) => create::run(*args, out).await,
        Action::List(args) => list::run(args, out).await,
        Action::Launch(args) => launch(args, out).await,
        Action::Status(args) => status::run(args, out).await,
        Action::Pause(one) => stop(&one, "pause", out).await,
        Action::Cancel(one) => stop(&one, "cancel", out).await,
        Action::Resume(one) => {
            let campaign: Campaign = act(&one.engine.client()?, one.id, "resume", &json!({}), None).await?;
            tell(&campaign, one.json, out)
        }
        Action::Retry(args) => retry(args, out).await,
        Action::Recipients(args) => recipients::run(args, out).await,
    }
}

async fn launch(args: Launch, out: &mut Output) -> Result<(), CliError> {
    let key = args.idempotency_key.unwrap_or_else(fresh_key);
    let client = args.one.engine.client()?;
    let campaign: Campaign = act(&client, args.one.id, "launch", &json!({}), Some(&key)).await?;
    tell(&campaign, args.one.json, out)
}

async fn stop(one: &One, what: &str, out: &mut Output) -> Result<(), CliError> {
    let stopped: CampaignStopped = act(&one.engine.client()?, one.id, what, &json!({}), None).await?;
    if one.json {
        return Ok(out.json(&stopped)?);
    }
    tell(&stopped.campaign, false, out)?;
    if stopped.in_flight > 0 {
        out.line(&format!("{} messages were on their way already and may still arrive.", stopped.in_flight))?;
    }
    Ok(())
}

async fn retry(args: RetryFailed, out: &mut Output) -> Result<(), CliError> {
    let which = Retry { code: args.code };
    let retried: Retried = act(&args.one.engine.client()?, args.one.id, "retry", &which, None).await?;
    if args.one.json {
        return Ok(out.json(&retried)?);
    }
    Ok(out.line(&format!("{} recipients will be tried again.", retried.retried))?)
}

async fn act<T: serde::de::DeserializeOwned>(
    client: &EngineClient,
    id: CampaignId,
    what: &str,
    body: &impl serde::Serialize,
    key: Option<&str>,
) -> Result<T, CliError> {
    client.send(Method::POST, &format!("/v1/campaigns/{id}/{what}"), body, key).await
}

fn tell(campaign: &Campaign, as_json: bool, out: &mut Output) -> Result<(), CliError> {
    if as_json {
        return Ok(out.json(campaign)?);
    }
    Ok(out.line(&format!("{} ({}) is {}.", campaign.id, campaign.name, campaign.state))?)
}
