//! Waiting for something to be so, with a deadline.

use std::time::Duration;

use dispatch_workers::clock::{Clock as _, SystemClock};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `found` finds something; gives up loudly after `within`.
pub async fn until<T>(what: &str, within: Duration, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(clock.monotonic() < within, "{what}: not within {within:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The wall clock, milliseconds since 1970: the one the witness writes.
#[must_use]
pub fn now_ms() -> i64 {
    SystemClock::new().now_ms()
}
