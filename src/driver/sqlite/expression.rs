//! Reading expressions as far as the sync needs it: which names occur, and where the parts of an index begin and end.
//!
//! A name that occurs is taken for a column whenever the table has one of that name. That may find too many, which makes
//! the sync coarser and never wrong; it can't find too few, because a column can't be read without its name.
//! Absent on purpose: understanding expressions. SQLite does that, when the statement is prepared.

use super::catalogue::same_name;

/// A word of SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// An identifier or a key word, without quotes.
    Name(String),
    /// An identifier in double quotes, which SQLite takes for text when it names nothing.
    Quoted(String),
    /// Text, a number or a parameter.
    Literal,
    /// Anything else, one character at a time.
    Mark(char),
}

/// A word and where it stands, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spanned {
    pub word: Word,
    pub start: usize,
    pub end: usize,
}

/// Splits SQL into words; blanks and comments are left out.
pub(super) fn words(sql: &str) -> Vec<Spanned> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = sql[at..].chars().next() {
        let rest = &sql[at..];
        let (length, word) = match first {
            c if c.is_whitespace() => (c.len_utf8(), None),
            '-' if rest.starts_with("--") => (rest.find('\n').unwrap_or(rest.len()), None),
            '/' if rest.starts_with("/*") => {
                (rest.find("*/").map_or(rest.len(), |end| end + 2), None)
            }
            '\'' => (quoted(rest, '\'').0, Some(Word::Literal)),
            '"' => {
                let (length, text) = quoted(rest, '"');
                (length, Some(Word::Quoted(text)))
            }
            '`' => {
                let (length, text) = quoted(rest, '`');
                (length, Some(Word::Name(text)))
            }
            '[' => {
                let length = rest.find(']').map_or(rest.len(), |end| end + 1);
                (length, Some(Word::Name(rest[1..length].trim_end_matches(']').to_owned())))
            }
            c if is_name(c) && !c.is_ascii_digit() => {
                let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                // x'…' is a blob.
                if length == 1 && rest[1..].starts_with('\'') && matches!(c, 'x' | 'X') {
                    (1 + quoted(&rest[1..], '\'').0, Some(Word::Literal))
                } else {
                    (length, Some(Word::Name(rest[..length].to_owned())))
                }
            }
            c if c.is_ascii_digit() => {
                let length = rest.find(|c| !is_name(c) && c != '.').unwrap_or(rest.len());
                (length, Some(Word::Literal))
            }
            c => (c.len_utf8(), Some(Word::Mark(c))),
        };
        if let Some(word) = word {
            found.push(Spanned { word, start: at, end: at + length });
        }
        at += length;
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// The length of a quoted word at the beginning of `text`, and what it says.
fn quoted(text: &str, quote: char) -> (usize, String) {
    let mut said = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            said.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            said.push(quote);
            chars.next();
        } else {
            return (at + quote.len_utf8(), said);
        }
    }
    (text.len(), said)
}

/// Those of `columns` that an expression may read, in the order of `columns`.
pub(super) fn reads<'a>(
    expression: &str,
    columns: impl IntoIterator<Item = &'a str>,
) -> Vec<&'a str> {
    let words = words(expression);
    let occurs = |column: &str| {
        words.iter().any(|spanned| match &spanned.word {
            Word::Name(name) | Word::Quoted(name) => same_name(name, column),
            _ => false,
        })
    };
    columns.into_iter().filter(|column| occurs(column)).collect()
}

/// The column, if an expression is nothing but a column's name, with or without the name of its table.
pub(super) fn only_column(expression: &str) -> Option<String> {
    let words = words(expression);
    let name = |spanned: &Spanned| match &spanned.word {
        Word::Name(name) | Word::Quoted(name) => Some(name.clone()),
        _ => None,
    };
    match words.as_slice() {
        [one] => name(one),
        [table, dot, one] if dot.word == Word::Mark('.') => {
            name(table)?;
            name(one)
        }
        _ => None,
    }
}

/// A word in double quotes that names none of `columns` nor the table: SQLite would take it for text. Expressions with
/// a subquery may name other tables' columns and are not judged.
pub(super) fn text_in_double_quotes(
    expression: &str,
    table: &str,
    columns: &[&str],
) -> Option<String> {
    let words = words(expression);
    let has_subquery = words
        .iter()
        .any(|spanned| matches!(&spanned.word, Word::Name(name) if same_name(name, "select")));
    if has_subquery {
        return None;
    }
    words.into_iter().find_map(|spanned| match spanned.word {
        Word::Quoted(name)
            if !same_name(&name, table)
                && !columns.iter().any(|column| same_name(column, &name)) =>
        {
            Some(name)
        }
        _ => None,
    })
}

/// What stands between the first parentheses of a CREATE statement, cut at its commas.
pub(super) fn definitions(create: &str) -> Vec<Vec<Spanned>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut depth = 0_usize;
    for spanned in words(create) {
        let is_mark = |mark| spanned.word == Word::Mark(mark);
        let was_outside = depth == 0;
        if is_mark('(') {
            depth += 1;
        } else if is_mark(')') {
            depth = depth.saturating_sub(1);
        }
        if was_outside {
            continue;
        }
        if depth == 0 || (depth == 1 && is_mark(',')) {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(spanned);
        }
        if depth == 0 {
            break;
        }
    }
    parts
}

/// The texts of an index's parts from its CREATE statement, without COLLATE, ASC and DESC behind them.
pub(super) fn index_parts(create: &str) -> Vec<String> {
    definitions(create).iter().map(|part| index_part(create, part)).collect()
}

/// The collation that a CREATE TABLE statement gives to a column.
pub(super) fn column_collation(create: &str, column: &str) -> String {
    let is_its = |part: &Vec<Spanned>| match part.first().map(|first| &first.word) {
        Some(Word::Name(name) | Word::Quoted(name)) => same_name(name, column),
        _ => false,
    };
    let words = definitions(create).into_iter().find(is_its).unwrap_or_default();
    let mut depth = 0_usize;
    for pair in words.windows(2) {
        match (&pair[0].word, &pair[1].word) {
            (Word::Mark('('), _) => depth += 1,
            (Word::Mark(')'), _) => depth = depth.saturating_sub(1),
            (Word::Name(collate), Word::Name(name) | Word::Quoted(name))
                if depth == 0 && same_name(collate, "collate") =>
            {
                return name.clone();
            }
            _ => {}
        }
    }
    "BINARY".to_owned()
}

fn index_part(create: &str, mut words: &[Spanned]) -> String {
    let is = |spanned: &Spanned, wanted: &str| matches!(&spanned.word, Word::Name(name) if same_name(name, wanted));
    if let [rest @ .., last] = words
        && (is(last, "asc") || is(last, "desc"))
    {
        words = rest;
    }
    if let [rest @ .., collate, _] = words
        && is(collate, "collate")
    {
        words = rest;
    }
    match (words.first(), words.last()) {
        (Some(first), Some(last)) => create[first.start..last.end].to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_columns_that_an_expression_reads() {
        let columns = ["status", "first name", "x", "x y"];
        let cases: &[(&str, &[&str])] = &[
            ("lower(STATUS)", &["status"]),
            ("'status' || x'00' || \"first name\"", &["first name"]),
            ("[x y] -- status\n + 1", &["x y"]),
            ("/* x */ `status` || leads.x", &["status", "x"]),
            ("'it''s x'", &[]),
            ("xy + 2x", &[]),
        ];
        for (expression, expected) in cases {
            assert_eq!(reads(expression, columns), *expected, "{expression}");
        }
    }

    #[test]
    fn knows_a_plain_column_from_an_expression() {
        assert_eq!(only_column(" Email "), Some("Email".to_owned()));
        assert_eq!(only_column("leads.\"e mail\""), Some("e mail".to_owned()));
        assert_eq!(only_column("lower(email)"), None);
        assert_eq!(only_column("'email'"), None);
    }

    #[test]
    fn double_quotes_around_text_are_found() {
        let columns = ["a"];
        assert_eq!(text_in_double_quotes("\"a\" || \"b\"", "t", &columns), Some("b".to_owned()));
        assert_eq!(text_in_double_quotes("\"t\".\"A\"", "t", &columns), None);
        assert_eq!(text_in_double_quotes("(SELECT \"z\" FROM u)", "t", &columns), None);
    }

    #[test]
    fn finds_the_collation_of_a_column() {
        let create = "CREATE TABLE \"t (a collate x\" (a TEXT CHECK (a > 'b' COLLATE RTRIM) NOT NULL COLLATE nocase, \"b,\" DECIMAL(1, 2) COLLATE \"My\", c, PRIMARY KEY (c COLLATE NOCASE))";
        for (column, expected) in [("A", "nocase"), ("b,", "My"), ("c", "BINARY"), ("d", "BINARY")]
        {
            assert_eq!(column_collation(create, column), expected, "{column}");
        }
    }

    #[test]
    fn splits_an_index_into_its_parts() {
        let create = "CREATE UNIQUE INDEX i ON t (lower(a) COLLATE nocase DESC, \"b,c\", coalesce(x, ')')) WHERE (y)";
        assert_eq!(index_parts(create), ["lower(a)", "\"b,c\"", "coalesce(x, ')')"]);
    }
}
