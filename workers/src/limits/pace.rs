//! Spreading the permits of a second evenly, with governor.

use std::num::NonZeroU32;

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

use super::{
    Scope,
    book::{Book, Denied},
};

/// Into how many even steps a second's permits are cut: fewer than a step are not worth a claim.
const STEPS_PER_SECOND: u32 = 50;
/// How many steps may be handed out at once: what a busy machine was late for is made up for.
const STEPS_AT_ONCE: u32 = 5;

/// The pace of one limit per second.
pub(super) struct Pace {
    limiter: DefaultDirectRateLimiter,
    step: NonZeroU32,
    burst: NonZeroU32,
}

impl Pace {
    /// A pace of `most` permits per second.
    pub(super) fn new(most: NonZeroU32) -> Self {
        let step = NonZeroU32::new(most.get() / STEPS_PER_SECOND).unwrap_or(NonZeroU32::MIN);
        let burst = step.saturating_mul(NonZeroU32::MIN.saturating_add(STEPS_AT_ONCE - 1)).min(most);
        Self { limiter: RateLimiter::direct(Quota::per_second(most).allow_burst(burst)), step, burst }
    }

    /// Permits in a step.
    pub(super) fn step(&self) -> u64 {
        u64::from(self.step.get())
    }
}

/// What governor lets through of `wanted` now, at least `least`. The slowest is asked first: a pace that agrees while a
/// slower one refuses has given for nothing.
pub(super) fn let_through(book: &Book, scopes: &[Scope], least: u64, wanted: u64) -> Result<u64, Denied> {
    let mut paces: Vec<(&Scope, &Pace)> =
        scopes.iter().filter_map(|scope| Some((scope, book.0.get(scope)?.pace.as_deref()?))).collect();
    paces.sort_by_key(|(_, pace)| pace.burst);
    let mut granted = wanted;
    for (nth, (scope, pace)) in paces.into_iter().enumerate() {
        // A request that can't be cut passes a pace that holds less in one piece; the windows keep the exact count.
        let most = granted.min(u64::from(pace.burst.get()));
        // Where not all of it passes a step may. What a slower pace has let through is not cut again.
        let some = pace.step().clamp(least.min(most), most);
        let tries = [most, if nth == 0 { some } else { most }];
        let mut passed = Err((super::book::LOOK_SOON, scope.label()));
        for cells in tries {
            let Some(cells) = u32::try_from(cells).ok().and_then(NonZeroU32::new) else { continue };
            match pace.limiter.check_n(cells) {
                Ok(Ok(())) => {
                    passed = Ok(u64::from(cells.get()));
                    break;
                }
                Ok(Err(not_until)) => {
                    passed = Err((not_until.wait_time_from(DefaultClock::default().now()), scope.label()));
                }
                Err(_) => {}
            }
        }
        granted = passed?.max(least).min(granted);
    }
    Ok(granted)
}
