//! Which limits are wanted, of those that processes with different settings share.

use std::time::Duration;

use super::{Limits, Scope};
use crate::delivery::LedgerUnavailable;

impl Limits {
    /// Says that this process's settings want these limits, for so long; so nobody removes them whose settings do not.
    ///
    /// # Errors
    /// When shared limits cannot be reached.
    pub async fn want(&self, scopes: &[Scope], lasts: Duration) -> Result<(), LedgerUnavailable> {
        match &self.shared {
            Some(shared) if !scopes.is_empty() => {
                let lasts_ms = i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX / 4);
                shared.store.want(scopes, self.clock.now_ms().saturating_add(lasts_ms)).await
            }
            _ => Ok(()),
        }
    }

    /// Removes limits that this process does not want, but for those that another one's settings do.
    ///
    /// # Errors
    /// When shared limits cannot be reached.
    pub async fn remove_unwanted(&self, scopes: &[Scope]) -> Result<(), LedgerUnavailable> {
        match &self.shared {
            None => self.book().0.retain(|scope, _| !scopes.contains(scope)),
            Some(shared) if !scopes.is_empty() => {
                let _turn = shared.turn.lock().await;
                let removed = shared.store.remove_unwanted(scopes).await?;
                shared.forget(|known| removed.contains(known), &mut self.book());
            }
            Some(_) => {}
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Whether there is a limit of this scope, as far as this process has seen.
    #[must_use]
    pub fn is_limited(&self, scope: &Scope) -> bool {
        self.book().0.contains_key(scope)
    }

    /// All scopes with a limit; shared ones as they are kept, whether this process has seen them or not.
    ///
    /// # Errors
    /// When shared limits cannot be reached.
    pub async fn limited(&self) -> Result<Vec<Scope>, LedgerUnavailable> {
        match &self.shared {
            None => Ok(self.book().0.keys().cloned().collect()),
            Some(shared) => Ok(shared.store.versions().await?.into_iter().map(|(scope, _)| scope).collect()),
        }
    }
}
