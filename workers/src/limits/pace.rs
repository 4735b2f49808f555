//! Spreading the permits of a second evenly, with governor.

use std::{collections::HashMap, num::NonZeroU32, time::Duration};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

use super::{Scope, book::Limit};

/// Into how many even steps governor spreads the permits of a second.
const PACE_STEPS_PER_SECOND: u32 = 50;

/// The pace of one limit per second.
pub(super) struct Pace {
    limiter: DefaultDirectRateLimiter,
    burst: NonZeroU32,
}

impl Pace {
    /// A pace of `most` permits per second.
    pub(super) fn new(most: NonZeroU32) -> Self {
        let burst = NonZeroU32::new(most.get() / PACE_STEPS_PER_SECOND).unwrap_or(NonZeroU32::MIN);
        Self { limiter: RateLimiter::direct(Quota::per_second(most).allow_burst(burst)), burst }
    }
}

/// What governor lets through of `granted` now. The slowest is asked first: a pace that agrees while a slower one
/// refuses has given for nothing.
pub(super) fn paced(
    limits: &HashMap<Scope, Limit>,
    scopes: &[Scope],
    least: u64,
    granted: u64,
) -> Result<u64, (Duration, &'static str)> {
    let mut paces: Vec<(&Scope, &Pace)> =
        scopes.iter().filter_map(|scope| Some((scope, limits.get(scope)?.pace.as_deref()?))).collect();
    paces.sort_by_key(|(_, pace)| pace.burst);
    // A request that can't be cut passes a pace in one piece if the pace's second holds it.
    let smallest = paces.first().map_or(granted, |(_, pace)| u64::from(pace.burst.get()).max(least));
    let granted = granted.min(smallest);
    for (scope, pace) in paces {
        let mut left = u32::try_from(granted).unwrap_or(u32::MAX);
        while let Some(cells) = NonZeroU32::new(left.min(pace.burst.get())) {
            match pace.limiter.check_n(cells) {
                Ok(Ok(())) => left -= cells.get(),
                Ok(Err(not_until)) if left == u32::try_from(granted).unwrap_or(u32::MAX) => {
                    return Err((not_until.wait_time_from(DefaultClock::default().now()), scope.label()));
                }
                // The rest of a request that can't be cut follows at once; the windows keep the exact count.
                Ok(Err(_)) | Err(_) => break,
            }
        }
    }
    Ok(granted)
}
