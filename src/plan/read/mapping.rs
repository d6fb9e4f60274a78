//! `mappings`.

use crate::diagnostic::known as codes;
use crate::run::{CopyColumns, OnDelete, OnExisting, Winner};

use super::super::document::{EndDef, MappingDef, RelationDef, SideDef};
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
    let (key, given) = side_key(&fields, kind, role, reports);
    let ends = ends(&fields, kind, reports);
    let mut properties = Vec::new();
    if role == Role::Into {
        properties = pairs(fields.get("properties"), "`properties`", reports);
        if kind == "table" && fields.get("properties").is_some() {
            let span = fields.key_span("properties");
            reports
                .error(codes::KEYS_CONFLICT, span, "a table has no properties")
                .help("write `columns` beside `from` and `into`");
        }
    }
    let (target, name) = (target?, name?);
    if kind == "relationship" && ends.is_none() {
        return None;
    }
    let relation = match kind {
        "table" => RelationDef::Table(name),
        "node" => RelationDef::Node(name),
        "relationship" => RelationDef::Relationship(name),
        _ => RelationDef::Keys(name),
    };
    Some(SideDef { target, relation, key, given, ends, properties, span: fields.span })
}

/// What a key is given as: a list of columns, or a map of properties and where their values come from.
type KeyDef = (Option<Vec<At<String>>>, Option<Vec<(At<String>, At<String>)>>);

/// The key: a list of columns; of a node written to, a map of properties and columns.
fn side_key(fields: &Fields<'_>, kind: &str, role: Role, reports: &mut Reports) -> KeyDef {
    let Some(node) = fields.get("key") else {
        if matches!(kind, "table" | "node") && role == Role::From {
            let what = if kind == "table" { "columns" } else { "properties" };
            reports
                .error(codes::MISSING_KEY, fields.span, "`from` lacks `key`")
                .help(format!("name the {what} that identify a row: `key: [id]`"));
        }
        return (None, None);
    };
    match &node.kind {
        Kind::Map(_) if kind != "table" && role == Role::Into => {
            (None, Some(pairs(Some(node), "`key`", reports)))
        }
        Kind::Text { .. } if kind == "table" => {
            let Some(column) = text(node, "`key`", reports) else { return (None, None) };
            let message = "`key` is a list of columns, not text";
            let help = format!("write `key: [{}]`", column.value);
            reports.error(codes::WRONG_TYPE, node.span, message).help(help);
            (None, None)
        }
        _ => {
            let Some(columns) = texts(node, "`key`", reports) else { return (None, None) };
            if columns.is_empty() {
                reports
                    .error(codes::KEY_COLUMN, node.span, "`key` names no column")
                    .help("name the columns that identify a row");
            }
            (Some(columns), None)
        }
    }
}

/// The ends of a relationship.
fn ends(fields: &Fields<'_>, kind: &str, reports: &mut Reports) -> Option<[EndDef; 2]> {
    let mut ends = Vec::new();
    for end in ["start", "end"] {
        match (fields.get(end), kind) {
            (Some(node), "relationship") => {
                let Some(fields) =
                    Fields::open(node, "an end of a relationship", &["node", "key"], reports)
                else {
                    continue;
                };
                let label = fields.required_name("node", reports);
                let key = fields.required("key", reports).map(|key| end_key(key, reports));
                if let (Some(node), Some(key)) = (label, key) {
                    ends.push(EndDef { node, key });
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
    ends.try_into().ok()
}

fn end_key(node: &Node, reports: &mut Reports) -> Vec<(At<String>, Option<At<String>>)> {
    let key: Vec<_> = match node.kind {
        Kind::List(_) => {
            let names = texts(node, "`key`", reports).unwrap_or_default();
            names.into_iter().map(|name| (name, None)).collect()
        }
        _ => {
            let pairs = pairs(Some(node), "`key`", reports);
            pairs.into_iter().map(|(name, value)| (name, Some(value))).collect()
        }
    };
    if key.is_empty() {
        reports
            .error(codes::KEY_COLUMN, node.span, "`key` names no property")
            .help("name the properties that the node is known by: `key: { id: … }`");
    }
    key
}
