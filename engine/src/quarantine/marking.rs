//! Marking deliveries that may have been claimed in the time that was forgotten.

use std::collections::BTreeMap;

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{CampaignState, Lane},
};

use super::Warden;
use crate::{
    ledger::{CampaignBrief, Doubted, LedgerError, Quarantine},
    second_place::Claimed,
};

/// Contacts looked at in one step of an expansion.
const EXPAND_CHUNK: u32 = 10_000;
/// Numbers doubted in one step: as many as are settled together.
const DOUBT_SPAN: u32 = 500;

impl Warden {
    /// Makes forgotten claims again, with their tokens and keys, so that their providers can be asked.
    pub(super) async fn recall(&self, quarantine: &Quarantine, claims: Vec<(i64, Claimed)>) -> Result<(), LedgerError> {
        let last = |claim: &Claimed| claim.ranges.iter().map(|(_, last)| *last).max().unwrap_or(0);
        let mut ends: BTreeMap<(TenantId, CampaignId), i64> = BTreeMap::new();
        for (_, claim) in &claims {
            let end = ends.entry((claim.tenant, claim.campaign)).or_default();
            *end = (*end).max(last(claim));
        }
        // One whose time came meanwhile was running when its deliveries were claimed.
        self.ledger.start_due(self.clock.now_ms()).await?;
        for ((tenant, campaign), end) in ends {
            self.find_recipients(campaign, Some(end)).await?;
            self.give_up_draft(tenant, campaign).await?;
        }
        let first_look_ms = i64::try_from(self.timing.settle_ms().min(self.timing.ask_again_ms)).unwrap_or(0);
        let mut deliveries = 0;
        for (at_ms, claim) in &claims {
            let look_at_ms = at_ms.saturating_add(first_look_ms);
            deliveries += self.ledger.recall(quarantine.id, claim, *at_ms, look_at_ms).await?;
        }
        tracing::warn!(
            claims = claims.len(),
            deliveries,
            "claims that the ledger had forgotten are in it again, without an outcome"
        );
        Ok(())
    }

    /// Nobody noted what was claimed: all that could have been is called unknown.
    pub(super) async fn doubt_everything(&self, quarantine: &Quarantine, since_ms: i64) -> Result<(), LedgerError> {
        let now_ms = self.clock.now_ms();
        self.ledger.start_due(now_ms).await?;
        let look_at_ms = now_ms.saturating_add(i64::try_from(self.timing.settle_ms()).unwrap_or(0));
        let mut deliveries = 0;
        for brief in self.ledger.unfinished().await?.iter().filter(|brief| may_have_run(brief)) {
            if self.is_newer(brief, quarantine).await? {
                continue;
            }
            self.find_recipients(brief.id, None).await?;
            let mut from = Some(0);
            while let Some(start) = from {
                let doubted = Doubted { campaign: brief.id, from: start, span: DOUBT_SPAN };
                let (marked, next) = self.ledger.doubt(quarantine.id, doubted, since_ms, look_at_ms).await?;
                deliveries += marked;
                from = next;
            }
        }
        tracing::warn!(
            deliveries,
            "no claims were noted in a second place (ledger.second_place_folder): whatever could have been sent is unknown"
        );
        Ok(())
    }

    /// Whether a campaign was launched in the quarantine, in which nothing is sent.
    async fn is_newer(&self, brief: &CampaignBrief, quarantine: &Quarantine) -> Result<bool, LedgerError> {
        if brief.lane == Lane::Transactional {
            return Ok(false);
        }
        let campaign = self.ledger.campaign(brief.tenant, brief.id).await?;
        Ok(campaign.launched_at.is_some_and(|at| at.as_ms() > quarantine.entered_at_ms))
    }

    /// Finds the recipients of a campaign that may have been sent to: up to a number, or all. The same are found as the
    /// first time, under the same numbers.
    async fn find_recipients(&self, campaign: CampaignId, end: Option<i64>) -> Result<(), LedgerError> {
        loop {
            let unfinished = self.ledger.unfinished().await?;
            let brief = unfinished.iter().find(|brief| brief.id == campaign).filter(|brief| may_have_run(brief));
            let Some(brief) = brief else { return Ok(()) };
            let audience = brief.ready + brief.claimed + brief.unknown + brief.waiting + brief.finished;
            let is_there = end.is_some_and(|end| u64::try_from(end).is_ok_and(|end| end < audience));
            if brief.expanded || is_there {
                return Ok(());
            }
            self.ledger.expand_held(campaign, EXPAND_CHUNK).await?;
        }
    }

    /// A campaign that is a draft again, and was sent: launched once more it would be sent once more, to people under other
    /// numbers. It stays unsent, and its tenant decides.
    async fn give_up_draft(&self, tenant: TenantId, campaign: CampaignId) -> Result<(), LedgerError> {
        match self.ledger.campaign(tenant, campaign).await {
            Ok(found) if found.state == CampaignState::Draft => {
                self.ledger.cancel(tenant, campaign).await?;
                tracing::error!(
                    %campaign,
                    "this campaign was launched and sent after the copy that the ledger was restored from, and is a draft \
                     in it: it is cancelled, or another launch would send it again"
                );
                Ok(())
            }
            // It was made after the copy, and cannot be sent any more.
            Ok(_) | Err(LedgerError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Of a campaign that was cancelled before nothing was claimed any more.
const fn may_have_run(brief: &CampaignBrief) -> bool {
    matches!(brief.state, CampaignState::Running | CampaignState::Paused)
}
