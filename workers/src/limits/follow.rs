//! Keeping up with what other processes change of shared limits.

use std::{collections::HashMap, time::Duration};

use super::{Limits, Shared};
use crate::delivery::LedgerUnavailable;

/// How often shared limits and pauses that others changed are looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// How far back such a look goes: longer than any change takes to be written.
const FOLLOW_BACK_MS: i64 = 5_000;

impl Limits {
    /// Keeps up with what other processes change of shared limits, until `stop` completes. Returns at once where there
    /// is nothing to share.
    pub async fn follow(&self, stop: impl Future<Output = ()>) {
        let Some(shared) = &self.shared else { return };
        let mut stop = std::pin::pin!(stop);
        let mut since_ms = 0;
        loop {
            let now_ms = self.clock.now_ms();
            match self.catch_up(shared, since_ms).await {
                Ok(()) => since_ms = now_ms.saturating_sub(FOLLOW_BACK_MS),
                Err(error) => tracing::debug!(%error, "the shared limits cannot be looked at"),
            }
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
            }
        }
    }

    pub(super) async fn catch_up(&self, shared: &Shared, since_ms: i64) -> Result<(), LedgerUnavailable> {
        let (before, asked) = (shared.known(), self.clock.monotonic());
        let scopes = shared.store.scopes().await?.into_iter().collect();
        let rows = shared.store.changed_since(since_ms).await?;
        let pauses = shared.store.pauses().await?;
        let (now, now_ms) = (self.clock.monotonic(), self.clock.now_ms());
        {
            let mut book = self.book();
            shared.learn(rows, &before, &mut book, self.now());
            shared.forget_others(&scopes, &before, &mut book);
        }
        let known: HashMap<_, _> =
            pauses.iter().filter_map(|row| Some((row.account.clone(), row.read(now, now_ms)?))).collect();
        self.pauses.replace(known, asked);
        self.changed.notify_waiters();
        Ok(())
    }
}
