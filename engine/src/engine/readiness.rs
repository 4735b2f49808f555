//! How an engine is, role by role.

use std::{collections::BTreeSet, time::Duration};

use dispatch_workers::limits::Pause;

use super::{Engine, Role};
use crate::{api::Health, quarantine};

/// A scheduler that has not finished a round for this long is not ready.
const SCHEDULER_SILENT_MAX: Duration = Duration::from_secs(10);

impl Engine {
    /// The roles of this process and how each is, and the queue when it is shared.
    #[must_use]
    pub fn readiness(&self) -> Vec<(&'static str, Health)> {
        let mut parts = Vec::new();
        if self.roles.has(Role::Scheduler) {
            parts.push((Role::Scheduler.as_str(), self.scheduler_health()));
        }
        if self.roles.has(Role::Worker) {
            parts.push((Role::Worker.as_str(), self.worker_health()));
        }
        if self.roles.has(Role::Callbacks) {
            match &self.callbacks {
                Some(desk) => parts.push((Role::Callbacks.as_str(), desk.health())),
                // A process that has nothing else to do was meant to take some.
                None if parts.is_empty() && !self.roles.has(Role::Api) => {
                    let none = "no account has `callbacks` in its settings, so none are taken".to_owned();
                    parts.push((Role::Callbacks.as_str(), Health::Impaired(none)));
                }
                None => {}
            }
        }
        if self.roles.has(Role::Scheduler) || self.roles.has(Role::Worker) {
            parts.push(("queue", self.queue.trouble().map_or(Health::Well, Health::Down)));
        }
        // Calls are answered, opt-outs above all: it is not away.
        if let Some(quarantine) = self.standing.quarantine() {
            let why = format!("in quarantine, nothing is sent: {}; {}", quarantine.reason, quarantine::MEND);
            parts.push(("quarantine", Health::Impaired(why)));
        }
        parts
    }

    fn scheduler_health(&self) -> Health {
        let now = self.opened.clock.monotonic();
        match self.desk.last_beat() {
            Some(beat) if now.saturating_sub(beat) <= SCHEDULER_SILENT_MAX => Health::Well,
            Some(_) => Health::Down("the ledger does not answer the scheduler; see the log".to_owned()),
            None => Health::Down("it has not finished its first round yet".to_owned()),
        }
    }

    /// One refused account does not keep the others from working.
    fn worker_health(&self) -> Health {
        let mut accounts = 0;
        let mut refused = BTreeSet::new();
        for account in self.plans.accounts() {
            accounts += 1;
            if let Some(Pause::Refused(code)) = self.limits.paused(&account.name) {
                refused.insert(format!("`{}` ({code})", account.name));
            }
        }
        let listed = || {
            let names: Vec<&str> = refused.iter().map(String::as_str).collect();
            format!("refused by their providers: {}", names.join(", "))
        };
        match refused.len() {
            0 => Health::Well,
            all if all == accounts => Health::Down(format!("all accounts are {}", listed())),
            some => Health::Impaired(format!("{some} of {accounts} accounts are {}", listed())),
        }
    }
}
