//! Where the rest of the engine meets the scheduler.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dispatch_schemas::ids::CampaignId;
use tokio::sync::Notify;

/// What others may ask the scheduler and say to it.
#[derive(Debug, Default)]
pub struct Desk {
    wake: Notify,
    /// Campaigns whose window is to be filled from the start again.
    restarted: Mutex<Vec<CampaignId>>,
    /// The schedulers that were alive at the last look, this one among them.
    living: Mutex<Vec<i64>>,
    /// When the scheduler last did its whole work.
    beat: Mutex<Option<Duration>>,
}

impl Desk {
    /// Something has changed: look now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Completes when something has changed.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// A campaign goes on after a pause or a retry: what was published before may be gone.
    pub fn restart(&self, campaign: CampaignId) {
        self.restarted.lock().unwrap_or_else(PoisonError::into_inner).push(campaign);
        self.wake();
    }

    /// When the scheduler last did its whole work, on the monotonic clock.
    #[must_use]
    pub fn last_beat(&self) -> Option<Duration> {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_living(&self, living: Vec<i64>) {
        *self.living.lock().unwrap_or_else(PoisonError::into_inner) = living;
    }

    pub(super) fn living(&self) -> Vec<i64> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn beat(&self, now: Duration) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    pub(super) fn take_restarted(&self) -> Vec<CampaignId> {
        std::mem::take(&mut self.restarted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn put_back(&self, restarted: Vec<CampaignId>) {
        self.restarted.lock().unwrap_or_else(PoisonError::into_inner).extend(restarted);
    }
}
