//! What only looks changes nothing: the queries of verify steps, gates and throttles.

use crate::diagnostic::known as codes;
use crate::run::Hazard;
use crate::sql::cypher::Section;
use crate::sql::{self, Dialect, Facts};

use super::super::document::{
    ActionDef, CheckDef, DualWriteDef, SignalDef, TargetDef, UsedByDef, VerifyDef,
};
use super::super::node::At;
use super::super::reports::Reports;
use super::super::resolve::View;
use super::super::statements::can_be_read;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let targets = &view.document.targets;
    for (at, _) in view.all() {
        let own = view.steps[at].target.map(|at| &targets[at]);
        match view.action(at) {
            Some(ActionDef::Verify(VerifyDef { check: CheckDef::Query(query) }))
                if speaks(own, (&query.query, query.is_cypher), reports) =>
            {
                question(own, &query.query, reports);
            }
            Some(ActionDef::Gate(gate)) => {
                for query in &gate.queries {
                    question(view.asked_on(at, query.target.as_ref()), &query.query, reports);
                }
                for unused in &gate.unused_for {
                    if let UsedByDef::Query { target, query } = &unused.by {
                        question(view.asked_on(at, target.as_ref()), query, reports);
                    }
                }
            }
            Some(ActionDef::DualWrite(DualWriteDef { probe: Some(probe), .. })) => {
                let target = view.throttled_on(at, probe.target.as_ref());
                let Some(asked) = probe.asked.as_ref().filter(|_| probe.kind != "http") else {
                    continue;
                };
                if speaks(target, (asked, probe.kind == "cypher"), reports) {
                    question(target, asked, reports);
                }
            }
            Some(ActionDef::Backfill(backfill)) => {
                for throttle in &backfill.throttle {
                    let SignalDef::Query { query, is_cypher } = &throttle.signal else { continue };
                    let target = view.throttled_on(at, throttle.target.as_ref());
                    if speaks(target, (query, *is_cypher), reports) {
                        question(target, query, reports);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Whether a query is in the language of the target that it asks.
fn speaks(
    target: Option<&TargetDef>,
    (query, is_cypher): (&At<String>, bool),
    reports: &mut Reports,
) -> bool {
    let engine = target.and_then(|target| target.engine);
    let Some(dialect) = engine.and_then(|engine| Dialect::of(engine.value)) else { return true };
    if (dialect == Dialect::Cypher) == is_cypher {
        return true;
    }
    let (message, help) = if is_cypher {
        ("the target speaks no Cypher", "ask with `query: select …`")
    } else {
        ("the target speaks no SQL", "ask with `cypher: MATCH … RETURN …`")
    };
    reports.error(codes::NOT_A_QUESTION, query.span, message).help(help);
    false
}

fn question(target: Option<&TargetDef>, query: &At<String>, reports: &mut Reports) {
    let engine = target.and_then(|target| target.engine);
    let Some(dialect) = engine.and_then(|engine| Dialect::of(engine.value)) else { return };
    if !can_be_read(dialect) {
        return;
    }
    let (message, help) = match sql::split(dialect, &query.value, query.span.line) {
        Err(error) => (error.message, error.help),
        Ok(statements) => match statements.as_slice() {
            [one] => match complaint(dialect, &one.text) {
                Some(message) if dialect == Dialect::Cypher => {
                    (message, "ask with MATCH … RETURN, which gives one value".to_owned())
                }
                Some(message) => (message, "ask with a SELECT that gives one value".to_owned()),
                None => return,
            },
            [] => ("there is no query here".to_owned(), "write a SELECT".to_owned()),
            _ => ("these are several statements".to_owned(), "ask one thing".to_owned()),
        },
    };
    reports.error(codes::NOT_A_QUESTION, query.span, message).help(help);
}

/// Why a statement is more than a question.
fn complaint(dialect: Dialect, statement: &str) -> Option<String> {
    if dialect == Dialect::Cypher {
        return match (sql::cypher::section(statement), sql::classify(dialect, statement)) {
            (Section::Reads, Facts { hazard: Hazard::None, complaint: None, .. }) => None,
            (_, Facts { hazard: Hazard::Unknown(why), .. }) => {
                Some(format!("it can't be told whether this only looks: {why}"))
            }
            _ => Some("a query only looks, and this does more".to_owned()),
        };
    }
    let words: Vec<String> = statement
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let begins = words.first().map(String::as_str).unwrap_or_default();
    if !matches!(begins, "select" | "values" | "with") {
        return Some("a query begins with SELECT, VALUES or WITH".to_owned());
    }
    // An INSERT destroys nothing, so it is no hazard; but whoever asks must not write.
    let inserts = words.windows(2).any(|pair| {
        let (verb, next) = (pair[0].as_str(), pair[1].as_str());
        matches!((verb, next), ("insert", "into" | "or") | ("replace", "into"))
    });
    let facts = sql::classify(dialect, statement);
    match facts.hazard {
        Hazard::Destructive(what) => Some(format!("a query only looks, and {what}")),
        Hazard::Unknown(why) => Some(format!("it can't be told whether this only looks: {why}")),
        Hazard::None if inserts => Some("a query only looks, and this inserts rows".to_owned()),
        Hazard::None if !facts.creates.is_empty() => {
            Some("a query only looks, and this makes a table".to_owned())
        }
        Hazard::None => facts.complaint.map(|complaint| complaint.message),
    }
}
