//! Permits, as they are handed out and given back.

use std::time::Duration;

use super::Scope;

/// Permits for some sends, taken from all their limits and good for a moment now or a little later.
#[derive(Debug, Clone)]
pub struct Permits {
    pub(super) scopes: Vec<Scope>,
    pub(super) count: u64,
    /// When they may leave, and are counted from.
    pub(super) due: Duration,
}

impl Permits {
    pub(crate) const fn none() -> Self {
        Self { scopes: Vec::new(), count: 0, due: Duration::ZERO }
    }

    /// How many sends they are for.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// When they may leave, by the clock that the windows count by: this process's monotonic one, or milliseconds since
    /// 1970 where limits are shared.
    #[must_use]
    pub const fn due(&self) -> Duration {
        self.due
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Some sends of some permits.
pub type Share<'a> = (&'a Permits, usize);
