//! Uploads whose process has died.

use std::{sync::Arc, time::Duration};

use crate::ledger::Ledger;

/// How often is looked for them.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Finishes or removes the uploads that dead processes left in a ledger that is shared, until `stop` completes. Beside
/// the scheduler, because a large one takes its time.
pub async fn look_after_uploads(ledger: Arc<dyn Ledger>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    loop {
        let look = async {
            match ledger.recover_imports().await {
                Ok(0) => {}
                Ok(imports) => tracing::warn!(imports, "uploads whose process had died were finished or removed"),
                Err(error) => tracing::warn!(%error, "uploads of dead processes were not looked after; trying again"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        // Each step is a transaction: another process, or the next start, goes on where this one stops.
        tokio::select! {
            biased;
            () = &mut stop => return,
            () = look => {}
        }
    }
}
