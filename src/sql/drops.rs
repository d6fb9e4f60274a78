//! Whether a statement does nothing but drop one thing, so that it has nothing to do where that is gone.
//!
//! Absent on purpose: statements that drop several things at once. Where one of them is gone, the others may be there.

use super::Dialect;
use super::reader::Reader;
use super::token::{Token, tokens};

/// What a `DROP` may name. Databases, roles and what belongs to a whole server are none of a plan's.
const KINDS: [&[&str]; 18] = [
    &["table"],
    &["foreign", "table"],
    &["view"],
    &["materialized", "view"],
    &["index", "concurrently"],
    &["index"],
    &["sequence"],
    &["type"],
    &["domain"],
    &["schema"],
    &["function"],
    &["procedure"],
    &["aggregate"],
    &["trigger"],
    &["policy"],
    &["rule"],
    &["collation"],
    &["statistics"],
];

/// Whether a statement drops exactly one object, or one column or constraint of a table, and does nothing else.
#[must_use]
pub fn drops_one(dialect: Dialect, statement: &str) -> bool {
    let Ok(all) = tokens(dialect, statement, 1) else { return false };
    if has_list(statement, &all) {
        return false;
    }
    let mut reader = Reader::new(statement, &all);
    if reader.eats(&["drop"]) {
        return KINDS.iter().any(|kind| reader.eats(kind));
    }
    if !reader.eats(&["alter", "table"]) {
        return false;
    }
    let _ = reader.eats(&["if", "exists"]);
    let _ = reader.eats(&["only"]);
    if reader.name().is_none() {
        return false;
    }
    while reader.eats_punct(".") {
        if reader.name().is_none() {
            return false;
        }
    }
    let _ = reader.eats_punct("*");
    reader.eats(&["drop"])
}

/// Whether there is a comma outside parentheses.
fn has_list(source: &str, all: &[Token]) -> bool {
    let mut depth = 0_u32;
    for token in all {
        if token.is_punct(source, "(") {
            depth += 1;
        } else if token.is_punct(source, ")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && token.is_punct(source, ",") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_told_from_several_and_from_other_statements() {
        for one in [
            "DROP TABLE t2",
            "drop table if exists a.\"b, c\" cascade;",
            "DROP INDEX CONCURRENTLY i",
            "DROP FUNCTION f(int, text)",
            "DROP TRIGGER x ON t2",
            "ALTER TABLE t DROP COLUMN c",
            "alter table if exists only public.t drop c cascade",
            "ALTER TABLE t DROP CONSTRAINT k",
        ] {
            assert!(drops_one(Dialect::Postgres, one), "{one}");
        }
        for other in [
            "DROP TABLE a, b",
            "ALTER TABLE t DROP a, DROP b",
            "ALTER TABLE t ALTER c DROP DEFAULT",
            "ALTER TABLE t RENAME TO u",
            "DROP OWNED BY me",
            "DROP ROLE me",
            "DELETE FROM t2",
            "SELECT 1",
            "",
        ] {
            assert!(!drops_one(Dialect::Postgres, other), "{other}");
        }
    }
}
