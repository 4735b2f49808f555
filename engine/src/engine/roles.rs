//! What a process does.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// One thing a process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Serves the API.
    Api,
    /// Finds recipients, fills the queue, settles what is unknown.
    Scheduler,
    /// Sends.
    Worker,
    /// Takes providers' callbacks and applies them.
    Callbacks,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Api, Self::Scheduler, Self::Worker, Self::Callbacks];

    /// Its name on the command line, in `/readyz` and in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Scheduler => "scheduler",
            Self::Worker => "worker",
            Self::Callbacks => "callbacks",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are the roles api, scheduler, worker and callbacks")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text.trim()).ok_or(UnknownRole)
    }
}

/// What one process does: one role or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// Every role: the whole engine in one process.
    #[must_use]
    pub fn all() -> Self {
        Self(Role::ALL.into())
    }

    /// These roles; `None` when there are none.
    pub fn of(roles: impl IntoIterator<Item = Role>) -> Option<Self> {
        let roles: BTreeSet<Role> = roles.into_iter().collect();
        (!roles.is_empty()).then_some(Self(roles))
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether jobs have to travel to another process or from one.
    #[must_use]
    pub fn need_a_shared_queue(&self) -> bool {
        self.has(Role::Scheduler) != self.has(Role::Worker)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|role| role.as_str()).collect();
        f.write_str(&names.join(","))
    }
}
