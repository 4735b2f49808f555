//! The ledger, where it is a file of this machine.

use super::{Check, Fingerprint, memory};
use crate::{
    ledger::sqlite::{self, Found},
    settings::Settings,
};

pub(super) async fn examine(settings: &Settings, checks: &mut Vec<Check>) -> Fingerprint {
    let url = &settings.ledger.url;
    let Some(file) = url.file() else { return Fingerprint::NotAsked };
    if settings.queue.url.is_some() {
        checks.push(Check::warn(
            "ledger.processes",
            "there is a RabbitMQ for several processes, and a ledger that serves one",
            "name a PostgreSQL in ledger.url, or take queue.url out",
        ));
    }
    match sqlite::look(file).await {
        Ok(Found::Ledger(key)) => {
            checks.push(Check::ok("ledger.file", format!("{} is a ledger", file.display())));
            checks.push(match sqlite::look_for_quarantine(file).await {
                Ok(quarantine) => memory::quarantine(quarantine.as_ref()),
                Err(error) => Check::refused("ledger.quarantine", error.to_string()),
            });
            key.map_or(Fingerprint::None, Fingerprint::Known)
        }
        Ok(Found::Nothing) => {
            checks.push(Check::ok("ledger.file", format!("{} is made at the first start", file.display())));
            Fingerprint::None
        }
        Err(error) => {
            checks.push(Check::refused("ledger.file", error.to_string()));
            Fingerprint::NotAsked
        }
    }
}
