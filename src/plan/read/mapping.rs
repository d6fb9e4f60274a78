//! `mappings`.

use crate::diagnostic::known as codes;
use crate::run::{CopyColumns, OnDelete, OnExisting, Winner};

use super::super::document::{MappingDef, RelationDef, SideDef};
use super::super::fields::{Fields, entries, expression, text, texts};
use super::super::node::{At, Entry, Kind, Node};
use super::super::reports::Reports;

const KEYS: &[&str] =
    &["from", "into", "columns", "copy", "where", "reverse", "winner", "on_existing", "on_delete"];

/// A mapping.
pub fn mapping(entry: &Entry, reports: &mut Reports) -> Option<MappingDef> {
    const COPY: &[(&str, CopyColumns)] =
        &[("all", CopyColumns::All), ("listed", CopyColumns::Listed)];
    const WINNERS: &[(&str, Winner)] = &[("new", Winner::New), ("old", Winner::Old)];
    const EXISTING: &[(&str, OnExisting)] =
        &[("keep", OnExisting::Keep), ("update", OnExisting::Update)];
    const DELETED: &[(&str, OnDelete)] = &[
        ("delete", OnDelete::Delete),
        ("nullify", OnDelete::Nullify),
        ("ignore", OnDelete::Ignore),
    ];
    let fields = Fields::open(&entry.value, "a mapping", KEYS, reports)?;
    let from = fields.required("from", reports).and_then(|node| side(node, Role::From, reports));
    let into = fields.required("into", reports).and_then(|node| side(node, Role::Into, reports));
    Some(MappingDef {
        name: entry.key.clone(),
        from,
        into,
        columns: pairs(fields.get("columns"), "`columns`", reports),
        copy: fields.word("copy", COPY, reports),
        filter: fields.get("where").and_then(|node| expression(node, "`where`", reports)),
        reverse: pairs(fields.get("reverse"), "`reverse`", reports),
        reverse_span: fields.get("reverse").map(|_| fields.key_span("reverse")),
        winner: fields.word("winner", WINNERS, reports),
        on_existing: fields.word("on_existing", EXISTING, reports),
        on_delete: fields.word("on_delete", DELETED, reports),
    })
}

/// Column and expression.
fn pairs(node: Option<&Node>, what: &str, reports: &mut Reports) -> Vec<(At<String>, At<String>)> {
    let Some(node) = node else { return Vec::new() };
    let mut all = Vec::new();
    for entry in entries(node, what, reports).unwrap_or_default() {
        let what = format!("the expression of `{}`", entry.key.value);
        if let Some(expression) = expression(&entry.value, &what, reports) {
            all.push((entry.key.clone(), expression));
        }
    }
    all
}

/// Which side of a mapping is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    From,
    Into,
}

/// The keys that say what rows are; exactly one of them stands in a side.
const RELATIONS: [&str; 4] = ["table", "node", "relationship", "keys"];

fn side(node: &Node, role: Role, reports: &mut Reports) -> Option<SideDef> {
    const FROM: &[&str] =
        &["target", "table", "node", "relationship", "keys", "key", "start", "end"];
    const INTO: &[&str] =
        &["target", "table", "node", "relationship", "keys", "key", "start", "end", "properties"];
    let (what, known) = match role {
        Role::From => ("`from`", FROM),
        Role::Into => ("`into`", INTO),
    };
    let fields = Fields::open(node, what, known, reports)?;
    let target = fields.required_name("target", reports);
    let present: Vec<&str> =
        RELATIONS.into_iter().filter(|key| fields.get(key).is_some()).collect();
    let kind = match present.as_slice() {
        [kind] => *kind,
        [] => {
            reports
                .error(
                    codes::MISSING_KEY,
                    fields.span,
                    format!("{what} doesn't say what rows are there"),
                )
                .help("add `table: …` (or `node`, `relationship`, `keys`)");
            return None;
        }
        [_, second, ..] => {
            reports
                .error(
                    codes::KEYS_CONFLICT,
                    fields.key_span(second),
                    format!("{what} has {} at once", present.join(" and ")),
                )
                .help("a side is one of table, node, relationship and keys");
            return None;
        }
    };
    let name = fields.required_name(kind, reports);
    let key = side_key(&fields, kind, role, reports);
    ends(&fields, kind, reports);
    if role == Role::Into {
        pairs(fields.get("properties"), "`properties`", reports);
    }
    let (target, name) = (target?, name?);
    let relation = match kind {
        "table" => RelationDef::Table(name),
        "node" => RelationDef::Node(name),
        "relationship" => RelationDef::Relationship(name),
        _ => RelationDef::Keys(name),
    };
    Some(SideDef { target, relation, key, span: fields.span })
}

/// The key: a list of columns; of a node written to, a map of properties and columns.
fn side_key(
    fields: &Fields<'_>,
    kind: &str,
    role: Role,
    reports: &mut Reports,
) -> Option<Vec<At<String>>> {
    let Some(node) = fields.get("key") else {
        if kind == "table" && role == Role::From {
            reports
                .error(codes::MISSING_KEY, fields.span, "`from` lacks `key`")
                .help("name the columns that identify a row: `key: [id]`");
        }
        return None;
    };
    match &node.kind {
        Kind::Map(_) if kind != "table" => {
            pairs(Some(node), "`key`", reports);
            None
        }
        Kind::Text { .. } if kind == "table" => {
            let column = text(node, "`key`", reports)?;
            let message = "`key` is a list of columns, not text";
            let help = format!("write `key: [{}]`", column.value);
            reports.error(codes::WRONG_TYPE, node.span, message).help(help);
            None
        }
        _ => {
            let columns = texts(node, "`key`", reports)?;
            if columns.is_empty() {
                reports
                    .error(codes::KEY_COLUMN, node.span, "`key` names no column")
                    .help("name the columns that identify a row");
            }
            Some(columns)
        }
    }
}

/// The ends of a relationship.
fn ends(fields: &Fields<'_>, kind: &str, reports: &mut Reports) {
    for end in ["start", "end"] {
        match (fields.get(end), kind) {
            (Some(node), "relationship") => {
                let Some(fields) =
                    Fields::open(node, "an end of a relationship", &["node", "key"], reports)
                else {
                    continue;
                };
                fields.required_name("node", reports);
                if let Some(key) = fields.required("key", reports) {
                    match key.kind {
                        Kind::List(_) => drop(texts(key, "`key`", reports)),
                        _ => drop(pairs(Some(key), "`key`", reports)),
                    }
                }
            }
            (Some(_), _) => {
                let message = format!("`{end}` belongs to a relationship, not to a {kind}");
                reports
                    .error(codes::KEYS_CONFLICT, fields.key_span(end), message)
                    .help("remove it");
            }
            (None, "relationship") => {
                let message = format!("the relationship lacks `{end}`");
                reports
                    .error(codes::MISSING_KEY, fields.span, message)
                    .help(format!("add `{end}: {{ node: …, key: … }}`"));
            }
            (None, _) => {}
        }
    }
}
