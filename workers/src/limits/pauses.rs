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
pub(super) const REFUSED_ASKED_AGAIN: Duration = Duration::from_secs(300);

/// The pauses of all accounts.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<HashMap<Arc<str>, Known>>);

/// A pause; all moments are of the monotonic clock.
#[derive(Debug)]
struct Known {
    pause: Pause,
    since: Duration,
    /// When the place that others look at had it; never for one that only this process knows of.
    told: Option<Duration>,
}

impl Pauses {
    /// Sets a pause; true if it is stronger than what there was. A refusal is not shortened by a wait, nor a long wait
    /// by a short one.
    pub(super) fn set(&self, account: &Arc<str>, pause: &Pause, since: Duration) -> bool {
        let mut pauses = self.lock();
        let is_stronger = stronger(pauses.get(account), pause);
        if is_stronger {
            pauses.insert(account.clone(), Known { pause: pause.clone(), since, told: None });
        }
        is_stronger
    }

    /// Others can see this pause from now on.
    pub(super) fn told(&self, account: &str, pause: &Pause, now: Duration) {
        if let Some(known) = self.lock().get_mut(account).filter(|known| known.pause == *pause) {
            known.told = Some(now);
        }
    }

    /// Ends any pause of an account.
    pub(super) fn end(&self, account: &str) {
        self.lock().remove(account);
    }

    /// Takes over what another place knew of all accounts when it was asked at `asked`, but for what it cannot have
    /// known then.
    pub(super) fn replace(&self, theirs: HashMap<Arc<str>, (Pause, Duration)>, asked: Duration) {
        let mut pauses = self.lock();
        pauses.retain(|_, known| known.told.is_none_or(|told| told >= asked));
        for (account, (pause, since)) in theirs {
            if stronger(pauses.get(&account), &pause) {
                pauses.insert(account, Known { pause, since, told: Some(since.min(asked)) });
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

fn stronger(old: Option<&Known>, new: &Pause) -> bool {
    match (old.map(|known| &known.pause), new) {
        (Some(Pause::Refused(_)), Pause::Until(_)) => false,
        (Some(Pause::Until(old)), Pause::Until(new)) => new > old,
        (None | Some(_), _) => true,
    }
}
