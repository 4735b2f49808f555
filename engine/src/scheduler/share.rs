//! Which scheduler works on which campaign, and asks which account's log, without a leader.
//!
//! Every scheduler ranks all living ones for each campaign by a hash of the two (rendezvous hashing) and works on those
//! it ranks first for. When one dies, its campaigns, and only those, go to others as soon as it has been silent for
//! [`SILENT_MAX`]. Two that see the world differently for a moment both work on a campaign: that costs doubled jobs and
//! nothing else, because every step of a scheduler is a compare-and-set. Accounts are shared in the same way.

use std::time::Duration;

use dispatch_schemas::ids::CampaignId;

/// A scheduler that has not been heard of for this long is dead.
pub(super) const SILENT_MAX: Duration = Duration::from_secs(3);

/// Whether `own` works on the campaign, when these schedulers live.
pub(super) fn is_mine(campaign: CampaignId, own: i64, living: &[i64]) -> bool {
    ranks_first(campaign.0.cast_unsigned(), own, living)
}

/// Whether `own` looks after the account, when these schedulers live.
pub(super) fn is_my_account(account: &str, own: i64, living: &[i64]) -> bool {
    // FNV-1a: the same in every build.
    let name = account
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    ranks_first(name, own, living)
}

fn ranks_first(what: u64, own: i64, living: &[i64]) -> bool {
    let best = living.iter().copied().max_by_key(|scheduler| (rank(what, *scheduler), *scheduler));
    best.is_none_or(|best| best == own)
}

/// A hash of both, spread over all 64 bits (the finalizer of `SplitMix64`).
fn rank(what: u64, scheduler: i64) -> u64 {
    let mut mixed = what ^ scheduler.cast_unsigned().rotate_left(32);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVING: [i64; 3] = [17, 912_873, -4];

    fn owners(campaign: i64, living: &[i64]) -> Vec<i64> {
        living.iter().copied().filter(|own| is_mine(CampaignId(campaign), *own, living)).collect()
    }

    #[test]
    fn each_campaign_is_one_schedulers_and_all_have_their_share() {
        let mut share = std::collections::HashMap::new();
        for campaign in 0..3_000 {
            let [owner] = owners(campaign, &LIVING)[..] else { panic!("campaign {campaign} has not one owner") };
            *share.entry(owner).or_insert(0) += 1;
        }
        assert!(share.len() == 3 && share.values().all(|campaigns| *campaigns > 800), "{share:?}");
    }

    #[test]
    fn a_death_moves_the_dead_ones_campaigns_only() {
        for campaign in 0..1_000 {
            let before = owners(campaign, &LIVING);
            let after = owners(campaign, &LIVING[..2]);
            assert!(before == after || before == [LIVING[2]], "campaign {campaign} moved from {before:?} to {after:?}");
        }
    }

    #[test]
    fn each_account_is_one_schedulers() {
        let mut owners = std::collections::HashSet::new();
        for number in 0..100 {
            let account = format!("infobip-{number}");
            let of_account: Vec<i64> =
                LIVING.iter().copied().filter(|own| is_my_account(&account, *own, &LIVING)).collect();
            let [owner] = of_account[..] else { panic!("{account} has not one owner") };
            owners.insert(owner);
        }
        assert_eq!(owners.len(), LIVING.len());
    }

    #[test]
    fn one_that_does_not_know_who_lives_works_on_everything() {
        assert!(is_mine(CampaignId(1), 17, &[]));
    }
}
