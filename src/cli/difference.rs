//! The difference between two plans' meanings, for people and programs.

use serde_json::{Value, json};

use crate::report::{Colour, Tone, words};

use super::wiring::Change;

/// Changes as lines: what went with a minus, what came with a plus. Longer texts line by line.
#[must_use]
pub fn render(changes: &[Change], colour: Colour) -> String {
    let mut text = String::new();
    for change in changes {
        text.push_str(&colour.paint(Tone::Strong, &words::visible(&change.path)));
        text.push('\n');
        let sides = [(&change.old, "-", Tone::Bad), (&change.new, "+", Tone::Good)];
        for (value, sign, tone) in sides {
            for line in value.iter().flat_map(lines) {
                text.push_str("  ");
                text.push_str(&colour.paint(tone, &format!("{sign} {}", words::visible(&line))));
                text.push('\n');
            }
        }
    }
    text
}

/// A value as a plan would have it: text as it is, all else as JSON.
fn lines(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.lines().map(str::to_owned).collect(),
        Value::Object(_) | Value::Array(_) => {
            format!("{value:#}").lines().map(str::to_owned).collect()
        }
        other => vec![other.to_string()],
    }
}

/// Changes as documents have them.
#[must_use]
pub fn document(changes: &[Change]) -> Value {
    let change =
        |change: &Change| json!({ "path": change.path, "old": change.old, "new": change.new });
    changes.iter().map(change).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_both_sides_line_by_line() {
        let changes = [
            Change {
                path: "steps.copy.backfill.chunk.rows".into(),
                old: Some(json!("auto")),
                new: Some(json!(500)),
            },
            Change { path: "steps.extra".into(), old: Some(json!("one\ntwo")), new: None },
        ];
        assert_eq!(
            render(&changes, Colour::Off),
            "steps.copy.backfill.chunk.rows\n  - auto\n  + 500\nsteps.extra\n  - one\n  - two\n"
        );
        assert_eq!(document(&changes)[0]["new"], 500);
    }
}
