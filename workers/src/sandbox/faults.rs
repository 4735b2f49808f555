//! The fault plan: how often each fault is drawn, from a seed.

use std::{
    fmt,
    str::FromStr,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Fault, FaultPlan, PROVIDERS};

type Rates = [f64; Fault::ALL.len()];

/// How often each fault is drawn, per provider.
///
/// As text: `fault=rate` or `provider.fault=rate`, separated by commas, such as
/// `accept_then_drop=0.02, throttle=0.01, smtp.throttle=0`. A rate is the share of requests from 0 to 1; what names a
/// provider overrides what does not, wherever it stands. Empty text: nothing goes wrong.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Faults {
    rates: [Rates; PROVIDERS.len()],
}

/// A fault plan that cannot be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FaultsError {
    /// Not `fault=rate`.
    #[error("`{0}` is not `fault=rate` or `provider.fault=rate`")]
    Shape(String),
    /// No such fault.
    #[error("there is no fault `{0}`; there are: {all}", all = names(Fault::ALL.iter().map(|fault| fault.mode())))]
    Fault(String),
    /// No such provider.
    #[error("there is no provider `{0}`; there are: {all}", all = names(PROVIDERS.into_iter()))]
    Provider(String),
    /// Not a share.
    #[error("the rate `{rate}` of `{name}` is not a number from 0 to 1")]
    Rate {
        /// What stands before the equals sign.
        name: String,
        /// What stands after it.
        rate: String,
    },
    /// Said twice.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// More than everything goes wrong.
    #[error("the rates for {provider} add up to {sum}, and only 1 of 1 requests can go wrong")]
    Sum {
        /// For which provider.
        provider: &'static str,
        /// What they add up to.
        sum: f64,
    },
}

fn names(of: impl Iterator<Item = &'static str>) -> String {
    of.collect::<Vec<_>>().join(", ")
}

impl FromStr for Faults {
    type Err = FaultsError;

    fn from_str(text: &str) -> Result<Self, FaultsError> {
        let mut general: [Option<f64>; Fault::ALL.len()] = Default::default();
        let mut particular: [[Option<f64>; Fault::ALL.len()]; PROVIDERS.len()] = Default::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, rate) = part.split_once('=').ok_or_else(|| FaultsError::Shape(part.into()))?;
            let (name, rate) = (name.trim(), rate.trim());
            let (among, fault) = match name.split_once('.') {
                None => (&mut general, name),
                Some((provider, fault)) => {
                    let at = PROVIDERS.iter().position(|known| *known == provider);
                    (&mut particular[at.ok_or_else(|| FaultsError::Provider(provider.into()))?], fault)
                }
            };
            let at = Fault::ALL.iter().position(|known| known.mode() == fault);
            let place = &mut among[at.ok_or_else(|| FaultsError::Fault(fault.into()))?];
            let share = rate.parse().ok().filter(|share| (0.0..=1.0).contains(share));
            let share = share.ok_or_else(|| FaultsError::Rate { name: name.into(), rate: rate.into() })?;
            if place.replace(share).is_some() {
                return Err(FaultsError::Twice(name.into()));
            }
        }
        let mut faults = Self::default();
        for ((rates, own), provider) in faults.rates.iter_mut().zip(particular).zip(PROVIDERS) {
            for ((rate, own), general) in rates.iter_mut().zip(own).zip(general) {
                *rate = own.or(general).unwrap_or(0.0);
            }
            let sum = rates.iter().sum();
            // Ten tenths are a little more than one in binary.
            if sum > 1.0 + 1e-9 {
                return Err(FaultsError::Sum { provider, sum });
            }
        }
        Ok(faults)
    }
}

impl Faults {
    fn pick(&self, provider: usize, mut drawn: f64) -> Fault {
        for (fault, rate) in Fault::ALL.into_iter().zip(self.rates.get(provider).into_iter().flatten()) {
            if drawn < *rate {
                return fault;
            }
            drawn -= rate;
        }
        Fault::None
    }
}

/// Draws faults from a seed; the plan can be changed while requests come in. The n-th draw for a provider depends on
/// the seed, the provider and n alone.
pub struct SeededFaults {
    faults: RwLock<Faults>,
    states: [AtomicU64; PROVIDERS.len()],
}

impl SeededFaults {
    /// A plan with its seed.
    #[must_use]
    pub fn new(faults: Faults, seed: u64) -> Self {
        let mut provider = 0;
        let states = [(); PROVIDERS.len()].map(|()| {
            provider += 1;
            AtomicU64::new(mixed(seed ^ mixed(provider)))
        });
        Self { faults: RwLock::new(faults), states }
    }

    /// From now on, draws by this plan.
    pub fn set(&self, faults: Faults) {
        *self.faults.write().unwrap_or_else(PoisonError::into_inner) = faults;
    }
}

impl FaultPlan for SeededFaults {
    fn draw(&self, provider: &'static str) -> Fault {
        let Some(at) = PROVIDERS.iter().position(|known| *known == provider) else { return Fault::None };
        let step = self.states[at].fetch_add(GOLDEN, Ordering::Relaxed);
        // The upper 53 bits are as many as a float between 0 and 1 tells apart.
        let drawn = (mixed(step) >> 11) as f64 / (1_u64 << 53) as f64;
        self.faults.read().unwrap_or_else(PoisonError::into_inner).pick(at, drawn)
    }
}

impl fmt::Debug for SeededFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededFaults")
    }
}

/// The step of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output of SplitMix64 for a state: each state has one, and neighbours look unrelated.
pub(super) const fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(plan: &str, seed: u64, provider: &'static str) -> Vec<Fault> {
        let plan = SeededFaults::new(plan.parse().unwrap(), seed);
        (0..10_000).map(|_| plan.draw(provider)).collect()
    }

    #[test]
    fn a_seed_draws_the_same_faults_again_and_another_seed_does_not() {
        let plan = "accept_then_drop=0.2,throttle=0.1";
        assert_eq!(draws(plan, 1, "brevo"), draws(plan, 1, "brevo"));
        assert_ne!(draws(plan, 1, "brevo"), draws(plan, 2, "brevo"));
        assert_ne!(draws(plan, 1, "brevo"), draws(plan, 1, "infobip"));
    }

    #[test]
    fn each_fault_is_drawn_about_as_often_as_its_rate_says() {
        let drawn = draws("half_answer=0.3,refuse=0.05", 7, "sendgrid");
        let share = |fault| drawn.iter().filter(|drawn| **drawn == fault).count() as f64 / drawn.len() as f64;
        // Ten standard deviations: sqrt(0.3 * 0.7 / 10,000) is 0.0046.
        assert!((share(Fault::HalfAnswer) - 0.3).abs() < 0.046);
        assert!((share(Fault::Refuse) - 0.05).abs() < 0.022);
        assert!((share(Fault::None) - 0.65).abs() < 0.048);
        assert_eq!(share(Fault::Garbage), 0.0);
    }

    #[test]
    fn a_provider_of_its_own_overrides_the_rest() {
        let plan = "smtp.throttle=0, throttle=1, smtp.garbage=1";
        assert!(draws(plan, 3, "smtp").iter().all(|fault| *fault == Fault::Garbage));
        assert!(draws(plan, 3, "brevo_sms").iter().all(|fault| *fault == Fault::Throttle));
        assert!(draws("", 3, "smtp").iter().all(|fault| *fault == Fault::None));
    }

    #[test]
    fn ten_tenths_are_everything() {
        let plan = Fault::ALL.map(|fault| format!("{}=0.1", fault.mode())).join(",");
        assert!(draws(&plan, 3, "smtp").iter().filter(|fault| **fault == Fault::None).count() <= 1);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_what_would_be_right() {
        for (plan, said) in [
            ("throttle", "`throttle` is not `fault=rate`"),
            ("throtle=0.1", "there is no fault `throtle`; there are: accept_then_drop, "),
            ("mailgun.throttle=0.1", "there is no provider `mailgun`; there are: sendgrid, "),
            ("throttle=2", "the rate `2` of `throttle` is not a number from 0 to 1"),
            ("throttle=NaN", "the rate `NaN` of `throttle` is not"),
            ("smtp.throttle=-0.1", "the rate `-0.1` of `smtp.throttle` is not"),
            ("throttle=0.1,throttle=0.2", "`throttle` is given twice"),
            ("throttle=0.6,refuse=0.6", "the rates for sendgrid add up to 1.2"),
            ("throttle=0.6,smtp.refuse=0.6", "the rates for smtp add up to 1.2"),
        ] {
            let error = plan.parse::<Faults>().unwrap_err().to_string();
            assert!(error.contains(said), "{plan}: {error}");
        }
    }
}
