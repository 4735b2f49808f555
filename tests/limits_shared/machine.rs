//! How long this machine holds up what wants to go on: what it does beside these tests delays requests on their way from
//! a worker's last look at the clock to the witness, and that is no fault of the limit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use dispatch_workers::clock::{Clock as _, SystemClock};
use tokio::task::JoinHandle;

const NAP: Duration = Duration::from_millis(5);
/// More is not excused, milliseconds: the same as in the run of chaos.
const HELD_UP_MAX_MS: i64 = 150;

/// Sleeps again and again and notes by how much too long, at worst.
pub(crate) struct Machine {
    worst_ms: Arc<AtomicI64>,
    watching: JoinHandle<()>,
}

impl Machine {
    pub(crate) fn watch() -> Self {
        let worst_ms = Arc::new(AtomicI64::new(0));
        let noted = worst_ms.clone();
        let watching = tokio::spawn(async move {
            let clock = SystemClock::new();
            loop {
                let before = clock.monotonic();
                tokio::time::sleep(NAP).await;
                let held_up = clock.monotonic().saturating_sub(before + NAP).as_millis();
                noted.fetch_max(i64::try_from(held_up).unwrap_or(i64::MAX), Ordering::Relaxed);
            }
        });
        Self { worst_ms, watching }
    }

    /// By how much something was held up so far, milliseconds.
    pub(crate) fn held_up_ms(&self) -> i64 {
        self.worst_ms.load(Ordering::Relaxed).min(HELD_UP_MAX_MS)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
