//! `dispatch campaign status`.

use dispatch_schemas::{
    api::campaigns::{Campaign, Progress},
    states::{CampaignState, DeliveryState},
};

use super::{
    super::{engine_client::EngineClient, error::CliError, output::Output},
    One, reasons, watch,
};

/// Reasons that are printed; `--json` has them all.
const REASONS_SHOWN: usize = 10;

/// What `dispatch campaign status` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    one: One,
    /// Stay until every recipient is final, over restarts of the engine too; with --json one object for each look. A
    /// draft or a paused campaign waits for a person: then it says for what, and ends with exit code 1
    #[arg(long)]
    watch: bool,
}

/// Runs `dispatch campaign status`.
pub(super) async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let client = args.one.engine.client()?;
    let progress: Progress = client.get(&format!("/v1/campaigns/{}/progress", args.one.id), &[]).await?;
    let progress = if args.watch { watch::until_it_rests(&client, &args.one, progress, out).await? } else { progress };
    if args.one.json {
        out.json(&progress)?;
    } else {
        tell(&client, &args.one, &progress, out).await?;
    }
    match watch::needed(&progress) {
        Some(needed) if args.watch => Err(CliError::Failed(needed)),
        _ => Ok(()),
    }
}

async fn tell(client: &EngineClient, one: &One, progress: &Progress, out: &mut Output) -> Result<(), CliError> {
    let campaign: Campaign = client.get(&format!("/v1/campaigns/{}", one.id), &[]).await?;
    let mut pairs = vec![
        ("campaign", format!("{} ({})", campaign.id, campaign.name)),
        ("state", what_holds_it(progress)),
        ("account", format!("{} ({})", campaign.account, campaign.channel)),
        ("audience", format!("{}{}", progress.audience, if progress.expanded { "" } else { " so far" })),
    ];
    let begins = campaign.send_at.filter(|_| progress.state == CampaignState::Scheduled);
    for (name, moment) in [("begins", begins), ("launched", campaign.launched_at), ("ended", campaign.ended_at)] {
        pairs.extend(moment.map(|moment| (name, moment.to_string())));
    }
    out.pairs(&pairs)?;
    for state in DeliveryState::ALL {
        let count = progress.states.get(state.as_str()).copied().unwrap_or_default();
        if count > 0 {
            out.line(&format!("{count:>12}  {state}"))?;
        }
        match state {
            DeliveryState::Failed => tell_reasons(&reasons::failures(progress), out)?,
            DeliveryState::Stopped => tell_reasons(&reasons::stops(progress), out)?,
            _ => {}
        }
    }
    for (kind, count) in &progress.reported {
        out.line(&format!("{count:>12}  reported {kind}"))?;
    }
    if let Some((code, _)) = reasons::failures(progress).first() {
        out.line(&format!("Who failed:  dispatch campaign recipients {} --state failed", one.id))?;
        if progress.state != CampaignState::Cancelled {
            out.line(&format!("Try again:   dispatch campaign retry {} --code {code}", one.id))?;
        }
    }
    Ok(())
}

fn tell_reasons(reasons: &[(&str, u64)], out: &mut Output) -> Result<(), CliError> {
    for (reason, count) in reasons.iter().take(REASONS_SHOWN) {
        let words = reasons::explained(reason).map_or_else(String::new, |words| format!(": {words}"));
        out.line(&format!("{count:>12}    {reason}{words}"))?;
    }
    if let Some(more @ 1..) = reasons.len().checked_sub(REASONS_SHOWN) {
        out.line(&format!("                … and {more} more; --json lists them"))?;
    }
    Ok(())
}

/// The state, and what it waits for.
pub(super) fn what_holds_it(progress: &Progress) -> String {
    let state = progress.state;
    match (&progress.pause_reason, &progress.stall) {
        (Some(reason), _) => format!("{state}: {reason}"),
        (None, Some(stall)) => {
            let until = progress.opens_at.map(|at| format!(" until {at}")).unwrap_or_default();
            format!("{state}, waiting: {}{until}", stall.as_str())
        }
        (None, None) => state.to_string(),
    }
}
