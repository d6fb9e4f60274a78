//! Names and text values as SQL writes them.

use super::Dialect;

/// An identifier in the database's own quotes, its quotes doubled. Right for every name, reserved words included.
#[must_use]
pub fn quote(dialect: Dialect, identifier: &str) -> String {
    let (open, close) = match dialect {
        Dialect::Sqlite | Dialect::Postgres => ('"', '"'),
        Dialect::Mysql => ('`', '`'),
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
    let text = text.replace('\0', "").replace('\'', "''");
    match dialect {
        Dialect::Mysql => format!("'{}'", text.replace('\\', "\\\\")),
        Dialect::Postgres if text.contains('\\') => format!("E'{}'", text.replace('\\', "\\\\")),
        Dialect::Sqlserver => format!("N'{text}'"),
        Dialect::Sqlite | Dialect::Postgres => format!("'{text}'"),
    }
}

/// Whether two names, as they stand in a plan or statement, mean the same object.
///
/// SQLite, MySQL's columns and SQL Server's default collation compare without regard to ASCII case. PostgreSQL folds
/// unquoted names before it compares, so what differs in case only may be the same; taking it for the same is the careful
/// reading for everything this is used for: overlap, presence, and what a statement touches. There `public` is where a name
/// without a schema leads, so `public.leads` is `leads`.
#[must_use]
pub fn same_name(dialect: Dialect, one: &str, other: &str) -> bool {
    fn bare(dialect: Dialect, name: &str) -> &str {
        match name.split_once('.') {
            Some((schema, bare))
                if dialect == Dialect::Postgres && schema.eq_ignore_ascii_case("public") =>
            {
                bare
            }
            _ => name,
        }
    }
    bare(dialect, one).eq_ignore_ascii_case(bare(dialect, other))
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
    fn case_does_not_tell_names_apart() {
        assert!(same_name(Dialect::Sqlite, "Leads", "leads"));
        assert!(!same_name(Dialect::Sqlite, "leads", "lead"));
        assert!(same_name(Dialect::Postgres, "public.Leads", "leads"));
        assert!(same_name(Dialect::Postgres, "leads", "PUBLIC.leads"));
        assert!(same_name(Dialect::Postgres, "crm.leads", "CRM.leads"));
        assert!(!same_name(Dialect::Postgres, "crm.leads", "leads"));
        assert!(!same_name(Dialect::Sqlite, "public.leads", "leads"));
    }
}
