//! What changed between two meanings of a plan, for people.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// One place where two plans differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Where: keys joined by dots, steps by their ids, as in `steps.copy-leads.backfill.chunk.rows`.
    pub path: String,
    /// What was there; none if it is new.
    pub old: Option<Value>,
    /// What is there; none if it is gone.
    pub new: Option<Value>,
}

/// All places where two plans differ, in the order of their paths. Empty if and only if the two are equal.
#[must_use]
pub fn difference(old: &Value, new: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", Some(old), Some(new), &mut changes);
    changes
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys = old.keys().chain(new.keys());
            let mut keys: Vec<&String> = keys.collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                compare(&join(path, key), old.get(key), new.get(key), changes);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => match (by_id(old), by_id(new)) {
            (Some(old_ids), Some(new_ids)) => {
                let before = changes.len();
                let mut ids: Vec<&&str> = old_ids.keys().chain(new_ids.keys()).collect();
                ids.sort_unstable();
                ids.dedup();
                for id in ids {
                    let (old, new) = (old_ids.get(*id).copied(), new_ids.get(*id).copied());
                    compare(&join(path, id), old, new, changes);
                }
                if changes.len() == before {
                    changes.push(order(path, old, new));
                }
            }
            _ => {
                for at in 0..old.len().max(new.len()) {
                    compare(&format!("{path}[{at}]"), old.get(at), new.get(at), changes);
                }
            }
        },
        _ => changes.push(Change { path: path.to_owned(), old: old.cloned(), new: new.cloned() }),
    }
}

/// The same items in another order.
fn order(path: &str, old: &[Value], new: &[Value]) -> Change {
    let ids = |items: &[Value]| {
        Value::Array(items.iter().filter_map(|item| item.get("id").cloned()).collect())
    };
    Change { path: join(path, "(order)"), old: Some(ids(old)), new: Some(ids(new)) }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The items by their ids, if all have one and no two the same.
fn by_id(items: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let ids: BTreeMap<&str, &Value> =
        items.iter().filter_map(|item| Some((item.get("id")?.as_str()?, item))).collect();
    (ids.len() == items.len()).then_some(ids)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(old: &Value, new: &Value) -> Vec<String> {
        difference(old, new).into_iter().map(|change| change.path).collect()
    }

    #[test]
    fn steps_are_named_by_their_ids() {
        let old = json!({"steps": [
            {"id": "copy", "backfill": {"mapping": "m", "chunk": {"rows": 100}}},
            {"id": "gone", "sql": "x"},
        ]});
        let new = json!({"steps": [
            {"id": "new", "sql": "y"},
            {"id": "copy", "backfill": {"mapping": "m", "chunk": {"rows": 200}}},
        ]});
        assert_eq!(
            paths(&old, &new),
            ["steps.copy.backfill.chunk.rows", "steps.gone", "steps.new"]
        );
        let change = &difference(&old, &new)[0];
        assert_eq!((&change.old, &change.new), (&Some(json!(100)), &Some(json!(200))));
    }

    #[test]
    fn another_order_of_steps_is_a_change() {
        let old = json!({"steps": [{"id": "a"}, {"id": "b"}]});
        let new = json!({"steps": [{"id": "b"}, {"id": "a"}]});
        assert_eq!(paths(&old, &new), ["steps.(order)"]);
        assert!(difference(&old, &old).is_empty());
    }

    #[test]
    fn lists_without_ids_are_compared_by_position() {
        assert_eq!(paths(&json!({"a": [1, 2]}), &json!({"a": [1, 3, 4]})), ["a[1]", "a[2]"]);
        assert_eq!(paths(&json!({"a": 1}), &json!({"a": null})), ["a"]);
        assert_eq!(paths(&json!({"a": null}), &json!({})), ["a"]);
    }
}
