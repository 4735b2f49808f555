//! The numbering plans of the world, from the `phonenumber` crate's metadata (Google's libphonenumber).
//!
//! That crate decides a number in tens of microseconds, with a regular expression cache behind one lock that a list
//! with many countries overflows; and it takes a number when a pattern matches its beginning. Here the patterns of a
//! country are compiled on first use into one set that must match the whole number and is asked once. A test holds
//! the two against each other.

use std::{
    borrow::Cow,
    sync::{LazyLock, OnceLock},
};

use phonenumber::metadata::{DATABASE, Descriptor};
use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::Country;

/// Calling codes have one to three digits (E.164).
const CALLING_CODES: usize = 1_000;

/// What a number is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A person or a household: mobile, fixed line, internet telephony, personal number.
    Subscriber,
    /// Somebody's service, or a machine.
    Service,
}

/// One country's numbering plan.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) country: Country,
    pub(super) calling_code: u16,
    metadata: &'static phonenumber::Metadata,
    patterns: OnceLock<Option<Patterns>>,
    leading: OnceLock<Option<Regex>>,
}

#[derive(Debug)]
struct Patterns {
    /// The general pattern, then one for each of `uses`.
    set: RegexSet,
    general_lengths: Lengths,
    /// In the order in which libphonenumber decides: the first that matches says what the number is for.
    uses: Vec<(Use, Lengths)>,
    national_prefix: Option<Regex>,
    international_prefix: Option<Regex>,
}

/// A set of lengths, one bit for each; all bits when the plan names none.
#[derive(Debug, Clone, Copy)]
struct Lengths(u32);

impl Lengths {
    fn of(descriptor: &Descriptor) -> Self {
        let named = descriptor.possible_length();
        Self(if named.is_empty() { u32::MAX } else { named.iter().fold(0, |bits, length| bits | bit(*length)) })
    }

    fn has(self, digits: &str) -> bool {
        self.0 & u16::try_from(digits.len()).map_or(0, bit) != 0
    }
}

fn bit(length: u16) -> u32 {
    1_u32.checked_shl(u32::from(length)).unwrap_or(0)
}

impl Plan {
    /// What a national number (digits without calling code and domestic prefix) is for; nothing when the plan has no
    /// such number.
    pub(super) fn use_of(&self, national: &str) -> Option<Use> {
        let patterns = self.patterns()?;
        if !patterns.general_lengths.has(national) {
            return None;
        }
        let matches = patterns.set.matches(national);
        if !matches.matched(0) {
            return None;
        }
        let hit = |(at, (kind, lengths)): (usize, &(Use, Lengths))| {
            (matches.matched(at + 1) && lengths.has(national)).then_some(*kind)
        };
        patterns.uses.iter().enumerate().find_map(hit)
    }

    fn is_possible(&self, national: &str) -> bool {
        self.patterns()
            .is_some_and(|patterns| patterns.general_lengths.has(national) && patterns.set.matches(national).matched(0))
    }

    /// What remains of digits dialled at home once the domestic prefix (often 0) and a carrier's code are gone.
    pub(super) fn without_domestic_prefix<'a>(&self, dialled: &'a str) -> Cow<'a, str> {
        let bare: Cow<'a, str> = match self.patterns().and_then(|patterns| patterns.national_prefix.as_ref()) {
            Some(pattern) => {
                let Some(found) = pattern.captures(dialled) else {
                    return dialled.into();
                };
                let end = found.get(0).map_or(0, |all| all.end());
                let rest = dialled.get(end..).unwrap_or_default();
                let last = found.get(found.len() - 1).filter(|_| found.len() > 1);
                match self.metadata.national_prefix_transform_rule() {
                    Some(rule) if last.is_some() => {
                        let mut changed = String::new();
                        found.expand(rule, &mut changed);
                        changed.push_str(rest);
                        changed.into()
                    }
                    _ => rest.into(),
                }
            }
            None => {
                let prefix = self.metadata.national_prefix().unwrap_or_default();
                dialled.strip_prefix(prefix).unwrap_or(dialled).into()
            }
        };
        // A number that is good as dialled and bad without its first digits had no prefix.
        if self.is_possible(dialled) && !self.is_possible(&bare) { dialled.into() } else { bare }
    }

    /// What follows the prefix that one dials in this country to call abroad.
    pub(super) fn after_international_prefix<'a>(&self, dialled: &'a str) -> Option<&'a str> {
        let found = self.patterns()?.international_prefix.as_ref()?.find(dialled)?;
        dialled.get(found.end()..).filter(|rest| !rest.starts_with('0'))
    }

    /// Whether the domestic prefix is a zero, the one that people put in brackets.
    pub(super) fn dials_zero_at_home(&self) -> bool {
        self.metadata.national_prefix() == Some("0")
    }

    fn begins(&self, national: &str) -> Option<bool> {
        let pattern = self.metadata.leading_digits()?.as_str();
        let leading = self.leading.get_or_init(|| prefix_pattern(pattern));
        leading.as_ref().map(|leading| leading.is_match(national))
    }

    fn patterns(&self) -> Option<&Patterns> {
        self.patterns.get_or_init(|| Patterns::compile(self.metadata)).as_ref()
    }
}

impl Patterns {
    fn compile(metadata: &phonenumber::Metadata) -> Option<Self> {
        let all = metadata.descriptors();
        let kinds: Vec<(Use, &Descriptor)> = [
            (Use::Service, all.premium_rate()),
            (Use::Service, all.toll_free()),
            (Use::Service, all.shared_cost()),
            (Use::Subscriber, all.voip()),
            (Use::Subscriber, all.personal_number()),
            (Use::Service, all.pager()),
            (Use::Service, all.uan()),
            (Use::Service, all.voicemail()),
            (Use::Subscriber, all.fixed_line()),
            (Use::Subscriber, all.mobile()),
        ]
        .into_iter()
        .filter_map(|(kind, descriptor)| Some((kind, descriptor?)))
        .collect();
        let texts = std::iter::once(all.general())
            .chain(kinds.iter().map(|(_, descriptor)| *descriptor))
            .map(|descriptor| format!("^(?:{})$", descriptor.national_number().as_str()));
        let mut set = RegexSetBuilder::new(texts);
        Some(Self {
            // The patterns' `\d` means 0-9 here: without Unicode the automata stay small.
            set: set.ignore_whitespace(true).unicode(false).build().ok()?,
            general_lengths: Lengths::of(all.general()),
            uses: kinds.iter().map(|(kind, descriptor)| (*kind, Lengths::of(descriptor))).collect(),
            national_prefix: metadata.national_prefix_for_parsing().and_then(|all| prefix_pattern(all.as_str())),
            international_prefix: metadata.international_prefix().and_then(|all| prefix_pattern(all.as_str())),
        })
    }
}

fn prefix_pattern(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(&format!("^(?:{pattern})")).ignore_whitespace(true).unicode(false).build().ok()
}

struct Plans {
    all: Vec<Plan>,
    /// By calling code: the places in `all`, the main country first.
    by_code: Vec<Vec<usize>>,
}

static PLANS: LazyLock<Plans> = LazyLock::new(|| {
    let mut plans = Plans { all: Vec::new(), by_code: vec![Vec::new(); CALLING_CODES] };
    for (calling_code, at_code) in (0_u16..).zip(&mut plans.by_code) {
        for id in DATABASE.region(&calling_code).unwrap_or_default() {
            // Numbers of no country are under `001`.
            let (Some(country), Some(metadata)) = (Country::from_letters(id), DATABASE.by_id(id)) else {
                continue;
            };
            at_code.push(plans.all.len());
            plans.all.push(Plan {
                country,
                calling_code,
                metadata,
                patterns: OnceLock::new(),
                leading: OnceLock::new(),
            });
        }
    }
    plans
});

/// The plan of a country.
pub(super) fn of_country(country: Country) -> Option<&'static Plan> {
    PLANS.all.iter().find(|plan| plan.country == country)
}

/// A number with its country found.
pub(super) enum Placed<'a> {
    /// In this plan, if in any.
    In(&'static Plan, &'a str),
    /// Under a calling code that belongs to no country.
    NotGeographic,
    /// Under a calling code of several countries, with a number of none of them.
    Nowhere(&'static Plan, &'a str),
    /// Under no calling code.
    NoCode,
}

/// Finds the country of an international number (digits without `+`).
pub(super) fn place(digits: &str) -> Placed<'_> {
    for length in 1..=3 {
        let (Some(code), Some(national)) = (digits.get(..length), digits.get(length..)) else {
            break;
        };
        let Ok(code) = code.parse::<u16>() else {
            break;
        };
        let places = PLANS.by_code.get(usize::from(code)).map(Vec::as_slice).unwrap_or_default();
        let mut plans = places.iter().filter_map(|at| PLANS.all.get(*at));
        let Some(main) = plans.next() else {
            if DATABASE.region(&code).is_some() {
                return Placed::NotGeographic;
            }
            continue;
        };
        if places.len() == 1 {
            return Placed::In(main, national);
        }
        let is_here = |plan: &&Plan| plan.begins(national).unwrap_or_else(|| plan.use_of(national).is_some());
        return match std::iter::once(main).chain(plans).find(is_here) {
            Some(plan) => Placed::In(plan, national),
            None => Placed::Nowhere(main, national),
        };
    }
    Placed::NoCode
}
