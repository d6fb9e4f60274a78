//! Types as a column's definition writes them: which are PostgreSQL's own, and which changes of type keep every value.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::super::facts::RowWork;
use super::parse::{descendants, name, parts};

/// Types of the catalogue that have names of their own. A type that isn't listed may be a domain with constraints, which a
/// new column is checked against row by row.
const BUILT_IN: &str = "\
    bigint bigserial bool boolean box bpchar bytea char cidr circle date dec decimal float float4 float8 inet int int2 int4 \
    int8 integer interval json jsonb line lseg macaddr macaddr8 money name numeric oid path pg_lsn point polygon real \
    regclass regproc regtype serial serial2 serial4 serial8 smallint smallserial text time timestamp timestamptz timetz \
    tsquery tsvector uuid varbit varchar xml int4range int8range numrange tsrange tstzrange daterange";

/// What stands for a type in a definition.
pub(super) fn written(definition: &SyntaxNode) -> Option<SyntaxNode> {
    definition.children().find(|child| is_type(child.kind()))
}

const fn is_type(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::ARRAY_TYPE
            | SyntaxKind::PATH_TYPE
            | SyntaxKind::VARCHAR_TYPE
            | SyntaxKind::CHARACTER_TYPE
            | SyntaxKind::BIT_TYPE
            | SyntaxKind::BIT_VARYING_TYPE
            | SyntaxKind::DOUBLE_TYPE
            | SyntaxKind::TIME_TYPE
            | SyntaxKind::TIMESTAMP_TYPE
            | SyntaxKind::INTERVAL_TYPE
    )
}

/// The name of a type that has one, without `pg_catalog`.
fn named(kind: &SyntaxNode) -> Option<String> {
    if kind.kind() != SyntaxKind::PATH_TYPE {
        return None;
    }
    let mut parts = parts(kind)?;
    let last = parts.pop()?;
    match parts.pop() {
        Some(schema) if schema != "pg_catalog" => Some(format!("{schema}.{last}")),
        _ => Some(last),
    }
}

/// Whether a type is one of the catalogue's, or an array of anything.
pub(super) fn is_built_in(kind: &SyntaxNode) -> bool {
    match named(kind) {
        Some(name) => BUILT_IN.split_ascii_whitespace().any(|known| known == name),
        None => true,
    }
}

/// Whether it is one of the serials, which number every row.
pub(super) fn is_serial(kind: &SyntaxNode) -> bool {
    const SERIALS: [&str; 6] =
        ["serial", "serial2", "serial4", "serial8", "bigserial", "smallserial"];
    named(kind).is_some_and(|name| SERIALS.contains(&name.as_str()))
}

/// Text of any length: every type's values can be written as one, so that none is lost.
pub(super) fn is_text(kind: &SyntaxNode) -> bool {
    match kind.kind() {
        SyntaxKind::PATH_TYPE => matches!(named(kind).as_deref(), Some("text" | "varchar")),
        SyntaxKind::VARCHAR_TYPE => descendants(kind, SyntaxKind::ARG_LIST).next().is_none(),
        _ => false,
    }
}

/// How much of the table a change to this type goes through, whatever the type was before.
pub(super) fn change_work(change: &SyntaxNode) -> (RowWork, &'static str) {
    let using = change.children().any(|child| child.kind() == SyntaxKind::USING_EXPR);
    let Some(kind) = written(change) else {
        return (RowWork::Unknown, "the type can't be read");
    };
    if using {
        return (
            RowWork::Rewrite,
            "each value is worked out anew and every index of the column built again",
        );
    }
    let grows = matches!(
        kind.kind(),
        SyntaxKind::VARCHAR_TYPE
            | SyntaxKind::BIT_VARYING_TYPE
            | SyntaxKind::TIME_TYPE
            | SyntaxKind::TIMESTAMP_TYPE
            | SyntaxKind::INTERVAL_TYPE
    ) || matches!(
        named(&kind).as_deref(),
        Some(
            "text"
                | "varchar"
                | "varbit"
                | "numeric"
                | "decimal"
                | "dec"
                | "timestamp"
                | "timestamptz"
                | "time"
                | "timetz"
                | "interval"
                | "inet"
                | "cidr"
                | "bpchar"
        )
    ) || !is_built_in(&kind);
    if grows {
        (
            RowWork::Unknown,
            "the text doesn't tell the old type: nothing is rewritten where the new one only widens it, otherwise every row is",
        )
    } else {
        (RowWork::Rewrite, "every row is written anew, unless the column has that type already")
    }
}

/// The columns that a node names with this kind of name.
pub(super) fn column(node: &SyntaxNode, kind: SyntaxKind) -> Option<String> {
    node.children().find(|child| child.kind() == kind).map(|child| name(&child))
}
