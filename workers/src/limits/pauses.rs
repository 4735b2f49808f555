//! Accounts that take nothing now.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::providers::Code;

/// Why an account takes nothing now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pause {
    /// The provider asked for it; over at this moment of the monotonic clock.
    Until(Duration),
    /// The account was refused; over when an operator says so, or after five minutes, when the next request tells
    /// whether it still is. Its campaigns stay paused; single messages go on by themselves once it is mended.
    Refused(Code),
}

/// After this long a refused account is asked again.
const REFUSED_ASKED_AGAIN: Duration = Duration::from_secs(300);

/// By account: the pause and when it was set, both on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<HashMap<Arc<str>, (Pause, Duration)>>);

impl Pauses {
    /// Sets a pause; true if it is stronger than what there was. A refusal is not shortened by a wait, nor a long wait
    /// by a short one.
    pub(super) fn set(&self, account: &Arc<str>, pause: &Pause, since: Duration) -> bool {
        let mut pauses = self.lock();
        let stronger = match (pauses.get(account).map(|(pause, _)| pause), pause) {
            (Some(Pause::Refused(_)), Pause::Until(_)) => false,
            (Some(Pause::Until(old)), Pause::Until(new)) => new > old,
            (None | Some(_), _) => true,
        };
        if stronger {
            pauses.insert(account.clone(), (pause.clone(), since));
        }
        stronger
    }

    /// Ends any pause of an account.
    pub(super) fn end(&self, account: &str) {
        self.lock().remove(account);
    }

    /// Takes over what another place knows of all accounts.
    pub(super) fn replace(&self, pauses: HashMap<Arc<str>, (Pause, Duration)>) {
        *self.lock() = pauses;
    }

    /// The pause an account is under now, if any.
    pub(super) fn of(&self, account: &str, now: Duration) -> Option<Pause> {
        let mut pauses = self.lock();
        let (pause, since) = pauses.get(account)?;
        let is_over = match pause {
            Pause::Until(until) => *until <= now,
            Pause::Refused(_) => now.saturating_sub(*since) >= REFUSED_ASKED_AGAIN,
        };
        if is_over {
            pauses.remove(account);
            return None;
        }
        Some(pause.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, (Pause, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
