//! `verify`, and what is expected of a value.

use crate::bounds::defaults::SAMPLE_ROWS;
use crate::bounds::document::{SAMPLE_ROWS_MAX, WORKERS_MAX};
use crate::diagnostic::known as codes;
use crate::run::{Expect, Method, Value};

use super::super::document::{CheckDef, QueryDef, VerifyDef};
use super::super::fields::{Alphabet, Fields, check_name, real};
use super::super::node::{At, Kind, Node};
use super::super::reports::Reports;

/// The ways of asking something else than a mapping.
const QUESTIONS: [&str; 3] = ["query", "cypher", "http"];

/// A verify.
pub fn verify(node: &Node, reports: &mut Reports) -> Option<VerifyDef> {
    const KEYS: &[&str] = &[
        "mapping", "method", "rows", "repair", "workers", "query", "cypher", "http", "expect",
        "capture", "within",
    ];
    let fields = Fields::open(node, "`verify`", KEYS, reports)?;
    let has = |keys: &[&str]| keys.iter().any(|key| fields.get(key).is_some());
    if has(&["mapping"]) || (has(&["method", "rows", "repair", "workers"]) && !has(&QUESTIONS)) {
        refuse(
            &fields,
            &["query", "cypher", "http", "expect", "capture", "within"],
            "`mapping`",
            reports,
        );
        return Some(VerifyDef { check: of_mapping(&fields, reports)? });
    }
    refuse(&fields, &["method", "rows", "repair", "workers"], "a query", reports);
    let question = one_question(&fields, "`verify`", reports)?;
    let expect = fields.get("expect").and_then(|node| expect(node, reports));
    let capture = fields.text("capture", reports);
    if let Some(name) = &capture {
        check_name(name, "a captured value", Alphabet::Words, reports);
    }
    let within = fields.get("within").and_then(|node| within(node, reports));
    if ["expect", "capture", "within"].iter().all(|key| fields.get(key).is_none()) {
        reports
            .error(codes::MISSING_KEY, fields.span, "nothing is expected of the value")
            .help("add `expect: …`, `within: …`, or `capture: name` to keep it for later");
    }
    if question == "http" {
        let span = fields.key_span(question);
        return Some(VerifyDef { check: CheckDef::Later(At { value: question, span }) });
    }
    let query = fields.text(question, reports)?;
    let is_cypher = question == "cypher";
    let query = QueryDef { query, is_cypher, expect, capture, within };
    Some(VerifyDef { check: CheckDef::Query(query) })
}

fn refuse(fields: &Fields<'_>, keys: &[&str], beside: &str, reports: &mut Reports) {
    for key in keys.iter().filter(|key| fields.get(key).is_some()) {
        let message = format!("`{key}` doesn't belong to a verify of {beside}");
        reports
            .error(codes::KEYS_CONFLICT, fields.key_span(key), message)
            .help("compare a mapping, or ask a query: one of the two");
    }
}

fn of_mapping(fields: &Fields<'_>, reports: &mut Reports) -> Option<CheckDef> {
    const METHODS: &[(&str, Method)] = &[
        ("full", Method::Full),
        ("counts", Method::Counts),
        ("sample", Method::Sample(SAMPLE_ROWS)),
    ];
    let full = At { value: Method::Full, span: fields.span };
    let method = match fields.get("method") {
        Some(_) => fields.word("method", METHODS, reports),
        None => Some(full),
    };
    let rows = fields.count("rows", 1..=SAMPLE_ROWS_MAX, reports);
    let repair = fields.boolean("repair", reports).is_some_and(|at| at.value);
    let workers = fields.count("workers", 1..=WORKERS_MAX, reports).map(|at| at.value);
    let mapping = fields.required_name("mapping", reports)?;
    let mut method = method?;
    match (&mut method.value, rows) {
        (Method::Sample(wanted), Some(rows)) => *wanted = rows.value,
        (_, Some(rows)) => {
            reports
                .error(codes::KEYS_CONFLICT, rows.span, "`rows` belongs to `method: sample`")
                .help("remove `rows`, or write `method: sample`");
        }
        _ => {}
    }
    if repair && method.value != Method::Full {
        reports
            .error(codes::KEYS_CONFLICT, fields.key_span("repair"), "`repair` needs `method: full`")
            .help("only a full comparison says which rows to put right");
    }
    if workers.is_some() && method.value != Method::Full {
        reports
            .error(
                codes::KEYS_CONFLICT,
                fields.key_span("workers"),
                "`workers` needs `method: full`",
            )
            .help("only a full comparison goes in chunks");
    }
    Some(CheckDef::Mapping { mapping, method, repair, workers })
}

/// The one of `query`, `cypher` and `http` that is there.
pub fn one_question(
    fields: &Fields<'_>,
    what: &str,
    reports: &mut Reports,
) -> Option<&'static str> {
    let present: Vec<&'static str> =
        QUESTIONS.into_iter().filter(|key| fields.get(key).is_some()).collect();
    match present.as_slice() {
        [one] => {
            if *one != "http" {
                fields.text(one, reports);
            }
            Some(one)
        }
        [] => {
            reports
                .error(codes::MISSING_KEY, fields.span, format!("{what} says nothing to look at"))
                .help("add `query: select …`");
            None
        }
        [_, second, ..] => {
            let message = format!("{what} has {} at once", present.join(" and "));
            reports
                .error(codes::KEYS_CONFLICT, fields.key_span(second), message)
                .help("ask one thing");
            None
        }
    }
}

/// A value, or a range `{ min, max }`.
pub fn expect(node: &Node, reports: &mut Reports) -> Option<Expect> {
    let value = match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => Value::Boolean(*value),
        Kind::Integer(value) => Value::Integer(*value),
        Kind::Real(value) => Value::Real(*value),
        Kind::Text { text, .. } => Value::Text(text.clone()),
        Kind::Map(_) => return range(node, reports),
        Kind::List(_) => {
            reports
                .error(codes::WRONG_TYPE, node.span, "`expect` is a value or a range, not a list")
                .help("write `expect: 0` or `expect: { min: 1, max: 5 }`");
            return None;
        }
    };
    Some(Expect::Value(value))
}

fn range(node: &Node, reports: &mut Reports) -> Option<Expect> {
    let fields = Fields::open(node, "a range", &["min", "max"], reports)?;
    let min = fields.get("min").and_then(|node| real(node, "min", reports));
    let max = fields.get("max").and_then(|node| real(node, "max", reports));
    if fields.get("min").or(fields.get("max")).is_none() {
        reports
            .error(codes::MISSING_KEY, fields.span, "the range has neither `min` nor `max`")
            .help("write `{ min: 1 }`, `{ max: 5 }` or both");
    }
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        reports
            .error(codes::OUT_OF_RANGE, fields.key_span("max"), "`max` is less than `min`")
            .help("no value can be in this range");
    }
    Some(Expect::Range { min, max })
}

fn within(node: &Node, reports: &mut Reports) -> Option<(At<String>, f64)> {
    let fields = Fields::open(node, "`within`", &["of", "percent"], reports)?;
    let of = fields.required_name("of", reports);
    let percent = fields.required("percent", reports).and_then(|n| real(n, "percent", reports));
    if percent.is_some_and(|percent| percent < 0.0) {
        reports
            .error(codes::OUT_OF_RANGE, fields.key_span("percent"), "`percent` is less than 0")
            .help("write by how much the value may differ");
    }
    Some((of?, percent?))
}
