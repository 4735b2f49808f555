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

/// By account.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<HashMap<Arc<str>, Known>>);

/// A pause, and when it was set on the monotonic clock.
#[derive(Debug)]
struct Known {
    pause: Pause,
    since: Duration,
    /// Whether it stands where the others read it.
    is_written: bool,
}

impl Pauses {
    /// Sets a pause; true if it is stronger than what there was. A refusal is not shortened by a wait, nor a long wait
    /// by a short one.
    pub(super) fn set(&self, account: &Arc<str>, pause: &Pause, since: Duration) -> bool {
        let mut pauses = self.lock();
        let stronger = is_stronger(pauses.get(account), pause);
        if stronger {
            pauses.insert(account.clone(), Known { pause: pause.clone(), since, is_written: false });
        }
        stronger
    }

    /// Says that the others can read of this pause.
    pub(super) fn wrote(&self, account: &str, pause: &Pause) {
        if let Some(known) = self.lock().get_mut(account).filter(|known| known.pause == *pause) {
            known.is_written = true;
        }
    }

    /// Ends any pause of an account.
    pub(super) fn end(&self, account: &str) {
        self.lock().remove(account);
    }

    /// Takes over the pauses that are written down, in place of those that were. One that is not written yet stays.
    pub(super) fn replace(&self, written: impl Iterator<Item = (Arc<str>, (Pause, Duration))>) {
        let mut pauses = self.lock();
        pauses.retain(|_, known| !known.is_written);
        for (account, (pause, since)) in written {
            if is_stronger(pauses.get(&account), &pause) {
                pauses.insert(account, Known { pause, since, is_written: true });
            }
        }
    }

    /// The pause an account is under now, if any.
    pub(super) fn of(&self, account: &str, now: Duration) -> Option<Pause> {
        let mut pauses = self.lock();
        let Known { pause, since, .. } = pauses.get(account)?;
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

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_stronger(old: Option<&Known>, new: &Pause) -> bool {
    match (old.map(|known| &known.pause), new) {
        (Some(Pause::Refused(_)), Pause::Until(_)) => false,
        (Some(Pause::Until(old)), Pause::Until(new)) => new > old,
        (None | Some(_), _) => true,
    }
}
