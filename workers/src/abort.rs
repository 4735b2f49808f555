//! Places where a test may have the process die, as if it were killed exactly there.
//!
//! `DISPATCH_ABORT_AT=record.before` ends the process the first time it comes to that place, `record.before:7` the
//! seventh time. Only builds with debug assertions look; a release has neither the places nor the look.

/// Where the process may be made to die, in the order of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortPoint {
    /// A chunk of recipients is in the ledger.
    Expanded,
    /// Jobs are with the queue.
    Published,
    /// Permits are held, nothing is claimed.
    BeforeClaim,
    /// The claim is durable, nothing is rendered.
    AfterClaim,
    /// The request is ready, not a byte has left.
    BeforeSend,
    /// The answer is read, nothing of it is written anywhere.
    AfterAnswer,
    /// The answer is in the journal, not in the ledger.
    AfterJournal,
    /// The answer is in the ledger, the jobs are not acknowledged.
    AfterRecord,
    /// The reconciler knows what became of an unknown delivery, the ledger does not.
    BeforeSettle,
    /// An unknown delivery is to be sent again, the queue does not know.
    AfterSettle,
    /// A callback is in the spool, its provider has no answer.
    AfterSpool,
    /// Callbacks are read from the spool, nothing of them is applied.
    BeforeApply,
    /// Callbacks are applied, the spool does not know.
    AfterApply,
}

impl AbortPoint {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Expanded,
        Self::Published,
        Self::BeforeClaim,
        Self::AfterClaim,
        Self::BeforeSend,
        Self::AfterAnswer,
        Self::AfterJournal,
        Self::AfterRecord,
        Self::BeforeSettle,
        Self::AfterSettle,
        Self::AfterSpool,
        Self::BeforeApply,
        Self::AfterApply,
    ];

    /// Its name in `DISPATCH_ABORT_AT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expanded => "expand.after",
            Self::Published => "publish.after",
            Self::BeforeClaim => "claim.before",
            Self::AfterClaim => "claim.after",
            Self::BeforeSend => "send.before",
            Self::AfterAnswer => "send.after",
            Self::AfterJournal => "journal.after",
            Self::AfterRecord => "record.after",
            Self::BeforeSettle => "settle.before",
            Self::AfterSettle => "settle.after",
            Self::AfterSpool => "spool.after",
            Self::BeforeApply => "apply.before",
            Self::AfterApply => "apply.after",
        }
    }

    /// The process has come here: it dies if it was told to.
    #[inline]
    pub fn reached(self) {
        #[cfg(debug_assertions)]
        told::reached(self);
    }
}

#[cfg(debug_assertions)]
mod told {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    };

    use super::AbortPoint;

    /// What `DISPATCH_ABORT_AT` says: the place, and how many times it is still passed.
    static TOLD: LazyLock<Option<(AbortPoint, AtomicU32)>> = LazyLock::new(|| {
        let told = std::env::var("DISPATCH_ABORT_AT").ok()?;
        let (name, nth) = told.split_once(':').unwrap_or((&told, "1"));
        let point = AbortPoint::ALL.into_iter().find(|point| point.name() == name)?;
        Some((point, AtomicU32::new(nth.parse().ok()?)))
    });

    pub(super) fn reached(point: AbortPoint) {
        if let Some((told, left)) = TOLD.as_ref()
            && *told == point
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_name_of_its_own() {
        let mut names = AbortPoint::ALL.map(AbortPoint::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
