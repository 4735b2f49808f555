//! Keeping up with what other processes change of shared limits.

use std::{collections::HashMap, time::Duration};

use super::{Limits, Scope, Shared};
use crate::delivery::LedgerUnavailable;

/// How often shared limits and pauses that others changed are looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

impl Limits {
    /// Keeps up with what other processes change of shared limits, until `stop` completes. Returns at once where there
    /// is nothing to share.
    pub async fn follow(&self, stop: impl Future<Output = ()>) {
        let Some(shared) = &self.shared else { return };
        let mut stop = std::pin::pin!(stop);
        loop {
            if let Err(error) = self.catch_up(shared).await {
                tracing::debug!(%error, "the shared limits cannot be looked at");
            }
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
            }
        }
    }

    pub(super) async fn catch_up(&self, shared: &Shared) -> Result<(), LedgerUnavailable> {
        let (before, asked) = (shared.known(), self.clock.monotonic());
        let versions = shared.store.versions().await?;
        let is_news = |(scope, version): &&(Scope, i64)| before.get(scope) != Some(version);
        let news: Vec<Scope> = versions.iter().filter(is_news).map(|(scope, _)| scope.clone()).collect();
        let rows = if news.is_empty() { Vec::new() } else { shared.store.rows(&news).await? };
        let scopes = versions.into_iter().map(|(scope, _)| scope).collect();
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
