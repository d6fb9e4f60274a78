//! SQLite's own words, put into the standard's, for a parser that knows only these.
//!
//! The rewritten text names the same tables, columns and functions and does the same kind of thing; it may well give other
//! values. It is only read, never run: what runs is what was written.

use super::super::Dialect;
use super::super::token::{self, Kind, Token};

/// How many tokens a rule takes the place of, and by which text.
type Rewritten = Option<(usize, String)>;

/// The rules, of which the first that fits is taken.
const RULES: [fn(&Words<'_>) -> Rewritten; 7] =
    [is, is_null, is_in, index_hint, negated_match, materialized, shift];

/// The tokens from one on.
struct Words<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl Words<'_> {
    fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_word(self.text, word))
    }

    fn is_punct(&self, at: usize, punct: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_punct(self.text, punct))
    }

    fn is_name(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind != Kind::Punct)
    }
}

/// The text with a blank for each gap between its words; `None` if something in it has no end.
pub(super) fn without_comments(text: &str) -> Option<String> {
    let tokens = token::tokens(Dialect::Sqlite, text, 1).ok()?;
    let mut out = String::with_capacity(text.len());
    let mut end = 0;
    for token in &tokens {
        if token.start > end && !out.is_empty() {
            out.push(' ');
        }
        out.push_str(token.text(text));
        end = token.end;
    }
    Some(out)
}

/// How deep a tree of this text can be at the most: what stands between two commas may be one chain, a level for each word,
/// with the deepest of its parentheses at the end.
pub(super) fn depth(text: &str) -> usize {
    /// Between two parentheses.
    #[derive(Default)]
    struct Group {
        /// Of what stands between the commas so far.
        deepest: usize,
        /// Words since the last comma.
        words: usize,
        /// Of the parentheses since the last comma.
        inner: usize,
    }
    impl Group {
        fn end_part(&mut self) {
            self.deepest = self.deepest.max(self.words + self.inner);
            (self.words, self.inner) = (0, 0);
        }
    }
    let tokens = token::tokens(Dialect::Sqlite, text, 1).unwrap_or_default();
    let mut outer: Vec<Group> = Vec::new();
    let mut group = Group::default();
    for token in &tokens {
        if token.is_punct(text, "(") {
            outer.push(std::mem::take(&mut group));
        } else if token.is_punct(text, ",") {
            group.end_part();
        } else if token.is_punct(text, ")") {
            group.end_part();
            let depth = group.deepest + 1;
            group = outer.pop().unwrap_or_default();
            group.inner = group.inner.max(depth);
        } else {
            group.words += 1;
        }
    }
    group.end_part();
    while let Some(mut around) = outer.pop() {
        around.inner = around.inner.max(group.deepest + 1);
        around.end_part();
        group = around;
    }
    group.deepest
}

/// The text in standard words; `None` if there is nothing to put into them.
pub(super) fn standard(text: &str) -> Option<String> {
    let tokens = token::tokens(Dialect::Sqlite, text, 1).ok()?;
    let mut out = String::with_capacity(text.len());
    let (mut at, mut copied) = (0, 0);
    while let Some(token) = tokens.get(at) {
        let words = Words { text, tokens: tokens.get(at..)? };
        let Some((length, standard)) = RULES.iter().find_map(|rule| rule(&words)) else {
            at += 1;
            continue;
        };
        out.push_str(text.get(copied..token.start)?);
        out.push_str(&standard);
        at += length;
        copied = tokens.get(at.checked_sub(1)?)?.end;
    }
    out.push_str(text.get(copied..)?);
    (copied > 0).then_some(out)
}

/// `a IS b` compares any two values.
fn is(words: &Words<'_>) -> Rewritten {
    const STANDARD_ALREADY: [&str; 4] = ["null", "true", "false", "distinct"];
    if !words.is(0, "is") {
        return None;
    }
    let (length, standard) =
        if words.is(1, "not") { (2, "IS DISTINCT FROM") } else { (1, "IS NOT DISTINCT FROM") };
    if STANDARD_ALREADY.iter().any(|word| words.is(length, word)) {
        return None;
    }
    Some((length, standard.to_owned()))
}

/// `a ISNULL`.
fn is_null(words: &Words<'_>) -> Rewritten {
    words.is(0, "isnull").then(|| (1, "IS NULL".to_owned()))
}

/// `a IN t` looks into a table.
fn is_in(words: &Words<'_>) -> Rewritten {
    if !words.is(0, "in") || !words.is_name(1) {
        return None;
    }
    let length = if words.is_punct(2, ".") && words.is_name(3) { 4 } else { 2 };
    // A table function, whose arguments stand behind it.
    if words.is_punct(length, "(") {
        return None;
    }
    let (first, last) = (words.tokens.get(1)?, words.tokens.get(length - 1)?);
    let table = words.text.get(first.start..last.end)?;
    Some((length, format!("IN (SELECT 1 FROM {table})")))
}

/// `INDEXED BY i` and `NOT INDEXED` choose how rows are found, and nothing else.
fn index_hint(words: &Words<'_>) -> Rewritten {
    if words.is(0, "indexed") && words.is(1, "by") && words.is_name(2) {
        Some((3, String::new()))
    } else if words.is(0, "not") && words.is(1, "indexed") {
        Some((2, String::new()))
    } else {
        None
    }
}

/// `a NOT GLOB b` and its like.
fn negated_match(words: &Words<'_>) -> Rewritten {
    let is_match = ["glob", "regexp", "match"].iter().any(|word| words.is(1, word));
    (words.is(0, "not") && is_match).then(|| (2, "NOT LIKE".to_owned()))
}

/// `AS [NOT] MATERIALIZED (…)` chooses when a CTE is computed, and nothing else.
fn materialized(words: &Words<'_>) -> Rewritten {
    let length = if words.is(1, "not") { 3 } else { 2 };
    let fits = words.is(0, "as") && words.is(length - 1, "materialized");
    (fits && words.is_punct(length, "(")).then(|| (length, "AS".to_owned()))
}

/// `a << b` and `a >> b`, but not the end of `a ->> b`.
fn shift(words: &Words<'_>) -> Rewritten {
    let is = |first: &str, second: &str| words.is_punct(0, first) && words.is_punct(1, second);
    if is("-", ">") && words.is_punct(2, ">") {
        return Some((3, "->>".to_owned()));
    }
    (is("<", "<") || is(">", ">")).then(|| (2, "&".to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn comments_become_blanks_and_quotes_stay() {
        let text =
            "/* a */ INSERT /* /* */ OR REPLACE -- */ */\n INTO t VALUES ('--  /*', \"a  b\")";
        let read = without_comments(text).unwrap();
        assert_eq!(read, "INSERT OR REPLACE INTO t VALUES ('--  /*', \"a  b\")");
        assert_eq!(without_comments("SELECT 'a"), None);
    }

    #[test]
    fn depth_adds_up_along_chains_and_into_parentheses_but_not_over_commas() {
        let cases = [
            ("", 0),
            ("1", 1),
            ("1 + 1", 3),
            ("f(1, 2, 3)", 3),
            ("(1), (2), (3)", 2),
            ("(1 + (2 + 3)), 4", 7),
            ("((((1", 5),
            ("1))))", 5),
        ];
        for (text, expected) in cases {
            assert_eq!(depth(text), expected, "{text}");
        }
    }

    #[test]
    fn only_what_the_standard_lacks_is_rewritten() {
        let cases = [
            ("a IS b", "a IS NOT DISTINCT FROM b"),
            ("a is not 5", "a IS DISTINCT FROM 5"),
            ("a IN t", "a IN (SELECT 1 FROM t)"),
            ("a NOT IN main.\"t\" AND b", "a NOT IN (SELECT 1 FROM main.\"t\") AND b"),
            ("FROM t INDEXED BY i WHERE", "FROM t  WHERE"),
            ("a NOT GLOB 'x' << 2", "a NOT LIKE 'x' & 2"),
            ("a ->> 'b' IS c >> 1 ISNULL", "a ->> 'b' IS NOT DISTINCT FROM c & 1 IS NULL"),
            ("c AS NOT MATERIALIZED (SELECT 'a IS b')", "c AS (SELECT 'a IS b')"),
        ];
        for (text, standard) in cases {
            assert_eq!(super::standard(text).unwrap(), standard);
        }
        for text in ["a IS NULL", "a IS NOT NULL", "a IN (1)", "'a IS b'", "a IN f(1)", "a < b"] {
            assert_eq!(super::standard(text), None, "{text}");
        }
    }
}
