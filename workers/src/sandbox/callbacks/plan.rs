//! What becomes of messages, and how it is told.

use std::str::FromStr;

use super::{super::faults::mixed, Told};

/// How much later a late report is told, milliseconds.
const LATE_MS: u64 = 2_000;
/// Within what time reports come out of order, milliseconds.
const REORDERED_WITHIN_MS: u64 = 500;

/// What happens to messages how often, and how it is told.
///
/// As text: `what=rate`, separated by commas, such as `bounced_hard=0.02, doubled=0.1`. A rate is a share from 0 to 1.
/// What happens: `deferred` (and delivered then), `bounced_soft`, `bounced_hard`, `rejected`, `complained` and
/// `unsubscribed` (both after delivery); all others are delivered. How it is told: `doubled`, `late`, `reordered`, `forged`
/// (a false report with a wrong signature beside it). What is not named has the rate it has by default.
#[derive(Debug, Clone, PartialEq)]
pub struct CallbackPlan {
    rates: [f64; WORDS.len()],
}

const WORDS: [&str; 10] = [
    "deferred",
    "bounced_soft",
    "bounced_hard",
    "rejected",
    "complained",
    "unsubscribed",
    "doubled",
    "late",
    "reordered",
    "forged",
];
/// Words that say what happens; the others say how it is told.
const FATES: [Fate; 6] =
    [Fate::Deferred, Fate::BouncedSoft, Fate::BouncedHard, Fate::Rejected, Fate::Complained, Fate::Unsubscribed];

impl Default for CallbackPlan {
    fn default() -> Self {
        Self { rates: [0.05, 0.01, 0.02, 0.01, 0.005, 0.01, 0.05, 0.02, 0.1, 0.005] }
    }
}

/// A plan that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallbackPlanError {
    /// Not `what=rate`.
    #[error("`{0}` is not `what=rate` with one of {words} and a number from 0 to 1", words = WORDS.join(", "))]
    Part(String),
    /// More than everything happens.
    #[error("the rates of what happens to messages add up to more than 1")]
    Sum,
}

impl FromStr for CallbackPlan {
    type Err = CallbackPlanError;

    fn from_str(text: &str) -> Result<Self, CallbackPlanError> {
        let mut plan = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || CallbackPlanError::Part(part.to_owned());
            let (word, rate) = part.split_once('=').ok_or_else(wrong)?;
            let at = WORDS.iter().position(|known| *known == word.trim()).ok_or_else(wrong)?;
            let rate = rate.trim().parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
            plan.rates[at] = rate.ok_or_else(wrong)?;
        }
        let sum: f64 = plan.rates.iter().take(FATES.len()).sum();
        if sum > 1.0 + 1e-9 { Err(CallbackPlanError::Sum) } else { Ok(plan) }
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    Deferred,
    BouncedSoft,
    BouncedHard,
    Rejected,
    Complained,
    Unsubscribed,
}

impl Fate {
    /// What is told of it, in its order.
    pub(super) const fn story(self) -> &'static [Told] {
        match self {
            Self::Delivered => &[Told::Accepted, Told::Delivered],
            Self::Deferred => &[Told::Accepted, Told::Deferred, Told::Delivered],
            Self::BouncedSoft => &[Told::Accepted, Told::BouncedSoft],
            Self::BouncedHard => &[Told::Accepted, Told::BouncedHard],
            Self::Rejected => &[Told::Accepted, Told::Rejected],
            Self::Complained => &[Told::Accepted, Told::Delivered, Told::Complained],
            Self::Unsubscribed => &[Told::Accepted, Told::Delivered, Told::Unsubscribed],
        }
    }
}

impl CallbackPlan {
    pub(super) fn fate(&self, provider: &str, mut drawn: f64) -> Fate {
        for (fate, rate) in FATES.into_iter().zip(self.rates) {
            if drawn < rate {
                return match fate {
                    // Nobody complains about a text message to its provider.
                    Fate::Complained if matches!(provider, "infobip" | "brevo_sms") => Fate::Delivered,
                    fate => fate,
                };
            }
            drawn -= rate;
        }
        Fate::Delivered
    }

    fn rate(&self, word: &str) -> f64 {
        WORDS.iter().position(|known| *known == word).and_then(|at| self.rates.get(at)).copied().unwrap_or(0.0)
    }

    /// How long a report waits, milliseconds.
    pub(super) fn delay(&self, draws: &mut Draw) -> u64 {
        let late = if draws.next() < self.rate("late") { LATE_MS } else { 0 };
        let reordered =
            if draws.next() < self.rate("reordered") { (draws.next() * REORDERED_WITHIN_MS as f64) as u64 } else { 0 };
        late + reordered
    }

    pub(super) fn doubles(&self, draws: &mut Draw) -> bool {
        draws.next() < self.rate("doubled")
    }

    pub(super) fn forges(&self, draws: &mut Draw) -> bool {
        draws.next() < self.rate("forged")
    }
}

/// Numbers from 0 to 1 that follow from a seed.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mixed(self.0) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
