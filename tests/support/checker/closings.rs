//! Requests for somebody whom nothing may be sent to any more.

use std::collections::{HashMap, HashSet};

use dispatch_workers::sandbox::witness::WitnessLine;

use super::books::SHARED_DIGITS;

/// How far the clock that claims are written by may be from the witness's, milliseconds: each process carries it on by
/// itself.
pub(super) const CLOCKS_APART_MS: i64 = 100;

/// From a moment on nothing may be begun for these people.
#[derive(Debug, Clone)]
pub struct Closing {
    /// What closed it, for messages.
    pub what: &'static str,
    /// The witness's names of the people.
    pub people: HashSet<String>,
    /// When the call that closed it was answered, by the witness's clock.
    pub from_ms: i64,
    /// When it was opened again.
    pub until_ms: Option<i64>,
    /// Messages that the answer said were on their way.
    pub in_flight: u64,
}

/// What was sent behind a closed gate.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BehindGates {
    /// Messages in requests of attempts that began after the answer: there is no excuse for these.
    pub begun_after: Vec<String>,
    /// Messages of attempts that had begun before, and that were more than the answer had said were on their way: their
    /// process stood still between its last look at its deadline and its first byte.
    pub late: Vec<String>,
    /// Messages that came after the answer, as it had said.
    pub announced: u64,
}

/// When attempts were claimed, by the part of their token that their requests have.
#[derive(Debug, Default)]
pub struct Claims(HashMap<String, i64>);

impl Claims {
    /// Tokens and moments, milliseconds since 1970.
    #[must_use]
    pub fn new(attempts: impl IntoIterator<Item = ([u8; 16], i64)>) -> Self {
        let hex = |token: [u8; 16]| token.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self(attempts.into_iter().map(|(token, ms)| (hex(token)[..SHARED_DIGITS].to_owned(), ms)).collect())
    }

    /// Requests that came before their attempt was claimed.
    #[must_use]
    pub fn early(&self, witness: &[WitnessLine]) -> Vec<String> {
        let is_early = |line: &&WitnessLine| self.of(line).is_some_and(|claimed| line.t_ms + CLOCKS_APART_MS < claimed);
        witness.iter().filter(is_early).map(|line| format!("line {} at {}", line.seq, line.t_ms)).collect()
    }

    fn of(&self, line: &WitnessLine) -> Option<i64> {
        self.0.get(line.token.as_ref()?.get(..SHARED_DIGITS)?).copied()
    }
}

/// What the witness saw of people after their gates had closed.
#[must_use]
pub fn behind(closings: &[Closing], witness: &[WitnessLine], claims: &Claims) -> BehindGates {
    let mut found = BehindGates::default();
    for closing in closings {
        let after =
            |line: &&WitnessLine| line.t_ms > closing.from_ms && closing.until_ms.is_none_or(|until| line.t_ms < until);
        let mut left = closing.in_flight;
        for line in witness.iter().filter(after) {
            let messages = line.recipients.iter().filter(|recipient| closing.people.contains(&recipient.to)).count();
            for _ in 0..messages {
                let claimed = claims.of(line);
                let name = || {
                    let Closing { what, from_ms, in_flight, .. } = closing;
                    let WitnessLine { seq, t_ms, .. } = line;
                    format!(
                        "{what} at {from_ms}, {in_flight} on their way; line {seq} at {t_ms}, claimed at {claimed:?}"
                    )
                };
                // A request with a token of no attempt is untracked, and has no excuse either.
                let begun_after = match claimed {
                    Some(claimed) => claimed > closing.from_ms + CLOCKS_APART_MS,
                    None => line.token.is_some(),
                };
                if begun_after {
                    found.begun_after.push(name());
                } else if left > 0 {
                    left -= 1;
                    found.announced += 1;
                } else if claimed.is_some() {
                    found.late.push(name());
                } else {
                    // Without a token nothing says that it began before.
                    found.begun_after.push(name());
                }
            }
        }
    }
    found
}
