//! From the located tree to the document, one file per part. Each function reports everything that is wrong with its part
//! and returns what could be read of it.

mod action;
mod gate;
mod mapping;
mod outbox;
mod step;
mod throttle;
mod verify;
mod window;

use crate::bounds::document::STEPS_MAX;
use crate::diagnostic::known as codes;
use crate::run::Engine;

use super::document::{Document, TargetDef};
use super::fields::{Alphabet, Fields, check_name, entries, list, text};
use super::node::{At, Entry, Node};
use super::reports::Reports;

pub use action::ACTIONS;
pub use gate::JUDGED;
#[cfg(test)]
pub use step::KEYS as STEP_KEYS;

/// The format's version, which every document names.
pub const API_VERSION: &str = "phasegate/v1";

/// The engines by their names in plans.
pub const ENGINES: &[(&str, Engine)] = &[
    ("postgres", Engine::Postgres),
    ("neo4j", Engine::Neo4j),
    ("redis", Engine::Redis),
    ("sqlserver", Engine::Sqlserver),
    ("mysql", Engine::Mysql),
    ("sqlite", Engine::Sqlite),
];

/// Reads a plan.
pub fn document(root: &Node, reports: &mut Reports) -> Document {
    const KEYS: &[&str] = &["apiVersion", "kind", "metadata", "targets", "mappings", "steps"];
    let mut document = Document::default();
    let Some(fields) = Fields::open(root, "a plan", KEYS, reports) else { return document };
    check_kind(&fields, "Plan", reports);
    if let Some(node) = fields.required("metadata", reports) {
        document.name = metadata(node, reports);
    }
    if let Some(node) = fields.required("targets", reports) {
        document.targets = named(node, "a target", "`targets`", target, reports);
    }
    if let Some(node) = fields.get("mappings") {
        document.mappings = named(node, "a mapping", "`mappings`", mapping::mapping, reports);
    }
    let Some(steps) = fields.required("steps", reports) else { return document };
    let Some(items) = list(steps, "`steps`", reports) else { return document };
    if items.is_empty() {
        let help = "add a step: `- id: …` with its `phase` and its action";
        reports
            .error(codes::NO_STEPS, fields.key_span("steps"), "the plan has no steps")
            .help(help);
    }
    if items.len() > STEPS_MAX {
        let message = format!("a plan has at most {STEPS_MAX} steps, this one has {}", items.len());
        let span = fields.key_span("steps");
        reports.error(codes::TOO_MANY_STEPS, span, message).help("split it into several plans");
        return Document { name: document.name, ..Document::default() };
    }
    document.steps = items.iter().filter_map(|item| step::step(item, reports)).collect();
    document.lacks_steps = document.steps.len() < items.len();
    document
}

/// Checks `apiVersion` and `kind`.
pub fn check_kind(fields: &Fields<'_>, kind: &str, reports: &mut Reports) {
    for (key, wanted) in [("apiVersion", API_VERSION), ("kind", kind)] {
        let Some(written) = fields.required_text(key, reports) else { continue };
        if written.value != wanted {
            let message = format!(
                "`{key}` is `{wanted}` here, not `{}`",
                super::fields::shown(&written.value)
            );
            let help = format!("write `{key}: {wanted}`");
            reports.error(codes::WRONG_KIND, written.span, message).help(help);
        }
    }
}

fn metadata(node: &Node, reports: &mut Reports) -> Option<At<String>> {
    const KEYS: &[&str] = &["name", "description", "owner", "annotations"];
    let fields = Fields::open(node, "`metadata`", KEYS, reports)?;
    fields.text("description", reports);
    fields.text("owner", reports);
    annotations(&fields, reports);
    let name = fields.required_name("name", reports)?;
    check_name(&name, "a plan", Alphabet::Hyphens, reports);
    Some(name)
}

/// Annotations are free, but for being a map of plain values.
pub fn annotations(fields: &Fields<'_>, reports: &mut Reports) {
    use super::node::Kind;
    let Some(node) = fields.get("annotations") else { return };
    for entry in entries(node, "`annotations`", reports).unwrap_or_default() {
        if matches!(entry.value.kind, Kind::List(_) | Kind::Map(_)) {
            let message = format!("an annotation is a plain value, not {}", entry.value.what());
            reports.error(codes::WRONG_TYPE, entry.value.span, message).help("write text");
        }
    }
}

/// The entries of a map whose keys are names that the author gives.
fn named<T>(
    node: &Node,
    what: &str,
    key: &str,
    read: fn(&Entry, &mut Reports) -> Option<T>,
    reports: &mut Reports,
) -> Vec<T> {
    let entries = entries(node, key, reports).unwrap_or_default();
    let mut all = Vec::with_capacity(entries.len());
    for entry in entries {
        check_name(&entry.key, what, Alphabet::Words, reports);
        all.extend(read(entry, reports));
    }
    all
}

fn target(entry: &Entry, reports: &mut Reports) -> Option<TargetDef> {
    const KEYS: &[&str] = &["engine", "url", "schema"];
    let fields = Fields::open(&entry.value, "a target", KEYS, reports)?;
    let engine = match fields.required("engine", reports) {
        Some(_) => fields.word("engine", ENGINES, reports),
        None => None,
    };
    let url = fields.text("url", reports);
    let schema = fields.text("schema", reports);
    Some(TargetDef { name: entry.key.clone(), engine, url, schema })
}

/// A reason: text that says why. One that can't be read was reported, and still stands there.
fn reason(node: &Node, key: &str, reports: &mut Reports) -> At<String> {
    let read = text(node, &format!("the reason under `{key}`"), reports);
    read.unwrap_or(At { value: String::new(), span: node.span })
}
