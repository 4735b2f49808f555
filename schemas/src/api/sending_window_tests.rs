use super::*;

fn window(hours: &str, days: &[Weekday], zone: &str) -> SendingWindow {
    let (start, end) = hours.split_once('-').unwrap();
    SendingWindow {
        start: start.parse().unwrap(),
        end: end.parse().unwrap(),
        days: days.to_vec(),
        time_zone: zone.parse().unwrap(),
    }
}

fn at(moment: &str) -> i64 {
    moment.parse::<Moment>().unwrap().as_ms()
}

/// When it opens and closes in the days from a moment on, looked at minute by minute.
fn changes(window: &SendingWindow, from: &str, days: i64) -> Vec<(String, bool)> {
    let zone = &window.time_zone.0;
    let mut last = window.is_open(at(from));
    let mut changes = Vec::new();
    for minute in 1..days * 24 * 60 {
        let ms = at(from) + minute * 60_000;
        if window.is_open(ms) != last {
            last = !last;
            let shown = zone.to_datetime(timestamp(ms)).strftime("%a %H:%M").to_string();
            let ahead_min = zone.to_offset(timestamp(ms)).seconds() / 60;
            changes.push((format!("{shown} {:+03}:{:02}", ahead_min / 60, ahead_min % 60), last));
        }
    }
    changes
}

fn told(changes: &[(String, bool)]) -> Vec<(&str, bool)> {
    changes.iter().map(|(at, open)| (at.as_str(), *open)).collect()
}

const EVERY_DAY: &[Weekday] = Weekday::ALL;

#[test]
fn it_is_open_from_its_start_to_before_its_end_on_its_days() {
    let window = window("08:00-20:00", &Weekday::ALL[..5], "Europe/Paris");
    // A Friday in winter: one hour ahead of UTC.
    assert!(!window.is_open(at("2027-01-15T06:59:59.999Z")));
    assert!(window.is_open(at("2027-01-15T07:00:00Z")));
    assert!(window.is_open(at("2027-01-15T18:59:59.999Z")));
    assert!(!window.is_open(at("2027-01-15T19:00:00Z")));
    assert_eq!(window.opens_at(at("2027-01-15T12:00:00Z")), Some(at("2027-01-15T12:00:00Z")));
    assert_eq!(window.opens_at(at("2027-01-15T03:00:00Z")), Some(at("2027-01-15T07:00:00Z")));
    // On a Saturday the next one is Monday's.
    assert!(!window.is_open(at("2027-01-16T12:00:00Z")));
    assert_eq!(window.opens_at(at("2027-01-16T12:00:00Z")), Some(at("2027-01-18T07:00:00Z")));
}

#[test]
fn past_midnight_it_belongs_to_the_day_it_opened_on() {
    let window = window("22:00-06:00", &[Weekday::Friday], "UTC");
    let changes = changes(&window, "2027-01-11T00:00:00Z", 7);
    assert_eq!(told(&changes), [("Fri 22:00 +00:00", true), ("Sat 06:00 +00:00", false)]);
    assert_eq!(window.opens_at(at("2027-01-16T06:00:00Z")), Some(at("2027-01-22T22:00:00Z")));
}

#[test]
fn a_whole_day_is_from_midnight_to_midnight() {
    let day = window("00:00-24:00", &[Weekday::Sunday], "Asia/Kolkata");
    let first = changes(&day, "2027-01-11T00:00:00Z", 7);
    assert_eq!(told(&first), [("Sun 00:00 +05:30", true), ("Mon 00:00 +05:30", false)]);
    let evening = window("20:00-24:00", &[Weekday::Sunday], "UTC");
    let midnight = window("20:00-00:00", &[Weekday::Sunday], "UTC");
    let both = changes(&evening, "2027-01-11T00:00:00Z", 9);
    assert_eq!(told(&both), [("Sun 20:00 +00:00", true), ("Mon 00:00 +00:00", false)]);
    assert_eq!(both, changes(&midnight, "2027-01-11T00:00:00Z", 9));
}

#[test]
fn a_time_that_is_skipped_is_passed_with_the_jump() {
    // On 28 March 2027 the clocks of Paris go from 02:00 to 03:00, at 01:00 UTC.
    let (from, jump) = ("2027-03-27T23:00:00Z", at("2027-03-28T01:00:00Z"));
    let begins_in_gap = window("02:30-04:00", EVERY_DAY, "Europe/Paris");
    assert_eq!(told(&changes(&begins_in_gap, from, 1)), [("Sun 03:00 +02:00", true), ("Sun 04:00 +02:00", false)]);
    assert_eq!(begins_in_gap.opens_at(at(from)), Some(jump));
    let ends_in_gap = window("01:00-02:30", EVERY_DAY, "Europe/Paris");
    assert_eq!(told(&changes(&ends_in_gap, from, 1)), [("Sun 01:00 +01:00", true), ("Sun 03:00 +02:00", false)]);
    let all_in_gap = window("02:15-02:45", EVERY_DAY, "Europe/Paris");
    assert_eq!(changes(&all_in_gap, from, 1), []);
    assert_eq!(all_in_gap.opens_at(at(from)), Some(at("2027-03-29T00:15:00Z")), "the day after");
}

#[test]
fn an_hour_that_comes_twice_is_within_it_both_times() {
    // On 31 October 2027 the clocks of Paris go back from 03:00 to 02:00, at 01:00 UTC.
    let from = "2027-10-30T22:00:00Z";
    let inside = window("01:00-05:00", EVERY_DAY, "Europe/Paris");
    assert_eq!(told(&changes(&inside, from, 1)), [("Sun 01:00 +02:00", true), ("Sun 05:00 +01:00", false)]);
    let half = window("02:30-04:00", EVERY_DAY, "Europe/Paris");
    assert_eq!(
        told(&changes(&half, from, 1)),
        [
            ("Sun 02:30 +02:00", true),
            ("Sun 02:00 +01:00", false),
            ("Sun 02:30 +01:00", true),
            ("Sun 04:00 +01:00", false),
        ]
    );
    assert_eq!(half.opens_at(at(from)), Some(at("2027-10-31T00:30:00Z")));
    assert_eq!(half.opens_at(at("2027-10-31T01:00:00Z")), Some(at("2027-10-31T01:30:00Z")));
    // It closes, and the clock goes back into it.
    let early = window("01:00-02:30", EVERY_DAY, "Europe/Paris");
    assert_eq!(early.opens_at(at("2027-10-31T00:30:00Z")), Some(at("2027-10-31T01:00:00Z")));
}

#[test]
fn a_midnight_that_is_skipped_does_not_lose_the_day() {
    // On 30 April 2027 the clocks of Cairo go from 00:00 to 01:00.
    let window = window("00:00-12:00", &[Weekday::Friday], "Africa/Cairo");
    assert_eq!(window.opens_at(at("2027-04-29T12:00:00Z")), Some(at("2027-04-29T22:00:00Z")));
}

#[test]
fn a_day_that_a_zone_left_out_is_waited_for_another_week() {
    // Samoa crossed the date line: after 29 December 2011, a Thursday, came 31 December.
    let window = window("08:00-09:00", &[Weekday::Friday], "Pacific/Apia");
    assert_eq!(window.opens_at(at("2011-12-24T00:00:00Z")), Some(at("2012-01-05T18:00:00Z")));
}

#[test]
fn the_next_opening_is_the_first_moment_it_is_open() {
    for zone in ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"] {
        for hours in ["00:30-02:15", "02:00-02:30", "23:00-02:30", "08:00-20:00"] {
            let window = window(hours, &[Weekday::Sunday, Weekday::Wednesday], zone);
            for from in ["2027-03-13T00:00:00Z", "2027-04-03T00:00:00Z", "2027-10-30T00:00:00Z"] {
                let minutes = (0..).map(|minute| at(from) + minute * 60_000);
                let first = minutes.into_iter().find(|ms| window.is_open(*ms)).unwrap();
                assert_eq!(window.opens_at(at(from)), Some(first), "{zone} {hours} {from}");
            }
        }
    }
}

#[test]
fn what_cannot_open_is_refused_and_never_open() {
    for (window, why) in [
        (window("08:00-08:00", EVERY_DAY, "UTC"), BadWindow::Empty),
        (window("24:00-08:00", EVERY_DAY, "UTC"), BadWindow::OpensAtMidnightsEnd),
        (window("08:00-20:00", &[], "UTC"), BadWindow::NoDays),
    ] {
        assert_eq!(window.check(), Err(why));
    }
    let never = window("08:00-08:00", EVERY_DAY, "UTC");
    assert_eq!((never.is_open(at("2027-01-15T08:00:00Z")), never.opens_at(0)), (false, None));
    assert_eq!(window("08:00-24:00", &[Weekday::Monday], "UTC").check(), Ok(()));
}

#[test]
fn moments_out_of_any_calendar_do_no_harm() {
    let window = window("22:00-06:00", EVERY_DAY, "Pacific/Kiritimati");
    for ms in [i64::MIN, i64::MAX, Timestamp::MIN.as_millisecond(), Timestamp::MAX.as_millisecond()] {
        let _ = (window.is_open(ms), window.opens_at(ms));
    }
}

#[test]
fn it_is_written_as_it_is_read() {
    let text = r#"{"start":"08:00","end":"24:00","days":["mon","sun"],"time_zone":"Europe/Paris"}"#;
    let read: SendingWindow = serde_json::from_str(text).unwrap();
    assert_eq!(read, window("08:00-24:00", &[Weekday::Monday, Weekday::Sunday], "europe/paris"));
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    for bad in ["8:00", "08:60", "24:01", "08:00:00", "-1:00", "0800", "", "+8:00", "０８:00"] {
        assert_eq!(bad.parse::<TimeOfDay>(), Err(NotATime), "{bad}");
    }
    for bad in ["", "Paris", "Europe/", "../../etc/passwd", "Etc/Unknown", "UTC+1", "\0"] {
        assert_eq!(bad.parse::<Zone>(), Err(NoSuchZone), "{bad}");
    }
    assert_eq!("UTC".parse::<Zone>().unwrap().to_string(), "UTC");
}
