//! The sending window on the command line.

use std::str::FromStr;

use dispatch_schemas::{
    api::sending_window::{SendingWindow, TimeOfDay, Zone},
    states::Weekday,
};

/// When a campaign may be sent. All three, or none.
#[derive(Debug, clap::Args)]
pub(super) struct WindowArgs {
    /// Only between these times of the day, as 08:00-20:00; past midnight, as 22:00-06:00
    #[arg(long = "window", value_name = "FROM-UNTIL", requires_all = ["window_days", "time_zone"])]
    hours: Option<Hours>,
    /// The days on which the window opens, as mon-fri or sat,sun
    #[arg(long, value_name = "DAYS", requires = "hours")]
    window_days: Option<Days>,
    /// The time zone of the window, as Europe/Paris
    #[arg(long, value_name = "ZONE", requires = "hours")]
    time_zone: Option<Zone>,
}

impl WindowArgs {
    /// The window, if one was given.
    pub(super) fn window(self) -> Option<SendingWindow> {
        let (Hours(start, end), Days(days), time_zone) = (self.hours?, self.window_days?, self.time_zone?);
        Some(SendingWindow { start, end, days, time_zone })
    }
}

/// Two times of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hours(TimeOfDay, TimeOfDay);

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (start, end) = text.split_once('-').ok_or("two times are wanted, as in 08:00-20:00")?;
        let time = |text: &str| text.trim().parse::<TimeOfDay>().map_err(|error| error.to_string());
        Ok(Self(time(start)?, time(end)?))
    }
}

/// Days of the week, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Days(Vec<Weekday>);

impl FromStr for Days {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let day = |text: &str| text.trim().parse::<Weekday>().map_err(|error| error.to_string());
        let mut days: Vec<Weekday> = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (day(first)?, day(last)?),
                None => (day(part)?, day(part)?),
            };
            let from_first = Weekday::ALL.iter().cycle().skip_while(|day| **day != first);
            for day in from_first.take(Weekday::ALL.len()) {
                if !days.contains(day) {
                    days.push(*day);
                }
                if *day == last {
                    break;
                }
            }
        }
        Ok(Self(days))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(text: &str) -> String {
        match text.parse::<Days>() {
            Ok(Days(days)) => days.iter().map(|day| day.as_str()).collect::<Vec<_>>().join(" "),
            Err(error) => error,
        }
    }

    #[test]
    fn days_are_named_or_span_from_one_to_another() {
        assert_eq!(days("mon-fri"), "mon tue wed thu fri");
        assert_eq!(days("sat,sun"), "sat sun");
        assert_eq!(days("fri-mon, wed"), "fri sat sun mon wed");
        assert_eq!(days("tue-tue"), "tue");
        assert_eq!(days("mon-sun"), "mon tue wed thu fri sat sun");
        assert_eq!(days("mon,mon-tue"), "mon tue");
        for wrong in ["", "monday", "mon-", "-", "mon,,tue"] {
            assert!(days(wrong).contains("is not a day of the week"), "{wrong}: {}", days(wrong));
        }
    }

    #[test]
    fn hours_are_two_times() {
        assert_eq!("22:00-06:00".parse(), Ok(Hours("22:00".parse().unwrap(), "06:00".parse().unwrap())));
        for wrong in ["", "08:00", "8-20", "08:00-25:00", "08:00-20:00-22:00"] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
    }
}
