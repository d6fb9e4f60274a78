//! Expressions over one node or relationship, as mappings have them, and names in backticks.

use std::collections::BTreeSet;

use crate::sql::Dialect;
use crate::sql::token::{Kind, Token, tokens};

use super::disguise::disguise;
use super::functions::{TIMES, called};

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

/// What asks a type of time for the present moment, behind a dot.
const NOW: [&str; 3] = ["realtime", "statement", "transaction"];

/// What relationships may be drawn with beside `-`, `<` and `>`: `ARROW_LINE` and both `ARROW_…_HEAD` of the server's grammar.
const ARROWS: [char; 16] = [
    '\u{ad}', '\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}', '\u{2015}', '\u{27e8}',
    '\u{27e9}', '\u{3008}', '\u{3009}', '\u{fe58}', '\u{fe63}', '\u{fe64}', '\u{ff0d}', '\u{ff1c}',
];

/// The properties that an expression reads, each with whose it is (one of [`ROW`]). The error is a sentence for people, without
/// an end.
///
/// Errors: what isn't one expression; subqueries, aggregates, lists of paths and parameters, which are no expressions over one row;
/// functions whose value can't be had twice.
pub fn properties_read(expression: &str) -> Result<BTreeSet<(String, String)>, String> {
    if let Some(why) = disguise(expression) {
        return Err(format!("it has {why}"));
    }
    let all = tokens(Dialect::Cypher, expression, 1).map_err(|error| error.to_string())?;
    let text = |at: usize| all.get(at).map_or("", |token| token.text(expression));
    let is_word = |at: usize| all.get(at).is_some_and(|token| token.kind == Kind::Word);
    let is_punct =
        |at: usize, punct: &str| all.get(at).is_some_and(|t| t.is_punct(expression, punct));
    if all.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut open: Vec<(&str, usize)> = Vec::new();
    let mut read = BTreeSet::new();
    for at in 0..all.len() {
        let before = at.checked_sub(1);
        match text(at) {
            "(" => open.push((")", at)),
            "[" => open.push(("]", at)),
            "{" => open.push(("}", at)),
            close @ (")" | "]" | "}") if is_punct(at, close) => match open.pop() {
                Some((expected, begin)) if expected == close => {
                    if close == ")" && is_path(expression, &all, begin, at) {
                        return Err("it has a path, which reads more than one row".to_owned());
                    }
                }
                _ => return Err(format!("its brackets don't match at `{close}`")),
            },
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
        if let Some((_, name)) = called(expression, &all, at) {
            if AGGREGATES.contains(&&*name) {
                return Err(format!("{name} makes one value out of many rows"));
            }
            if is_unsteady(&name, is_punct(at + 2, ")")) {
                return Err(format!(
                    "{name}() is another at each call, so that it can't be compared"
                ));
            }
        }
        if is_only_timezone(expression, &all, at) {
            return Err("a time of which only the zone is said is the present moment".to_owned());
        }
        // What stands behind a colon is a label, but where a key of a map stands before it.
        let is_value = at >= 3
            && open.last().is_some_and(|(close, _)| *close == "}")
            && ["{", ","].iter().any(|punct| is_punct(at - 3, punct));
        // A property, a label or the key of a map is none of these words.
        let is_name = before
            .is_some_and(|before| is_punct(before, ".") || is_punct(before, ":") && !is_value)
            || is_punct(at + 1, ":");
        if !is_word(at) || is_name {
            continue;
        }
        if text(at).starts_with(ARROWS) {
            return Err("it has a path, which reads more than one row".to_owned());
        }
        let word = text(at).to_lowercase();
        let belongs = word == "with"
            && before
                .is_some_and(|before| ["starts", "ends"].contains(&&*text(before).to_lowercase()));
        if CLAUSES.contains(&&*word) && !belongs {
            return Err(format!("it has the clause {}", word.to_uppercase()));
        }
        if ["exists", "count", "collect"].contains(&&*word) && is_punct(at + 1, "{") {
            return Err("it has a subquery, which reads more than one row".to_owned());
        }
        if ROW.contains(&text(at)) && is_punct(at + 1, ".") {
            let name = all.get(at + 2).and_then(|token| token.name(expression)).unwrap_or_default();
            read.insert((text(at).to_owned(), name));
        }
    }
    match open.pop() {
        Some((missing, _)) => Err(format!("it lacks a `{missing}`")),
        None => Ok(read),
    }
}

/// Whether a function's value is another at each call. A type of time is the present moment when told nothing.
fn is_unsteady(name: &str, is_told_nothing: bool) -> bool {
    let asks_for_now = |(space, last): (&str, &str)| TIMES.contains(&space) && NOW.contains(&last);
    UNSTEADY.contains(&name)
        || is_told_nothing && TIMES.contains(&name)
        || name.split_once('.').is_some_and(asks_for_now)
}

/// Whether a map with no key but `timezone` begins before a token: to a type of time that is the present moment.
fn is_only_timezone(source: &str, all: &[Token], at: usize) -> bool {
    let is_punct = |at: usize, punct: &str| all.get(at).is_some_and(|t| t.is_punct(source, punct));
    let name = all.get(at).filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted));
    let is_key = name
        .and_then(|token| token.name(source))
        .is_some_and(|name| name.eq_ignore_ascii_case("timezone"))
        && at >= 1
        && is_punct(at - 1, "{")
        && is_punct(at + 1, ":");
    let mut depth = 0_u32;
    is_key
        && (at + 2..all.len()).find_map(|at| {
            let is_one = |puncts: [&str; 3]| puncts.iter().any(|punct| is_punct(at, punct));
            if depth == 0 && (is_punct(at, ",") || is_punct(at, "}")) {
                return Some(is_punct(at, "}"));
            }
            depth += u32::from(is_one(["(", "[", "{"]));
            depth = depth.saturating_sub(u32::from(is_one([")", "]", "}"])));
            None
        }) == Some(true)
}

/// Whether two brackets are those of a node that a relationship begins at.
fn is_path(source: &str, all: &[Token], begin: usize, end: usize) -> bool {
    let is = |at: usize, puncts: &[&str]| {
        all.get(at).is_some_and(|token| puncts.iter().any(|punct| token.is_punct(source, punct)))
    };
    let is_word = |at: usize, words: &[&str]| {
        all.get(at).is_some_and(|token| words.iter().any(|word| token.is_word(source, word)))
    };
    let is_named =
        all.get(begin + 1).is_some_and(|it| matches!(it.kind, Kind::Word | Kind::Quoted));
    let inside = begin + 1 + usize::from(is_named);
    let is_node = inside == end || is(inside, &[":", "{"]) || is_word(inside, &["is", "where"]);
    let line = end + 1 + usize::from(is(end + 1, &["<"]));
    let goes_on = is(line + 1, &["["])
        || is(line + 1, &["-"]) && is(line + 2 + usize::from(is(line + 2, &[">"])), &["("]);
    is_node && is(line, &["-"]) && goes_on
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
            "date({year: 2024, month: 1, timezone: 'UTC'})",
            "date.truncate('day', source.at)",
            "(source.a)--(source.b) + (source.c) - (source.d)",
            "[x IN source.tags WHERE (x)<-1 | -(x)]",
            "CASE WHEN source:Old THEN 1 ELSE 2 END",
            "{a: source.a, count: 1}.count",
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
            ("true //\r) DETACH DELETE source WITH (true", "don't match"),
            ("source.a\\u00a0+ 1", "escape"),
            ("{a: rand()}.a", "each call"),
            ("{a: 1, b: rand()}.b", "each call"),
            ("{a: COUNT { (source)--() }}.a", "subquery"),
            ("{a: count(source)}.a", "many rows"),
            ("`rand`()", "each call"),
            ("datetime.realtime()", "each call"),
            ("date . `statement` ('UTC')", "each call"),
            ("date({timezone: 'America/' + toUpper('x')})", "present moment"),
            ("[m IN [{timezone: 'UTC'}] | time(m)][0]", "present moment"),
            ("[(source)--(b) | b.x]", "path"),
            ("[p = (source)-[:A]->(b:B) | b.x]", "path"),
            ("[(source {id: 1})<-[:A]-(b) | b.x]", "path"),
            ("[(:A)-->(b) | b.x]", "path"),
            ("size([(source)<--() | 1])", "path"),
            ("[(source)\u{2014}(b) | b.x]", "path"),
            ("[(source)-\u{2014}(b) | b.x]", "path"),
            ("exists((source)-[:A]-())", "path"),
            ("'a", ""),
        ] {
            let error = properties_read(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let of_map = properties_read("{a: source.a, b: {c: end.c}}").unwrap();
        assert_eq!(of_map.len(), 2, "{of_map:?}");
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
