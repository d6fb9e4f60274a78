//! `gate`.

use crate::bounds::document::{APPROVALS_MAX, GATE_LAG_ROWS};
use crate::diagnostic::known as codes;

use super::super::document::{GateDef, GateQueryDef};
use super::super::fields::{Fields, list};
use super::super::node::{At, Kind, Node};
use super::super::reports::Reports;
use super::verify::expect;
use super::window::{unused_for, window};

/// The conditions that can be judged, for findings.
pub const JUDGED: &str = "`approvals`, `verified_within`, `soak`, \
    `window`, `unused_for`, `relay_lag`, `relay_rows` and `query`";

/// Conditions that are understood and come later.
const LATER: [&str; 3] = ["http", "backup", "command"];

/// A gate.
pub fn gate(node: &Node, reports: &mut Reports) -> Option<GateDef> {
    const KEYS: &[&str] = &[
        "approvals",
        "verified_within",
        "soak",
        "window",
        "query",
        "http",
        "unused_for",
        "relay_lag",
        "relay_rows",
        "backup",
        "command",
        "expires",
    ];
    let fields = Fields::open(node, "`gate`", KEYS, reports)?;
    let mut gate = GateDef::default();
    if let Some(node) = fields.get("approvals") {
        let items = list(node, "`approvals`", reports).unwrap_or_default();
        gate.approvals = items.iter().filter_map(|item| approvals(item, reports)).collect();
    }
    // One that can't be read was reported, and still stands there.
    let unreadable = |node: &Node| At { value: u64::MAX, span: node.span };
    gate.verified_within_ms = fields
        .get("verified_within")
        .map(|node| fields.duration("verified_within", reports).unwrap_or(unreadable(node)));
    gate.soak = fields.get("soak").and_then(|node| soak(node, reports));
    gate.queries = match fields.get("query") {
        Some(Node { kind: Kind::List(items), .. }) => {
            items.iter().filter_map(|item| query(item, reports)).collect()
        }
        Some(node) => query(node, reports).into_iter().collect(),
        None => Vec::new(),
    };
    gate.expires_ms = fields.duration("expires", reports);
    for key in LATER.into_iter().filter(|key| fields.get(key).is_some()) {
        gate.later.push(At { value: key, span: fields.key_span(key) });
    }
    gate.window = fields.get("window").and_then(|node| window(node, reports));
    gate.unused_for = match fields.get("unused_for") {
        Some(Node { kind: Kind::List(items), .. }) => {
            items.iter().filter_map(|item| unused_for(item, reports)).collect()
        }
        Some(node) => unused_for(node, reports).into_iter().collect(),
        None => Vec::new(),
    };
    // Of a limit the place of its key is kept: what is found later is about the condition.
    let lag = limit(&fields, "relay_lag", reports);
    gate.relay_lag_max_ms = lag
        .and_then(|lag| lag.duration("max", reports))
        .map(|max| At { span: fields.key_span("relay_lag"), ..max });
    let rows = limit(&fields, "relay_rows", reports);
    gate.relay_rows_max = rows
        .and_then(|rows| rows.count("max", GATE_LAG_ROWS, reports))
        .map(|max| At { span: fields.key_span("relay_rows"), ..max });
    let is_empty = KEYS.iter().filter(|k| **k != "expires").all(|k| fields.get(k).is_none());
    if is_empty {
        reports
            .error(
                codes::NO_CONDITIONS,
                node.span,
                "the gate has no condition, so it is always open",
            )
            .help(format!("add one of {JUDGED}"));
    }
    if let Some(At { value: 0, span }) = gate.verified_within_ms {
        reports
            .error(codes::NEVER_MET, span, "evidence is never younger than nothing")
            .help("write how old it may be: `verified_within: 1h`");
    }
    Some(gate)
}

/// A limit that stands as `{ max: … }` under a key that may be missing.
fn limit<'a>(fields: &Fields<'a>, key: &str, reports: &mut Reports) -> Option<Fields<'a>> {
    let limit = Fields::open(fields.get(key)?, "what a gate looks at", &["max"], reports)?;
    limit.required("max", reports).is_some().then_some(limit)
}

fn approvals(node: &Node, reports: &mut Reports) -> Option<(At<String>, At<u32>)> {
    let fields = Fields::open(node, "an approval", &["group", "count"], reports)?;
    let count = match fields.get("count") {
        Some(_) => fields.count("count", 1..=APPROVALS_MAX, reports),
        None => Some(At { value: 1, span: fields.span }),
    };
    Some((fields.required_name("group", reports)?, count?))
}

fn soak(node: &Node, reports: &mut Reports) -> Option<(At<String>, At<u64>)> {
    let fields = Fields::open(node, "`soak`", &["after", "for"], reports)?;
    let after = fields.required_name("after", reports);
    fields.required("for", reports);
    let length = fields.duration("for", reports);
    Some((after?, length?))
}

fn query(node: &Node, reports: &mut Reports) -> Option<GateQueryDef> {
    let fields = Fields::open(node, "a query of a gate", &["target", "query", "expect"], reports)?;
    let target = fields.text("target", reports);
    let text = fields.required_text("query", reports);
    let expect = fields.required("expect", reports).and_then(|node| expect(node, reports));
    Some(GateQueryDef { target, query: text?, expect: expect? })
}
