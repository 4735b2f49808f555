//! What arrived at the provider, and when.

use dispatch_tests::support::{checker, sandbox::accepted_in};
use dispatch_workers::sandbox::witness::WitnessLine;

/// Messages that were accepted between these moments, milliseconds since 1970.
pub(crate) fn within(lines: &[WitnessLine], from_ms: i64, until_ms: i64) -> usize {
    lines.iter().filter(|line| (from_ms..until_ms).contains(&line.t_ms)).map(accepted_in).sum()
}

/// When the n-th message was accepted, milliseconds since 1970.
pub(crate) fn moment_of(lines: &[WitnessLine], nth: usize) -> i64 {
    let mut times: Vec<(i64, usize)> = lines.iter().map(|line| (line.t_ms, accepted_in(line))).collect();
    times.sort_unstable();
    let mut accepted = 0;
    let reached = |(_, more): &&(i64, usize)| {
        accepted += more;
        accepted >= nth
    };
    times.iter().find(reached).expect("so many were accepted").0
}

/// The most messages of any second between these moments. Those of a second arrive within less when the machine holds
/// the first of them up.
pub(crate) fn busiest_second(lines: &[WitnessLine], from_ms: i64, until_ms: i64, held_up_ms: i64) -> usize {
    let inside = lines.iter().filter(|line| (from_ms..until_ms).contains(&line.t_ms));
    let of = |within_ms| checker::busiest(inside.clone(), within_ms);
    let busiest = of(1_000 - held_up_ms);
    eprintln!("the busiest second: {}; {busiest} within {held_up_ms} ms less, by which one was held up", of(1_000));
    busiest
}

/// Prints what arrived second by second, for a person.
pub(crate) fn print_seconds(lines: &[WitnessLine], from_ms: i64, until_ms: i64) {
    let seconds: Vec<usize> =
        (from_ms..until_ms).step_by(1_000).map(|begin| within(lines, begin, begin + 1_000)).collect();
    eprintln!("second by second: {seconds:?}");
}
