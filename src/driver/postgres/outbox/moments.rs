//! Dates, times and lengths of time as PostgreSQL writes them under `DateStyle` ISO, `TimeZone` UTC and `IntervalStyle`
//! `iso_8601`.
//!
//! Invariants:
//! - What is read is what was written, to the microsecond; what isn't of the form is `None`, and nothing is guessed.
//! - Years are astronomical: 1 BC is the year 0.
//!
//! Absent on purpose: `infinity`, which is told apart before, and 24:00:00, which PostgreSQL takes for a time of day and others
//! don't.

use crate::copy::row::Datum;

const DAY_SECONDS: i64 = 86_400;
const SECOND_NANOS: i64 = 1_000_000_000;

/// A date without its time: `2024-02-29`, `0044-03-15 BC`, `12024-01-01`.
pub(super) fn date(text: &str) -> Option<i64> {
    let (text, is_bc) = before_christ(text);
    days(text, is_bc)
}

/// A time of day: nanoseconds since midnight.
pub(super) fn time(text: &str) -> Option<i64> {
    let (hours, rest) = text.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    let (seconds, nanos) = seconds_of(seconds)?;
    let of_day = hours * 3_600 + minutes * 60 + seconds;
    (hours < 24 && minutes < 60 && seconds < 60).then_some(of_day * SECOND_NANOS + nanos)
}

/// A time of day in a zone: `12:30:00.5-05:30:15`.
pub(super) fn time_in_zone(text: &str) -> Option<Datum> {
    let (of_day, offset) = with_offset(text)?;
    Some(Datum::Time { nanos: time(of_day)?, offset })
}

/// A date and a time without a zone: seconds since 1970-01-01T00:00, and nanoseconds.
pub(super) fn date_time(text: &str) -> Option<(i64, u32)> {
    let (text, is_bc) = before_christ(text);
    let (day, of_day) = text.split_once(' ')?;
    moment(days(day, is_bc)?, time(of_day)?)
}

/// An instant: `2024-03-31 01:00:00.12+00`.
pub(super) fn instant(text: &str) -> Option<(i64, u32)> {
    let (text, is_bc) = before_christ(text);
    let (day, of_day) = text.split_once(' ')?;
    let (of_day, offset) = with_offset(of_day)?;
    let (seconds, nanos) = moment(days(day, is_bc)?, time(of_day)?)?;
    Some((seconds.checked_sub(i64::from(offset))?, nanos))
}

/// A length of time: `P1Y2M3DT-4H5M6.7S`, each part with a sign of its own. Seconds are rounded down and nanoseconds never
/// negative, as graph databases keep them.
pub(super) fn duration(text: &str) -> Option<Datum> {
    let text = text.strip_prefix('P')?;
    let (of_days, of_time) = match text.split_once('T') {
        Some((of_days, of_time)) if !of_time.is_empty() => (of_days, of_time),
        Some(_) => return None,
        None if text.is_empty() => return None,
        None => (text, ""),
    };
    let (mut months, mut days) = (0_i64, 0_i64);
    let mut rest = of_days;
    while !rest.is_empty() {
        let (number, unit, behind) = part(rest)?;
        let number: i64 = number.parse().ok()?;
        match unit {
            'Y' => months = months.checked_add(number.checked_mul(12)?)?,
            'M' => months = months.checked_add(number)?,
            'W' => days = days.checked_add(number.checked_mul(7)?)?,
            'D' => days = days.checked_add(number)?,
            _ => return None,
        }
        rest = behind;
    }
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    rest = of_time;
    while !rest.is_empty() {
        let (number, unit, behind) = part(rest)?;
        match unit {
            'H' => {
                seconds = seconds.checked_add(number.parse::<i64>().ok()?.checked_mul(3_600)?)?;
            }
            'M' => seconds = seconds.checked_add(number.parse::<i64>().ok()?.checked_mul(60)?)?,
            'S' => {
                // The sign of -0.5 is not in its whole part.
                let (sign, number) =
                    number.strip_prefix('-').map_or((1, number), |rest| (-1, rest));
                let (whole, fraction) = seconds_of(number)?;
                seconds = seconds.checked_add(sign * whole)?;
                nanos += sign * fraction;
            }
            _ => return None,
        }
        rest = behind;
    }
    seconds = seconds.checked_add(nanos.div_euclid(SECOND_NANOS))?;
    Some(Datum::Duration { months, days, seconds, nanos: nanos.rem_euclid(SECOND_NANOS) })
}

/// The number that a part of a length of time begins with, its unit, and what is behind.
fn part(text: &str) -> Option<(&str, char, &str)> {
    let at = text.find(|char: char| char.is_ascii_alphabetic())?;
    let unit = text[at..].chars().next()?;
    (at > 0).then(|| (&text[..at], unit, &text[at + 1..]))
}

fn before_christ(text: &str) -> (&str, bool) {
    text.strip_suffix(" BC").map_or((text, false), |text| (text, true))
}

fn moment(days: i64, nanos: i64) -> Option<(i64, u32)> {
    let seconds = days.checked_mul(DAY_SECONDS)?.checked_add(nanos / SECOND_NANOS)?;
    Some((seconds, u32::try_from(nanos % SECOND_NANOS).ok()?))
}

/// Days since 1970-01-01: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days(text: &str, is_bc: bool) -> Option<i64> {
    let (rest, day) = text.rsplit_once('-')?;
    let (year, month) = rest.rsplit_once('-')?;
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if is_bc { 1 - year } else { year };
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    Some(era * 146_097 + of_era - 719_468)
}

/// Splits a zone's offset off, in seconds ahead of UTC: `+00`, `-05:30`, `+05:30:15`.
fn with_offset(text: &str) -> Option<(&str, i32)> {
    let at = text.rfind(['+', '-'])?;
    let sign = if text[at..].starts_with('-') { -1 } else { 1 };
    let mut seconds = 0_i64;
    for (place, part) in text[at + 1..].split(':').enumerate() {
        let unit = *[3_600, 60, 1].get(place)?;
        seconds += digits(part, 2)? * unit;
    }
    Some((&text[..at], i32::try_from(sign * seconds).ok()?))
}

/// Whole seconds, and nanoseconds of the fraction.
fn seconds_of(text: &str) -> Option<(i64, i64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.len() > 9 {
        return None;
    }
    let scale = 10_i64.pow(9 - u32::try_from(fraction.len()).ok()?);
    Some((digits(whole, 1)?, digits(fraction, 1)? * scale))
}

/// A number of at least so many digits, and nothing else.
fn digits(text: &str, at_least: usize) -> Option<i64> {
    let is_number = text.len() >= at_least && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_counted_as_people_are_shown_them() {
        for (text, shown) in [
            ("1970-01-01", "1970-01-01"),
            ("2024-02-29", "2024-02-29"),
            ("0001-01-01", "0001-01-01"),
            ("0001-12-31 BC", "0000-12-31"),
            ("0044-03-15 BC", "-043-03-15"),
            ("12024-07-01", "12024-07-01"),
        ] {
            assert_eq!(Datum::Date(date(text).unwrap()).to_string(), shown, "{text}");
        }
        assert_eq!(date("1970-01-02"), Some(1));
        assert_eq!(date("4714-11-24 BC"), Some(-2_440_588));
        for wrong in
            ["", "infinity", "2024-13-01", "2024-1-01", "2024-01-00", "24-01-01", "-2024-01-01"]
        {
            assert_eq!(date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_have_fractions_and_zones() {
        assert_eq!(time("00:00:00"), Some(0));
        assert_eq!(time("01:02:03.000001"), Some(3_723_000_001_000));
        assert_eq!(time("23:59:59.999999"), Some(86_399_999_999_000));
        for wrong in ["24:00:00", "1:00:00", "00:60:00", "00:00", "00:00:00.", "x"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
        for (text, nanos, offset) in [
            ("00:00:00+00", 0, 0),
            ("00:00:01-05:30", 1_000_000_000, -19_800),
            ("00:00:00.5+05:30:15", 500_000_000, 19_815),
            ("00:00:00-00:00:30", 0, -30),
        ] {
            assert_eq!(time_in_zone(text), Some(Datum::Time { nanos, offset }), "{text}");
        }
        assert_eq!(time_in_zone("00:00:00"), None);
    }

    #[test]
    fn moments_are_counted_from_the_same_beginning_on_both_sides_of_it() {
        assert_eq!(date_time("1970-01-01 00:00:00"), Some((0, 0)));
        assert_eq!(date_time("1969-12-31 23:59:59.75"), Some((-1, 750_000_000)));
        assert_eq!(instant("1970-01-01 00:00:00+00"), Some((0, 0)));
        assert_eq!(instant("1970-01-01 00:00:00-01"), Some((3_600, 0)));
        assert_eq!(instant("0001-12-31 23:59:59.5+00 BC"), Some((-62_135_596_801, 500_000_000)));
        assert_eq!(instant("1970-01-01 00:00:00"), None);
    }

    #[test]
    fn lengths_of_time_keep_their_parts_apart() {
        for (text, months, days, seconds, nanos) in [
            ("PT0S", 0, 0, 0, 0),
            ("P1Y2M3DT-4H5M6.7S", 14, 3, -14_094, 700_000_000),
            ("PT-0.5S", 0, 0, -1, 500_000_000),
            ("PT-6.7S", 0, 0, -7, 300_000_000),
            ("P-1Y11M", -1, 0, 0, 0),
            ("PT2562047788H", 0, 0, 9_223_372_036_800, 0),
        ] {
            assert_eq!(
                duration(text),
                Some(Datum::Duration { months, days, seconds, nanos }),
                "{text}"
            );
        }
        for wrong in ["", "P", "PT", "1Y", "P1", "P1S", "PT1Y", "infinity", "PY"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
