//! Expressions over one node or relationship, as mappings have them, and names in backticks.

use std::collections::BTreeSet;

use crate::sql::Dialect;
use crate::sql::token::{Kind, tokens};

use super::hidden_character;

/// What an expression calls the row that it is over, and the ends of that where it is a relationship.
pub const ROW: [&str; 3] = ["source", "start", "end"];

/// Words that begin a clause, or belong to one: an expression has none. `WITH` belongs to `STARTS WITH` and `ENDS WITH` too, `WHERE` to
/// lists.
const CLAUSES: [&str; 16] = [
    "match", "create", "merge", "unwind", "return", "call", "load", "foreach", "finish", "set",
    "delete", "detach", "remove", "union", "with", "use",
];

/// Functions that make one value out of many rows.
const AGGREGATES: [&str; 10] = [
    "avg",
    "collect",
    "count",
    "max",
    "min",
    "percentilecont",
    "percentiledisc",
    "stdev",
    "stdevp",
    "sum",
];

/// Functions whose value is another at each call.
const UNSTEADY: [&str; 3] = ["rand", "randomuuid", "timestamp"];

/// Functions that mean the present moment when told nothing.
const OF_TIME: [&str; 5] = ["date", "datetime", "localdatetime", "localtime", "time"];

/// The properties that an expression reads, each with whose it is (one of [`ROW`]). The error is a sentence for people, without
/// an end.
///
/// Errors: what isn't one expression; subqueries, aggregates, lists of paths and parameters, which are no expressions over one row;
/// functions whose value can't be had twice.
pub fn properties_read(expression: &str) -> Result<BTreeSet<(String, String)>, String> {
    if let Some(shown) = hidden_character(expression) {
        return Err(format!(
            "it has the escape {shown}, which the server replaces before it reads it"
        ));
    }
    let all = tokens(Dialect::Cypher, expression, 1).map_err(|error| error.to_string())?;
    let text = |at: usize| all.get(at).map_or("", |token| token.text(expression));
    let is_word = |at: usize| all.get(at).is_some_and(|token| token.kind == Kind::Word);
    let is_punct =
        |at: usize, punct: &str| all.get(at).is_some_and(|t| t.is_punct(expression, punct));
    if all.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut open = Vec::new();
    let mut read = BTreeSet::new();
    for at in 0..all.len() {
        let before = at.checked_sub(1);
        match text(at) {
            "(" => open.push(")"),
            "[" => open.push("]"),
            "{" => open.push("}"),
            close @ (")" | "]" | "}") if is_punct(at, close) && open.pop() != Some(close) => {
                return Err(format!("its brackets don't match at `{close}`"));
            }
            ";" if is_punct(at, ";") => return Err("it is more than one expression".to_owned()),
            "," if is_punct(at, ",") && open.is_empty() => {
                return Err("it is more than one expression".to_owned());
            }
            "$" if is_punct(at, "$") => return Err("it has a parameter".to_owned()),
            _ => {}
        }
        if is_word(at) && text(at).starts_with('$') {
            return Err("it has a parameter".to_owned());
        }
        // A property, a label or the key of a map is none of these words.
        let is_name = before.is_some_and(|before| is_punct(before, ".") || is_punct(before, ":"))
            || is_punct(at + 1, ":");
        if !is_word(at) || is_name {
            continue;
        }
        let word = text(at).to_lowercase();
        let is_called = is_punct(at + 1, "(");
        let belongs = word == "with"
            && before
                .is_some_and(|before| ["starts", "ends"].contains(&&*text(before).to_lowercase()));
        if CLAUSES.contains(&&*word) && !belongs {
            return Err(format!("it has the clause {}", word.to_uppercase()));
        }
        if ["exists", "count", "collect"].contains(&&*word) && is_punct(at + 1, "{") {
            return Err("it has a subquery, which reads more than one row".to_owned());
        }
        if is_called && AGGREGATES.contains(&&*word) {
            return Err(format!("{word} makes one value out of many rows"));
        }
        let is_now = OF_TIME.contains(&&*word) && is_punct(at + 2, ")");
        if is_called && (UNSTEADY.contains(&&*word) || is_now) {
            return Err(format!("{word}() is another at each call, so that it can't be compared"));
        }
        if ROW.contains(&text(at)) && is_punct(at + 1, ".") {
            let name = all.get(at + 2).and_then(|token| token.name(expression)).unwrap_or_default();
            read.insert((text(at).to_owned(), name));
        }
    }
    match open.pop() {
        Some(missing) => Err(format!("it lacks a `{missing}`")),
        None => Ok(read),
    }
}

/// The property that an expression is the plain value of, and whose it is: `id` and `source.id`, `start.id`, `end.id`. None where
/// it is anything else.
#[must_use]
pub fn plain_property(expression: &str) -> Option<(&'static str, String)> {
    let all = tokens(Dialect::Cypher, expression, 1).ok()?;
    match all.as_slice() {
        [name] if name.kind != Kind::Text => Some((ROW[0], name.name(expression)?)),
        [whose, dot, name] if dot.is_punct(expression, ".") && name.kind != Kind::Text => {
            let whose = ROW.into_iter().find(|row| *row == whose.text(expression))?;
            Some((whose, name.name(expression)?))
        }
        _ => None,
    }
}

/// A name in backticks. The server replaces escapes like `\u0060` before it reads, so that a backslash is written as one.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\u005c").replace('`', "``"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn expressions_over_one_row_are_told_from_others() {
        for good in [
            "toLower(source.status)",
            "source.a + ', ' + source.b",
            "CASE WHEN source.x STARTS WITH 'a' THEN 1 ELSE null END",
            "[x IN source.tags WHERE x <> '' | toUpper(x)]",
            "source.set + source.`delete`",
            "date(source.created)",
            "source {.a, match: 1}.a",
            "'default'",
            "'; DELETE n //' + source.x",
            "end.id",
        ] {
            assert!(properties_read(good).is_ok(), "{good}: {:?}", properties_read(good));
        }
        for (bad, why) in [
            ("", "empty"),
            ("1 DELETE source", "DELETE"),
            ("1 WITH source", "WITH"),
            ("source.x; MATCH (n)", "more than one"),
            ("1, 2", "more than one"),
            ("(1", "lacks"),
            ("1) DELETE (source", "don't match"),
            ("count(source)", "many rows"),
            ("COUNT { (source)--() }", "subquery"),
            ("EXISTS { MATCH (n) }", "subquery"),
            ("$x", "parameter"),
            ("datetime()", "each call"),
            ("rand()", "each call"),
            ("'a\\u0027 DELETE source //'", "escape"),
            ("'a", ""),
        ] {
            let error = properties_read(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let read = properties_read("source.a + start.`b c` + x.d + 'source.e'").unwrap();
        let read: Vec<_> = read.iter().map(|(of, name)| (of.as_str(), name.as_str())).collect();
        assert_eq!(read, [("source", "a"), ("start", "b c")]);
    }

    #[test]
    fn plain_properties_are_known() {
        let plain = |text: &str| plain_property(text).map(|(of, name)| format!("{of} {name}"));
        assert_eq!(plain("id").as_deref(), Some("source id"));
        assert_eq!(plain("source.`my id`").as_deref(), Some("source my id"));
        assert_eq!(plain(" end.id ").as_deref(), Some("end id"));
        for other in ["'id'", "other.id", "source.id + 1", "source.id.x", ""] {
            assert_eq!(plain(other), None, "{other}");
        }
        assert_eq!(quoted("a`b\\u0060"), "`a``b\\u005cu0060`");
    }
}
