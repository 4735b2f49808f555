//! `dispatch campaign status`.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use dispatch_schemas::{
    api::campaigns::{Campaign, Progress},
    states::{CampaignState, DeliveryState},
};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    super::{engine_client::EngineClient, error::CliError, output::Output},
    One,
};

/// How often a watched campaign is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What `dispatch campaign status` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    one: One,
    /// Stay until every recipient is final; with --json one object for each look
    #[arg(long)]
    watch: bool,
}

/// Runs `dispatch campaign status`.
pub(super) async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let client = args.one.engine.client()?;
    let path = format!("/v1/campaigns/{}/progress", args.one.id);
    let mut progress: Progress = client.get(&path, &[]).await?;
    if args.watch {
        let mut watched = Watched::new();
        while !is_over(&progress) {
            match (&mut watched, args.one.json) {
                (_, true) => out.json(&progress)?,
                (Watched::Bar(bar), false) => {
                    bar.set_length(progress.audience);
                    bar.set_position(done(&progress));
                    bar.set_message(what_holds_it(&progress));
                }
                (Watched::Lines(last), false) => {
                    let line = one_line(&progress);
                    if *last != line {
                        out.line(&line)?;
                        *last = line;
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
            progress = client.get(&path, &[]).await?;
        }
        if let Watched::Bar(bar) = watched {
            bar.finish_and_clear();
        }
    }
    if args.one.json {
        return Ok(out.json(&progress)?);
    }
    tell(&client, &args.one, &progress, out).await
}

enum Watched {
    Bar(ProgressBar),
    Lines(String),
}

impl Watched {
    fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Self::Lines(String::new());
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {percent:>3}%  {human_pos} of {human_len}  {per_sec}  {msg}")
        {
            bar.set_style(style);
        }
        Self::Bar(bar)
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
    for (name, moment) in [("launched", campaign.launched_at), ("ended", campaign.ended_at)] {
        pairs.extend(moment.map(|moment| (name, moment.to_string())));
    }
    out.pairs(&pairs)?;
    for state in DeliveryState::ALL {
        let count = progress.states.get(state.as_str()).copied().unwrap_or_default();
        if count > 0 {
            out.line(&format!("{count:>12}  {state}"))?;
        }
    }
    for (reason, count) in &progress.reasons {
        out.line(&format!("{count:>12}    {reason}"))?;
    }
    Ok(())
}

/// Recipients that are final.
fn done(progress: &Progress) -> u64 {
    let of = |state: &DeliveryState| progress.states.get(state.as_str()).copied().unwrap_or_default();
    DeliveryState::ALL.iter().filter(|state| state.is_final()).map(of).sum()
}

fn is_over(progress: &Progress) -> bool {
    match progress.state {
        CampaignState::Completed => true,
        CampaignState::Cancelled => done(progress) >= progress.audience,
        CampaignState::Draft | CampaignState::Scheduled | CampaignState::Running | CampaignState::Paused => false,
    }
}

fn what_holds_it(progress: &Progress) -> String {
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

fn one_line(progress: &Progress) -> String {
    format!("{} of {} done, {}", done(progress), progress.audience, what_holds_it(progress))
}
