//! `dispatch campaign list`.

use dispatch_schemas::api::{Page, campaigns::Campaign};

use super::super::{engine_client::EngineArgs, error::CliError, output::Output};

/// What `dispatch campaign list` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many, at most: 1 to 1,000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
    /// Go on after an earlier page, which says with what
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print the page as JSON, with the `next_cursor` of the next one
    #[arg(long)]
    json: bool,
    /// Which engine.
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs `dispatch campaign list`: one page, newest first.
pub(super) async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let mut query = vec![("limit".to_owned(), args.limit.to_string())];
    query.extend(args.cursor.map(|cursor| ("cursor".to_owned(), cursor)));
    let page: Page<Campaign> = args.engine.client()?.get("/v1/campaigns", &query).await?;
    if args.json {
        return Ok(out.json(&page)?);
    }
    let rows: Vec<[String; 5]> = page.data.iter().map(row).collect();
    out.table(["ID", "STATE", "CHANNEL", "CREATED", "NAME"], &rows)?;
    match page.next_cursor {
        Some(next) => {
            Ok(out.line(&format!("Go on with: dispatch campaign list --limit {} --cursor {next}", args.limit))?)
        }
        None => Ok(()),
    }
}

fn row(campaign: &Campaign) -> [String; 5] {
    [
        campaign.id.to_string(),
        campaign.state.to_string(),
        campaign.channel.to_string(),
        campaign.created_at.to_string(),
        campaign.name.clone(),
    ]
}
