//! Reports without a message, looked at again, and what is too old, forgotten.

use std::{collections::BTreeMap, time::Duration};

use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    apply::Applier,
    matching::{Search, find},
};
use crate::ledger::{ORPHAN_LOOKS_MS, ORPHANS_KEPT_MS, Orphan, REPORTS_SEEN_MS, Report, Reported, Result, Revisited};

/// How often it is looked at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Orphans looked at together.
const TOGETHER_MAX: u32 = 500;

impl Applier {
    /// Looks after orphans and old reports until it is stopped.
    pub async fn look_after(&self, stop: WaitForCancellationFutureOwned) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = &mut stop => return,
            }
            let looked = async {
                self.revisit_orphans().await?;
                self.forget().await
            };
            if let Err(error) = looked.await {
                tracing::warn!(%error, "reports whose messages were not known are not looked at again yet");
            }
        }
    }

    /// Looks again for the messages of orphans that are due.
    ///
    /// # Errors
    /// When the ledger fails; what is due stays so.
    pub async fn revisit_orphans(&self) -> Result<()> {
        loop {
            let now_ms = self.clock.now_ms();
            let due = self.ledger.orphans_due(now_ms, TOGETHER_MAX).await?;
            if due.is_empty() {
                return Ok(());
            }
            let mut by_account: BTreeMap<&str, Vec<&Orphan>> = BTreeMap::new();
            for orphan in &due {
                by_account.entry(&orphan.account).or_default().push(orphan);
            }
            let mut revisited = Revisited::default();
            for (account, orphans) in by_account {
                // Their addresses are gone.
                let searches: Vec<Search<'_>> =
                    orphans.iter().map(|orphan| Search { traces: &orphan.traces, address: None }).collect();
                let found = find(self.ledger.as_ref(), &self.send_keys, account, &searches).await?;
                for (orphan, found) in orphans.into_iter().zip(found) {
                    match found {
                        Some(found) => revisited.found.push(report(orphan, &found)),
                        None => revisited.missed.push((orphan.id, next_look(orphan, now_ms))),
                    }
                }
            }
            let found = revisited.found.len() as u64;
            self.ledger.revisit(&revisited, now_ms).await?;
            metrics::counter!("dispatch_callback_orphans_found_total").increment(found);
        }
    }

    async fn forget(&self) -> Result<()> {
        let now_ms = self.clock.now_ms();
        while self.ledger.forget_reports(now_ms - REPORTS_SEEN_MS, now_ms - ORPHANS_KEPT_MS).await? > 0 {}
        Ok(())
    }
}

fn next_look(orphan: &Orphan, now_ms: i64) -> Option<i64> {
    let looks = ORPHAN_LOOKS_MS.map(|after_ms| orphan.arrived_at_ms.saturating_add(after_ms));
    looks.into_iter().find(|look_at_ms| *look_at_ms > now_ms)
}

/// Its address was closed when it came.
fn report(orphan: &Orphan, found: &Reported) -> Report {
    Report {
        id: orphan.id,
        campaign: found.campaign,
        seq: found.seq,
        kind: orphan.kind,
        at_ms: orphan.at_ms,
        proves_acceptance: orphan.proves_acceptance && !found.is_accepted,
        provider_id: orphan.traces.provider_id.clone(),
    }
}
