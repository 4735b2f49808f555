//! Changing the book: at once where it is this process's own, by compare-and-set where it is shared.
//!
//! What a process changes while another change of its own is on the way goes into the ledger together, in one
//! statement: how many there are depends on how long one takes, not on how many limits there are.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{Limits, Scope, Shared, book::Book};
use crate::delivery::LedgerUnavailable;

/// Whether a change to the book is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    Yes,
    No,
}

/// A change that waits to be made, together with others.
pub(super) trait Waiting: Send {
    /// What it is about.
    fn scopes(&self) -> &[Scope];
    /// Makes it. Again, when others have changed the same limits meanwhile.
    fn make(&mut self, book: &mut Book, now: Duration) -> Changed;
    /// Tells who waits for it.
    fn settle(self: Box<Self>, written: Result<(), LedgerUnavailable>);
}

struct Change<T, F> {
    scopes: Vec<Scope>,
    make: F,
    made: Option<T>,
    settled: oneshot::Sender<Result<T, LedgerUnavailable>>,
}

impl<T: Send, F: FnMut(&mut Book, Duration) -> (T, Changed) + Send> Waiting for Change<T, F> {
    fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    fn make(&mut self, book: &mut Book, now: Duration) -> Changed {
        let (made, changed) = (self.make)(book, now);
        self.made = Some(made);
        changed
    }

    fn settle(self: Box<Self>, written: Result<(), LedgerUnavailable>) {
        let Self { made, settled, .. } = *self;
        if let Some(told) = written.map(|()| made).transpose() {
            // Nobody minds when whoever wanted it has gone.
            let _ = settled.send(told);
        }
    }
}

impl Limits {
    /// Makes a change to the limits of these scopes; for shared ones again and again until nobody else has changed them
    /// meanwhile. One that is there and was not seen yet is learned of by the first try.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        scopes: Vec<Scope>,
        mut make: impl FnMut(&mut Book, Duration) -> (T, Changed) + Send + 'static,
    ) -> Result<T, LedgerUnavailable> {
        let Some(shared) = &self.shared else {
            let now = self.now();
            return Ok(make(&mut self.book(), now).0);
        };
        // Where nothing is limited nothing is shared, and nobody waits for a turn.
        let mut limited = self.book().part(&scopes);
        if limited.0.is_empty() {
            let (out, changed) = make(&mut limited, self.now());
            if limited.0.is_empty() || changed == Changed::No {
                return Ok(out);
            }
        }
        let (settled, mut told) = oneshot::channel();
        shared.waiting().push(Box::new(Change { scopes, make, made: None, settled }));
        let _turn = shared.turn.lock().await;
        // Whoever had the turn before may have made it as well.
        if let Ok(told) = told.try_recv() {
            return told;
        }
        self.make_waiting(shared).await;
        told.try_recv().unwrap_or_else(|_| Err(LedgerUnavailable("a change of limits was given up".to_owned())))
    }

    /// Makes all changes that wait.
    async fn make_waiting(&self, shared: &Shared) {
        let mut waiting = std::mem::take(&mut *shared.waiting());
        let written = self.write(shared, &mut waiting).await;
        for change in waiting {
            change.settle(written.clone());
        }
    }

    async fn write(&self, shared: &Shared, changes: &mut [Box<dyn Waiting>]) -> Result<(), LedgerUnavailable> {
        let all: Vec<Scope> = changes.iter().flat_map(|change| change.scopes().to_vec()).collect();
        loop {
            let mut part = self.book().part(&all);
            let now = self.now();
            let mut touched = HashSet::new();
            for change in &mut *changes {
                if change.make(&mut part, now) == Changed::Yes {
                    touched.extend(change.scopes().iter().cloned());
                }
            }
            part.0.retain(|scope, _| touched.contains(scope));
            if part.0.is_empty() {
                return Ok(());
            }
            let rows = shared.rows(&part);
            match shared.store.swap(&rows).await? {
                None => {
                    shared.wrote(&rows, part, &mut self.book());
                    return Ok(());
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

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Vec<Box<dyn Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
