//! `dispatch tenants`: tenants listed, closed and opened in the ledger itself.

use clap::Subcommand;
use dispatch_schemas::api::keys::Tenant;

use super::{error::CliError, output::Output, settings_file::SettingsArgs};
use crate::ledger::Ledger;

const EXAMPLE: &str = "\
Examples:
  dispatch tenants list
  dispatch tenants close acme --reason 'unpaid since March'
  dispatch tenants open acme

Of a closed tenant nothing is sent, and nothing can be made or launched to be sent; its campaigns go on where they were \
when it is opened. It can still read, suppress, erase, pause and cancel, and its contacts stay.

These open the ledger of the settings themselves, so the engine must not be running on it.";

/// The longest reason.
const REASON_CHARS_MAX: usize = 200;

/// What `dispatch tenants` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(subcommand)]
    pub(super) action: Action,
    /// Which settings.
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List the tenants, and which are closed
    List {
        /// Print JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Let nothing of a tenant be sent
    Close {
        /// The tenant, by name or id
        tenant: String,
        /// Why; the tenant is told
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a closed tenant send again
    Open {
        /// The tenant, by name or id
        tenant: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs `dispatch tenants`.
///
/// # Errors
/// When there is no ledger, it cannot be opened, or it refuses.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let settings = args.settings.load()?;
    if let Some(file) = settings.ledger.url.file()
        && !file.exists()
    {
        return Err(CliError::Usage(format!("there is no ledger at {}, and so no tenant", file.display())));
    }
    let opened = crate::engine::open_ledger(&settings).await.map_err(|error| CliError::failed(error.to_string()))?;
    act(opened.ledger.as_ref(), args.action, out).await
}

pub(super) async fn act(ledger: &dyn Ledger, action: Action, out: &mut Output) -> Result<(), CliError> {
    match action {
        Action::List { json } => list(ledger, json, out).await,
        Action::Close { tenant, reason, json } => {
            let reason = reason.trim();
            if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
                return Err(CliError::Usage(format!(
                    "--reason must have 1 to {REASON_CHARS_MAX} characters, on one line"
                )));
            }
            let stopped = ledger.close_tenant(find(ledger, &tenant).await?.id, reason).await?;
            if json {
                return Ok(out.json(&stopped)?);
            }
            Ok(out.line(&format!(
                "{} is closed; {} messages were on their way before.",
                stopped.tenant.name, stopped.in_flight
            ))?)
        }
        Action::Open { tenant, json } => {
            let opened = ledger.open_tenant(find(ledger, &tenant).await?.id).await?;
            if json {
                return Ok(out.json(&opened)?);
            }
            Ok(out.line(&format!("{} is open.", opened.name))?)
        }
    }
}

async fn find(ledger: &dyn Ledger, wanted: &str) -> Result<Tenant, CliError> {
    let tenants = ledger.tenants().await?;
    let found = tenants.into_iter().find(|tenant| tenant.name == wanted || tenant.id.to_string() == wanted);
    found.ok_or_else(|| CliError::Usage(format!("there is no tenant `{wanted}`; `dispatch tenants list` names them")))
}

async fn list(ledger: &dyn Ledger, json: bool, out: &mut Output) -> Result<(), CliError> {
    let tenants = ledger.tenants().await?;
    if json {
        return Ok(tenants.iter().try_for_each(|tenant| out.json(tenant))?);
    }
    let rows: Vec<[String; 4]> = tenants
        .into_iter()
        .map(|tenant| {
            let (state, reason) = match tenant.closed {
                None => ("open".to_owned(), String::new()),
                Some(closed) => (format!("closed {}", closed.at), closed.reason),
            };
            [tenant.id.to_string(), tenant.name, state, reason]
        })
        .collect();
    Ok(out.table(["TENANT", "NAME", "STATE", "REASON"], &rows)?)
}
