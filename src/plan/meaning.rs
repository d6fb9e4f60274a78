//! What a plan means, as canonical JSON, and the digests over it.
//!
//! Comments, layout and the order of keys are no part of it; the order of steps is, and so are the contents of files. Nor is what
//! is only said: descriptions, owners, annotations. A duration means the same however it is written. References to secrets stay
//! references. A step's digest is over what it does and to what, not over where it stands, nor over how fast and how long it may
//! do it ([`HOW`]): that may be amended in the middle of it, and voids no approval.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::run::{Action, Digest, Limit, Mapping, Step, Unit};

use super::files::Files;
use super::limit::limit;

/// What is only said of a plan or a step.
const SAID: [&str; 3] = ["description", "owner", "annotations"];
/// Keys of steps whose values are durations, wherever they stand in them.
const DURATIONS: [&str; 12] = [
    "every",
    "expires",
    "for",
    "lock_timeout",
    "longest_wait",
    "max_age",
    "max_throttled_for",
    "pause_between",
    "time",
    "timeout",
    "verified_within",
    "wait",
];
/// Keys of steps below which nothing is a duration: texts of the plan's author, and names of columns.
const OPAQUE: [&str; 8] = ["sql", "cypher", "redis", "query", "columns", "expect", "none", "http"];
/// What of an action says how it goes about its work.
const HOW: [(&str, &[&str]); 3] = [
    ("/action/dual_write", &["outbox"]),
    (
        "/action/backfill",
        &[
            "chunk_rows",
            "chunk_time_ms",
            "workers",
            "pause_between_ms",
            "throttle",
            "max_throttled_for_ms",
        ],
    ),
    ("/action/verify/mapping", &["workers"]),
];

/// The meaning of a document: its value, with the contents of its files in it.
pub fn meaning(mut value: Value, files: &Files) -> Value {
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        forget_said(metadata);
    }
    let steps = value.get_mut("steps").and_then(Value::as_array_mut);
    for step in steps.into_iter().flatten() {
        for place in ["/sql", "/cypher", "/redis", "/undo/sql", "/undo/cypher", "/undo"] {
            if let Some(script) = step.pointer_mut(place) {
                add_contents(script, files);
            }
        }
        if let Value::Object(entries) = step {
            forget_said(entries);
        }
        same_durations(step);
        let limits = step.pointer_mut("/backfill/throttle").and_then(Value::as_array_mut);
        limits.into_iter().flatten().for_each(same_limit);
        if let Some(limit) = step.pointer_mut("/gate/relay_lag/max") {
            same_duration(limit);
        }
        if let Some(size) = step.pointer_mut("/dual_write/outbox/max_bytes") {
            same_size(size);
        }
    }
    value
}

fn forget_said(entries: &mut Map<String, Value>) {
    for key in SAID {
        entries.remove(key);
    }
}

/// Writes every duration of a step in one way.
fn same_durations(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                if DURATIONS.contains(&key.as_str()) && (value.is_string() || value.is_number()) {
                    same_duration(value);
                } else if !OPAQUE.contains(&key.as_str()) {
                    same_durations(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(same_durations),
        _ => {}
    }
}

fn same_duration(value: &mut Value) {
    let written = match value {
        Value::String(text) => humantime::parse_duration(text).ok(),
        // The only one that may be written without a unit.
        Value::Number(number) if number.as_u64() == Some(0) => Some(Duration::ZERO),
        _ => None,
    };
    if let Some(duration) = written {
        *value = Value::String(humantime::format_duration(duration).to_string());
    }
}

/// Writes the limits of a throttle in one way.
fn same_limit(throttle: &mut Value) {
    let Value::Object(entries) = throttle else { return };
    for (key, value) in entries {
        let written = match value {
            Value::Object(_) => {
                same_limit(value);
                continue;
            }
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        if let ("max" | "min", Ok(limit)) = (key.as_str(), limit(&written)) {
            *value = Value::String(shown(limit));
        }
    }
}

/// Writes a size in one way.
fn same_size(value: &mut Value) {
    if let Some(Ok(size)) = value.as_str().map(limit) {
        *value = Value::String(shown(size));
    }
}

fn shown(Limit { value, unit }: Limit) -> String {
    match unit {
        Unit::Number => value.to_string(),
        Unit::Ms => format!("{value}ms"),
        Unit::Bytes => format!("{value}B"),
        Unit::Percent => format!("{value}%"),
    }
}

fn add_contents(script: &mut Value, files: &Files) {
    let Value::Object(entries) = script else { return };
    let Some(text) = entries.get("file").and_then(Value::as_str).and_then(|f| files.known(f))
    else {
        return;
    };
    entries.insert("contents".to_owned(), Value::String(text.to_string()));
}

/// The digest of a plan's meaning.
pub fn plan_digest(meaning: &Value) -> Digest {
    Digest::of("phasegate plan 1", meaning)
}

/// The digest of what a step does, on which mapping.
pub fn step_digest(step: &Step, mapping: Option<&Mapping>) -> Digest {
    let mut work = json!({
        "id": step.id,
        "phase": step.phase,
        "target": step.target,
        "needs": step.needs,
        "action": step.action,
        "undo": step.undo,
        "irreversible": step.irreversible,
        "hazard": step.hazard,
        "mapping": mapping,
    });
    // What a mapping's steps do with refused rows is no business of its other steps: a backfill says it in its own action.
    if let Some(Value::Object(mapping)) = work.get_mut("mapping") {
        mapping.remove("parking");
    }
    if matches!(step.action, Action::DualWrite(_)) && mapping.is_some_and(|it| it.parking.writes) {
        work["on_error"] = json!("park");
    }
    for place in ["/action/sql/statements", "/undo/script/statements"] {
        let statements = work.pointer_mut(place).and_then(Value::as_array_mut);
        for statement in statements.into_iter().flatten() {
            if let Value::Object(statement) = statement {
                statement.remove("line");
            }
        }
    }
    for (place, keys) in HOW {
        if let Some(Value::Object(action)) = work.pointer_mut(place) {
            for key in keys {
                action.remove(*key);
            }
            // Whether rows may be parked is what the copy does; how many is not.
            if let Some(most) = action.get_mut("park_max") {
                *most = json!(true);
            }
        }
    }
    Digest::of("phasegate step 1", &work)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn meaning_of(step: &Value) -> Value {
        let plan = json!({ "metadata": { "name": "p" }, "steps": [step] });
        meaning(plan, &Files::beside(std::path::Path::new("plan.yaml")))
    }

    #[test]
    fn what_is_only_said_means_nothing() {
        let files = Files::beside(std::path::Path::new("plan.yaml"));
        let bare = json!({ "metadata": { "name": "p" }, "steps": [{ "id": "a", "sql": "x" }] });
        let said = json!({
            "metadata": { "name": "p", "description": "d", "owner": "o", "annotations": { "t": 1 } },
            "steps": [{ "id": "a", "sql": "x", "description": "d", "owner": "o", "annotations": { "t": 1 } }],
        });
        assert_eq!(meaning(said, &files), meaning(bare.clone(), &files));
        let other = json!({ "metadata": { "name": "p" }, "steps": [{ "id": "a", "sql": "y" }] });
        assert_ne!(meaning(other, &files), meaning(bare, &files));
    }

    #[test]
    fn a_duration_means_the_same_however_it_is_written() {
        let gate = |within: &str, soak: Value| {
            meaning_of(&json!({ "gate": { "verified_within": within, "soak": { "for": soak } } }))
        };
        assert_eq!(gate("60m", json!("0s")), gate("1h", json!(0)));
        assert_ne!(gate("61m", json!("0s")), gate("1h", json!(0)));
        let copy = |time: &str, max: &str| {
            let throttle = json!([{ "name": "l", "replica_lag": { "max": max } }]);
            meaning_of(&json!({ "backfill": { "chunk": { "time": time }, "throttle": throttle } }))
        };
        assert_eq!(copy("1s", "64MiB"), copy("1000ms", "67108864B"));
        assert_ne!(copy("1s", "5"), copy("1s", "5s"));
        let sync = |age: &str, size: &str| {
            let outbox = json!({ "max_age": age, "max_bytes": size });
            meaning_of(&json!({ "dual_write": { "outbox": outbox } }))
        };
        assert_eq!(sync("1h", "1GiB"), sync("60m", "1024MiB"));
        assert_ne!(sync("1h", "1GiB"), sync("1h", "1GB"));
        let query = |text: &str| {
            let expect = json!({ "for": text });
            meaning_of(&json!({ "verify": { "query": { "time": text }, "expect": expect } }))
        };
        assert_ne!(query("60m"), query("1h"), "that is no duration");
    }
}
