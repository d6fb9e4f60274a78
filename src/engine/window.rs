//! What the clocks of a time zone make of a moment, and when a window changes next.
//!
//! Absent on purpose: any opinion of when a window is open. That is `run::window`'s, which knows no time zone.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike as _, Days, NaiveDate, NaiveTime, TimeZone as _, Timelike as _};
use chrono_tz::Tz;

use crate::bounds::engine::WINDOW_DAYS_AHEAD;
use crate::run::{Date, LocalTime, Timestamp, Weekday, Window, WindowSeen};

/// Whether a window is open at a moment, and when that changes.
pub(super) fn look(window: &Window, now: Timestamp) -> Result<WindowSeen, String> {
    let zone: Tz =
        window.zone.parse().map_err(|_| format!("there is no time zone {}", window.zone))?;
    let here = local(zone, now).ok_or("the state store's clock shows no usable time")?;
    let shut = window.shut_at(&local_time(&here));
    let changes = change(window, zone, now, shut.is_none());
    let changes = changes.and_then(|at| {
        let words = local(zone, at)?.format("%a %Y-%m-%d %H:%M").to_string();
        Some((at, format!("{words} {}", window.zone)))
    });
    Ok(WindowSeen { shut, changes })
}

fn local(zone: Tz, at: Timestamp) -> Option<DateTime<Tz>> {
    Some(DateTime::from_timestamp_millis(at.as_unix_ms())?.with_timezone(&zone))
}

fn local_time(at: &DateTime<Tz>) -> LocalTime {
    let date = at.date_naive();
    let minute = at.hour() * 60 + at.minute();
    let weekday = Weekday::ALL[at.weekday().num_days_from_monday() as usize % 7];
    LocalTime {
        date: written(date),
        eve: written(date.pred_opt().unwrap_or(date)),
        weekday,
        minute: u16::try_from(minute).unwrap_or(0),
    }
}

fn written(date: NaiveDate) -> Date {
    Date::new(date.format("%Y-%m-%d").to_string())
}

/// The first moment behind `now` at which the window is no longer what it is. Local clocks make it change only at the edges
/// of hours, at midnight, and where they jump; so only those moments are looked at.
fn change(window: &Window, zone: Tz, now: Timestamp, is_open: bool) -> Option<Timestamp> {
    let today = local(zone, now)?.date_naive();
    let edges = window.edges();
    // Without freezes everything comes again after a week, or two where a jump swallows an hour.
    let last = window.freezes.iter().map(|freeze| freeze.to.as_str()).max();
    let last = last.and_then(|last| last.parse::<NaiveDate>().ok());
    let days = last.map_or(0, |last| (last - today).num_days().max(0)).unsigned_abs() + 16;
    for ahead in 0..days.min(WINDOW_DAYS_AHEAD) {
        let day = today.checked_add_days(Days::new(ahead))?;
        for at in moments(zone, day, &edges) {
            let differs = || {
                let there = local(zone, at)?;
                Some(window.shut_at(&local_time(&there)).is_none() != is_open)
            };
            if at > now && differs() == Some(true) {
                return Some(at);
            }
        }
    }
    None
}

/// The moments of a local day at which something may change, in order. An edge that a jump swallows is none; one that comes
/// twice is two.
fn moments(zone: Tz, day: NaiveDate, edges: &BTreeSet<u16>) -> BTreeSet<Timestamp> {
    let at_minute = |minute: &u16| {
        let minute = u32::from(*minute);
        let time = NaiveTime::from_hms_opt(minute / 60, minute % 60, 0)?;
        Some(zone.from_local_datetime(&day.and_time(time)))
    };
    let mut moments: BTreeSet<Timestamp> = BTreeSet::new();
    for found in edges.iter().filter_map(at_minute) {
        let both = [found.earliest(), found.latest()];
        moments.extend(both.into_iter().flatten().map(|at| stamp(&at)));
    }
    moments.extend(jump(zone, day));
    moments
}

fn stamp(at: &DateTime<Tz>) -> Timestamp {
    Timestamp::from_unix_ms(at.timestamp_millis())
}

/// The moment at which the local clocks jump in the day before this day's noon, if they do. Noon itself is never jumped over.
fn jump(zone: Tz, day: NaiveDate) -> Option<Timestamp> {
    let noon = |day: NaiveDate| {
        zone.from_local_datetime(&day.and_time(NaiveTime::from_hms_opt(12, 0, 0)?)).earliest()
    };
    let (mut before, mut after) = (noon(day.pred_opt()?)?.timestamp(), noon(day)?.timestamp());
    let offset = |at: i64| {
        let there = zone.timestamp_opt(at, 0).earliest()?;
        Some(there.naive_local().and_utc().timestamp() - at)
    };
    let old = offset(before)?;
    if offset(after)? == old {
        return None;
    }
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        if offset(middle)? == old {
            before = middle;
        } else {
            after = middle;
        }
    }
    Some(Timestamp::from_unix_ms(after * 1_000))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::run::{Freeze, Hours};

    fn window(days: &[Weekday], hours: (u16, u16), zone: &str) -> Window {
        Window {
            days: days.iter().copied().collect(),
            hours: vec![Hours { from: hours.0, to: hours.1 }],
            zone: zone.into(),
            freezes: Vec::new(),
        }
    }

    fn at(utc: &str) -> Timestamp {
        Timestamp::from_unix_ms(DateTime::parse_from_rfc3339(utc).unwrap().timestamp_millis())
    }

    /// The next change, in UTC.
    fn next(window: &Window, now: &str) -> (bool, String) {
        let seen = look(window, at(now)).unwrap();
        let changes = seen
            .changes
            .map(|(at, _)| DateTime::from_timestamp_millis(at.as_unix_ms()).unwrap().to_rfc3339());
        let changes = changes.map_or("never".to_owned(), |at| at.replace(":00+00:00", "Z"));
        (seen.shut.is_none(), changes)
    }

    #[track_caller]
    fn check(window: &Window, cases: &[(&str, bool, &str)]) {
        for (now, is_open, changes) in cases {
            assert_eq!(next(window, now), (*is_open, (*changes).to_owned()), "at {now}");
        }
    }

    #[test]
    fn a_night_is_open_until_the_next_morning_of_its_zone() {
        use Weekday::{Fri, Sat};
        let night = window(&[Fri, Sat], (22 * 60, 6 * 60), "Europe/Berlin");
        check(
            &night,
            &[
                ("2026-11-20T20:59:59Z", false, "2026-11-20T21:00Z"),
                ("2026-11-20T21:00:00Z", true, "2026-11-21T05:00Z"),
                ("2026-11-21T04:59:59Z", true, "2026-11-21T05:00Z"),
                ("2026-11-21T05:00:00Z", false, "2026-11-21T21:00Z"),
                ("2026-11-22T05:00:00Z", false, "2026-11-27T21:00Z"),
                // In summer Berlin is two hours ahead.
                ("2026-07-03T19:59:59Z", false, "2026-07-03T20:00Z"),
                ("2026-07-03T20:00:00Z", true, "2026-07-04T04:00Z"),
            ],
        );
    }

    #[test]
    fn an_hour_that_is_skipped_opens_nothing() {
        // On the 29th of March 2026 Berlin goes from 02:00 to 03:00.
        let skipped = window(&Weekday::ALL, (2 * 60 + 15, 2 * 60 + 45), "Europe/Berlin");
        check(&skipped, &[("2026-03-28T12:00:00Z", false, "2026-03-30T00:15Z")]);
        let across = window(&Weekday::ALL, (2 * 60 + 30, 4 * 60), "Europe/Berlin");
        check(
            &across,
            &[
                ("2026-03-29T00:59:59Z", false, "2026-03-29T01:00Z"),
                ("2026-03-29T01:00:00Z", true, "2026-03-29T02:00Z"),
            ],
        );
        // Sundays only: this Sunday's is swallowed, and the next one's is found.
        let sundays = window(&[Weekday::Sun], (2 * 60 + 15, 2 * 60 + 45), "Europe/Berlin");
        check(&sundays, &[("2026-03-23T12:00:00Z", false, "2026-04-05T00:15Z")]);
    }

    #[test]
    fn an_hour_that_comes_twice_opens_twice() {
        // On the 25th of October 2026 Berlin goes from 03:00 back to 02:00.
        let twice = window(&Weekday::ALL, (2 * 60 + 15, 2 * 60 + 45), "Europe/Berlin");
        check(
            &twice,
            &[
                ("2026-10-25T00:00:00Z", false, "2026-10-25T00:15Z"),
                ("2026-10-25T00:15:00Z", true, "2026-10-25T00:45Z"),
                ("2026-10-25T00:45:00Z", false, "2026-10-25T01:15Z"),
                ("2026-10-25T01:15:00Z", true, "2026-10-25T01:45Z"),
            ],
        );
        // It shuts where the clocks jump back in front of its beginning.
        let late = window(&Weekday::ALL, (2 * 60 + 30, 3 * 60 + 30), "Europe/Berlin");
        check(
            &late,
            &[
                ("2026-10-25T00:30:00Z", true, "2026-10-25T01:00Z"),
                ("2026-10-25T01:00:00Z", false, "2026-10-25T01:30Z"),
                ("2026-10-25T01:30:00Z", true, "2026-10-25T02:30Z"),
            ],
        );
    }

    #[test]
    fn a_day_without_midnight_begins_where_its_clocks_do() {
        // On the 8th of September 2024 Santiago went from 00:00 to 01:00, so its Sunday began at 01:00.
        let sunday = window(&[Weekday::Sun], (0, 1_440), "America/Santiago");
        check(
            &sunday,
            &[
                ("2024-09-08T03:59:59Z", false, "2024-09-08T04:00Z"),
                ("2024-09-08T04:00:00Z", true, "2024-09-09T03:00Z"),
            ],
        );
    }

    #[test]
    fn freezes_are_days_of_the_zone_and_may_be_long() {
        let mut always = window(&Weekday::ALL, (0, 1_440), "Asia/Tokyo");
        check(&always, &[("2026-11-20T12:00:00Z", true, "never")]);
        always.freezes = vec![Freeze {
            from: Date::new("2026-12-20"),
            to: Date::new("2027-01-10"),
            reason: Some("holidays".into()),
        }];
        check(
            &always,
            &[
                ("2026-11-20T12:00:00Z", true, "2026-12-19T15:00Z"),
                ("2026-12-19T15:00:00Z", false, "2027-01-10T15:00Z"),
                ("2027-01-10T15:00:00Z", true, "never"),
            ],
        );
        let shut = look(&always, at("2026-12-25T00:00:00Z")).unwrap().shut.unwrap();
        assert_eq!(shut, "frozen 2026-12-20 to 2027-01-10: holidays");
    }

    #[test]
    fn a_zone_that_is_not_there_is_no_window() {
        let nowhere = window(&Weekday::ALL, (0, 1_440), "Europe/Berlinn");
        assert!(look(&nowhere, at("2026-11-20T12:00:00Z")).unwrap_err().contains("Berlinn"));
    }
}
