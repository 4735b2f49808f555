//! `dispatch keys`: API keys, made and revoked in the ledger itself, or by the engine that runs on it.

use clap::Subcommand;
use dispatch_schemas::{
    api::{keys::Permission, time::Moment},
    ids::KeyId,
};
use dispatch_workers::clock::{Clock as _, SystemClock};

use super::{
    error::CliError,
    orders::{self, Form, note},
    output::Output,
    settings_file::SettingsArgs,
};
use crate::operator::{
    Order,
    keys::{CreatedKey, DAYS_MAX, ListedKey, NewKey},
};

const EXAMPLE: &str = "\
Examples:
  dispatch keys create --tenant acme
  dispatch keys create --tenant acme --label crm --permissions read,write --days 90
  dispatch keys list --tenant acme
  dispatch keys revoke key_01H2M9ZQK7W3C

The ledger is the one of the settings, whether an engine runs on it or not; one that runs is asked through the \
socket beside its ledger, by the user it runs as. A revoked key is refused from the answer on.";

/// What `dispatch keys` takes.
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
    /// Make a key and print it, once
    Create(NewKeyArgs),
    /// List the keys, without their secrets
    List {
        /// Only this tenant's
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        /// Print JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Take a key out of use
    Revoke {
        /// The key's id, as `dispatch keys list` shows it
        id: KeyId,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct NewKeyArgs {
    /// The tenant it is for; made when there is none of this name
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// What the key is for, for people
    #[arg(long, value_name = "TEXT", default_value = "cli")]
    label: String,
    /// What it may do: read, write, send, erase
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = permission, default_value = "read,write,send")]
    permissions: Vec<Permission>,
    /// For how many days it is good
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=i64::from(DAYS_MAX)))]
    days: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn permission(word: &str) -> Result<Permission, String> {
    let known = Permission::ALL.iter().find(|permission| permission.as_str() == word.trim());
    known.copied().ok_or_else(|| "it is one of: read, write, send, erase".to_owned())
}

/// Runs `dispatch keys`.
///
/// # Errors
/// When the ledger cannot be opened or refuses.
pub async fn run(args: Args, out: &mut Output) -> Result<(), CliError> {
    let settings = args.settings.load()?;
    let (order, form) = args.action.into_order();
    orders::print(orders::carried_out(&settings, order).await?, form, out)
}

impl Action {
    pub(super) fn into_order(self) -> (Order, Form) {
        match self {
            Self::Create(NewKeyArgs { tenant, label, permissions, days, json }) => {
                (Order::CreateKey(NewKey { tenant, label, permissions, days }), Form::of(json))
            }
            Self::List { tenant, json } => (Order::ListKeys { tenant }, Form::of(json)),
            Self::Revoke { id } => (Order::RevokeKey { id }, Form::ForPeople),
        }
    }
}

pub(super) fn print_created(made: &CreatedKey, out: &mut Output) -> std::io::Result<()> {
    out.line(&made.key)?;
    note(&format!(
        "A key of {} for {} ({}), good until {}. It is shown this once and kept nowhere: put it into DISPATCH_API_KEY \
         or a file of your own.",
        made.tenant.name,
        made.label,
        words(&made.permissions, ", "),
        made.expires_at
    ));
    Ok(())
}

fn words(permissions: &[Permission], between: &str) -> String {
    permissions.iter().map(|permission| permission.as_str()).collect::<Vec<_>>().join(between)
}

pub(super) fn print_list(keys: &[ListedKey], out: &mut Output) -> std::io::Result<()> {
    let now = Moment::from_ms(SystemClock::new().now_ms());
    let rows: Vec<[String; 6]> = keys
        .iter()
        .map(|ListedKey { key, tenant_name }| {
            let state = match key.revoked_at {
                Some(_) => "revoked",
                None if key.expires_at <= now => "expired",
                None => "good",
            };
            [
                key.id.to_string(),
                tenant_name.clone(),
                state.to_owned(),
                key.expires_at.to_string(),
                words(&key.permissions, ","),
                key.label.clone(),
            ]
        })
        .collect();
    out.table(["KEY", "TENANT", "STATE", "EXPIRES", "PERMISSIONS", "LABEL"], &rows)
}
