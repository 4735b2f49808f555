//! The timers of the protocol, in one place.

use std::time::Duration;

use serde::Deserialize;

/// How long each step may take. The defaults are the protocol's; a test may shorten them all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// D: from the claim to the first byte of the request, milliseconds.
    pub send_deadline_ms: u64,
    /// H: from the first byte out to the last byte in, milliseconds. The accounts' `answer_timeout_s` must not pass it.
    pub answer_timeout_ms: u64,
    /// G: what the reaper waits beyond D and H before it calls an open attempt unknown, milliseconds.
    pub reaper_grace_ms: u64,
    /// L: how late a provider may log or report what it took, milliseconds.
    pub provider_lag_ms: u64,
    /// How long callbacks and logs may still settle an unknown outcome, milliseconds.
    pub evidence_window_ms: u64,
    /// First wait of a delivery that was refused for now, milliseconds; doubles with each try, ±20 %.
    pub retry_first_ms: u64,
    /// Longest such wait, milliseconds.
    pub retry_max_ms: u64,
    /// When an unknown request with a remembered key (class A) is first asked again, milliseconds.
    pub ask_again_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            send_deadline_ms: 5_000,
            answer_timeout_ms: 30_000,
            reaper_grace_ms: 10_000,
            provider_lag_ms: 60_000,
            evidence_window_ms: 24 * 3_600_000,
            retry_first_ms: 5_000,
            retry_max_ms: 900_000,
            ask_again_ms: 30_000,
        }
    }
}

impl Timing {
    /// D: the time from the claim to the first byte.
    #[must_use]
    pub const fn send_deadline(&self) -> Duration {
        Duration::from_millis(self.send_deadline_ms)
    }

    /// After this many milliseconds without an outcome an attempt is unknown: D + H + G.
    #[must_use]
    pub const fn reap_after_ms(&self) -> u64 {
        self.send_deadline_ms + self.answer_timeout_ms + self.reaper_grace_ms
    }

    /// After this many milliseconds a provider's "absent" may be believed: D + H + G + L.
    #[must_use]
    pub const fn settle_ms(&self) -> u64 {
        self.reap_after_ms() + self.provider_lag_ms
    }
}
