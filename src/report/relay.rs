//! How far the new sides of mappings between databases are behind, and who carries changes there.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::run::{MappingName, StepId, TargetName, Timestamp};

use super::words;

/// A mapping whose changes are carried.
#[derive(Clone, Debug, PartialEq)]
pub struct RelayView {
    /// The mapping.
    pub mapping: MappingName,
    /// The step that captures its changes.
    pub step: StepId,
    /// From where.
    pub from: TargetName,
    /// To where.
    pub into: TargetName,
    /// What waits, or why that can't be told.
    pub waiting: Result<Waiting, String>,
    /// What is wrong with the capture of its changes, so that some may be missed.
    pub broken: Option<String>,
    /// Changes carried so far.
    pub carried: u64,
    /// When the last ones were.
    pub last_at: Option<Timestamp>,
    /// Who carries them now, in words.
    pub by: Option<String>,
}

/// Changes that have not been applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many; about, where not all were counted.
    pub rows: u64,
    /// Whether not all were counted.
    pub is_more: bool,
    /// How long ago the oldest was written, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// How many bytes they take.
    pub bytes: u64,
    /// How many of them were refused and are parked.
    pub parked: u64,
    /// Why one was refused last.
    pub last_error: Option<String>,
}

impl RelayView {
    /// Whether the new side has everything, waits for some of it, refused some, or isn't told of all.
    #[must_use]
    pub fn sync_status(&self) -> &'static str {
        match &self.waiting {
            _ if self.broken.is_some() => "broken",
            Err(_) => "unknown",
            Ok(waiting) if waiting.parked > 0 => "failed",
            Ok(waiting) if waiting.rows > 0 => "pending",
            Ok(_) => "synced",
        }
    }

    fn line(&self, now: Timestamp) -> String {
        let mut text = format!("  {}: {}", self.mapping, self.sync_status());
        match &self.waiting {
            Err(why) => {
                let _ = write!(text, " ({why})");
            }
            Ok(waiting) => {
                if waiting.rows > 0 {
                    let more = if waiting.is_more { "about " } else { "" };
                    let _ =
                        write!(text, ", {more}{} to apply", words::plural(waiting.rows, "change"));
                }
                if let Some(ms) = waiting.oldest_ms {
                    let _ = write!(text, ", {} behind", words::duration(ms));
                }
                if waiting.parked > 0 {
                    let _ = write!(text, ", {} parked", words::count(waiting.parked));
                }
            }
        }
        let _ = write!(text, "; {} applied", words::count(self.carried));
        if let Some(at) = self.last_at {
            let _ = write!(text, ", the last {} ago", words::duration(now.since_ms(at)));
        }
        text.push('\n');
        if let Some(why) = &self.broken {
            let _ = writeln!(text, "    changes may be missed: {why}");
        }
        if let Ok(Waiting { last_error: Some(why), .. }) = &self.waiting {
            let _ = writeln!(text, "    last refused: {why}");
        }
        words::visible(&text)
    }

    fn document(&self) -> Value {
        let waiting = self.waiting.as_ref().ok();
        json!({
            "mapping": self.mapping,
            "step": self.step,
            "from": self.from,
            "into": self.into,
            "sync_status": self.sync_status(),
            "broken": self.broken,
            "lag_rows": waiting.map(|it| it.rows),
            "lag_rows_is_more": waiting.map(|it| it.is_more),
            "lag_ms": waiting.map(|it| it.oldest_ms.unwrap_or(0)),
            "lag_bytes": waiting.map(|it| it.bytes),
            "parked": waiting.map(|it| it.parked),
            "last_error": waiting.and_then(|it| it.last_error.clone()),
            "unknown": self.waiting.as_ref().err(),
            "applied": self.carried,
            "last_applied_at": self.last_at.and_then(words::rfc3339),
            "carried_by": self.by,
        })
    }
}

/// The mappings for people; nothing where there are none.
#[must_use]
pub fn render(relays: &[RelayView], now: Timestamp) -> String {
    let mut text = String::new();
    let mut last = None;
    for relay in relays {
        let stream = (&relay.from, &relay.into);
        if last != Some(stream) {
            let by = relay.by.as_deref();
            let by = by.map_or_else(|| "no relay is at work".to_owned(), |by| format!("by {by}"));
            let _ = writeln!(text, "\nchanges from {} to {}, {by}:", relay.from, relay.into);
            last = Some(stream);
        }
        text.push_str(&relay.line(now));
    }
    text
}

/// The mappings as documents have them.
#[must_use]
pub fn document(relays: &[RelayView]) -> Value {
    Value::Array(relays.iter().map(RelayView::document).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn view(waiting: Result<Waiting, String>) -> RelayView {
        RelayView {
            mapping: "users".into(),
            step: "sync-users".into(),
            from: "app".into(),
            into: "graph".into(),
            waiting,
            broken: None,
            carried: 1_200,
            last_at: Some(Timestamp::from_unix_ms(9_000)),
            by: Some("ann (pid 7 on here)".to_owned()),
        }
    }

    #[test]
    fn what_waits_is_told_with_who_carries_it() {
        let now = Timestamp::from_unix_ms(10_000);
        let waiting = Waiting {
            rows: 3,
            oldest_ms: Some(2_500),
            parked: 1,
            last_error: Some("no such label".to_owned()),
            ..Waiting::default()
        };
        let all = [view(Ok(waiting)), view(Ok(Waiting::default())), view(Err("gone".into()))];
        let text = render(&all, now);
        for part in [
            "changes from app to graph, by ann (pid 7 on here):",
            "users: failed, 3 changes to apply, 2.5s behind, 1 parked; 1,200 applied, the last 1.0s ago",
            "last refused: no such label",
            "users: synced; 1,200 applied",
            "users: unknown (gone)",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let document = document(&all);
        assert_eq!(document[0]["sync_status"], "failed");
        assert_eq!(document[0]["lag_ms"], 2_500);
        assert_eq!(document[1]["lag_ms"], 0);
        assert_eq!(document[2]["lag_rows"], Value::Null);
        assert_eq!(render(&[], now), "");
        let mut broken = view(Ok(Waiting::default()));
        broken.broken = Some("trigger x is disabled".to_owned());
        assert_eq!(broken.document()["sync_status"], "broken");
        let text = render(&[broken], now);
        assert!(text.contains("users: broken; 1,200 applied"), "{text}");
        assert!(text.contains("changes may be missed: trigger x is disabled"), "{text}");
    }
}
