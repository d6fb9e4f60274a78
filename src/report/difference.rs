//! A row that a verify found to differ, for people.
//!
//! Values are quoted and escaped as texts, so that blanks at their ends, signs that can't be seen and letters that only look
//! alike (an accent of its own instead of a letter with one) show.

use crate::run::{ColumnValues, Difference, DifferenceKind, ShownValue};

use super::words;

/// The lines on one row: which, in what it differs, and what stands there.
#[must_use]
pub fn lines(one: &Difference) -> String {
    let what = match one.kind {
        DifferenceKind::Missing => "missing on the new side".to_owned(),
        DifferenceKind::Extra => "only on the new side".to_owned(),
        // The value of a query: what is wrong with it stands in the place of a key.
        DifferenceKind::Different if one.columns.is_empty() => {
            return line(&format!("  {}", one.key));
        }
        DifferenceKind::Different => format!("differs in {}", one.columns.join(", ")),
    };
    let mut text = line(&format!("  key {}: {what}", one.key));
    let of_one_side: Vec<String> = one
        .values
        .iter()
        .filter_map(|values| {
            let ((Some(value), None) | (None, Some(value))) = (&values.expected, &values.found)
            else {
                return None;
            };
            Some(format!("{} = {}", values.column, shown(value)))
        })
        .collect();
    if !of_one_side.is_empty() {
        text += &line(&format!("      {}", of_one_side.join(", ")));
    }
    for values in &one.values {
        if let Some(of_both) = of_both(values) {
            text += &line(&format!("      {}: {of_both}", values.column));
        }
    }
    text
}

fn line(text: &str) -> String {
    words::visible(text) + "\n"
}

fn of_both(values: &ColumnValues) -> Option<String> {
    let (expected, found) = (values.expected.as_ref()?, values.found.as_ref()?);
    let (should, is) = (shown(expected), shown(found));
    Some(if should == is {
        // Two images with one text, or two long values with one beginning.
        format!("holds {is}, which is stored otherwise than it should be, or differs further on")
    } else {
        format!("holds {is}, should hold {should}")
    })
}

fn shown(value: &ShownValue) -> String {
    match (&value.text, value.length) {
        (None, _) => "NULL".to_owned(),
        (Some(text), None) => format!("{text:?}"),
        (Some(text), Some(length)) => format!("{text:?}… ({} characters)", words::count(length)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[allow(clippy::unnecessary_wraps)] // as the fields have it
    fn value(text: &str) -> Option<ShownValue> {
        Some(ShownValue { text: Some(text.into()), length: None })
    }

    fn values(
        column: &str,
        expected: Option<ShownValue>,
        found: Option<ShownValue>,
    ) -> ColumnValues {
        ColumnValues { column: column.into(), expected, found }
    }

    fn difference(kind: DifferenceKind, values: Vec<ColumnValues>) -> Difference {
        let columns = match kind {
            DifferenceKind::Different => values.iter().map(|one| one.column.clone()).collect(),
            _ => Vec::new(),
        };
        Difference { kind, key: "7".into(), columns, values }
    }

    #[test]
    fn both_values_of_a_column_are_shown_so_that_they_can_be_told_apart() {
        let null = || Some(ShownValue { text: None, length: None });
        for (expected, found, line) in [
            (value("open"), value("open "), r#"s: holds "open ", should hold "open""#),
            (value(""), null(), r#"s: holds NULL, should hold """#),
            (value("NULL"), null(), r#"s: holds NULL, should hold "NULL""#),
            (value("\u{e9}"), value("e\u{301}"), "s: holds \"e\\u{301}\", should hold \"\u{e9}\""),
            (value("a\u{200b}"), value("a"), "s: holds \"a\", should hold \"a\\u{200b}\""),
            (value("1\n2"), value("1"), r#"s: holds "1", should hold "1\n2""#),
            (
                value("NaN"),
                value("NaN"),
                r#"s: holds "NaN", which is stored otherwise than it should be, or differs further on"#,
            ),
            (
                Some(ShownValue { text: Some("abc".into()), length: Some(12_000) }),
                value("abc"),
                r#"s: holds "abc", should hold "abc"… (12,000 characters)"#,
            ),
        ] {
            let one = difference(DifferenceKind::Different, vec![values("s", expected, found)]);
            assert_eq!(lines(&one), format!("  key 7: differs in s\n      {line}\n"));
        }
    }

    #[test]
    fn rows_of_one_side_take_a_line_and_redacted_ones_none() {
        let two = vec![values("a", value("1"), None), values("b", value("x"), None)];
        let missing = difference(DifferenceKind::Missing, two);
        assert_eq!(
            lines(&missing),
            "  key 7: missing on the new side\n      a = \"1\", b = \"x\"\n"
        );
        let extra = difference(DifferenceKind::Extra, vec![values("a", None, value("1"))]);
        assert_eq!(lines(&extra), "  key 7: only on the new side\n      a = \"1\"\n");
        let mut redacted = difference(
            DifferenceKind::Different,
            vec![values("a", value("secret"), value("other"))],
        );
        redacted.redact(crate::run::Redact::Keys);
        assert_eq!(lines(&redacted), "  key (redacted): differs in a\n");
    }

    #[test]
    fn the_value_of_a_query_has_no_key() {
        let mut one = difference(DifferenceKind::Different, Vec::new());
        one.key = "value 5, expected 4".into();
        assert_eq!(lines(&one), "  value 5, expected 4\n");
    }
}
