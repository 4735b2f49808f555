//! `dispatch campaign create`.

use std::path::PathBuf;

use dispatch_schemas::{
    api::{
        campaigns::{CampaignContent, CreatedCampaign, NewCampaign},
        limits::Windows,
        templates::TemplateSource,
        time::Moment,
    },
    ids::{ListId, TemplateId},
    states::{Purpose, UnknownPolicy},
};
use reqwest::Method;

use super::{
    super::{
        engine_client::{EngineArgs, EngineClient},
        error::CliError,
        output::Output,
    },
    window::WindowArgs,
};

const EXAMPLE: &str = "\
Examples:
  dispatch campaign create --name Spring --list newsletter --content spring.json --purpose marketing
  dispatch campaign create --name Reminder --list members --template tpl_01H2M9ZQK7W3C \\
      --purpose service --per-second 100 --send-at 2027-03-01T09:00:00+01:00
  dispatch campaign create --name Offer --list members --content offer.json --purpose marketing \\
      --window 08:00-20:00 --window-days mon-sat --time-zone Europe/Paris

A content file is JSON, as POST /v1/templates takes it without a name:
  {\"channel\": \"email\", \"from\": {\"address\": \"shop@example.org\"}, \"subject\": \"Hello\",
   \"text\": \"Dear {{ first_name }} …\", \"defaults\": {\"first_name\": \"friend\"}}";

/// What `dispatch campaign create` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// A name for people
    #[arg(long)]
    name: String,
    /// A list it goes to, by name or id; can be given many times
    #[arg(long = "list", value_name = "LIST", required = true)]
    lists: Vec<String>,
    /// A stored template
    #[arg(long, value_name = "TEMPLATE", required_unless_present = "content", conflicts_with = "content")]
    template: Option<TemplateId>,
    /// A file with content of its own
    #[arg(long, value_name = "FILE")]
    content: Option<PathBuf>,
    /// What it is for: marketing, prospecting or service
    #[arg(long)]
    purpose: Purpose,
    /// What to do about recipients whose outcome stays unknown: verify, at_most_once or at_least_once
    #[arg(long, value_name = "POLICY")]
    unknown_policy: Option<UnknownPolicy>,
    /// The provider account of the settings that sends it
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Not before, as 2027-03-01T09:00:00+01:00
    #[arg(long, value_name = "TIME")]
    send_at: Option<Moment>,
    /// Who was not written to by then is expired
    #[arg(long, value_name = "TIME")]
    expires_at: Option<Moment>,
    #[command(flatten)]
    window: WindowArgs,
    /// Messages in any second, at most
    #[arg(long, value_name = "N")]
    per_second: Option<u32>,
    /// Messages in any minute, at most
    #[arg(long, value_name = "N")]
    per_minute: Option<u32>,
    /// Messages in any hour, at most
    #[arg(long, value_name = "N")]
    per_hour: Option<u32>,
    /// Messages in any 24 hours, at most
    #[arg(long, value_name = "N")]
    per_day: Option<u32>,
    /// A word of your own that makes a repeat harmless
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Which engine.
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs `dispatch campaign create`.
pub(super) async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let client = args.engine.client()?;
    let content = match (args.template, &args.content) {
        (Some(template), _) => CampaignContent::Stored { template },
        (None, Some(file)) => CampaignContent::Inline { content: read(file)? },
        (None, None) => return Err(CliError::usage("give --template or --content")),
    };
    let mut lists = Vec::new();
    for list in &args.lists {
        lists.push(resolve(&client, list).await?);
    }
    let new = NewCampaign {
        name: args.name,
        lists,
        content,
        purpose: args.purpose,
        unknown_policy: args.unknown_policy,
        account: args.account,
        limits: Windows {
            per_second: args.per_second,
            per_minute: args.per_minute,
            per_hour: args.per_hour,
            per_day: args.per_day,
        },
        send_at: args.send_at,
        expires_at: args.expires_at,
        sending_window: args.window.window(),
    };
    let made: CreatedCampaign =
        client.send(Method::POST, "/v1/campaigns", &new, args.idempotency_key.as_deref()).await?;
    if args.json {
        return Ok(out.json(&made)?);
    }
    let campaign = &made.campaign;
    out.line(&format!("{} ({}) is made and goes through {}.", campaign.id, campaign.name, campaign.account))?;
    for warning in &made.warnings {
        out.line(&format!("  note: {warning}"))?;
    }
    Ok(out.line(&format!("Send it with: dispatch campaign launch {}", campaign.id))?)
}

async fn resolve(client: &EngineClient, list: &str) -> Result<ListId, CliError> {
    let found = client.find_list(list).await?;
    found.map(|list| list.id).ok_or_else(|| {
        CliError::usage(format!("there is no list `{list}`; make it with: dispatch import --list {list} FILE"))
    })
}

fn read(file: &PathBuf) -> Result<TemplateSource, CliError> {
    let text =
        std::fs::read(file).map_err(|error| CliError::usage(format!("{} cannot be read: {error}", file.display())))?;
    serde_json::from_slice(&text)
        .map_err(|error| CliError::usage(format!("{} is not the content of a message: {error}", file.display())))
}
