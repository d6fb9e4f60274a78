//! How a record is written down: a JSON envelope that names its format.
//!
//! Invariants:
//! - `{"format":1,"record":{…}}` is what format 1 looks like for ever. Any change that an older program would read wrongly,
//!   a new field too, takes a new number; `tests/store/records.v1.jsonl` holds one record of every kind and must decode
//!   and encode to the same bytes.
//! - What [`encode`] gives, [`decode`] reads back as the same record. JSON has no infinity and a reader has a limit on
//!   nesting, so this is tried before a record is accepted: better to refuse it than to find it unreadable later.
//! - The number is read before anything else of the envelope, so that a newer format is told from a damaged record.
//!
//! Absent on purpose: the chain, which is over bytes and knows no format.

use serde::{Deserialize, Serialize};

use crate::run::Record;

/// The newest format that this program writes and reads.
pub const FORMAT: u64 = 1;

/// Why bytes are no record, or a record can't become bytes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was written by a newer version of this program.
    #[error("it has format {found}, and this program knows formats up to {FORMAT}")]
    Newer {
        /// The format found.
        found: u64,
    },
    /// It is no record of the format it claims.
    #[error("it can't be read: {0}")]
    Malformed(#[source] serde_json::Error),
    /// Format 0, which never was.
    #[error("it has format 0, which there is not")]
    NoFormat,
    /// A record that would not come back as it is.
    #[error("it would not read back as it was written")]
    Lossy,
}

#[derive(Serialize)]
struct Envelope<'a> {
    format: u64,
    record: &'a Record,
}

#[derive(Deserialize)]
struct Label {
    format: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormatOne {
    #[serde(rename = "format")]
    _format: u64,
    record: Record,
}

/// A record as bytes in the newest format.
pub fn encode(record: &Record) -> Result<Vec<u8>, Error> {
    let bytes =
        serde_json::to_vec(&Envelope { format: FORMAT, record }).map_err(Error::Malformed)?;
    match decode(&bytes) {
        Ok(read) if read == *record => Ok(bytes),
        _ => Err(Error::Lossy),
    }
}

/// The record that bytes of any known format hold.
pub fn decode(bytes: &[u8]) -> Result<Record, Error> {
    let label: Label = serde_json::from_slice(bytes).map_err(Error::Malformed)?;
    match label.format {
        0 => Err(Error::NoFormat),
        1 => {
            let read: FormatOne = serde_json::from_slice(bytes).map_err(Error::Malformed)?;
            Ok(read.record)
        }
        found => Err(Error::Newer { found }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::run::{Actor, Event, Outcome, Proof, StepId, Timestamp, Value, Way};

    fn record(value: Value) -> Record {
        Record {
            version: 7,
            at: Timestamp::from_unix_ms(1_700_000_000_123),
            by: Actor { name: "ana".into(), proof: Proof::Claimed, host: "box".into() },
            event: Event::StepSucceeded {
                step: StepId::new("count"),
                attempt: 1,
                way: Way::Forward,
                outcome: Outcome { value: Some(value), ..Outcome::default() },
            },
        }
    }

    #[test]
    fn values_come_back_exactly() {
        for value in [
            Value::Null,
            Value::Boolean(true),
            Value::Integer(i64::MIN),
            Value::Real(0.1 + 0.2),
            Value::Real(f64::MIN_POSITIVE),
            Value::Text("\u{0}\u{1F600}\"\\\n".into()),
        ] {
            let record = record(value);
            assert_eq!(decode(&encode(&record).unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn what_json_can_not_hold_is_refused_when_written() {
        for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            assert!(matches!(encode(&record(Value::Real(value))), Err(Error::Lossy)));
        }
    }

    #[test]
    fn newer_formats_are_told_from_damage() {
        let newer = br#"{"format":2,"entry":{"anything":[1]}}"#;
        assert!(matches!(decode(newer), Err(Error::Newer { found: 2 })));
        assert!(matches!(decode(br#"{"format":0,"record":{}}"#), Err(Error::NoFormat)));
        let good = encode(&record(Value::Null)).unwrap();
        for bad in [
            &b""[..],
            b"null",
            b"{}",
            br#"{"record":{}}"#,
            br#"{"format":"1","record":{}}"#,
            br#"{"format":1,"record":{}}"#,
            &good[..good.len() - 1],
        ] {
            let text = String::from_utf8_lossy(bad);
            assert!(matches!(decode(bad), Err(Error::Malformed(_))), "{text}");
        }
        let mut extra = good.clone();
        extra.splice(1..1, br#""more":1,"#.iter().copied());
        assert!(matches!(decode(&extra), Err(Error::Malformed(_))));
    }
}
