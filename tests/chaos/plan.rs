//! What is done to the engine in a run, all of it drawn from a seed before the run begins.

use std::{collections::BTreeSet, time::Duration};

use dispatch_tests::support::{fault_proxy::Network, seed::Seed, services::Service};

use crate::audience::Audience;

/// One signal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strike {
    pub(crate) at: Duration,
    /// Which process, or the next one that can be struck.
    pub(crate) member: usize,
    pub(crate) blow: Blow,
    /// How long after its end it is started again.
    pub(crate) again_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT so much later.
    Freeze(Duration),
    /// SIGTERM.
    Terminate,
}

/// The network between one process and a service fails for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) at: Duration,
    pub(crate) member: usize,
    pub(crate) service: Service,
    /// `None`: what is open breaks, once.
    pub(crate) network: Option<Network>,
    pub(crate) lasts: Duration,
}

/// A service is away for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    pub(crate) at: Duration,
    pub(crate) service: Service,
    /// Whether it is killed; else it is stopped in order.
    pub(crate) crash: bool,
    pub(crate) lasts: Duration,
}

/// What the platform asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) at: Duration,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Suppress {
        audience: usize,
        number: usize,
    },
    Erase {
        audience: usize,
        number: usize,
    },
    Cancel {
        audience: usize,
    },
    /// And resume so much later.
    Pause {
        audience: usize,
        lasts: Duration,
    },
}

/// A run's plan.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) strikes: Vec<Strike>,
    pub(crate) weather: Vec<Weather>,
    pub(crate) outages: Vec<Outage>,
    pub(crate) wishes: Vec<Wish>,
}

/// How many people are suppressed and how many erased in a full run; a short one has its share.
const SUPPRESSIONS: u64 = 200;
const ERASURES: u64 = 50;
/// Seconds of a run that has all of them.
const FULL_SECONDS: u64 = 180;
/// Pauses of each campaign that is not cancelled.
const PAUSES: u64 = 2;
/// Milliseconds between two strikes.
const STRIKE_EVERY_MS: std::ops::Range<u64> = 200..2_000;
/// Milliseconds a process stays frozen.
const FROZEN_MS: std::ops::Range<u64> = 1_000..40_000;
/// Milliseconds between two failures of the network.
const WEATHER_EVERY_MS: std::ops::Range<u64> = 1_000..6_000;

/// Seconds for each outage of a service; there are two at least.
const OUTAGE_EVERY_S: u64 = 40;
/// Milliseconds a service stays away before it is started again, at most.
const AWAY_MS_MAX: u64 = 5_000;

impl Plan {
    /// Draws the plan of a run of this length with so many processes.
    pub(crate) fn draw(seed: u64, length: Duration, members: usize, audiences: &[Audience]) -> Self {
        // Each part has numbers of its own, so that a change to one leaves the others.
        let part = |salt: u64| Seed::new(seed ^ (salt << 40));
        Self {
            strikes: strikes(&mut part(1), length, members as u64),
            weather: weather(&mut part(2), length, members as u64),
            outages: outages(&mut part(3), length),
            wishes: wishes(&mut part(4), length, audiences),
        }
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

fn strikes(seed: &mut Seed, length: Duration, members: u64) -> Vec<Strike> {
    let mut strikes = Vec::new();
    let mut at = ms(2_000);
    while at < length {
        let frozen = ms(seed.between(FROZEN_MS.start, FROZEN_MS.end.min(millis(length) / 2)));
        let blow = match seed.between(0, 100) {
            0..70 => Blow::Kill,
            70..85 => Blow::Freeze(frozen),
            _ => Blow::Terminate,
        };
        let member = usize::try_from(seed.between(0, members)).unwrap_or(0);
        strikes.push(Strike { at, member, blow, again_after: ms(seed.between(0, 1_500)) });
        at += ms(seed.between(STRIKE_EVERY_MS.start, STRIKE_EVERY_MS.end));
    }
    strikes
}

fn weather(seed: &mut Seed, length: Duration, members: u64) -> Vec<Weather> {
    let mut weather = Vec::new();
    let mut at = ms(1_500);
    while at < length {
        let network = match seed.between(0, 5) {
            0 => None,
            1 => Some(Network::Down),
            2 => Some(Network::Hangs),
            3 => Some(Network::LosesAnswers),
            _ => Some(Network::Slow(ms(seed.between(5, 100)))),
        };
        weather.push(Weather {
            at,
            member: usize::try_from(seed.between(0, members)).unwrap_or(0),
            service: Service::ALL[usize::from(seed.between(0, 3) == 0)],
            network,
            lasts: ms(seed.between(100, 6_000)),
        });
        at += ms(seed.between(WEATHER_EVERY_MS.start, WEATHER_EVERY_MS.end));
    }
    weather
}

/// One service after the other is away: each is killed, then each is stopped in order, and so on.
fn outages(seed: &mut Seed, length: Duration) -> Vec<Outage> {
    let turns = (length.as_secs() / OUTAGE_EVERY_S).max(2);
    let share = millis(length) / turns;
    let draw = |nth: u64| Outage {
        at: ms(share * nth + seed.between(share / 8, share / 3)),
        service: if nth.is_multiple_of(2) { Service::Postgres } else { Service::RabbitMq },
        crash: nth % 4 < 2,
        lasts: ms(seed.between(0, AWAY_MS_MAX)),
    };
    (0..turns).map(draw).collect()
}

fn wishes(seed: &mut Seed, length: Duration, audiences: &[Audience]) -> Vec<Wish> {
    let length = millis(length);
    let of_full = |full: u64| (full * length / 1_000 / FULL_SECONDS).clamp(full / 20, full);
    let mut wishes = Vec::new();
    let mut met = BTreeSet::new();
    let (suppressions, erasures) = (of_full(SUPPRESSIONS), of_full(ERASURES));
    while (met.len() as u64) < suppressions + erasures {
        let audience = usize::try_from(seed.between(0, audiences.len() as u64)).unwrap_or(0);
        let number = usize::try_from(seed.between(0, audiences[audience].people as u64)).unwrap_or(0);
        let at = ms(seed.between(0, length));
        if !met.insert((audience, number)) {
            continue;
        }
        let suppress = met.len() as u64 <= suppressions;
        let what = if suppress { What::Suppress { audience, number } } else { What::Erase { audience, number } };
        wishes.push(Wish { at, what });
    }
    for (audience, about) in audiences.iter().enumerate() {
        if about.cancelled {
            wishes.push(Wish { at: ms(seed.between(length / 10, length * 6 / 10)), what: What::Cancel { audience } });
            continue;
        }
        let share = length / PAUSES;
        for nth in 0..PAUSES {
            let at = ms(share * nth + seed.between(share / 10, share / 2));
            wishes
                .push(Wish { at, what: What::Pause { audience, lasts: ms(seed.between(500, 4_000.min(share / 2))) } });
        }
    }
    wishes.sort_unstable_by_key(|wish| wish.at);
    wishes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audience::audiences;

    const FULL: Duration = Duration::from_secs(FULL_SECONDS);

    fn plan(seed: u64) -> Plan {
        Plan::draw(seed, FULL, 5, &audiences(20_000))
    }

    #[test]
    fn a_seed_draws_the_same_plan_again_and_another_seed_does_not() {
        assert_eq!(format!("{:?}", plan(7)), format!("{:?}", plan(7)));
        assert_ne!(format!("{:?}", plan(7)), format!("{:?}", plan(8)));
    }

    #[test]
    fn a_full_plan_has_everything_in_it() {
        let plan = plan(7);
        let wishes = |is: fn(&What) -> bool| plan.wishes.iter().filter(|wish| is(&wish.what)).count();
        assert_eq!(wishes(|what| matches!(what, What::Suppress { .. })), 200);
        assert_eq!(wishes(|what| matches!(what, What::Erase { .. })), 50);
        assert_eq!(wishes(|what| matches!(what, What::Cancel { .. })), 3);
        assert!(wishes(|what| matches!(what, What::Pause { .. })) > 1);
        for service in Service::ALL {
            for crash in [false, true] {
                assert!(plan.outages.iter().any(|outage| outage.service == service && outage.crash == crash));
            }
        }
        let kills = plan.strikes.iter().filter(|strike| strike.blow == Blow::Kill).count();
        assert!(kills * 2 > plan.strikes.len() && plan.strikes.len() > 80, "{} strikes", plan.strikes.len());
        assert!(plan.weather.iter().any(|weather| weather.network == Some(Network::LosesAnswers)));
    }
}
