//! `throttle` of a backfill: the signals that hold it back.

use crate::bounds::document::THROTTLE_EVERY_MS;
use crate::diagnostic::known as codes;
use crate::run::{Bound, Gauge, Limit, Unit};

use super::super::document::{SignalDef, ThrottleDef};
use super::super::fields::{Fields, list, real};
use super::super::limit::of_node;
use super::super::node::{At, Kind, Node};
use super::super::reports::Reports;
use super::window::window;

/// The signals by their keys.
const SIGNALS: [&str; 13] = [
    "replica_lag",
    "relay_lag",
    "relay_rows",
    "slot_wal",
    "active_sessions",
    "lock_waiters",
    "oldest_transaction",
    "dead_tuples",
    "query",
    "cypher",
    "http",
    "file",
    "window",
];

/// All signals of a backfill.
pub fn throttles(node: &Node, reports: &mut Reports) -> Vec<ThrottleDef> {
    let items = list(node, "`throttle`", reports).unwrap_or_default();
    items.iter().filter_map(|item| throttle(item, reports)).collect()
}

fn throttle(node: &Node, reports: &mut Reports) -> Option<ThrottleDef> {
    const KEYS: &[&str] = &[
        "name",
        "replica_lag",
        "relay_lag",
        "relay_rows",
        "slot_wal",
        "active_sessions",
        "lock_waiters",
        "oldest_transaction",
        "dead_tuples",
        "query",
        "cypher",
        "http",
        "file",
        "window",
        "target",
        "min",
        "max",
        "every",
    ];
    let fields = Fields::open(node, "a throttle", KEYS, reports)?;
    let name = fields.required_name("name", reports);
    let every_ms = every(&fields, reports);
    let key = only_signal(&fields, reports)?;
    let target = fields.text("target", reports);
    if let ("http" | "file" | "window", Some(target)) = (key, &target) {
        let message = format!("`{key}` is asked of no database");
        reports.error(codes::KEYS_CONFLICT, target.span, message).help("remove `target`");
    }
    let (signal, bound) = signal(&fields, key, reports)?;
    Some(ThrottleDef { name: name?, target, signal, bound, every_ms })
}

fn every(fields: &Fields<'_>, reports: &mut Reports) -> Option<u64> {
    let every = fields.duration("every", reports)?;
    if !THROTTLE_EVERY_MS.contains(&every.value) {
        let message = "a signal is looked at every 100ms to every 1h";
        reports
            .error(codes::OUT_OF_RANGE, every.span, message)
            .help("write `every: 1s`, or leave it out");
    }
    Some(every.value)
}

fn only_signal(fields: &Fields<'_>, reports: &mut Reports) -> Option<&'static str> {
    let present: Vec<&'static str> =
        SIGNALS.into_iter().filter(|key| fields.get(key).is_some()).collect();
    match present.as_slice() {
        [one] => Some(one),
        [] => {
            let message = "the throttle says nothing to look at";
            reports
                .error(codes::MISSING_KEY, fields.span, message)
                .help(format!("add one of {}", SIGNALS.join(", ")));
            None
        }
        [_, second, ..] => {
            let message = format!("the throttle has {} at once", present.join(" and "));
            reports
                .error(codes::KEYS_CONFLICT, fields.key_span(second), message)
                .help("make a throttle of each");
            None
        }
    }
}

fn signal(
    fields: &Fields<'_>,
    key: &'static str,
    reports: &mut Reports,
) -> Option<(SignalDef, Option<At<Bound>>)> {
    let node = fields.get(key)?;
    if !matches!(key, "query" | "cypher" | "http") {
        for bound in ["min", "max"].into_iter().filter(|bound| fields.get(bound).is_some()) {
            let message = format!("`{bound}` doesn't belong beside `{key}`");
            let help = match key {
                "file" | "window" => "it says by itself whether it holds: remove the limit".into(),
                _ => format!("write it in there: `{key}: {{ max: … }}`"),
            };
            reports.error(codes::KEYS_CONFLICT, fields.key_span(bound), message).help(help);
        }
    }
    Some(match key {
        "query" | "cypher" => {
            let bound = bound(fields, reports);
            if bound.is_none() && fields.get("min").or(fields.get("max")).is_none() {
                let message = "the throttle lacks `max` (or `min`)";
                reports
                    .error(codes::MISSING_KEY, fields.span, message)
                    .help("say from where on it holds back");
            }
            let query = fields.text(key, reports)?;
            (SignalDef::Query { query, is_cypher: key == "cypher" }, bound)
        }
        "http" => {
            let url = match &node.kind {
                Kind::Map(_) => {
                    Fields::open(node, "`http`", &["url"], reports)?.required_text("url", reports)
                }
                _ => fields.text("http", reports),
            };
            (SignalDef::Http(url?), bound(fields, reports))
        }
        "file" => (SignalDef::File(fields.text("file", reports)?), None),
        "window" => (SignalDef::Window(window(node, reports)?), None),
        _ => {
            let (gauge, bound) = gauge(node, key, reports)?;
            (SignalDef::Gauge(At { value: gauge, span: fields.key_span(key) }), Some(bound))
        }
    })
}

/// The one of `min` and `max` that stands beside a question.
fn bound(fields: &Fields<'_>, reports: &mut Reports) -> Option<At<Bound>> {
    let (min, max) = (fields.get("min"), fields.get("max"));
    if let (Some(_), Some(_)) = (min, max) {
        reports
            .error(codes::KEYS_CONFLICT, fields.key_span("max"), "a throttle has one limit")
            .help("ask twice: a throttle with `min`, and one with `max`");
        return None;
    }
    let (node, key) = max.map(|node| (node, "max")).or(min.map(|node| (node, "min")))?;
    let limit = real(node, key, reports)?;
    let value = if key == "max" { Bound::Max(limit) } else { Bound::Min(limit) };
    Some(At { value, span: node.span })
}

/// What a database knows of itself: the unit of the limit says which of two is meant.
fn gauge(node: &Node, key: &'static str, reports: &mut Reports) -> Option<(Gauge, At<Bound>)> {
    let fields = Fields::open(node, "what a throttle looks at", &["max"], reports)?;
    let max = fields.required("max", reports)?;
    let alike: Vec<Gauge> = Gauge::ALL.into_iter().filter(|one| one.as_str() == key).collect();
    let found = of_node(max).and_then(|At { value: Limit { value, unit }, span }| {
        let gauge = alike.iter().find(|gauge| gauge.unit() == unit)?;
        Some((*gauge, At { value: Bound::Max(value), span }))
    });
    if found.is_none() {
        let units: Vec<&str> = alike.iter().map(|gauge| example(gauge.unit())).collect();
        let units = units.join(" or ");
        let message = format!("`max` of `{key}` is {units}");
        reports
            .error(codes::WRONG_TYPE, max.span, message)
            .help("write it with its unit, if it has one");
    }
    found
}

const fn example(unit: Unit) -> &'static str {
    match unit {
        Unit::Ms => "a duration such as 5s",
        Unit::Bytes => "a size such as 64MiB",
        Unit::Percent => "a percentage such as 20%",
        Unit::Number => "a number such as 10",
    }
}
