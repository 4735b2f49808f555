//! `dispatch campaign status --watch`: looks again and again until there is nothing more to see.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use dispatch_schemas::{
    api::campaigns::{Campaign, Progress},
    states::{CampaignState, DeliveryState},
};
use dispatch_workers::clock::{Clock as _, SystemClock};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    super::{engine_client::EngineClient, error::CliError, output::Output},
    One,
    status::what_holds_it,
};

/// How often a watched campaign is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long an engine that does not answer is asked again: longer than a restart or an update of it takes.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// Watches until every recipient is final, or the campaign waits for a person ([`needed`]).
pub(super) async fn until_it_rests(
    client: &EngineClient,
    one: &One,
    mut progress: Progress,
    out: &mut Output,
) -> Result<Progress, CliError> {
    let path = format!("/v1/campaigns/{}", one.id);
    let mut shown = Shown::new(one.json);
    let campaign: Campaign = look(client, &path, &shown).await?;
    let begins = campaign.send_at.map_or_else(String::new, |at| format!(", begins at {at}"));
    while !is_over(&progress) && needed(&progress).is_none() {
        let begins = if progress.state == CampaignState::Scheduled { begins.as_str() } else { "" };
        shown.show(&progress, begins, out)?;
        tokio::time::sleep(LOOK_EVERY).await;
        progress = look(client, &format!("{path}/progress"), &shown).await?;
    }
    if let Shown::Bar(bar) = shown {
        bar.finish_and_clear();
    }
    Ok(progress)
}

/// What a person must do before the campaign moves, if so. Waiting for that would never end by itself.
pub(super) fn needed(progress: &Progress) -> Option<String> {
    let id = progress.id;
    match progress.state {
        CampaignState::Draft => Some(format!(
            "{id} is a draft: nothing is sent before its launch, so there is nothing to watch; launch it with: dispatch \
             campaign launch {id}"
        )),
        CampaignState::Paused => Some(format!(
            "{id} is paused ({}) and does not move until it is resumed: dispatch campaign resume {id}",
            progress.pause_reason.as_deref().unwrap_or("no reason was given")
        )),
        CampaignState::Scheduled | CampaignState::Running | CampaignState::Cancelled | CampaignState::Completed => None,
    }
}

/// One look, tried again while the engine is away: a restart of it ends no campaign and should end no watch.
async fn look<T: serde::de::DeserializeOwned>(client: &EngineClient, path: &str, shown: &Shown) -> Result<T, CliError> {
    let clock = SystemClock::new();
    let began = clock.monotonic();
    let mut has_told = false;
    loop {
        let silence = clock.monotonic().saturating_sub(began);
        match client.get(path, &[]).await {
            Err(CliError::Unavailable(why)) if silence < SILENCE_MAX => {
                if !has_told {
                    shown.say(&format!("{why}; asking again for up to {} s", SILENCE_MAX.as_secs()));
                    has_told = true;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(found) => {
                if has_told {
                    shown.say("the engine answers again");
                }
                return Ok(found);
            }
            Err(CliError::Unavailable(why)) => {
                return Err(CliError::Unavailable(format!("{why}; it was asked for {} s", silence.as_secs())));
            }
            Err(error) => return Err(error),
        }
    }
}

/// How far it is, as it is shown.
enum Shown {
    /// On a terminal.
    Bar(ProgressBar),
    /// Elsewhere: a line for each change.
    Lines(String),
    /// For programs.
    Json,
}

impl Shown {
    fn new(as_json: bool) -> Self {
        if as_json {
            return Self::Json;
        }
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

    fn show(&mut self, progress: &Progress, begins: &str, out: &mut Output) -> Result<(), CliError> {
        match self {
            Self::Json => out.json(progress)?,
            Self::Bar(bar) => {
                bar.set_length(progress.audience);
                bar.set_position(done(progress));
                bar.set_message(format!("{}{begins}", what_holds_it(progress)));
            }
            Self::Lines(last) => {
                let line =
                    format!("{} of {} done, {}{begins}", done(progress), progress.audience, what_holds_it(progress));
                if *last != line {
                    out.line(&line)?;
                    *last = line;
                }
            }
        }
        Ok(())
    }

    /// Says something beside it, to standard error.
    fn say(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.println(text),
            // Nothing is left to tell it to when standard error is closed.
            Self::Lines(_) | Self::Json => drop(writeln!(io::stderr(), "{text}")),
        }
    }
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
