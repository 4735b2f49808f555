//! What becomes of permits: their sends leave, in time or late, or they are given back.

use std::time::Duration;

use super::{Limits, Permits, Share, book::AHEAD_MAX, changing::Changed};
use crate::delivery::LedgerUnavailable;

/// How often a departure is counted anew when writing that down makes it late again.
const DEPART_TRIES: u32 = 8;
/// Where a second is limited, permits are good for this long after their moment. Within it what comes late can be
/// counted anew without passing the limit: others have counted on its place no earlier than a second after it.
const GOOD_FOR: Duration = Duration::from_millis(500);

impl Limits {
    /// Waits until all these permits are good.
    pub async fn until_due(&self, shares: &[Share<'_>]) {
        let due = shares.iter().map(|(permits, _)| permits.due).max().unwrap_or_default();
        // Never longer than they are granted ahead, whatever happens to the clock.
        let wait = due.saturating_sub(self.now()).min(AHEAD_MAX);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Says that so many sends of the permits leave now. What leaves at its moment is counted already; what is late is
    /// counted from now.
    ///
    /// # Errors
    /// When shared limits cannot be reached: nothing may leave then.
    pub async fn depart(&self, shares: &[Share<'_>]) -> Result<(), LedgerUnavailable> {
        let mut late: Vec<(Permits, Duration, u64)> =
            shares.iter().map(|(permits, sends)| ((*permits).clone(), permits.due, *sends as u64)).collect();
        for _ in 0..DEPART_TRIES {
            let now = self.now();
            {
                let book = self.book();
                late.retain(|(permits, counted_at, _)| book.is_late(permits, *counted_at, now));
            }
            if late.is_empty() {
                break;
            }
            metrics::counter!("dispatch_permits_late_total").increment(late.iter().map(|(.., sends)| sends).sum());
            let scopes = late.iter().flat_map(|(permits, ..)| permits.scopes.clone()).collect();
            let leaving = late.clone();
            let departed_at = self
                .change(scopes, move |book, now| {
                    for (permits, counted_at, sends) in &leaving {
                        book.depart(permits, *counted_at, *sends, now);
                    }
                    (now, Changed::Yes)
                })
                .await?;
            late.iter_mut().for_each(|(_, counted_at, _)| *counted_at = departed_at);
        }
        Ok(())
    }

    /// Whether something may still be sent on these permits. Where a second is limited they are good for a while:
    /// later they would leave together with those of a later one.
    #[must_use]
    pub fn are_fresh(&self, shares: &[Share<'_>]) -> bool {
        let (book, now) = (self.book(), self.now());
        let is_stale =
            |permits: &Permits| now.saturating_sub(permits.due) >= GOOD_FOR && book.is_paced(&permits.scopes);
        !shares.iter().any(|(permits, _)| is_stale(permits))
    }

    /// Takes back permits that were not used: nothing was sent on them.
    pub async fn give_back(&self, shares: &[Share<'_>]) {
        let unused: Vec<(Permits, u64)> = shares
            .iter()
            .filter(|(_, unused)| *unused > 0)
            .map(|(permits, unused)| ((*permits).clone(), permits.count.min(*unused as u64)))
            .collect();
        if unused.is_empty() {
            return;
        }
        let scopes = unused.iter().flat_map(|(permits, _)| permits.scopes.clone()).collect();
        let given = self.change(scopes, move |book, _| {
            for (permits, unused) in &unused {
                book.give_back(permits, *unused);
            }
            ((), Changed::Yes)
        });
        if let Err(error) = given.await {
            // They are lost to the window they were taken in, which is rather too strict than passed.
            tracing::debug!(%error, "unused permits were not given back");
        }
    }
}
