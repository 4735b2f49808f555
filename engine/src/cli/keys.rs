//! `dispatch keys`: API keys, made and revoked in the ledger itself, or by the engine that runs on it.

use std::time::Duration;

use clap::Subcommand;
use dispatch_schemas::{
    api::{
        keys::{ApiKey, Permission},
        time::Moment,
    },
    ids::KeyId,
};
use dispatch_workers::clock::{Clock as _, SystemClock};

use super::{error::CliError, output::Output, settings_file::SettingsArgs};
use crate::{
    engine::{StartError, open_ledger},
    ledger::LedgerError,
    operator::{Answer, CreatedKey, DAYS_MAX, ListedKey, NewKey, Order, Refusal},
    settings::Settings,
};

const EXAMPLE: &str = "\
Examples:
  dispatch keys create --tenant acme
  dispatch keys create --tenant acme --label crm --permissions read,write --days 90
  dispatch keys list --tenant acme
  dispatch keys revoke key_01H2M9ZQK7W3C

The ledger is the one of the settings, whether an engine runs on it or not; one that runs is asked through the \
socket beside its ledger, by the user it runs as. A revoked key is refused from the answer on.";

/// How often the ledger is asked for while another process has it that takes no orders: it starts, stops, or is such
/// a command itself.
const TRIES_MAX: usize = 50;
/// Between two tries.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);

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
    print(carried_out(&settings, order).await?, form, out)
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    ForPeople,
    Json,
}

impl Action {
    pub(super) fn into_order(self) -> (Order, Form) {
        let form = |json| if json { Form::Json } else { Form::ForPeople };
        match self {
            Self::Create(NewKeyArgs { tenant, label, permissions, days, json }) => {
                (Order::CreateKey(NewKey { tenant, label, permissions, days }), form(json))
            }
            Self::List { tenant, json } => (Order::ListKeys { tenant }, form(json)),
            Self::Revoke { id } => (Order::RevokeKey { id }, Form::ForPeople),
        }
    }
}

impl From<Refusal> for CliError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Wrong(why) => Self::Usage(why),
            Refusal::Unavailable(why) => Self::Unavailable(why),
            Refusal::Failed(why) => Self::Failed(why),
        }
    }
}

/// Carries an order out in the ledger, or has the engine do it that has the ledger open.
async fn carried_out(settings: &Settings, order: Order) -> Result<Answer, CliError> {
    let ledger = settings.ledger.url.to_string();
    for _ in 0..TRIES_MAX {
        match open_ledger(settings).await {
            Ok(opened) => {
                if opened.made_key {
                    note(&format!(
                        "Made the ledger {} and its key file {}. Losing the key file loses the data: keep a copy in a \
                         safe place.",
                        ledger,
                        settings.ledger.key_file.display()
                    ));
                }
                let answer = order.carry_out(&opened).await;
                opened.ledger.close().await;
                return Ok(answer?);
            }
            Err(StartError::Ledger(LedgerError::InUse(_))) => {}
            Err(error) => return Err(CliError::failed(error.to_string())),
        }
        #[cfg(unix)]
        if let Some(file) = settings.ledger.url.file() {
            match crate::operator::socket::ask(file, &order).await {
                Ok(answer) => return Ok(answer?),
                Err(crate::operator::socket::AskError::Nobody(_)) => {}
                Err(error) => return Err(CliError::Unavailable(error.to_string())),
            }
        }
        tokio::time::sleep(TRY_AGAIN_AFTER).await;
    }
    Err(CliError::Unavailable(format!(
        "the ledger {ledger} is open in another process that takes no orders: it is still starting or stopping, or could not \
         make its socket (its log says so); try again, or stop it first"
    )))
}

pub(super) fn print(answer: Answer, form: Form, out: &mut Output) -> Result<(), CliError> {
    match (answer, form) {
        (Answer::Created(made), Form::Json) => out.json(&made)?,
        (Answer::Created(made), Form::ForPeople) => print_created(&made, out)?,
        (Answer::Keys(keys), Form::Json) => keys.iter().try_for_each(|key| out.json(key))?,
        (Answer::Keys(keys), Form::ForPeople) => print_list(&keys, out)?,
        (Answer::Revoked(ApiKey { id, label, .. }), _) => out.line(&format!("{id} ({label}) is revoked."))?,
    }
    Ok(())
}

fn print_created(made: &CreatedKey, out: &mut Output) -> std::io::Result<()> {
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

/// Says something beside the answer, so that the answer alone can be piped on.
fn note(text: &str) {
    use std::io::Write as _;
    // Nobody is there to read it when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn words(permissions: &[Permission], between: &str) -> String {
    permissions.iter().map(|permission| permission.as_str()).collect::<Vec<_>>().join(between)
}

fn print_list(keys: &[ListedKey], out: &mut Output) -> std::io::Result<()> {
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
