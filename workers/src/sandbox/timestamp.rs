//! Points in time as the providers write them.

/// `2030-01-01T09:00:00.000` of milliseconds since 1970; the offset from UTC is the vendor's to append.
pub(super) fn utc(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = date(days);
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// Year, month and day in the Gregorian calendar, of days since 1970-01-01.
///
/// Counts in years that begin in March, so that the leap day is a year's last; 400 such years have 146,097 days.
fn date(days: i64) -> (i64, i64, i64) {
    let since_march_of_year_0 = days + 719_468;
    let era = since_march_of_year_0.div_euclid(146_097);
    let of_era = since_march_of_year_0.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_the_gregorian_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000"),
            (-1, "1969-12-31T23:59:59.999"),
            (951_782_400_000, "2000-02-29T00:00:00.000"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000"),
            (1_893_488_400_123, "2030-01-01T09:00:00.123"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }

    #[test]
    fn the_day_after_a_day_is_the_next_of_its_month_or_the_first_of_the_next() {
        let mut before = date(-1_000);
        for days in -999..200_000 {
            let (year, month, day) = date(days);
            assert!(
                (year, month, day) == (before.0, before.1, before.2 + 1)
                    || ((year, month, day) == (before.0, before.1 + 1, 1) && before.2 >= 28)
                    || ((year, month, day) == (before.0 + 1, 1, 1) && (before.1, before.2) == (12, 31)),
                "{before:?} is followed by {year}-{month}-{day}"
            );
            before = (year, month, day);
        }
    }
}
