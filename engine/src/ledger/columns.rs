//! Reading columns of either database, and writing what they hold.

use std::str::FromStr;

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{ColumnIndex, Decode, Row, Type};

use super::{LedgerError, Result};

/// Most deliveries of one attempt that are believed.
const ATTEMPT_MAX: i64 = 100_000;

/// A column that holds one word of a closed set.
pub(super) fn word<'r, R, T>(row: &'r R, column: &'static str) -> Result<T>
where
    R: Row,
    T: FromStr,
    &'static str: ColumnIndex<R>,
    &'r str: Decode<'r, R::Database> + Type<R::Database>,
{
    row.try_get::<&str, _>(column)?.parse().map_err(|_| LedgerError::Corrupt("a word of a state or kind"))
}

/// A column that holds such a word or nothing.
pub(super) fn optional_word<'r, R, T>(row: &'r R, column: &'static str) -> Result<Option<T>>
where
    R: Row,
    T: FromStr,
    &'static str: ColumnIndex<R>,
    Option<&'r str>: Decode<'r, R::Database> + Type<R::Database>,
{
    let text = row.try_get::<Option<&str>, _>(column)?;
    text.map(|text| text.parse().map_err(|_| LedgerError::Corrupt("a word of a state or kind"))).transpose()
}

/// A column that holds JSON.
pub(super) fn json<'r, R, T>(row: &'r R, column: &'static str) -> Result<T>
where
    R: Row,
    T: DeserializeOwned,
    &'static str: ColumnIndex<R>,
    &'r str: Decode<'r, R::Database> + Type<R::Database>,
{
    serde_json::from_str(row.try_get::<&str, _>(column)?).map_err(|_| LedgerError::Corrupt("a JSON column"))
}

/// A column that holds JSON or nothing.
pub(super) fn optional_json<'r, R, T>(row: &'r R, column: &'static str) -> Result<Option<T>>
where
    R: Row,
    T: DeserializeOwned,
    &'static str: ColumnIndex<R>,
    Option<&'r str>: Decode<'r, R::Database> + Type<R::Database>,
{
    let text = row.try_get::<Option<&str>, _>(column)?;
    text.map(|text| serde_json::from_str(text).map_err(|_| LedgerError::Corrupt("a JSON column"))).transpose()
}

/// As JSON, for a column or a parameter.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|_| LedgerError::Corrupt("a value that is no JSON"))
}

/// Hexadecimal digits of a hash, as people and SQLite's `unhex` read them.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Ascending numbers as JSON ranges `[[first, last], …]`.
pub(super) fn json_ranges(numbers: &[i64]) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let pairs: Vec<String> = ranges.iter().map(|(first, last)| format!("[{first},{last}]")).collect();
    format!("[{}]", pairs.join(","))
}

/// The numbers of such ranges.
pub(super) fn numbers(ranges: &str) -> Result<Vec<i64>> {
    let corrupt = || LedgerError::Corrupt("an attempt's ranges");
    let ranges: Vec<(i64, i64)> = serde_json::from_str(ranges).map_err(|_| corrupt())?;
    let mut left = ATTEMPT_MAX;
    let mut numbers = Vec::new();
    for (first, last) in ranges {
        left = last
            .checked_sub(first)
            .and_then(|span| left.checked_sub(span.checked_add(1)?))
            .filter(|left| *left >= 0 && first <= last)
            .ok_or_else(corrupt)?;
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

/// Whether ascending numbers follow one another without a gap: then two of them say it all. The first and the last.
pub(super) fn run(numbers: &[i64]) -> Option<(i64, i64)> {
    let (first, last) = (*numbers.first()?, *numbers.last()?);
    let is_run = last.checked_sub(first)? == i64::try_from(numbers.len()).ok()? - 1
        && numbers.is_sorted_by(|number, next| number < next);
    is_run.then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_tell_their_numbers_back() {
        for given in [vec![], vec![7], vec![0, 1, 2], vec![0, 2, 3, 9, 10, 11]] {
            assert_eq!(numbers(&json_ranges(&given)).unwrap(), given);
        }
    }

    #[test]
    fn ranges_that_no_claim_wrote_are_refused() {
        for ranges in
            ["", "[[3,2]]", "[[0,9223372036854775807]]", "[[-9223372036854775808,1]]", "[[0,1,2]]", "[[0,1000000]]"]
        {
            assert!(numbers(ranges).is_err(), "{ranges}");
        }
    }

    #[test]
    fn only_numbers_without_a_gap_are_a_run() {
        assert_eq!(run(&[4, 5, 6]), Some((4, 6)));
        assert_eq!(run(&[4]), Some((4, 4)));
        for numbers in [vec![], vec![4, 6], vec![4, 4, 6], vec![6, 5, 4], vec![4, 6, 5]] {
            assert_eq!(run(&numbers), None, "{numbers:?}");
        }
    }
}
