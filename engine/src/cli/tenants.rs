//! `dispatch tenants`: tenants listed, closed and opened in the ledger itself, or by the engine that runs on it.

use clap::Subcommand;
use dispatch_schemas::api::keys::Tenant;

use super::{
    error::CliError,
    orders::{self, Form},
    output::Output,
    settings_file::SettingsArgs,
};
use crate::operator::Order;

const EXAMPLE: &str = "\
Examples:
  dispatch tenants list
  dispatch tenants close acme --reason 'unpaid since March'
  dispatch tenants open acme

Of a closed tenant nothing is sent, and nothing can be made or launched to be sent; its campaigns go on where they were \
when it is opened. It can still read, suppress, erase, pause and cancel, and its contacts stay.

The ledger is the one of the settings, whether an engine runs on it or not; one that runs is asked through the \
socket beside its ledger, by the user it runs as, and begins nothing more of a closed tenant from the answer on.";

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
    let (order, form) = args.action.into_order();
    orders::print(orders::carried_out(&settings, order).await?, form, out)
}

impl Action {
    pub(super) fn into_order(self) -> (Order, Form) {
        match self {
            Self::List { json } => (Order::ListTenants, Form::of(json)),
            Self::Close { tenant, reason, json } => (Order::CloseTenant { tenant, reason }, Form::of(json)),
            Self::Open { tenant, json } => (Order::OpenTenant { tenant }, Form::of(json)),
        }
    }
}

pub(super) fn print_list(tenants: Vec<Tenant>, out: &mut Output) -> std::io::Result<()> {
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
    out.table(["TENANT", "NAME", "STATE", "REASON"], &rows)
}
