//! How much of each campaign may be in the queue.
//!
//! What is in the queue stands in the way of whoever comes next. So all campaigns of a channel and lane together have as
//! much there as workers took in the last seconds. Tenants share that evenly and within a tenant its campaigns, and what
//! one has no use for is the others'. Everything follows from the ledger's counts: schedulers that share the campaigns
//! come to the same.

use std::{collections::HashMap, time::Duration};

use dispatch_schemas::{
    ids::{CampaignId, TenantId},
    states::{Channel, Lane},
};

use crate::ledger::CampaignBrief;

/// How long deliveries are counted for a rate.
const SAMPLE: Duration = Duration::from_secs(1);
/// What a channel's lane may have in the queue however slow it is, and a campaign whose rate is not known yet. Between
/// two rounds of the scheduler workers take no more at the start, so it must not be so few that they wait.
const LEAST: usize = 500;
/// A campaign has use for this many times what workers took of it, so that it may grow.
const GROWTH: f64 = 2.0;

/// How fast workers take the deliveries of each campaign.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<CampaignId, Seen>);

/// A campaign's deliveries.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// That had left `ready` at the last look.
    taken: u64,
    /// When the sample began.
    began: Duration,
    /// That have left it since then.
    counted: u64,
    /// A second, in the last sample.
    latest: Option<f64>,
    /// A second, in the better one of the last two: a moment's hiccup changes nothing.
    rate: Option<f64>,
}

impl Rates {
    /// Counts on.
    pub(super) fn look(&mut self, campaigns: &[CampaignBrief], now: Duration) {
        self.0.retain(|id, _| campaigns.iter().any(|campaign| campaign.id == *id));
        for campaign in campaigns {
            let taken = taken(campaign);
            let seen = self.0.entry(campaign.id).or_insert(Seen { taken, began: now, ..Seen::default() });
            seen.counted += taken.saturating_sub(seen.taken);
            seen.taken = taken;
            let lasted = now.saturating_sub(seen.began);
            if lasted >= SAMPLE {
                let latest = seen.counted as f64 / lasted.as_secs_f64();
                seen.rate = Some(seen.latest.map_or(latest, |before| before.max(latest)));
                (seen.latest, seen.counted, seen.began) = (Some(latest), 0, now);
            }
        }
    }

    fn of(&self, campaign: CampaignId) -> Option<f64> {
        self.0.get(&campaign)?.rate
    }

    /// How many jobs a campaign can make use of.
    fn use_for(&self, campaign: &CampaignBrief, seconds: f64) -> usize {
        let least = match (campaign.lane, self.of(campaign.id)) {
            // Many stand still at a time, and would leave nothing to those that move.
            (Lane::Bulk, Some(_)) => 1,
            // Single messages come at any moment, and somebody waits for them.
            (Lane::Bulk, None) | (Lane::Transactional, _) => LEAST,
        };
        let growing = jobs(self.of(campaign.id).unwrap_or(0.0) * seconds * GROWTH);
        growing.max(least).min(usize::try_from(campaign.ready).unwrap_or(usize::MAX))
    }

    /// How many jobs each of these campaigns may have in the queue: those that may send now, of all schedulers. A lane
    /// has as many as it takes in `seconds`.
    pub(super) fn shares(&self, campaigns: &[&CampaignBrief], seconds: u64) -> HashMap<CampaignId, usize> {
        let seconds = seconds as f64;
        let mut lines: HashMap<(Channel, Lane), Vec<&CampaignBrief>> = HashMap::new();
        for campaign in campaigns {
            lines.entry((campaign.channel, campaign.lane)).or_default().push(campaign);
        }
        let mut shares = HashMap::new();
        for of_line in lines.values() {
            let rate: f64 = of_line.iter().filter_map(|campaign| self.of(campaign.id)).sum();
            let all = jobs(rate * seconds).max(LEAST);
            let mut tenants: Vec<(TenantId, Vec<(CampaignId, usize)>)> = Vec::new();
            for campaign in of_line {
                let use_for = self.use_for(campaign, seconds);
                match tenants.iter_mut().find(|(tenant, _)| *tenant == campaign.tenant) {
                    Some((_, uses)) => uses.push((campaign.id, use_for)),
                    None => tenants.push((campaign.tenant, vec![(campaign.id, use_for)])),
                }
            }
            let wanted =
                tenants.iter().map(|(_, uses)| uses.iter().map(|(_, use_for)| use_for).sum()).collect::<Vec<_>>();
            for ((_, uses), share) in tenants.iter().zip(split(all, &wanted)) {
                let wanted: Vec<usize> = uses.iter().map(|(_, use_for)| *use_for).collect();
                shares.extend(uses.iter().zip(split(share, &wanted)).map(|((id, _), share)| (*id, share)));
            }
        }
        shares
    }
}

/// Deliveries that are not ready: claimed, waiting, undecided or done.
pub(super) const fn taken(campaign: &CampaignBrief) -> u64 {
    campaign.claimed + campaign.unknown + campaign.waiting + campaign.finished
}

fn jobs(count: f64) -> usize {
    count.ceil() as usize
}

/// Shares something evenly among those who want some of it: none gets more than wanted, and what one leaves is the
/// others'.
fn split(all: usize, wanted: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_unstable_by_key(|at| wanted[*at]);
    let mut shares = vec![0; wanted.len()];
    let mut left = all;
    for (nth, at) in order.iter().enumerate() {
        let share = wanted[*at].min(left / (wanted.len() - nth));
        shares[*at] = share;
        left -= share;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scheduler::window::tests::campaign;

    const SECONDS: u64 = 2;

    fn of(tenant: i64, id: i64, ready: u64, finished: u64) -> CampaignBrief {
        CampaignBrief { id: CampaignId(id), tenant: TenantId(tenant), ..campaign(ready, 0, finished) }
    }

    /// The shares after a look at that second.
    fn shares(rates: &mut Rates, second: u64, campaigns: &[CampaignBrief]) -> HashMap<CampaignId, usize> {
        rates.look(campaigns, Duration::from_secs(second));
        rates.shares(&campaigns.iter().collect::<Vec<_>>(), SECONDS)
    }

    #[test]
    fn a_campaign_alone_has_what_is_taken_in_the_seconds() {
        let mut rates = Rates::default();
        assert_eq!(shares(&mut rates, 0, &[of(1, 1, 100_000, 0)])[&CampaignId(1)], LEAST);
        assert_eq!(shares(&mut rates, 1, &[of(1, 1, 90_000, 10_000)])[&CampaignId(1)], 20_000);
        assert_eq!(shares(&mut rates, 2, &[of(1, 1, 90_000, 10_000)])[&CampaignId(1)], 20_000, "a hiccup");
        assert_eq!(shares(&mut rates, 3, &[of(1, 1, 90_000, 10_000)])[&CampaignId(1)], 1, "it stands still");
        assert_eq!(shares(&mut rates, 4, &[of(1, 1, 89_000, 11_000)])[&CampaignId(1)], 2_000);
    }

    #[test]
    fn a_newcomer_grows_until_tenants_share_evenly() {
        let mut rates = Rates::default();
        let (mut large, mut other) = (of(1, 1, 1_000_000, 0), of(2, 2, 1_000_000, 0));
        shares(&mut rates, 0, std::slice::from_ref(&large));
        (large.ready, large.finished) = (990_000, 10_000);
        let mut now = shares(&mut rates, 1, std::slice::from_ref(&large));
        for second in 2..12 {
            // Workers take 10,000 a second, in the order in which the jobs were put in.
            now = shares(&mut rates, second, &[large.clone(), other.clone()]);
            let both = now[&large.id] + now[&other.id];
            assert!(both <= 25_000, "{now:?}");
            for campaign in [&mut large, &mut other] {
                let taken = (10_000 * now[&campaign.id] / both) as u64;
                campaign.ready -= taken;
                campaign.finished += taken;
            }
        }
        assert!(now[&large.id].abs_diff(now[&other.id]) < 100, "{now:?}");
    }

    #[test]
    fn a_tenant_gets_no_more_by_having_more_campaigns_and_a_slow_one_leaves_the_rest() {
        let mut rates = Rates::default();
        let mut all: Vec<_> = (1..=4).map(|id| of(1, id, 100_000, 0)).collect();
        all.push(of(2, 5, 100_000, 0));
        all.push(of(3, 6, 100_000, 0));
        shares(&mut rates, 0, &all);
        for campaign in &mut all {
            let taken = if campaign.tenant == TenantId(3) { 10 } else { 1_000 };
            (campaign.ready, campaign.finished) = (campaign.ready - taken, taken);
        }
        let shares = shares(&mut rates, 1, &all);
        let of_tenant =
            |tenant| all.iter().filter(|c| c.tenant == TenantId(tenant)).map(|c| shares[&c.id]).sum::<usize>();
        assert_eq!(of_tenant(3), 40, "twice what it takes in two seconds");
        assert_eq!(of_tenant(2), 4_000);
        assert_eq!(of_tenant(1), 10_020 - 4_040);
        assert!(all[..4].iter().all(|campaign| shares[&campaign.id] == 5_980 / 4), "{shares:?}");
    }

    #[test]
    fn few_recipients_leave_the_rest_to_others() {
        let mut rates = Rates::default();
        let large = of(1, 1, 100_000, 0);
        shares(&mut rates, 0, std::slice::from_ref(&large));
        let large = of(1, 1, 95_000, 5_000);
        let shares = shares(&mut rates, 1, &[large, of(2, 2, 100, 0)]);
        assert_eq!((shares[&CampaignId(1)], shares[&CampaignId(2)]), (9_900, 100));
    }

    proptest! {
        #[test]
        fn all_is_shared_out_evenly_and_nobody_gets_more_than_wanted(
            all in 0..10_000_usize,
            wanted in proptest::collection::vec(0..5_000_usize, 0..20),
        ) {
            let shares = split(all, &wanted);
            prop_assert!(shares.iter().zip(&wanted).all(|(share, wanted)| share <= wanted));
            let total: usize = shares.iter().sum();
            prop_assert!(total <= all);
            // What is not enough is used up but for the rest of a division.
            prop_assert!(total == wanted.iter().sum::<usize>() || all - total < wanted.len());
            // Who wanted more has as much as anybody, but for that rest.
            let most = shares.iter().max().copied().unwrap_or(0);
            prop_assert!(shares.iter().zip(&wanted).all(|(share, wanted)| share == wanted || share + 1 >= most));
        }
    }
}
