//! A row that is not as it should be, and how much of it is written down.
//!
//! Values are the plan's data: whatever of them is written down here outlives the run in its journal. [`Redact`] says what is
//! left out, before anything is recorded. Absent on purpose: finding differences, which databases do.

use serde::{Deserialize, Serialize};

use crate::bounds::message::{KEYS_SAID_MAX, VALUE_CHARS_MAX};

/// What stands in the place of a key that is not shown.
pub const HIDDEN: &str = "(redacted)";

/// One row that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// How.
    pub kind: DifferenceKind,
    /// Its key, for people.
    pub key: String,
    /// Which columns differ.
    pub columns: Vec<String>,
    /// What stands in those columns, or in the row that only one side has, beside its key; of the first [`VALUES_MAX`](crate::bounds::message::VALUES_MAX) columns.
    /// Empty where values are not to be recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<ColumnValues>,
}

/// How a row is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// Only the old side has it.
    Missing,
    /// Only the new side has it.
    Extra,
    /// Its columns differ.
    Different,
}

/// A column of the new side: what it should hold, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnValues {
    /// The column.
    pub column: String,
    /// What the mapping makes of the old side's row; none where the old side has no such row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ShownValue>,
    /// What the new side holds; none where it has no such row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<ShownValue>,
}

/// A value as text, or the beginning of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownValue {
    /// The text; none for NULL.
    pub text: Option<String>,
    /// How many characters the whole has, where `text` is only its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
}

/// What of differences is neither recorded nor shown. Each hides what those before it hide, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Redact {
    /// Everything is shown.
    #[default]
    Nothing,
    /// Values are not: keys say which rows, columns where in them.
    Values,
    /// Nor are keys, where these are personal themselves: what is left is how many rows, and in which columns.
    Keys,
}

impl Redact {
    /// Whether nothing is hidden.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

impl ShownValue {
    /// A value of which the database gave the beginning, and the length of the whole in characters.
    #[must_use]
    pub fn cut(text: Option<String>, length: Option<u64>) -> Self {
        let length = length.filter(|length| *length > VALUE_CHARS_MAX as u64);
        Self { text, length }
    }
}

impl Difference {
    /// Takes away what is to be hidden.
    pub fn redact(&mut self, redact: Redact) {
        if redact >= Redact::Values {
            self.values.clear();
        }
        if redact >= Redact::Keys {
            HIDDEN.clone_into(&mut self.key);
        }
    }
}

/// The keys of rows of which there are so many, as the end of a sentence: the first few of those that are known.
#[must_use]
pub fn keys_said<'a>(rows: u64, known: impl IntoIterator<Item = &'a Difference>) -> String {
    let said: Vec<&str> =
        known.into_iter().take(KEYS_SAID_MAX).map(|one| one.key.as_str()).collect();
    let intro = match said.len() {
        0 => return String::new(),
        1 if rows == 1 => "its key: ".to_owned(),
        some if some as u64 == rows => "their keys: ".to_owned(),
        some => format!("{some} of their keys: "),
    };
    format!("{intro}{}", said.join("; "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn difference() -> Difference {
        let value = |text: &str| Some(ShownValue::cut(Some(text.into()), Some(4)));
        Difference {
            kind: DifferenceKind::Different,
            key: "\"ann@example.com\"".into(),
            columns: vec!["status".into()],
            values: vec![ColumnValues {
                column: "status".into(),
                expected: value("open"),
                found: value("OPEN"),
            }],
        }
    }

    #[test]
    fn redaction_hides_values_then_keys_and_never_columns() {
        for (redact, has_values, has_key) in [
            (Redact::Nothing, true, true),
            (Redact::Values, false, true),
            (Redact::Keys, false, false),
        ] {
            let mut one = difference();
            one.redact(redact);
            assert_eq!(one.values.is_empty(), !has_values, "{redact:?}");
            let text = serde_json::to_string(&one).unwrap();
            assert_eq!(text.contains("ann@example.com"), has_key, "{redact:?}");
            assert_eq!(text.contains("OPEN"), has_values, "{redact:?}");
            assert_eq!(one.columns, ["status"]);
        }
    }

    #[test]
    fn a_sentence_names_a_few_keys() {
        let all = vec![difference(); 7];
        assert_eq!(keys_said(0, &[]), "");
        assert_eq!(keys_said(1, &all[..1]), "its key: \"ann@example.com\"");
        let mut two = vec![difference(); 2];
        two[1].key = "7".into();
        assert_eq!(keys_said(2, &two), "their keys: \"ann@example.com\"; 7");
        let seven = keys_said(7, &all);
        assert!(seven.starts_with("5 of their keys: "), "{seven}");
        assert_eq!(seven.matches("ann@").count(), KEYS_SAID_MAX);
    }

    #[test]
    fn the_length_is_said_of_what_was_cut_only() {
        assert_eq!(ShownValue::cut(Some("abc".into()), Some(3)).length, None);
        assert_eq!(ShownValue::cut(Some("abc".into()), Some(3000)).length, Some(3000));
        assert_eq!(ShownValue::cut(None, None), ShownValue { text: None, length: None });
    }

    #[test]
    fn journals_from_before_values_were_recorded_are_read() {
        let old = r#"{"kind":"different","key":"7","columns":["status"]}"#;
        let read: Difference = serde_json::from_str(old).unwrap();
        assert!(read.values.is_empty());
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
    }
}
