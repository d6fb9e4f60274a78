//! The wire format, held by a file of records that were written once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use phasegate::run::{Record, Timestamp};
use phasegate::store::wire;

use super::sample;

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/store/records.v1.jsonl")
}

fn records() -> Vec<Record> {
    (1..)
        .zip(sample::every_event())
        .map(|(version, event)| Record {
            version,
            at: Timestamp::from_unix_ms(1_700_000_000_000),
            by: sample::ana(),
            event,
        })
        .collect()
}

/// Once a release has written format 1, this file must never change: make a format 2 instead. Until then
/// `PHASEGATE_WRITE_FORMAT=1 cargo test format_one` writes it anew.
#[test]
fn format_one_reads_and_writes_as_it_always_did() {
    if std::env::var_os("PHASEGATE_WRITE_FORMAT").is_some() {
        let mut lines = String::new();
        for record in records() {
            lines += &String::from_utf8(wire::encode(&record).unwrap()).unwrap();
            lines.push('\n');
        }
        std::fs::write(fixture(), lines).unwrap();
    }
    let text = std::fs::read_to_string(fixture()).unwrap();
    let written = records();
    assert_eq!(text.lines().count(), written.len());
    for (line, record) in text.lines().zip(&written) {
        let read = wire::decode(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(&read, record, "{line}");
        assert_eq!(String::from_utf8(wire::encode(&read).unwrap()).unwrap(), line);
    }
}

#[test]
fn every_kind_of_event_is_in_the_fixture() {
    let text = std::fs::read_to_string(fixture()).unwrap();
    let kinds: BTreeSet<&str> = text
        .lines()
        .map(|line| sample::kind(&wire::decode(line.as_bytes()).unwrap().event))
        .collect();
    assert_eq!(kinds.len(), sample::KINDS, "{kinds:?}");
}

/// What was added to the format within version 1, and what stands for it where it is missing: nothing.
#[test]
fn records_from_before_a_field_was_added_are_read() {
    const LATER: [&str; 10] = [
        "window",
        "unused_for",
        "identity",
        "destructive",
        "allow_reviewed",
        "allow_commands",
        "fingerprints",
        "throttle",
        "max_throttled_for_ms",
        "limits",
    ];
    fn without(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                // A gate's fingerprints were there from the beginning; those of an outcome were not.
                let is_reached = fields.get("kind").is_some_and(|kind| kind == "gate_reached");
                fields.retain(|name, value| {
                    let is_reason = name == "destructive" && value.is_string();
                    !LATER.contains(&name.as_str()) || is_reached || is_reason
                });
                fields.values_mut().for_each(without);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(without),
            _ => {}
        }
    }
    let text = std::fs::read_to_string(fixture()).unwrap();
    for line in text.lines() {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        without(&mut value);
        let earlier = value.to_string();
        wire::decode(earlier.as_bytes()).unwrap_or_else(|error| panic!("{error}: {earlier}"));
    }
}
