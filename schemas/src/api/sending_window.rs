//! The hours in which a campaign may be sent.
//!
//! A window is open whenever a clock on the wall of its zone shows a time within it. That one rule settles both Sundays
//! on which the clocks change: a time that is skipped is never shown, so a window that begins with it opens when the
//! clock jumps over it; an hour that comes twice is within the window both times or neither.
//!
//! The zones and their rules (the IANA time zone database) are compiled in, so that all processes of an installation
//! agree and a container needs no files. A country that changes its rules needs a new build.

use std::{fmt, str::FromStr, sync::LazyLock};

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, DateTime, Time},
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::time::Moment;
use crate::states::Weekday;

/// How far ahead the next opening is looked for. A week holds every day of it, unless a zone left one out (Samoa had no
/// 30 December 2011).
const LOOK_AHEAD_DAYS: i64 = 15;

/// The hours of the day and the days of the week in which a campaign may be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendingWindow {
    /// When it opens, by the clocks of its zone.
    pub start: TimeOfDay,
    /// When it closes. Earlier than `start`, it is the time on the day after.
    pub end: TimeOfDay,
    /// The days on which it opens, one at least.
    pub days: Vec<Weekday>,
    /// Whose clocks.
    pub time_zone: Zone,
}

/// A window that could never open, or says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadWindow {
    /// It closes when it opens.
    #[error("it closes at the moment it opens; for a whole day give 00:00 as `start` and 24:00 as `end`")]
    Empty,
    /// It would open at the end of a day.
    #[error("a window cannot open at 24:00; give 00:00 and the day after")]
    OpensAtMidnightsEnd,
    /// It has no day.
    #[error("it opens on no day; name one at least")]
    NoDays,
}

impl SendingWindow {
    /// Whether it can open at all.
    ///
    /// # Errors
    /// [`BadWindow`] when it cannot.
    pub fn check(&self) -> Result<(), BadWindow> {
        match self {
            Self { days, .. } if days.is_empty() => Err(BadWindow::NoDays),
            Self { start: TimeOfDay::END, .. } => Err(BadWindow::OpensAtMidnightsEnd),
            Self { start, end, .. } if start == end => Err(BadWindow::Empty),
            _ => Ok(()),
        }
    }

    /// Whether it is open at a moment, milliseconds since 1970.
    #[must_use]
    pub fn is_open(&self, at_ms: i64) -> bool {
        self.is_open_at(timestamp(at_ms))
    }

    /// When it is open next, from a moment on, milliseconds since 1970: that moment itself while it is open. Nothing
    /// when it never is.
    #[must_use]
    pub fn opens_at(&self, from_ms: i64) -> Option<i64> {
        let from = timestamp(from_ms);
        if self.is_open_at(from) {
            return Some(from_ms);
        }
        let next = self.openings(from).filter(|at| *at > from && self.is_open_at(*at)).min()?;
        Some(next.as_millisecond())
    }

    fn is_open_at(&self, at: Timestamp) -> bool {
        let shown = self.time_zone.0.to_datetime(at);
        let (today, time) = (shown.date(), TimeOfDay::of(shown.time()));
        if self.start <= self.end {
            return self.opens_on(today) && self.start <= time && time < self.end;
        }
        (self.opens_on(today) && self.start <= time)
            || (time < self.end && today.yesterday().is_ok_and(|yesterday| self.opens_on(yesterday)))
    }

    fn opens_on(&self, date: Date) -> bool {
        self.days.contains(&weekday(date))
    }

    /// The moments after which it may be open though it was not before: its start on each day, and changes of the clock.
    fn openings(&self, from: Timestamp) -> impl Iterator<Item = Timestamp> {
        let zone = &self.time_zone.0;
        let until = from.saturating_add((LOOK_AHEAD_DAYS * 24).hours()).unwrap_or(Timestamp::MAX);
        let changes = zone.following(from).map(|change| change.timestamp()).take_while(move |at| *at <= until);
        let today = zone.to_datetime(from).date();
        let starts = (0..=LOOK_AHEAD_DAYS)
            .filter_map(move |day| today.checked_add(day.days()).ok())
            .flat_map(|date| shown_at(zone, date.to_datetime(self.start.as_time())));
        changes.chain(starts)
    }
}

/// The moments at which a zone's clocks show a time: one, two when an hour comes twice, none when it is skipped.
fn shown_at(zone: &TimeZone, shown: DateTime) -> impl Iterator<Item = Timestamp> {
    let offsets = match zone.to_ambiguous_timestamp(shown).offset() {
        AmbiguousOffset::Unambiguous { offset } => [Some(offset), None],
        AmbiguousOffset::Fold { before, after } => [Some(before), Some(after)],
        AmbiguousOffset::Gap { .. } => [None, None],
    };
    offsets.into_iter().flatten().filter_map(move |offset| offset.to_timestamp(shown).ok())
}

fn timestamp(ms: i64) -> Timestamp {
    // `Moment` keeps within what a calendar can show.
    Timestamp::from_millisecond(Moment::from_ms(ms).as_ms()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn weekday(date: Date) -> Weekday {
    match date.weekday() {
        jiff::civil::Weekday::Monday => Weekday::Monday,
        jiff::civil::Weekday::Tuesday => Weekday::Tuesday,
        jiff::civil::Weekday::Wednesday => Weekday::Wednesday,
        jiff::civil::Weekday::Thursday => Weekday::Thursday,
        jiff::civil::Weekday::Friday => Weekday::Friday,
        jiff::civil::Weekday::Saturday => Weekday::Saturday,
        jiff::civil::Weekday::Sunday => Weekday::Sunday,
    }
}

/// A time of the day to the minute, from 00:00 to 24:00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u32);

/// The text is not a time of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time of the day is wanted here, from 00:00 to 24:00, as in 08:30")]
pub struct NotATime;

impl TimeOfDay {
    /// The end of the day.
    pub const END: Self = Self(24 * 60 * 60);

    /// What a clock shows, to the second: a window closes at its minute's beginning.
    fn of(time: Time) -> Self {
        let [hour, minute, second] =
            [time.hour(), time.minute(), time.second()].map(|part| u32::from(part.unsigned_abs()));
        Self((hour * 60 + minute) * 60 + second)
    }

    /// As a calendar knows it; the end of the day is not among its times.
    fn as_time(self) -> Time {
        let part = |part: u32| i8::try_from(part).unwrap_or(0);
        Time::new(part(self.0 / 3_600), part(self.0 / 60 % 60), 0, 0).unwrap_or(Time::midnight())
    }
}

impl FromStr for TimeOfDay {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let (hour, minute) = text.split_once(':').ok_or(NotATime)?;
        let number = |part: &str| match part.as_bytes() {
            [b'0'..=b'9', b'0'..=b'9'] => part.parse::<u32>().map_err(|_| NotATime),
            _ => Err(NotATime),
        };
        match (number(hour)?, number(minute)?) {
            (hour @ 0..=23, minute @ 0..=59) => Ok(Self((hour * 60 + minute) * 60)),
            (24, 0) => Ok(Self::END),
            _ => Err(NotATime),
        }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 3_600, self.0 / 60 % 60)
    }
}

/// A time zone of the IANA database.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// The text is not the name of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time zone of the IANA database is wanted here, as in Europe/Paris")]
pub struct NoSuchZone;

impl Zone {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }
}

impl FromStr for Zone {
    type Err = NoSuchZone;

    fn from_str(name: &str) -> Result<Self, NoSuchZone> {
        static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
        let zone = ZONES.get(name).map_err(|_| NoSuchZone)?;
        // `Etc/Unknown` is known, and says nothing.
        if zone.is_unknown() || zone.iana_name().is_none() { Err(NoSuchZone) } else { Ok(Self(zone)) }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! as_text {
    ($($name:ident, $example:literal;)+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .examples([$example])
                    .into()
            }
        }

        impl ToSchema for $name {}
    )+};
}

as_text! {
    TimeOfDay, "08:30";
    Zone, "Europe/Paris";
}

#[cfg(test)]
#[path = "sending_window_tests.rs"]
mod tests;
