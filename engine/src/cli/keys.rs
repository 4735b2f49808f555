//! `dispatch keys`: API keys, made and revoked in the ledger itself.

use clap::Subcommand;
use dispatch_schemas::{
    api::{keys::Permission, time::Moment},
    ids::KeyId,
};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{error::CliError, output::Output, settings_file::SettingsArgs};
use crate::{api::credentials::ApiKeyText, engine::Opened};

const EXAMPLE: &str = "\
Examples:
  dispatch keys create --tenant acme
  dispatch keys create --tenant acme --label crm --permissions read,write --days 90
  dispatch keys list --tenant acme
  dispatch keys revoke key_01H2M9ZQK7W3C

These open the ledger of the settings themselves, so the engine must not be running on it. A revoked key \
is refused by all running engines within 5 seconds.";

const DAY_MS: i64 = 86_400_000;

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
    Create(NewKey),
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
pub(super) struct NewKey {
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
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3_650))]
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
    let opened = crate::engine::open_ledger(&settings).await.map_err(|error| CliError::failed(error.to_string()))?;
    if opened.made_key {
        note(&format!(
            "Made the ledger {} and its key file {}. Losing the key file loses the data: keep a copy in a safe place.",
            settings.ledger.url.file().display(),
            settings.ledger.key_file.display()
        ));
    }
    act(&opened, args.action, out).await
}

pub(super) async fn act(opened: &Opened, action: Action, out: &mut Output) -> Result<(), CliError> {
    match action {
        Action::Create(new) => create(opened, new, out).await,
        Action::List { tenant, json } => list(opened, tenant.as_deref(), json, out).await,
        Action::Revoke { id } => {
            let key = opened.ledger.revoke_key(id).await?;
            out.line(&format!("{} ({}) is revoked.", key.id, key.label))?;
            Ok(())
        }
    }
}

async fn create(opened: &Opened, new: NewKey, out: &mut Output) -> Result<(), CliError> {
    for (what, text) in [("tenant", &new.tenant), ("label", &new.label)] {
        if text.trim().is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
            return Err(CliError::Usage(format!("--{what} must have 1 to 200 characters, on one line")));
        }
    }
    let mut permissions = new.permissions;
    permissions.sort_unstable();
    permissions.dedup();
    let tenant = opened.ledger.tenant(&new.tenant).await?;
    let text = ApiKeyText::generate(opened.entropy.as_ref());
    let hash = opened.master.api_key_hash(text.secret());
    let expires_at_ms = opened.clock.now_ms() + i64::from(new.days) * DAY_MS;
    let key = opened.ledger.create_key(text.id, tenant.id, &new.label, &permissions, hash, expires_at_ms).await?;
    let secret = text.reveal();
    if new.json {
        out.json(
            &json!({"key": secret.expose_secret(), "id": key.id, "tenant": tenant, "expires_at": key.expires_at}),
        )?;
        return Ok(());
    }
    out.line(secret.expose_secret())?;
    let words: Vec<&str> = permissions.iter().map(|permission| permission.as_str()).collect();
    note(&format!(
        "A key of {} for {} ({}), good until {}. It is shown this once and kept nowhere: put it into DISPATCH_API_KEY \
         or a file of your own.",
        new.tenant,
        new.label,
        words.join(", "),
        key.expires_at
    ));
    Ok(())
}

/// Says something beside the answer, so that the answer alone can be piped on.
fn note(text: &str) {
    use std::io::Write as _;
    // Nobody is there to read it when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

async fn list(opened: &Opened, tenant: Option<&str>, json: bool, out: &mut Output) -> Result<(), CliError> {
    let tenant = match tenant {
        None => None,
        Some(name) => Some(
            opened
                .ledger
                .find_tenant(name)
                .await?
                .ok_or_else(|| CliError::Usage(format!("there is no tenant `{name}`")))?
                .id,
        ),
    };
    let keys = opened.ledger.keys(tenant).await?;
    if json {
        return Ok(keys.iter().try_for_each(|key| out.json(key))?);
    }
    let now = Moment::from_ms(opened.clock.now_ms());
    let rows: Vec<[String; 6]> = keys
        .iter()
        .map(|key| {
            let words: Vec<&str> = key.permissions.iter().map(|permission| permission.as_str()).collect();
            let state = match key.revoked_at {
                Some(_) => "revoked",
                None if key.expires_at <= now => "expired",
                None => "good",
            };
            [
                key.id.to_string(),
                key.tenant.to_string(),
                state.to_owned(),
                key.expires_at.to_string(),
                words.join(","),
                key.label.clone(),
            ]
        })
        .collect();
    Ok(out.table(["KEY", "TENANT", "STATE", "EXPIRES", "PERMISSIONS", "LABEL"], &rows)?)
}
