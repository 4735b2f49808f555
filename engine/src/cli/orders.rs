//! What `dispatch keys` and `dispatch tenants` have in common: an order for the ledger, carried out in it or by the
//! engine that has it open.

use std::time::Duration;

use dispatch_schemas::api::keys::{ApiKey, TenantStopped};

use super::{error::CliError, keys, output::Output, tenants};
use crate::{
    engine::{StartError, open_ledger},
    ledger::{LedgerError, Quarantine},
    operator::{Answer, Order, Refusal},
    settings::Settings,
};

/// How often the ledger is asked for while another process has it that takes no orders: it starts, stops, or is such
/// a command itself.
const TRIES_MAX: usize = 50;
/// Between two tries.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    ForPeople,
    Json,
}

impl Form {
    /// The one that the switch `--json` asks for.
    pub(super) const fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::ForPeople }
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
pub(super) async fn carried_out(settings: &Settings, order: Order) -> Result<Answer, CliError> {
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

/// Prints what came of an order.
pub(super) fn print(answer: Answer, form: Form, out: &mut Output) -> Result<(), CliError> {
    match (answer, form) {
        (Answer::Created(made), Form::Json) => out.json(&made)?,
        (Answer::Created(made), Form::ForPeople) => keys::print_created(&made, out)?,
        (Answer::Keys(keys), Form::Json) => keys.iter().try_for_each(|key| out.json(key))?,
        (Answer::Keys(keys), Form::ForPeople) => keys::print_list(&keys, out)?,
        (Answer::Revoked(key), Form::Json) => out.json(&key)?,
        (Answer::Revoked(ApiKey { id, label, .. }), Form::ForPeople) => {
            out.line(&format!("{id} ({label}) is revoked."))?;
        }
        (Answer::Tenants(tenants), Form::Json) => tenants.iter().try_for_each(|tenant| out.json(tenant))?,
        (Answer::Tenants(tenants), Form::ForPeople) => tenants::print_list(tenants, out)?,
        (Answer::Closed(stopped), Form::Json) => out.json(&stopped)?,
        (Answer::Closed(TenantStopped { tenant, in_flight }), Form::ForPeople) => {
            out.line(&format!("{} is closed; {in_flight} messages were on their way before.", tenant.name))?;
        }
        (Answer::Opened(tenant), Form::Json) => out.json(&tenant)?,
        (Answer::Unquarantined(ended), Form::Json) => out.json(&ended)?,
        (Answer::Unquarantined(None), Form::ForPeople) => out.line("There is no quarantine: nothing was changed.")?,
        (Answer::Unquarantined(Some(ended)), Form::ForPeople) => {
            let Quarantine { reason, doubted, .. } = ended;
            out.line(&format!("The quarantine is over ({reason}); {doubted} deliveries had been called unknown."))?;
        }
        (Answer::Limits(_) | Answer::LimitSet(_) | Answer::LimitCleared(_), _) => {
            return Err(CliError::failed("the running engine answered something else; it is of another version"));
        }
        (Answer::Opened(tenant), Form::ForPeople) => out.line(&format!("{} is open.", tenant.name))?,
    }
    Ok(())
}

/// Says something beside the answer, so that the answer alone can be piped on.
pub(super) fn note(text: &str) {
    use std::io::Write as _;
    // Nobody is there to read it when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
