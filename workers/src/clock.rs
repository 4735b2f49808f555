//! Time and randomness, handed in so that a test can hold them still.

use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
pub type TimestampMs = i64;

/// Reads the time. Waiting is tokio's business ([`tokio::time`]), reading is this trait's.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock: for what people and other machines see. May jump.
    fn now_ms(&self) -> TimestampMs;

    /// Time since some fixed moment of this process: for deadlines. Never jumps.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    /// The machine's clocks; the monotonic one starts at zero here.
    #[must_use]
    pub fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's monotonic clock")]
        Self { start: tokio::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> TimestampMs {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's wall clock")]
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock set before 1970 reads as 1970: every deadline is then long past, and nothing is sent early.
        since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Draws random bytes fit for keys.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);
}

/// The operating system's randomness.
#[derive(Debug, Default)]
pub struct SystemEntropy(SystemRandom);

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) {
        // A machine that cannot give random bytes can do nothing safely: no key, no token, no nonce.
        #[expect(clippy::expect_used, reason = "without randomness no step of the protocol is safe to take")]
        self.0.fill(out).expect("the operating system gives random bytes");
    }
}

/// `N` random bytes.
pub fn random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}
