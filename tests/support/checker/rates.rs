//! How fast messages came.

use dispatch_workers::sandbox::witness::WitnessLine;

use crate::support::sandbox::accepted_in;

/// The most messages accepted in any so many milliseconds, wherever they begin.
#[must_use]
pub fn busiest<'a>(lines: impl IntoIterator<Item = &'a WitnessLine>, within_ms: i64) -> usize {
    let mut times: Vec<(i64, usize)> = lines.into_iter().map(|line| (line.t_ms, accepted_in(line))).collect();
    times.sort_unstable();
    let (mut busiest, mut inside, mut first) = (0, 0, 0);
    for (at, accepted) in &times {
        inside += accepted;
        while times[first].0 <= at - within_ms {
            inside -= times[first].1;
            first += 1;
        }
        busiest = busiest.max(inside);
    }
    busiest
}
