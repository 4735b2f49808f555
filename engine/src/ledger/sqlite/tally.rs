//! How many deliveries of a campaign stand where.
//!
//! Kept beside the deliveries and changed in the same transaction, so that a look at a campaign of 10 M costs nothing
//! and always adds up.

use dispatch_schemas::{ids::CampaignId, states::DeliveryState};
use sqlx::SqliteConnection;

use crate::ledger::Result;

/// Changes of one campaign's counts, gathered over a transaction's statements.
#[derive(Debug, Default)]
pub(super) struct Moves(Vec<(DeliveryState, String, i64)>);

impl Moves {
    /// `count` deliveries left a state; `detail` only for those that are counted by it.
    pub(super) fn left(&mut self, state: DeliveryState, detail: &str, count: u64) {
        self.add(state, detail, -i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// `count` deliveries entered a state.
    pub(super) fn entered(&mut self, state: DeliveryState, detail: &str, count: u64) {
        self.add(state, detail, i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn add(&mut self, state: DeliveryState, detail: &str, change: i64) {
        // Only the reasons of an end are counted apart; the set of words in the table stays small.
        let detail = if matches!(state, DeliveryState::Stopped | DeliveryState::Failed) { detail } else { "" };
        match self.0.iter_mut().find(|(known, word, _)| *known == state && word == detail) {
            Some((_, _, sum)) => *sum += change,
            None => self.0.push((state, detail.to_owned(), change)),
        }
    }

    /// Writes the changes.
    pub(super) async fn write(self, campaign: CampaignId, conn: &mut SqliteConnection) -> Result<()> {
        for (state, detail, change) in self.0 {
            if change != 0 {
                sqlx::query(
                    "INSERT INTO tally (campaign_id, state, detail, deliveries) VALUES (?, ?, ?, ?)
                     ON CONFLICT (campaign_id, state, detail) DO UPDATE SET deliveries = deliveries + excluded.deliveries",
                )
                .bind(campaign.0)
                .bind(state.as_str())
                .bind(detail)
                .bind(change)
                .execute(&mut *conn)
                .await?;
            }
        }
        Ok(())
    }
}
