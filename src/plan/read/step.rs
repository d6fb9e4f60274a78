//! `steps`: what all steps have in common.

use crate::bounds::document::ATTEMPTS_MAX;
use crate::diagnostic::known as codes;
use crate::run::Phase;

use super::super::document::{RetryDef, StepDef, UndoDef};
use super::super::fields::{Alphabet, Fields, check_name, texts, word};
use super::super::node::{At, Node};
use super::super::reports::Reports;
use super::action::{self, ACTIONS};
use super::{annotations, reason};

/// Every key of a step, the actions among them.
pub const KEYS: &[&str] = &[
    "id",
    "phase",
    "target",
    "needs",
    "description",
    "owner",
    "annotations",
    "timeout",
    "lock_timeout",
    "transaction",
    "retry",
    "undo",
    "irreversible",
    "reviewed",
    "sql",
    "cypher",
    "redis",
    "dual_write",
    "backfill",
    "verify",
    "gate",
    "retire",
    "drop",
    "stop_dual_write",
    "backup",
    "command",
];

/// The phases by their names in plans.
const PHASES: &[(&str, Phase)] = &[
    ("expand", Phase::Expand),
    ("dual-write", Phase::DualWrite),
    ("backfill", Phase::Backfill),
    ("verify", Phase::Verify),
    ("contract", Phase::Contract),
];

/// A step. None only if it has no id, so that nothing could refer to it.
pub fn step(node: &Node, reports: &mut Reports) -> Option<StepDef> {
    let fields = Fields::open(node, "a step", KEYS, reports)?;
    let id = fields.required_name("id", reports);
    if let Some(id) = &id {
        check_name(id, "a step", Alphabet::Hyphens, reports);
    }
    let phase = match fields.required("phase", reports) {
        Some(node) => word(node, "phase", PHASES, reports),
        None => None,
    };
    fields.text("owner", reports);
    annotations(&fields, reports);
    let step = StepDef {
        phase,
        target: fields.text("target", reports),
        needs: needs(&fields, reports),
        description: fields.text("description", reports),
        timeout_ms: fields.duration("timeout", reports),
        lock_timeout_ms: fields.duration("lock_timeout", reports),
        without_transaction: without_transaction(&fields, reports),
        retry: fields.get("retry").and_then(|node| retry(node, reports)),
        undo: fields.get("undo").map(|node| {
            // One that can't be read was reported, and still stands there.
            let unread = At { value: UndoDef::None(String::new()), span: fields.key_span("undo") };
            undo(node, reports).unwrap_or(unread)
        }),
        irreversible: fields.get("irreversible").map(|n| reason(n, "irreversible", reports)),
        reviewed: fields.get("reviewed").map(|node| reason(node, "reviewed", reports)),
        action: one_action(&fields, reports),
        id: id?,
    };
    for (key, value) in [("timeout", step.timeout_ms), ("lock_timeout", step.lock_timeout_ms)] {
        if let Some(At { value: 0, span }) = value {
            let message = format!("`{key}` of nothing lets nothing happen");
            reports.error(codes::OUT_OF_RANGE, span, message).help("write how long it may take");
        }
    }
    Some(step)
}

fn needs(fields: &Fields<'_>, reports: &mut Reports) -> Option<At<Vec<At<String>>>> {
    let node = fields.get("needs")?;
    let ids = texts(node, "`needs`", reports)?;
    Some(At { value: ids, span: fields.key_span("needs") })
}

fn without_transaction(
    fields: &Fields<'_>,
    reports: &mut Reports,
) -> Option<super::super::node::Span> {
    let written = fields.word("transaction", &[("auto", false), ("none", true)], reports)?;
    written.value.then_some(written.span)
}

fn retry(node: &Node, reports: &mut Reports) -> Option<RetryDef> {
    let fields = Fields::open(node, "`retry`", &["attempts", "wait", "longest_wait"], reports)?;
    let wait = fields.duration("wait", reports);
    let longest = fields.duration("longest_wait", reports);
    if let (Some(wait), Some(longest)) = (&wait, &longest)
        && wait.value > longest.value
    {
        reports
            .error(codes::KEYS_CONFLICT, longest.span, "`longest_wait` is shorter than `wait`")
            .help("the wait doubles with each attempt, up to `longest_wait`");
    }
    Some(RetryDef {
        attempts: fields.count("attempts", 1..=ATTEMPTS_MAX, reports).map(|at| at.value),
        wait_ms: wait.map(|at| at.value),
        longest_wait_ms: longest.map(|at| at.value),
    })
}

fn undo(node: &Node, reports: &mut Reports) -> Option<At<UndoDef>> {
    const KEYS: &[&str] = &["sql", "cypher", "file", "none"];
    let fields = Fields::open(node, "`undo`", KEYS, reports)?;
    let present: Vec<&str> = KEYS.iter().copied().filter(|k| fields.get(k).is_some()).collect();
    let [key] = present.as_slice() else {
        let message = "`undo` has one of sql, cypher, file and none";
        reports
            .error(codes::KEYS_CONFLICT, fields.span, message)
            .help("write `sql: …`, or `none: reason` where nothing needs undoing");
        return None;
    };
    let node = fields.get(key)?;
    let undo = match *key {
        "sql" => UndoDef::Sql(action::script(node, "sql", reports)?),
        "cypher" => UndoDef::Cypher(action::script(node, "cypher", reports)?),
        "file" => {
            UndoDef::File(super::super::document::ScriptDef::File(fields.text("file", reports)?))
        }
        _ => UndoDef::None(reason(node, "none", reports).value),
    };
    Some(At { value: undo, span: fields.key_span(key) })
}

fn one_action(
    fields: &Fields<'_>,
    reports: &mut Reports,
) -> Option<At<super::super::document::ActionDef>> {
    let present: Vec<&str> =
        ACTIONS.iter().copied().filter(|key| fields.get(key).is_some()).collect();
    match present.as_slice() {
        [key] => action::action(fields, key, reports),
        [] => {
            reports
                .error(codes::ONE_ACTION, fields.span, "the step does nothing: it has no action")
                .help(format!("add one of {}", ACTIONS.join(", ")));
            None
        }
        [first, second, ..] => {
            reports
                .error(
                    codes::ONE_ACTION,
                    fields.key_span(second),
                    format!("the step has {} actions: {}", present.len(), present.join(", ")),
                )
                .related(fields.key_span(first), "the first of them")
                .help("make a step of each");
            None
        }
    }
}
