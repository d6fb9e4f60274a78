//! What a plan means, as canonical JSON, and the digests over it.
//!
//! Comments, layout and the order of keys are no part of it; the order of steps is, and so are the contents of files.
//! References to secrets stay references. A step's digest is over what it does and to what, not over where it stands or what
//! is said about it.

use serde_json::{Value, json};

use crate::run::{Action, Digest, Mapping, Step};

use super::files::Files;

/// The meaning of a document: its value, with the contents of its files in it.
pub fn meaning(mut value: Value, files: &Files) -> Value {
    let steps = value.get_mut("steps").and_then(Value::as_array_mut);
    for step in steps.into_iter().flatten() {
        for place in ["/sql", "/cypher", "/redis", "/undo/sql", "/undo/cypher", "/undo"] {
            if let Some(script) = step.pointer_mut(place) {
                add_contents(script, files);
            }
        }
    }
    value
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
        "timeout_ms": step.timeout_ms,
        "lock_timeout_ms": step.lock_timeout_ms,
        "retry": step.retry,
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
    Digest::of("phasegate step 1", &work)
}
