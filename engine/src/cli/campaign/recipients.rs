//! `dispatch campaign recipients`.

use dispatch_schemas::{
    api::{Page, campaigns::RecipientStatus},
    states::DeliveryState,
};

use super::{
    super::{error::CliError, output::Output},
    One,
};

/// Recipients fetched by one call: what the API gives at most.
const PAGE: u64 = 1_000;

/// What `dispatch campaign recipients` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    one: One,
    /// Only those in this state: ready, claimed, unknown, retry_wait, accepted, failed, expired, stopped or
    /// unknown_final
    #[arg(long, value_name = "STATE")]
    state: Option<DeliveryState>,
    /// How many, at most: 1 to 10,000,000
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "all",
        value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    limit: u64,
    /// All of them
    #[arg(long)]
    all: bool,
}

/// Runs `dispatch campaign recipients`: a table, or with `--json` one object a line.
pub(super) async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let client = args.one.engine.client()?;
    let path = format!("/v1/campaigns/{}/recipients", args.one.id);
    let mut left = if args.all { u64::MAX } else { args.limit };
    let mut cursor = None;
    let mut headings = Some(());
    while left > 0 {
        let mut query = vec![("limit".to_owned(), left.min(PAGE).to_string())];
        query.extend(args.state.map(|state| ("state".to_owned(), state.to_string())));
        query.extend(cursor.take().map(|cursor| ("cursor".to_owned(), cursor)));
        let page: Page<RecipientStatus> = client.get(&path, &query).await?;
        left = left.saturating_sub(page.data.len() as u64);
        if args.one.json {
            page.data.iter().try_for_each(|recipient| out.json(recipient))?;
        } else {
            print(&page.data, headings.take(), out)?;
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    Ok(())
}

fn print(recipients: &[RecipientStatus], headings: Option<()>, out: &mut Output) -> Result<(), CliError> {
    if headings.is_some() {
        out.line(&row("SEQ", "STATUS", "DETAIL", "TRIES", "ADDRESS", "SEND KEY"))?;
    }
    for recipient in recipients {
        out.line(&row(
            &recipient.seq.to_string(),
            recipient.status.as_str(),
            recipient.detail.as_deref().unwrap_or("-"),
            &recipient.attempts.to_string(),
            recipient.address_masked.as_deref().unwrap_or("(erased)"),
            &recipient.send_key,
        ))?;
    }
    Ok(())
}

/// Widths are fixed, because pages are printed as they come.
fn row(seq: &str, status: &str, detail: &str, tries: &str, address: &str, key: &str) -> String {
    format!("{seq:>10}  {status:<20}  {detail:<20}  {tries:>5}  {address:<24}  {key}")
}
