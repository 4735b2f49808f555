//! Campaigns with recipients that wait for their domain's or country's limit: told to whoever asks why they stand still.

use std::{sync::PoisonError, time::Duration};

use dispatch_schemas::ids::CampaignId;

use super::{Limits, Scope};

/// How long it may take from the end of a recipient's wait until a worker has asked for its permit again.
const TAKEN_UP_AGAIN_WITHIN: Duration = Duration::from_secs(2);

impl Limits {
    /// Says that recipients of a campaign wait for their domain's or country's limit, for so long.
    pub fn put_off(&self, campaign: CampaignId, wait: Duration) {
        let until = self.clock.monotonic().saturating_add(wait).saturating_add(TAKEN_UP_AGAIN_WITHIN);
        let mut put_off = self.put_off.lock().unwrap_or_else(PoisonError::into_inner);
        let known = put_off.entry(campaign).or_default();
        *known = (*known).max(until);
    }

    /// Whether recipients of a campaign wait for their domain's or country's limit, as far as this process has seen.
    #[must_use]
    pub fn is_put_off(&self, campaign: CampaignId) -> bool {
        let put_off = self.put_off.lock().unwrap_or_else(PoisonError::into_inner);
        put_off.get(&campaign).is_some_and(|until| self.clock.monotonic() < *until)
    }

    /// Forgets a campaign that has ended.
    pub(super) fn forget_put_off(&self, scope: &Scope) {
        if let Scope::Campaign(campaign) = scope {
            self.put_off.lock().unwrap_or_else(PoisonError::into_inner).remove(campaign);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;
    use crate::clock::{Clock, TimestampMs};

    #[derive(Default)]
    struct Still(AtomicU64);

    impl Clock for Still {
        fn now_ms(&self) -> TimestampMs {
            0
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    #[tokio::test]
    async fn a_campaign_is_put_off_until_its_longest_wait_is_over() {
        let clock = Arc::new(Still::default());
        let limits = Limits::new(clock.clone());
        let (campaign, other) = (CampaignId(1), CampaignId(2));
        limits.put_off(campaign, Duration::from_secs(60));
        limits.put_off(campaign, Duration::from_secs(1));
        limits.put_off(other, Duration::from_secs(60));
        clock.0.store(61, Ordering::Relaxed);
        assert!(limits.is_put_off(campaign), "nobody has asked again yet");
        clock.0.store(62, Ordering::Relaxed);
        assert!(!limits.is_put_off(campaign));
        clock.0.store(0, Ordering::Relaxed);
        limits.remove(&Scope::Campaign(other)).await.unwrap();
        assert!(!limits.is_put_off(other));
    }
}
