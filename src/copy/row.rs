//! Rows as they cross from one database into another, or stand in two of them to be compared: what a value is, whichever database
//! it came from, and when two of them are the same.
//!
//! Invariants:
//! - Two values are the same exactly when their encodings are the same bytes. The encoding has types and lengths in it, so that
//!   no two different values, or lists of values, run together.
//! - What isn't there has no value: NULL in a table and an absent property are one thing, and stand in no row.
//! - Nothing is rounded, folded or trimmed. Numbers with a fraction are the same when their bits are, but that every NaN is one, and
//!   that zero has no sign: Neo4j takes 0.0 written over -0.0 for no change. Moments are the same when the instant is, whatever the
//!   zone.
//!
//! Temporal values are counted from 1970-01-01 in the ISO calendar, as Bolt and PostgreSQL both can. Absent on purpose: how a database
//! writes values down, which its driver knows, and keys' order.

use std::collections::{BTreeMap, BTreeSet};

use crate::bounds::message::{VALUE_CHARS_MAX, VALUES_MAX};
use crate::run::{ColumnValues, Difference, DifferenceKind, ShownValue};

/// A value that isn't NULL.
#[derive(Clone, Debug)]
pub enum Datum {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A day, counted from 1970-01-01.
    Date(i64),
    /// A time of day without a zone, in nanoseconds since midnight.
    LocalTime(i64),
    /// A time of day in a zone.
    Time {
        /// Nanoseconds since midnight there.
        nanos: i64,
        /// Seconds that the zone is ahead of UTC.
        offset: i32,
    },
    /// A date and a time without a zone.
    LocalDateTime {
        /// Seconds since 1970-01-01T00:00.
        seconds: i64,
        /// And nanoseconds.
        nanos: u32,
    },
    /// An instant.
    DateTime {
        /// Seconds since 1970-01-01T00:00Z.
        seconds: i64,
        /// And nanoseconds.
        nanos: u32,
    },
    /// A length of time, whose parts don't convert into each other.
    Duration {
        /// Months.
        months: i64,
        /// Days.
        days: i64,
        /// Seconds.
        seconds: i64,
        /// And nanoseconds.
        nanos: i64,
    },
    /// A point: its coordinate system, and two or three coordinates.
    Point {
        /// The system's number.
        srid: i64,
        /// The coordinates.
        at: Vec<f64>,
    },
    /// Values in order.
    List(Vec<Datum>),
}

/// As the encodings are, without making them: rows are compared by the million.
impl PartialEq for Datum {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Boolean(one), Self::Boolean(other)) => one == other,
            (Self::Integer(one), Self::Integer(other))
            | (Self::Date(one), Self::Date(other))
            | (Self::LocalTime(one), Self::LocalTime(other)) => one == other,
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Real(one), Self::Real(other)) => bits(*one) == bits(*other),
            (Self::List(one), Self::List(other)) => one == other,
            _ => self.encoded() == other.encoded(),
        }
    }
}
impl Eq for Datum {}

impl PartialOrd for Datum {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// An order that is good for putting values in a set, and means nothing.
impl Ord for Datum {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.encoded().cmp(&other.encoded())
    }
}

impl Datum {
    /// The value as bytes that only the same value has.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16);
        self.encode(&mut bytes);
        bytes
    }

    fn encode(&self, into: &mut Vec<u8>) {
        let mut tag = |tag: u8| into.push(tag);
        match self {
            Self::Boolean(value) => {
                tag(1);
                into.push(u8::from(*value));
            }
            Self::Integer(value) => {
                tag(2);
                into.extend(value.to_be_bytes());
            }
            Self::Real(value) => {
                tag(3);
                into.extend(bits(*value));
            }
            Self::Text(text) => {
                tag(4);
                bytes(text.as_bytes(), into);
            }
            Self::Bytes(value) => {
                tag(5);
                bytes(value, into);
            }
            Self::Date(days) => {
                tag(6);
                into.extend(days.to_be_bytes());
            }
            Self::LocalTime(nanos) => {
                tag(7);
                into.extend(nanos.to_be_bytes());
            }
            Self::Time { nanos, offset } => {
                tag(8);
                into.extend(nanos.to_be_bytes());
                into.extend(offset.to_be_bytes());
            }
            Self::LocalDateTime { seconds, nanos } => {
                tag(9);
                into.extend(seconds.to_be_bytes());
                into.extend(nanos.to_be_bytes());
            }
            Self::DateTime { seconds, nanos } => {
                tag(10);
                into.extend(seconds.to_be_bytes());
                into.extend(nanos.to_be_bytes());
            }
            Self::Duration { months, days, seconds, nanos } => {
                tag(11);
                for part in [months, days, seconds, nanos] {
                    into.extend(part.to_be_bytes());
                }
            }
            Self::Point { srid, at } => {
                tag(12);
                into.extend(srid.to_be_bytes());
                length(at.len(), into);
                for coordinate in at {
                    into.extend(bits(*coordinate));
                }
            }
            Self::List(values) => {
                tag(13);
                length(values.len(), into);
                for value in values {
                    value.encode(into);
                }
            }
        }
    }
}

fn bits(value: f64) -> [u8; 8] {
    let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
    value.to_bits().to_be_bytes()
}

fn length(length: usize, into: &mut Vec<u8>) {
    into.extend((length as u64).to_be_bytes());
}

fn bytes(value: &[u8], into: &mut Vec<u8>) {
    length(value.len(), into);
    into.extend(value);
}

/// For people: as much like the database's own way of writing as tells values apart.
impl std::fmt::Display for Datum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Real(value) => write!(f, "{value:?}"),
            Self::Text(text) => f.write_str(text),
            Self::Bytes(value) => {
                f.write_str("x'")?;
                value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("'")
            }
            Self::Date(days) => write_date(f, *days),
            Self::LocalTime(nanos) => write_time(f, *nanos),
            Self::Time { nanos, offset } => {
                write_time(f, *nanos)?;
                write_offset(f, *offset)
            }
            Self::LocalDateTime { seconds, nanos } => write_moment(f, *seconds, *nanos),
            Self::DateTime { seconds, nanos } => {
                write_moment(f, *seconds, *nanos)?;
                f.write_str("Z")
            }
            Self::Duration { months, days, seconds, nanos } => {
                write!(f, "P{months}M{days}DT{seconds}S{nanos}N")
            }
            Self::Point { srid, at } => write!(f, "point {srid} {at:?}"),
            Self::List(values) => {
                f.write_str("[")?;
                for (place, value) in values.iter().enumerate() {
                    let comma = if place > 0 { ", " } else { "" };
                    write!(f, "{comma}{value}")?;
                }
                f.write_str("]")
            }
        }
    }
}

const DAY_SECONDS: i64 = 86_400;
const SECOND_NANOS: i64 = 1_000_000_000;

/// Days as a date of the proleptic Gregorian calendar: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`.
fn write_date(f: &mut std::fmt::Formatter<'_>, days: i64) -> std::fmt::Result {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    write!(f, "{year:04}-{month:02}-{day:02}")
}

fn write_time(f: &mut std::fmt::Formatter<'_>, nanos: i64) -> std::fmt::Result {
    let seconds = nanos / SECOND_NANOS;
    let fraction = nanos % SECOND_NANOS;
    write!(f, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)?;
    if fraction > 0 {
        write!(f, ".{}", format!("{fraction:09}").trim_end_matches('0'))?;
    }
    Ok(())
}

fn write_offset(f: &mut std::fmt::Formatter<'_>, offset: i32) -> std::fmt::Result {
    let sign = if offset < 0 { '-' } else { '+' };
    let offset = offset.unsigned_abs();
    write!(f, "{sign}{:02}:{:02}", offset / 3_600, offset / 60 % 60)?;
    if offset.is_multiple_of(60) { Ok(()) } else { write!(f, ":{:02}", offset % 60) }
}

fn write_moment(f: &mut std::fmt::Formatter<'_>, seconds: i64, nanos: u32) -> std::fmt::Result {
    write_date(f, seconds.div_euclid(DAY_SECONDS))?;
    f.write_str("T")?;
    write_time(f, seconds.rem_euclid(DAY_SECONDS) * SECOND_NANOS + i64::from(nanos))
}

/// A row in the shape of the new side, of either side.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// What it is known by; the same number of values in all rows of a mapping. Several rows may have the same one: relationships
    /// between the same two nodes.
    pub key: Vec<Datum>,
    /// Its other values by name.
    pub values: BTreeMap<String, Datum>,
}

/// A row that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlike {
    /// The key of it.
    pub key: Vec<Datum>,
    /// What the old side says, but for rows that the new side has just so.
    pub expected: Vec<Row>,
    /// What the new side has, likewise.
    pub found: Vec<Row>,
}

/// Holds rows of both sides against each other: of each key, as many and the same. Returns the keys of which that isn't so.
#[must_use]
pub fn unlike(old: Vec<Row>, new: Vec<Row>) -> Vec<Unlike> {
    // By their encodings, each of which is made once.
    let mut by_key: BTreeMap<Vec<u8>, (Vec<Row>, Vec<Row>)> = BTreeMap::new();
    let place = |row: &Row| {
        let mut bytes = Vec::with_capacity(16);
        row.key.iter().for_each(|part| part.encode(&mut bytes));
        bytes
    };
    for row in old {
        by_key.entry(place(&row)).or_default().0.push(row);
    }
    for row in new {
        by_key.entry(place(&row)).or_default().1.push(row);
    }
    let without_common = |(_, (mut expected, mut found)): (Vec<u8>, (Vec<Row>, Vec<Row>))| {
        expected.retain(|row| match found.iter().position(|other| other == row) {
            Some(at) => {
                found.swap_remove(at);
                false
            }
            None => true,
        });
        let key = expected.first().or(found.first()).map(|row| row.key.clone())?;
        Some(Unlike { key, expected, found })
    };
    by_key.into_iter().filter_map(without_common).collect()
}

impl Unlike {
    /// The differences: rows of the same key are told as one that differs, in the order in which they come.
    #[must_use]
    pub fn differences(&self) -> Vec<Difference> {
        let most = self.expected.len().max(self.found.len());
        (0..most).map(|at| self.difference(self.expected.get(at), self.found.get(at))).collect()
    }

    fn difference(&self, expected: Option<&Row>, found: Option<&Row>) -> Difference {
        let kind = match (expected, found) {
            (Some(_), None) => DifferenceKind::Missing,
            (None, _) => DifferenceKind::Extra,
            (Some(_), Some(_)) => DifferenceKind::Different,
        };
        let rows = [expected, found];
        let names: BTreeSet<&String> =
            rows.iter().flatten().flat_map(|row| row.values.keys()).collect();
        let value = |row: Option<&Row>, name: &String| row.map(|row| shown(row.values.get(name)));
        let mut columns = Vec::new();
        let mut values = Vec::new();
        for name in names {
            let sides = rows.map(|row| row.and_then(|row| row.values.get(name)));
            if kind == DifferenceKind::Different {
                if sides[0] == sides[1] {
                    continue;
                }
                columns.push(name.clone());
            }
            values.push(ColumnValues {
                column: name.clone(),
                expected: value(expected, name),
                found: value(found, name),
            });
        }
        values.truncate(VALUES_MAX);
        let key: Vec<String> = self.key.iter().map(ToString::to_string).collect();
        Difference { kind, key: key.join(", "), columns, values }
    }
}

fn shown(value: Option<&Datum>) -> ShownValue {
    let Some(value) = value else { return ShownValue::cut(None, None) };
    let text = value.to_string();
    let length = text.chars().count() as u64;
    ShownValue::cut(Some(text.chars().take(VALUE_CHARS_MAX).collect()), Some(length))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(text: &str) -> Datum {
        Datum::Text(text.to_owned())
    }

    fn row(key: i64, values: &[(&str, Datum)]) -> Row {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Row { key: vec![Datum::Integer(key)], values: values.collect() }
    }

    #[test]
    fn only_the_same_values_are_the_same() {
        let list = |values: &[Datum]| Datum::List(values.to_vec());
        let all = [
            text(""),
            text(" "),
            text("a"),
            text("a "),
            text("1"),
            text("e\u{301}"),
            text("\u{e9}"),
            text("\u{1f600}"),
            Datum::Bytes(b"a".to_vec()),
            Datum::Integer(1),
            Datum::Real(1.0),
            Datum::Real(0.0),
            Datum::Real(f64::NAN),
            Datum::Real(f64::INFINITY),
            Datum::Boolean(true),
            Datum::Date(1),
            Datum::LocalTime(1),
            Datum::Time { nanos: 1, offset: 0 },
            Datum::Time { nanos: 1, offset: 3_600 },
            Datum::LocalDateTime { seconds: 1, nanos: 0 },
            Datum::DateTime { seconds: 1, nanos: 0 },
            Datum::Duration { months: 1, days: 0, seconds: 0, nanos: 0 },
            Datum::Duration { months: 0, days: 30, seconds: 0, nanos: 0 },
            Datum::Point { srid: 7203, at: vec![1.0, 2.0] },
            list(&[]),
            list(&[text("a|b"), text("c")]),
            list(&[text("a"), text("b|c")]),
            list(&[list(&[text("a")]), text("b")]),
            list(&[text("a"), list(&[text("b")])]),
        ];
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(one == other, at == other_at, "{one:?} {other:?}");
                assert_eq!(one.encoded() == other.encoded(), at == other_at, "{one:?} {other:?}");
            }
        }
        for (one, same) in [(f64::NAN, -f64::NAN), (0.0, -0.0)] {
            let [one, same] = [one, same].map(Datum::Real);
            assert_eq!(one, same);
            assert_eq!(one.encoded(), same.encoded());
        }
    }

    #[test]
    fn people_read_values_as_databases_write_them() {
        for (value, expected) in [
            (Datum::Date(0), "1970-01-01"),
            (Datum::Date(-719_528), "0000-01-01"),
            (Datum::Date(19_782), "2024-02-29"),
            (Datum::LocalTime(3_723_000_000_500), "01:02:03.0000005"),
            (Datum::Time { nanos: 0, offset: -19_800 }, "00:00:00-05:30"),
            (Datum::LocalDateTime { seconds: -1, nanos: 0 }, "1969-12-31T23:59:59"),
            (
                Datum::DateTime { seconds: 1_711_846_800, nanos: 120_000_000 },
                "2024-03-31T01:00:00.12Z",
            ),
            (Datum::Real(-0.0), "-0.0"),
            (Datum::Bytes(vec![0, 255]), "x'00ff'"),
            (Datum::List(vec![Datum::Integer(1), text("b")]), "[1, b]"),
        ] {
            assert_eq!(value.to_string(), expected);
        }
    }

    #[test]
    fn rows_are_compared_both_ways_and_differences_name_columns() {
        let old = vec![
            row(1, &[("a", text("x")), ("b", Datum::Integer(1))]),
            row(2, &[("a", text("x"))]),
            row(3, &[]),
        ];
        let new = vec![
            row(1, &[("a", text("x")), ("b", Datum::Real(1.0))]),
            row(3, &[]),
            row(4, &[("a", text(&"long".repeat(40)))]),
        ];
        let unlike = unlike(old, new);
        let told: Vec<Difference> = unlike.iter().flat_map(Unlike::differences).collect();
        let kinds: Vec<_> = told.iter().map(|one| (one.kind, one.key.as_str())).collect();
        assert_eq!(
            kinds,
            [
                (DifferenceKind::Different, "1"),
                (DifferenceKind::Missing, "2"),
                (DifferenceKind::Extra, "4")
            ]
        );
        assert_eq!(told[0].columns, ["b"]);
        assert_eq!(told[0].values[0].found.as_ref().unwrap().text.as_deref(), Some("1.0"));
        assert!(told[1].values[0].found.is_none());
        assert_eq!(told[2].values[0].found.as_ref().unwrap().length, Some(160));
    }

    #[test]
    fn rows_of_one_key_are_a_multiset() {
        let edge = |since: i64| row(1, &[("since", Datum::Integer(since))]);
        assert!(
            unlike(vec![edge(1), edge(2), edge(1)], vec![edge(1), edge(1), edge(2)]).is_empty()
        );
        let unlike = unlike(vec![edge(1), edge(1)], vec![edge(1), edge(3), edge(4)]);
        assert_eq!((unlike[0].expected.len(), unlike[0].found.len()), (1, 2));
        let kinds: Vec<_> = unlike[0].differences().iter().map(|one| one.kind).collect();
        assert_eq!(kinds, [DifferenceKind::Different, DifferenceKind::Extra]);
    }
}
