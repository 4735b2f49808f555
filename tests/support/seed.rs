//! Numbers that look random and follow from a seed, so that a failed run can be run again.

use dispatch_workers::clock::{SystemEntropy, random};

/// Holds the seed of a run that is to be repeated.
pub const VARIABLE: &str = "DISPATCH_TEST_SEED";

/// The step of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A seed and the numbers that follow from it.
#[derive(Debug, Clone)]
pub struct Seed {
    start: u64,
    state: u64,
}

impl Seed {
    /// Numbers that follow from `start`.
    #[must_use]
    pub const fn new(start: u64) -> Self {
        Self { start, state: start }
    }

    /// The seed in `DISPATCH_TEST_SEED`, or a fresh one.
    #[must_use]
    pub fn of_this_run() -> Self {
        let set = std::env::var(VARIABLE).ok().map(|text| text.parse().expect("DISPATCH_TEST_SEED is a whole number"));
        // Short enough to be typed again.
        Self::new(set.unwrap_or_else(|| u64::from(u32::from_be_bytes(random(&SystemEntropy::default())))))
    }

    /// The number everything follows from.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.start
    }

    /// What to say so that a failed run can be run again.
    #[must_use]
    pub fn how_to_repeat(&self) -> String {
        format!("{VARIABLE}={} repeats this run", self.start)
    }

    /// The next number, from `from` and below `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        from + (mixed ^ (mixed >> 31)) % (to - from)
    }
}
