//! `dispatch limits`: how fast accounts and destinations may be sent to, changed while the engine runs.

use std::collections::BTreeMap;

use clap::Subcommand;
use dispatch_schemas::api::limits::Windows;
use serde::Serialize;

use super::{
    error::CliError,
    orders::{self, Form},
    output::Output,
    settings_file::SettingsArgs,
};
use crate::{
    ledger::{LimitTarget, OperatorLimit},
    operator::{Answer, Order},
    settings::Settings,
};

const EXAMPLE: &str = "\
Examples:
  dispatch limits list
  dispatch limits set account sendgrid_main --per-second 200 --per-hour 500000
  dispatch limits set domain gmail.com --per-minute 3000
  dispatch limits set country FR --per-second 0
  dispatch limits set account sendgrid_main --unlimited
  dispatch limits clear domain gmail.com

What is set here is kept in the ledger, wins over the settings file and outlives restarts, until it is cleared: then the \
settings' limit holds again. Every process that sends takes it over within a second, in the middle of campaigns; what \
was counted so far still counts. `set` replaces all windows at once: one left out has no limit, 0 lets nothing through. \
Tenants' and campaigns' limits are set by the API (PUT /v1/limits, PUT /v1/campaigns/{id}/limits).

A ledger that is a file is the running engine's: it is asked through the socket beside it, by the user it runs as.";

/// What `dispatch limits` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Which settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the limits in force: the settings' and those set here
    List,
    /// Limit an account or a destination
    Set {
        #[command(flatten)]
        of: Target,
        #[command(flatten)]
        windows: WindowsArgs,
    },
    /// Let the settings' limit hold again
    Clear(Target),
}

#[derive(Debug, clap::Args)]
struct Target {
    /// What is limited: account, domain or country
    #[arg(value_parser = LimitTarget::KINDS)]
    kind: String,
    /// The account's name in the settings, a domain such as gmail.com, or a country's two letters
    name: String,
}

#[derive(Debug, clap::Args)]
struct WindowsArgs {
    /// Messages in any second
    #[arg(long, value_name = "N")]
    per_second: Option<u32>,
    /// Messages in any minute
    #[arg(long, value_name = "N")]
    per_minute: Option<u32>,
    /// Messages in any hour
    #[arg(long, value_name = "N")]
    per_hour: Option<u32>,
    /// Messages in any 24 hours
    #[arg(long, value_name = "N")]
    per_day: Option<u32>,
    /// No limit at all, whatever the settings say
    #[arg(long, conflicts_with_all = ["per_second", "per_minute", "per_hour", "per_day"])]
    unlimited: bool,
}

/// Runs `dispatch limits`.
///
/// # Errors
/// When the ledger cannot be opened or refuses, or there is no such account.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let settings = args.settings.load()?;
    let form = Form::of(args.json);
    if let Some(file) = settings.ledger.url.file()
        && !file.exists()
    {
        let none = format!("there is no ledger at {} yet; it is made at the engine's first start", file.display());
        return Err(CliError::Usage(none));
    }
    let order = order(args.action, &settings)?;
    match (orders::carried_out(&settings, order).await?, form) {
        (Answer::Limits(limits), Form::Json) => {
            in_force(&settings, limits).iter().try_for_each(|limit| out.json(limit))?;
        }
        (Answer::Limits(limits), Form::ForPeople) => print(&in_force(&settings, limits), out)?,
        (Answer::LimitSet(limit), Form::Json) => out.json(&limit)?,
        (Answer::LimitSet(OperatorLimit { of, limits, .. }), Form::ForPeople) => {
            out.line(&format!("{of}: {}, whatever the settings say.", words(limits)))?;
        }
        (Answer::LimitCleared(of), form) => {
            let limits = of_settings(&settings).get(&of).copied().unwrap_or_default();
            match form {
                Form::Json => out.json(&InForce { of, limits, from: From::Settings })?,
                Form::ForPeople => out.line(&format!("{of}: {}, as in the settings.", words(limits)))?,
            }
        }
        _ => return Err(CliError::failed("the running engine answered something else; it is of another version")),
    }
    Ok(())
}

fn order(action: Action, settings: &Settings) -> Result<Order, CliError> {
    match action {
        Action::List => Ok(Order::ListLimits),
        Action::Clear(of) => Ok(Order::ClearLimit { of: of.read()? }),
        Action::Set { of, windows } => {
            let of = of.read()?;
            if let LimitTarget::Account(name) = &of
                && !settings.providers.contains_key(name)
            {
                let names = settings.providers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(CliError::Usage(format!(
                    "there is no account `{name}` in the settings; there are: {names}"
                )));
            }
            let WindowsArgs { per_second, per_minute, per_hour, per_day, unlimited } = windows;
            let limits = Windows { per_second, per_minute, per_hour, per_day };
            if limits.is_unlimited() && !unlimited {
                return Err(CliError::Usage(
                    "say how much: --per-second, --per-minute, --per-hour or --per-day, or --unlimited".to_owned(),
                ));
            }
            Ok(Order::SetLimit { of, limits })
        }
    }
}

impl Target {
    fn read(self) -> Result<LimitTarget, CliError> {
        let Self { kind, name } = self;
        let target =
            LimitTarget::new(&kind, name).ok_or_else(|| CliError::Usage(format!("there is no kind `{kind}`")))?;
        target.check().map_err(|wanted| CliError::Usage(format!("{}: {wanted}", target.kind())))?;
        Ok(target)
    }
}

/// Where a limit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Operator,
    Settings,
}

/// A limit, and where it comes from.
#[derive(Debug, Clone, Serialize)]
struct InForce {
    #[serde(flatten)]
    of: LimitTarget,
    limits: Windows,
    from: From,
}

/// The operator's limits over the settings' ones.
fn in_force(settings: &Settings, set: Vec<OperatorLimit>) -> Vec<InForce> {
    let mut all: BTreeMap<LimitTarget, (Windows, From)> =
        of_settings(settings).into_iter().map(|(of, limits)| (of, (limits, From::Settings))).collect();
    all.extend(set.into_iter().map(|limit| (limit.of, (limit.limits, From::Operator))));
    all.into_iter().map(|(of, (limits, from))| InForce { of, limits, from }).collect()
}

fn of_settings(settings: &Settings) -> BTreeMap<LimitTarget, Windows> {
    let accounts =
        settings.providers.iter().map(|(name, account)| (LimitTarget::Account(name.clone()), account.limits));
    let domains = settings.limits.domains.iter().map(|(name, limits)| (LimitTarget::Domain(name.clone()), *limits));
    let countries =
        settings.limits.countries.iter().map(|(name, limits)| (LimitTarget::Country(name.clone()), *limits));
    accounts.chain(domains).chain(countries).collect()
}

fn print(limits: &[InForce], out: &mut Output) -> Result<(), CliError> {
    let rows: Vec<[String; 4]> = limits
        .iter()
        .map(|limit| {
            let from = match limit.from {
                From::Operator => "operator",
                From::Settings => "settings",
            };
            [limit.of.kind().to_owned(), limit.of.name().to_owned(), from.to_owned(), words(limit.limits)]
        })
        .collect();
    Ok(out.table(["KIND", "NAME", "FROM", "LIMITS"], &rows)?)
}

fn words(limits: Windows) -> String {
    let Windows { per_second, per_minute, per_hour, per_day } = limits;
    let windows = [(per_second, "second"), (per_minute, "minute"), (per_hour, "hour"), (per_day, "day")];
    let words: Vec<String> =
        windows.iter().filter_map(|(most, window)| most.map(|most| format!("{most} a {window}"))).collect();
    if words.is_empty() { "no limit".to_owned() } else { words.join(", ") }
}
