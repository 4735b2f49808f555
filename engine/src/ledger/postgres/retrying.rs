//! Doing a transaction again that came to nothing through no fault of its own.

use std::time::Duration;

use super::PostgresLedger;
use crate::ledger::{LedgerError, Result};

/// Tries of one call: who loses to another transaction this often waits behind a crowd, and its caller should know.
const TRIES: u32 = 5;
/// The longest pause before the second try, doubled before each that follows.
const FIRST_PAUSE_MS: u64 = 8;

impl PostgresLedger {
    /// Does `work`, a transaction; again when another one was in its way.
    pub(super) async fn once<T, F, Fut>(&self, operation: &'static str, work: F) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        self.run(operation, work, |error| matches!(error, LedgerError::Contended)).await
    }

    /// Does `work`, a transaction that may be done twice; again when another one was in its way or the connection broke.
    pub(super) async fn repeatable<T, F, Fut>(&self, operation: &'static str, work: F) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        self.run(operation, work, |error| matches!(error, LedgerError::Contended | LedgerError::Disconnected)).await
    }

    async fn run<T, F, Fut>(&self, operation: &'static str, work: F, worth: fn(&LedgerError) -> bool) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let started = self.clock.monotonic();
        let mut pause_ms = FIRST_PAUSE_MS;
        let mut tries = 1;
        let done = loop {
            match work().await {
                Err(error) if worth(&error) && tries < TRIES => {}
                // Its caller need not do anything about it but come back later.
                Err(error) if worth(&error) => break Err(LedgerError::Unavailable(error.into_reason())),
                done => break done,
            }
            // Two that met must not meet again.
            tokio::time::sleep(Duration::from_millis(1 + u64::from_le_bytes(self.draw()) % pause_ms)).await;
            pause_ms *= 2;
            tries += 1;
        };
        metrics::histogram!("dispatch_ledger_seconds", "operation" => operation)
            .record(self.clock.monotonic().saturating_sub(started).as_secs_f64());
        done
    }
}
