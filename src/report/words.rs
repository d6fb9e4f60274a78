//! Numbers, times and names as people read them.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::run::{Actor, Proof, Timestamp, Value};
use crate::store::Claimant;

/// A number with its thousands apart: `200,000`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun: `1 row`, `2 rows`.
#[must_use]
pub fn plural(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count(number))
}

/// A length of time in the two units that matter: `850ms`, `4.2s`, `3m 05s`, `2h 14m`, `3d 04h`.
#[must_use]
pub fn duration(ms: u64) -> String {
    const SECOND: u64 = 1_000;
    const MINUTE: u64 = 60 * SECOND;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match ms {
        0..SECOND => format!("{ms}ms"),
        SECOND..MINUTE => format!("{}.{}s", ms / SECOND, ms % SECOND / 100),
        MINUTE..HOUR => pair((ms / MINUTE, "m"), (ms % MINUTE / SECOND, "s")),
        HOUR..DAY => pair((ms / HOUR, "h"), (ms % HOUR / MINUTE, "m")),
        DAY.. => pair((ms / DAY, "d"), (ms % DAY / HOUR, "h")),
    }
}

fn pair((whole, unit): (u64, &str), (part, smaller): (u64, &str)) -> String {
    match part {
        0 => format!("{whole}{unit}"),
        _ => format!("{whole}{unit} {part:02}{smaller}"),
    }
}

/// How many rows a second; nothing when there was no time to tell.
#[must_use]
pub fn rate(rows: u64, took_ms: u64) -> Option<String> {
    let per_second = rows.checked_mul(1_000)?.checked_div(took_ms)?;
    Some(format!("{} rows/s", count(per_second)))
}

/// A point in time for people, in UTC to the second: `2026-01-31 09:05:00Z`.
#[must_use]
pub fn moment(at: Timestamp) -> String {
    utc(at).map_or_else(|| "?".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// A point in time for programs: RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn rfc3339(at: Timestamp) -> Option<String> {
    utc(at).map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn utc(at: Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(at.as_unix_ms())
}

/// Whoever holds a lock.
#[must_use]
pub fn holder(holder: &Claimant) -> String {
    format!("{} (pid {} on {})", holder.name, holder.pid, holder.host)
}

/// Who, and how the name is known: a claimed name is marked as such everywhere.
#[must_use]
pub fn actor(actor: &Actor) -> String {
    let proof = match actor.proof {
        Proof::Engine => return actor.name.clone(),
        Proof::Claimed => "claimed",
        Proof::Os => "os",
    };
    format!("{} ({proof}) on {}", actor.name, actor.host)
}

/// A value as a query gave it.
#[must_use]
pub fn value(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => format!("{text:?}"),
    }
}

/// The first line of a text, cut to a length in characters, so that a table stays a table.
#[must_use]
pub fn clipped(text: &str, most: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= most && text.lines().count() <= 1 {
        return line.to_owned();
    }
    let kept: String = line.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Control characters made visible, so that names and messages from databases can't move the cursor or change colours.
/// Line breaks and tabs stay.
#[must_use]
pub fn visible(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escape = c.is_control() && c != '\n' && c != '\t';
            if escape { c.escape_default().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_apart() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (200_000, "200,000")];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
        assert_eq!(count(1_234_567_890), "1,234,567,890");
        assert_eq!(plural(1, "row"), "1 row");
        assert_eq!(plural(0, "row"), "0 rows");
    }

    #[test]
    fn durations_show_two_units_at_most() {
        let cases = [
            (0, "0ms"),
            (999, "999ms"),
            (4_250, "4.2s"),
            (60_000, "1m"),
            (185_000, "3m 05s"),
            (8_040_000, "2h 14m"),
            (86_400_000, "1d"),
            (273_600_000, "3d 04h"),
        ];
        for (ms, text) in cases {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn times_are_utc() {
        let at = Timestamp::from_unix_ms(1_000_000_000_123);
        assert_eq!(moment(at), "2001-09-09 01:46:40Z");
        assert_eq!(rfc3339(at).unwrap(), "2001-09-09T01:46:40.123Z");
        assert_eq!(rfc3339(Timestamp::from_unix_ms(i64::MAX)), None);
    }

    #[test]
    fn a_rate_needs_time() {
        assert_eq!(rate(200_000, 4_000).unwrap(), "50,000 rows/s");
        assert_eq!(rate(200_000, 0), None);
    }

    #[test]
    fn long_and_many_lined_texts_are_cut_visibly() {
        assert_eq!(clipped("short", 10), "short");
        assert_eq!(clipped("one\ntwo", 10), "one…");
        assert_eq!(clipped("0123456789ab", 10), "012345678…");
    }

    #[test]
    fn control_characters_lose_their_power() {
        assert_eq!(visible("a\u{1b}[31mb\nc"), "a\\u{1b}[31mb\nc");
    }
}
