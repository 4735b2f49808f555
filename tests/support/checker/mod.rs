//! The checker: joins what the ledger believes with what the witness saw, recipient by recipient.
//!
//! It shares no code with the engine's own comparison, and is tested itself with logs that were tampered with.

mod books;
mod closings;
mod rates;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

pub use books::{Books, Entry};
pub use closings::{BehindGates, Claims, Closing, behind};
use dispatch_schemas::states::DeliveryState;
use dispatch_workers::sandbox::witness::{WitnessLine, WitnessVerdict};
pub use rates::busiest;

/// What can happen to a request after which its sender cannot know whether it was accepted.
const AMBIGUOUS: [&str; 7] =
    ["accept_then_drop", "accept_slow", "fail_before", "fail_after_accept", "garbage", "drop_before", "half_answer"];

/// What is wrong, by recipient: `provider seq`. All empty when nothing is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Faults {
    /// Not final, or failed though nobody refused them.
    pub lost: Vec<String>,
    /// Accepted says the ledger, and no provider did.
    pub phantom: Vec<String>,
    /// A provider accepted, and the ledger says that none did.
    pub untrue: Vec<String>,
    /// Accepted more often than once and the counted resends.
    pub duplicated: Vec<String>,
    /// Accepted for somebody who is no recipient.
    pub unexpected: Vec<String>,
    /// Requests whose token no attempt has.
    pub untracked: Vec<String>,
    /// Tokens that came in more than one request.
    pub reused: Vec<String>,
    /// Numbers missing from the witness's log: it was tampered with.
    pub missing_lines: Vec<String>,
}

/// What a provider's campaign came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Recipients.
    pub recipients: u64,
    /// Recipients whose delivery was accepted, says the ledger.
    pub accepted: u64,
    /// Messages accepted, says the witness.
    pub acceptances: u64,
    /// Messages accepted beyond the first of a recipient.
    pub extra: u64,
    /// Resends the ledger counted.
    pub resends: u64,
    /// Recipients that could not be decided.
    pub undecided: u64,
    /// Of these, those to whom no fault of the provider happened: only an engine that was killed explains them.
    pub undecided_by_kill: u64,
    /// Of these, those whose message was accepted, says the witness.
    pub undecided_accepted: u64,
}

/// A comparison.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong.
    pub faults: Faults,
    /// Figures by provider.
    pub figures: BTreeMap<String, Figures>,
}

impl Report {
    /// The figures of a provider; zeros when it had no campaign.
    #[must_use]
    pub fn of(&self, provider: &str) -> Figures {
        self.figures.get(provider).copied().unwrap_or_default()
    }
}

/// What the witness saw of one recipient.
#[derive(Debug, Default)]
struct Seen {
    accepted: u32,
    refused: u32,
    ambiguous: u32,
}

/// Compares.
#[must_use]
pub fn check(books: &Books, witness: &[WitnessLine]) -> Report {
    let mut report = Report::default();
    let mut seen = read(books, witness, &mut report.faults);
    for entry in &books.entries {
        let of_entry = entry.to.as_ref().and_then(|to| seen.remove(&(entry.provider.clone(), to.clone())));
        judge(entry, &of_entry.unwrap_or_default(), &mut report);
    }
    for ((provider, to), of_stranger) in seen {
        if of_stranger.accepted > 0 {
            report.faults.unexpected.push(format!("{provider} {to}"));
        }
    }
    report
}

fn read(books: &Books, witness: &[WitnessLine], faults: &mut Faults) -> HashMap<(String, String), Seen> {
    let mut seen: HashMap<(String, String), Seen> = HashMap::new();
    let mut uses: HashMap<&str, u32> = HashMap::new();
    for (line, number) in witness.iter().zip(0..) {
        if line.seq != number + faults.missing_lines.len() as u64 {
            faults.missing_lines.push(format!("before {}", line.seq));
        }
        if let Some(token) = &line.token {
            *uses.entry(token).or_default() += 1;
            if !books.knows_token(token) {
                faults.untracked.push(format!("{} {token}", line.provider));
            }
        }
        for recipient in &line.recipients {
            let of_one = seen.entry((line.provider.clone(), recipient.to.clone())).or_default();
            match recipient.verdict {
                WitnessVerdict::Accepted => of_one.accepted += 1,
                WitnessVerdict::Refused => of_one.refused += 1,
                WitnessVerdict::Duplicate => {}
            }
            of_one.ambiguous += u32::from(AMBIGUOUS.contains(&line.mode.as_str()));
        }
    }
    faults.reused = uses.into_iter().filter(|(_, uses)| *uses > 1).map(|(token, _)| token.to_owned()).collect();
    seen
}

fn judge(entry: &Entry, seen: &Seen, report: &mut Report) {
    let faults = &mut report.faults;
    let name = || format!("{} {} ({}, {seen:?})", entry.provider, entry.seq, entry.state);
    let refused_by_nobody = entry.state == DeliveryState::Failed && seen.refused == 0;
    if !entry.state.is_final() || refused_by_nobody {
        faults.lost.push(name());
    }
    if entry.state == DeliveryState::Accepted && seen.accepted == 0 && entry.to.is_some() {
        faults.phantom.push(name());
    }
    if seen.accepted > 0 && !matches!(entry.state, DeliveryState::Accepted | DeliveryState::UnknownFinal) {
        faults.untrue.push(name());
    }
    if seen.accepted > 1 + entry.resends {
        faults.duplicated.push(name());
    }
    let figures = report.figures.entry(entry.provider.clone()).or_default();
    figures.recipients += 1;
    figures.acceptances += u64::from(seen.accepted);
    figures.extra += u64::from(seen.accepted.saturating_sub(1));
    figures.resends += u64::from(entry.resends);
    match entry.state {
        DeliveryState::Accepted => figures.accepted += 1,
        DeliveryState::UnknownFinal => {
            figures.undecided += 1;
            figures.undecided_by_kill += u64::from(seen.ambiguous == 0);
            figures.undecided_accepted += u64::from(seen.accepted > 0);
        }
        _ => {}
    }
}
