//! Permits, as they are handed out and given back.

use std::time::Duration;

use super::Scope;

/// Permits for some sends, taken from all their limits.
#[derive(Debug, Clone)]
pub struct Permits {
    pub(super) scopes: Vec<Scope>,
    pub(super) count: u64,
    pub(super) taken_at: Duration,
}

impl Permits {
    pub(super) const fn none() -> Self {
        Self { scopes: Vec::new(), count: 0, taken_at: Duration::ZERO }
    }

    /// How many sends they are for.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}
