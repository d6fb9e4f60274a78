//! Names and text values as SQL writes them.

use std::borrow::Cow;

use super::Dialect;
use super::token::{self, Kind};
use crate::bounds::sql::MOST_NAME_BYTES;

/// An identifier in the database's own quotes, its quotes doubled. Right for every name, reserved words included.
#[must_use]
pub fn quote(dialect: Dialect, identifier: &str) -> String {
    let (open, close) = match dialect {
        Dialect::Sqlite | Dialect::Postgres => ('"', '"'),
        Dialect::Mysql | Dialect::Cypher => ('`', '`'),
        Dialect::Sqlserver => ('[', ']'),
    };
    let mut quoted = String::with_capacity(identifier.len() + 2);
    quoted.push(open);
    for char in identifier.chars() {
        if char == close {
            quoted.push(close);
        }
        quoted.push(char);
    }
    quoted.push(close);
    quoted
}

/// A text value as a literal. For values that no bind parameter can carry, as in the body of a trigger.
///
/// SQLite ends a statement at a NUL byte and PostgreSQL stores none, so NUL is left out rather than written.
#[must_use]
pub fn literal(dialect: Dialect, text: &str) -> String {
    if dialect == Dialect::Cypher {
        return format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    }
    let text = text.replace('\0', "").replace('\'', "''");
    match dialect {
        Dialect::Mysql => format!("'{}'", text.replace('\\', "\\\\")),
        Dialect::Postgres if text.contains('\\') => format!("E'{}'", text.replace('\\', "\\\\")),
        Dialect::Sqlserver => format!("N'{text}'"),
        Dialect::Sqlite | Dialect::Postgres | Dialect::Cypher => format!("'{text}'"),
    }
}

/// The schema and the table that a mapping's `table` means, spelled as the catalogue spells them: nothing is folded, so
/// that `Leads` is the table that SQL calls `"Leads"`. The first dot parts them; names that hold one stand in quotes.
#[must_use]
pub fn qualified_name(written: &str) -> (Option<String>, String) {
    fn part(written: &str) -> Option<(String, &str)> {
        let Some(quoted) = written.strip_prefix('"') else {
            let end = written.find('.').unwrap_or(written.len());
            return Some((written.get(..end)?.to_owned(), written.get(end..)?));
        };
        let mut name = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, char)) = chars.next() {
            if char != '"' {
                name.push(char);
            } else if quoted.get(at + 1..)?.starts_with('"') {
                name.push('"');
                chars.next();
            } else {
                return Some((name, quoted.get(at + 1..)?));
            }
        }
        None
    }
    let whole = || (None, written.to_owned());
    let Some((first, rest)) = part(written) else { return whole() };
    if rest.is_empty() {
        return (None, first);
    }
    let second = rest.strip_prefix('.').map(|rest| match part(rest) {
        Some((second, "")) => second,
        _ => rest.to_owned(),
    });
    second.map_or_else(whole, |second| (Some(first), second))
}

/// A table's name as a mapping writes it, which [`qualified_name`] reads: in quotes where it holds what would be read as
/// something else.
#[must_use]
pub fn written_name(schema: Option<&str>, name: &str) -> String {
    let part = |part: &str| {
        let is_plain = !part.contains(['.', '"']);
        if is_plain { part.to_owned() } else { quote(Dialect::Postgres, part) }
    };
    match schema {
        Some(schema) => format!("{}.{}", part(schema), part(name)),
        None => part(name),
    }
}

/// What a table is called once it has another name: in PostgreSQL it stays in its schema.
#[must_use]
pub fn renamed(dialect: Dialect, table: &str, to: &str) -> String {
    match qualified_name(table) {
        (Some(schema), _) if dialect == Dialect::Postgres && qualified_name(to).0.is_none() => {
            written_name(Some(&schema), &qualified_name(to).1)
        }
        _ => to.to_owned(),
    }
}

/// The names in a statement that the database would cut.
#[must_use]
pub fn long_names(dialect: Dialect, statement: &str) -> Vec<String> {
    if dialect != Dialect::Postgres {
        return Vec::new();
    }
    let tokens = token::tokens(dialect, statement, 1).unwrap_or_default();
    let names = tokens.iter().filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted));
    let mut long: Vec<String> = names
        .filter_map(|token| token.name(statement))
        .filter(|name| name.len() > MOST_NAME_BYTES)
        .collect();
    long.sort_unstable();
    long.dedup();
    long
}

/// What names that mean the same object have in common, so that they can be looked up: see [`same_name`].
#[must_use]
pub fn folded_name(dialect: Dialect, name: &str) -> String {
    bare(dialect, name).to_ascii_lowercase()
}

/// Whether two names, as they stand in a plan or statement, mean the same object.
///
/// SQLite, MySQL's columns and SQL Server's default collation compare without regard to ASCII case. PostgreSQL folds
/// unquoted names before it compares, so what differs in case only may be the same; taking it for the same is the careful
/// reading for everything this is used for: overlap, presence, and what a statement touches. There `public` is where a name
/// without a schema leads, so `public.leads` is `leads`.
#[must_use]
pub fn same_name(dialect: Dialect, one: &str, other: &str) -> bool {
    bare(dialect, one).eq_ignore_ascii_case(&bare(dialect, other))
}

/// A name without the schema where names without one lead.
fn bare(dialect: Dialect, name: &str) -> Cow<'_, str> {
    if dialect != Dialect::Postgres {
        return Cow::Borrowed(name);
    }
    if name.contains('"') {
        let (schema, table) = qualified_name(name);
        let schema = schema.filter(|schema| !schema.eq_ignore_ascii_case("public"));
        return Cow::Owned(written_name(schema.as_deref(), &table));
    }
    match name.split_once('.') {
        Some((schema, bare)) if schema.eq_ignore_ascii_case("public") => Cow::Borrowed(bare),
        _ => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_in_each_dialects_own_way() {
        let cases = [
            (Dialect::Sqlite, "order", "\"order\""),
            (Dialect::Sqlite, "a\"b", "\"a\"\"b\""),
            (Dialect::Sqlite, "a`b]'", "\"a`b]'\""),
            (Dialect::Postgres, "Mixed Case", "\"Mixed Case\""),
            (Dialect::Mysql, "a`b", "`a``b`"),
            (Dialect::Sqlserver, "a]b[", "[a]]b[]"),
            (Dialect::Sqlite, "größe", "\"größe\""),
        ];
        for (dialect, name, expected) in cases {
            assert_eq!(quote(dialect, name), expected, "{dialect:?} {name}");
        }
    }

    #[test]
    fn literals_end_where_they_should() {
        let cases = [
            (Dialect::Sqlite, "it's", "'it''s'"),
            (Dialect::Sqlite, "back\\slash", "'back\\slash'"),
            (Dialect::Sqlite, "a\0b", "'ab'"),
            (Dialect::Postgres, "it's", "'it''s'"),
            (Dialect::Postgres, "\\'", "E'\\\\'''"),
            (Dialect::Mysql, "\\'", "'\\\\'''"),
            (Dialect::Sqlserver, "ü", "N'ü'"),
        ];
        for (dialect, text, expected) in cases {
            assert_eq!(literal(dialect, text), expected, "{dialect:?} {text:?}");
        }
    }

    #[test]
    fn a_name_is_parted_at_its_first_dot_outside_quotes() {
        let cases = [
            ("leads", None, "leads"),
            ("Leads", None, "Leads"),
            ("crm.leads", Some("crm"), "leads"),
            ("crm.a.b", Some("crm"), "a.b"),
            ("\"a.b\"", None, "a.b"),
            ("\"a.b\".\"c\"\"d\"", Some("a.b"), "c\"d"),
            ("crm.\"a.b\"", Some("crm"), "a.b"),
            ("\"open", None, "\"open"),
            ("größe.ü", Some("größe"), "ü"),
        ];
        for (written, schema, table) in cases {
            let expected = (schema.map(ToOwned::to_owned), table.to_owned());
            assert_eq!(qualified_name(written), expected, "{written}");
        }
    }

    #[test]
    fn a_renamed_table_stays_in_its_schema() {
        assert_eq!(renamed(Dialect::Postgres, "crm.leads", "leads_old"), "crm.leads_old");
        assert_eq!(renamed(Dialect::Postgres, "leads", "leads_old"), "leads_old");
        assert_eq!(renamed(Dialect::Sqlite, "leads", "leads_old"), "leads_old");
    }

    #[test]
    fn only_names_are_too_long() {
        let long = "x".repeat(64);
        let text = format!("SELECT {}, '{long}', \"{long}\" FROM {long} -- {long}", "y".repeat(63));
        assert_eq!(long_names(Dialect::Postgres, &text), [long]);
        assert!(long_names(Dialect::Sqlite, &text).is_empty());
    }

    #[test]
    fn case_does_not_tell_names_apart() {
        assert!(same_name(Dialect::Sqlite, "Leads", "leads"));
        assert!(!same_name(Dialect::Sqlite, "leads", "lead"));
        assert!(same_name(Dialect::Postgres, "public.Leads", "leads"));
        assert!(same_name(Dialect::Postgres, "leads", "PUBLIC.leads"));
        assert!(same_name(Dialect::Postgres, "crm.leads", "CRM.leads"));
        assert!(!same_name(Dialect::Postgres, "crm.leads", "leads"));
        assert!(!same_name(Dialect::Sqlite, "public.leads", "leads"));
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        for (schema, name, written) in [
            (None, "leads", "leads"),
            (Some("crm"), "Leads", "crm.Leads"),
            (None, "a.b", "\"a.b\""),
            (Some("Else.Where"), "tab \"le\"", "\"Else.Where\".\"tab \"\"le\"\"\""),
        ] {
            assert_eq!(written_name(schema, name), written);
            assert_eq!(qualified_name(written), (schema.map(str::to_owned), name.to_owned()));
        }
        assert!(same_name(Dialect::Postgres, "\"public\".\"a.b\"", "\"a.b\""));
        assert!(!same_name(Dialect::Postgres, "\"a.b\"", "a.b"));
        assert!(same_name(Dialect::Postgres, "\"crm\".\"leads\"", "crm.leads"));
    }
}
