//! The rows that a run has parked, with what is wrong with each.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::run::{MappingName, Parked, ParkedRow};

use super::words;

/// The parked rows for people; a sentence where there are none.
#[must_use]
pub fn render(parked: &[(MappingName, Parked)]) -> String {
    let all: u64 = parked.iter().map(|(_, parked)| parked.total).sum();
    if all == 0 {
        return "\nno row is parked\n".to_owned();
    }
    let mut text = String::new();
    for (mapping, parked) in parked.iter().filter(|(_, parked)| parked.total > 0) {
        let count = words::plural(parked.total, "row");
        let _ = writeln!(text, "\n{count} of mapping {mapping} parked:");
        for row in &parked.rows {
            text.push_str(&words::visible(&line(row)));
        }
        let more = parked.total.saturating_sub(parked.rows.len() as u64);
        if more > 0 {
            let _ = writeln!(text, "  and {} more", words::count(more));
        }
    }
    text
}

fn line(row: &ParkedRow) -> String {
    let key: Vec<String> =
        row.key.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let code = row.code.as_ref().map_or(String::new(), |code| format!(" [{code}]"));
    format!("  {}: {}{code}, since {}\n", key.join(", "), row.reason, row.since)
}

/// The parked rows as documents have them.
#[must_use]
pub fn document(parked: &[(MappingName, Parked)]) -> Value {
    let row = |row: &ParkedRow| {
        let key = row.key.iter().map(|(name, value)| (name.clone(), json!(value)));
        json!({
            "key": Value::Object(key.collect::<Map<_, _>>()),
            "code": row.code,
            "reason": row.reason,
            "since": row.since,
        })
    };
    let of = |(mapping, parked): &(MappingName, Parked)| {
        let rows: Vec<Value> = parked.rows.iter().map(row).collect();
        (mapping.to_string(), json!({ "total": parked.total, "rows": rows }))
    };
    Value::Object(parked.iter().map(of).collect())
}
