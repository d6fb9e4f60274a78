//! Values as Bolt has them, and the ones that are compared and kept here.
//!
//! The library has temporal values as `chrono` does, so that a date beyond the year 262,142, which Neo4j can hold, is refused. A
//! moment in a zone by name comes as that zone's wall time: in the hour that a clock is set back nobody can tell which of the two it is,
//! and it is read as something that no row of another database has.

use std::collections::BTreeMap;

use chrono::{
    DateTime, FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta,
    TimeZone as _, Timelike as _,
};
use neo4rs::{
    BoltDuration, BoltFloat, BoltInteger, BoltList, BoltMap, BoltPoint2D, BoltPoint3D, BoltType,
    Query,
};

use super::error::damaged;
use crate::copy::chunk::{Cell, Chunk, Key};
use crate::copy::row::Datum;
use crate::driver::Error;
use crate::run::FailureClass;

const SECOND_NANOS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// A value; none for null. An error where it is something that no property can hold.
pub(super) fn datum(value: BoltType) -> Result<Option<Datum>, Error> {
    Ok(Some(match value {
        BoltType::Null(_) => return Ok(None),
        BoltType::Boolean(it) => Datum::Boolean(it.value),
        BoltType::Integer(it) => Datum::Integer(it.value),
        BoltType::Float(it) => Datum::Real(it.value),
        BoltType::String(it) => Datum::Text(it.value),
        BoltType::Bytes(it) => Datum::Bytes(it.value.to_vec()),
        BoltType::List(it) => {
            let values: Result<Vec<_>, Error> = it.value.into_iter().map(datum).collect();
            let values: Option<Vec<Datum>> = values?.into_iter().collect();
            Datum::List(values.ok_or_else(|| damaged("a list has a null in it"))?)
        }
        BoltType::Point2D(it) => {
            Datum::Point { srid: it.sr_id.value, at: vec![it.x.value, it.y.value] }
        }
        BoltType::Point3D(it) => {
            Datum::Point { srid: it.sr_id.value, at: vec![it.x.value, it.y.value, it.z.value] }
        }
        other => return temporal(other).map(Some),
    }))
}

fn temporal(value: BoltType) -> Result<Datum, Error> {
    let unreadable = || {
        let message = "a value is no property, or further from now than dates can be read";
        Error::failed(FailureClass::Refused, message)
    };
    let nanos = |time: NaiveTime| {
        i64::from(time.num_seconds_from_midnight()) * SECOND_NANOS + i64::from(time.nanosecond())
    };
    let instant = |at: DateTime<FixedOffset>| Datum::DateTime {
        seconds: at.timestamp(),
        nanos: at.timestamp_subsec_nanos(),
    };
    Ok(match value {
        BoltType::Date(it) => {
            let date: NaiveDate = it.try_into().map_err(|_| unreadable())?;
            let seconds = date.and_time(NaiveTime::MIN).and_utc().timestamp();
            Datum::Date(seconds.div_euclid(DAY_SECONDS))
        }
        BoltType::LocalTime(it) => Datum::LocalTime(nanos(it.into())),
        BoltType::Time(it) => {
            let (time, offset): (NaiveTime, FixedOffset) = it.into();
            Datum::Time { nanos: nanos(time), offset: offset.local_minus_utc() }
        }
        BoltType::LocalDateTime(it) => {
            let at: NaiveDateTime = it.try_into().map_err(|_| unreadable())?;
            let at = at.and_utc();
            Datum::LocalDateTime { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos() }
        }
        BoltType::DateTime(it) => instant(it.try_into().map_err(|_| unreadable())?),
        BoltType::DateTimeZoneId(it) => {
            let (at, zone): (NaiveDateTime, String) = it.try_into().map_err(|_| unreadable())?;
            let zone: chrono_tz::Tz = zone.parse().map_err(|_| unreadable())?;
            match zone.from_local_datetime(&at) {
                MappedLocalTime::Single(at) => instant(at.fixed_offset()),
                MappedLocalTime::Ambiguous(..) => twice(at, zone),
                MappedLocalTime::None => return Err(unreadable()),
            }
        }
        duration @ BoltType::Duration(_) => {
            // All four of its parts are told to whoever asks a map for them.
            let mut map = BoltMap::default();
            map.put("it".into(), duration);
            let (months, days, seconds, nanos) = map.get("it").map_err(|_| unreadable())?;
            Datum::Duration { months, days, seconds, nanos }
        }
        _ => return Err(unreadable()),
    })
}

/// A wall time that comes twice in a zone: a list that neither a graph nor a table can hold, and so the same as no other value.
fn twice(at: NaiveDateTime, zone: chrono_tz::Tz) -> Datum {
    let at = at.and_utc();
    let at = Datum::LocalDateTime { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos() };
    Datum::List(vec![at, Datum::Text(zone.name().to_owned())])
}

/// The properties of a map, without those that are null.
pub(super) fn properties(map: BoltMap) -> Result<BTreeMap<String, Datum>, Error> {
    let mut properties = BTreeMap::new();
    for (name, value) in map.value {
        if let Some(value) = datum(value)? {
            properties.insert(name.value, value);
        }
    }
    Ok(properties)
}

/// The value of a key: what [`Cell`] has a word for.
pub(super) fn cell(value: BoltType) -> Result<Cell, Error> {
    match value {
        BoltType::Integer(it) => Ok(Cell::Integer(it.value)),
        BoltType::String(it) => Ok(Cell::Text(it.value)),
        BoltType::Float(it) => Ok(Cell::Real(it.value)),
        _ => Err(Error::failed(
            FailureClass::Refused,
            "a key is neither a number nor text, which nodes can't be walked by",
        )),
    }
}

fn bolt(cell: &Cell) -> BoltType {
    match cell {
        Cell::Null => BoltType::Null(neo4rs::BoltNull),
        Cell::Integer(value) => (*value).into(),
        Cell::Real(value) => (*value).into(),
        Cell::Text(text) => text.as_str().into(),
        Cell::Blob(bytes) => bytes.clone().into(),
    }
}

/// A value as it is sent; none where it is further from now than the library's dates go, or no time of a day.
pub(super) fn sent(value: &Datum) -> Option<BoltType> {
    let days = |days: i64| {
        let passed = TimeDelta::try_days(days)?;
        NaiveDate::default().checked_add_signed(passed)
    };
    let time = |nanos: i64| {
        let seconds = u32::try_from(nanos.div_euclid(SECOND_NANOS)).ok()?;
        let nanos = u32::try_from(nanos.rem_euclid(SECOND_NANOS)).ok()?;
        NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos)
    };
    Some(match value {
        Datum::Boolean(value) => (*value).into(),
        Datum::Integer(value) => (*value).into(),
        Datum::Real(value) => (*value).into(),
        Datum::Text(text) => text.as_str().into(),
        Datum::Bytes(bytes) => bytes.clone().into(),
        Datum::Date(value) => days(*value)?.into(),
        Datum::LocalTime(nanos) => time(*nanos)?.into(),
        Datum::Time { nanos, offset } => (time(*nanos)?, FixedOffset::east_opt(*offset)?).into(),
        Datum::LocalDateTime { seconds, nanos } => {
            DateTime::from_timestamp(*seconds, *nanos)?.naive_utc().into()
        }
        Datum::DateTime { seconds, nanos } => {
            DateTime::from_timestamp(*seconds, *nanos)?.fixed_offset().into()
        }
        Datum::Duration { months, days, seconds, nanos } => {
            let parts = [months, days, seconds, nanos].map(|part| BoltInteger::new(*part));
            let [months, days, seconds, nanos] = parts;
            BoltType::Duration(BoltDuration::new(months, days, seconds, nanos))
        }
        Datum::Point { srid, at } => {
            let sr_id = BoltInteger::new(*srid);
            let at: Vec<BoltFloat> = at.iter().map(|at| BoltFloat::new(*at)).collect();
            match <[BoltFloat; 3]>::try_from(at) {
                Ok([x, y, z]) => BoltType::Point3D(BoltPoint3D { sr_id, x, y, z }),
                Err(at) => {
                    let [x, y] = <[BoltFloat; 2]>::try_from(at).ok()?;
                    BoltType::Point2D(BoltPoint2D { sr_id, x, y })
                }
            }
        }
        Datum::List(values) => {
            let values: Option<Vec<BoltType>> = values.iter().map(sent).collect();
            BoltType::List(BoltList { value: values? })
        }
    })
}

/// A value of a key, as it is asked for; none where it can be no key.
pub(super) fn key_value(value: &Datum) -> Option<BoltType> {
    match value {
        Datum::Integer(value) => Some((*value).into()),
        Datum::Real(value) => Some((*value).into()),
        Datum::Text(text) => Some(text.as_str().into()),
        _ => None,
    }
}

/// A query with the bounds of a chunk: `$lo0`, `$lo1` … and `$hi0` ….
pub(super) fn with_bounds(mut query: Query, chunk: &Chunk) -> Query {
    for (name, bound) in [("lo", &chunk.lo), ("hi", &chunk.hi)] {
        let cells = bound.iter().flat_map(|Key(cells)| cells).enumerate();
        for (at, cell) in cells {
            query = query.param(&format!("{name}{at}"), bolt(cell));
        }
    }
    query
}
