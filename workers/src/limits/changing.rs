//! Changing the book: at once where it is this process's own, by compare-and-set where it is shared.

use std::time::Duration;

use super::{Limits, Scope, book::Book};
use crate::delivery::LedgerUnavailable;

/// Whether a change to the book is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    Yes,
    No,
}

impl Limits {
    /// Makes a change to the limits of these scopes; for shared ones again and again until nobody else has changed them
    /// meanwhile. One that is there and was not seen yet is learned of by the first try.
    pub(super) async fn change<T>(
        &self,
        scopes: &[Scope],
        mut change: impl FnMut(&mut Book, Duration) -> (T, Changed),
    ) -> Result<T, LedgerUnavailable> {
        let Some(shared) = &self.shared else {
            let now = self.now();
            return Ok(change(&mut self.book(), now).0);
        };
        // Where nothing is limited nothing is shared, and nobody waits for a turn.
        let limited = self.book().part(scopes);
        if limited.0.is_empty() {
            let mut empty = limited;
            let (out, changed) = change(&mut empty, self.now());
            if empty.0.is_empty() || changed == Changed::No {
                return Ok(out);
            }
        }
        let _turn = shared.turn.lock().await;
        loop {
            let mut part = self.book().part(scopes);
            let (out, changed) = change(&mut part, self.now());
            if changed == Changed::No || part.0.is_empty() {
                return Ok(out);
            }
            let rows = shared.rows(&part);
            match shared.store.swap(&rows).await? {
                None => {
                    shared.wrote(&rows, part, &mut self.book());
                    return Ok(out);
                }
                Some(current) => {
                    metrics::counter!("dispatch_limit_conflicts_total").increment(1);
                    let mut book = self.book();
                    let gone = |scope: &Scope| {
                        rows.iter().any(|row| row.scope == *scope) && current.iter().all(|row| row.scope != *scope)
                    };
                    shared.forget(gone, &mut book);
                    let tried = rows.into_iter().map(|row| (row.scope, row.version)).collect();
                    shared.learn(current, &tried, &mut book, self.now());
                }
            }
        }
    }
}
