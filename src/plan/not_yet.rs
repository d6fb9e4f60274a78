//! What the format knows and this version can't do yet. Refused by name, never ignored.
//!
//! Each entry goes when its part of the engine comes.

use crate::diagnostic::known as codes;
use crate::run::{Direction, Engine, Identity, OnDelete};

use super::document::{ActionDef, CheckDef, DualWriteDef, OnError, RelationDef, SideDef, Writer};
use super::node::Span;
use super::reports::Reports;
use super::resolve::View;

/// Reports everything that comes later.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for target in &view.document.targets {
        let Some(engine) = target.engine else { continue };
        if !matches!(engine.value, Engine::Sqlite | Engine::Postgres | Engine::Neo4j) {
            let name = super::read::ENGINES.iter().find(|(_, known)| *known == engine.value);
            let name = name.map_or("this engine", |(name, _)| *name);
            let message = format!("plans on {name} can't be run yet");
            reports
                .error(codes::ENGINE_NOT_YET, engine.span, message)
                .help("`sqlite`, `postgres` and `neo4j` can");
        }
    }
    mappings(view, reports);
    for (at, step) in view.all() {
        let engine = view.steps[at].target.and_then(|at| view.document.targets[at].engine);
        // Between two databases the lock that is waited for is one of the old side's.
        let locked = view.crossing(at).map_or(engine, |_| None);
        if let Some(engine) = locked.filter(|engine| engine.value != Engine::Postgres) {
            let name = super::read::ENGINES.iter().find(|(_, known)| *known == engine.value);
            let name = name.map_or("this engine", |(name, _)| *name);
            if let Some(span) = step.without_transaction.filter(|_| engine.value != Engine::Neo4j) {
                option(reports, span, &format!("`transaction: none` on {name}"));
            }
            if let Some(lock_timeout) = step.lock_timeout_ms {
                option(reports, lock_timeout.span, &format!("`lock_timeout` on {name}"));
            }
        }
        if let Some(action) = view.action(at) {
            let span = step.action.as_ref().map_or(step.id.span, |action| action.span);
            actions(action, span, reports);
            let engine = engine.map(|engine| engine.value);
            if view.crossing(at).is_some() {
                between(action, reports);
                continue;
            }
            match action {
                ActionDef::DualWrite(dual_write) => {
                    if engine != Some(Engine::Neo4j)
                        && let Some(by) = dual_write.by
                        && by.value == Writer::Application
                    {
                        option(reports, by.span, "`by: application` outside a graph");
                    }
                    parked_writes(dual_write, engine, reports);
                }
                ActionDef::Backfill(backfill) if engine == Some(Engine::Neo4j) => {
                    if let Some(on) = backfill.on_row_error.filter(|on| on.value == OnError::Park) {
                        option(reports, on.span, "`on_row_error: park` in a graph");
                    }
                }
                _ => {}
            }
        }
    }
    people(view, reports);
}

/// What steps on a mapping between two databases can't do yet.
fn between(action: &ActionDef, reports: &mut Reports) {
    match action {
        ActionDef::DualWrite(dual_write) => {
            if let Some(by) = dual_write.by.filter(|by| by.value == Writer::Application) {
                option(reports, by.span, "`by: application` from one database into another");
            }
        }
        ActionDef::Backfill(backfill) => {
            if let Some(on) = backfill.on_row_error.filter(|on| on.value == OnError::Park) {
                option(reports, on.span, "`on_row_error: park` into another database");
            }
        }
        _ => {}
    }
}

/// A client's write can be parked where a trigger can catch what refuses it, and where the old side is the one that is right.
fn parked_writes(dual_write: &DualWriteDef, engine: Option<Engine>, reports: &mut Reports) {
    let Some(on_error) = dual_write.on_error.filter(|on| on.value == OnError::Park) else { return };
    let is_ours = dual_write.by.is_none_or(|by| by.value == Writer::Engine);
    let what = match (engine, dual_write.direction.value) {
        (Some(Engine::Postgres), Direction::Forward) if is_ours => return,
        (Some(Engine::Postgres), Direction::Both) => "`on_error: park` with `direction: both`",
        (Some(Engine::Sqlite), _) => "`on_error: park` on sqlite",
        _ => "`on_error: park` for writes of the application",
    };
    reports
        .error(codes::OPTION_NOT_YET, on_error.span, format!("{what} can't be used yet"))
        .help("use `on_error: fail`, and a new side that takes whatever the old one does");
}

fn option(reports: &mut Reports, span: Span, what: &str) {
    let message = format!("{what} can't be used yet");
    reports.error(codes::OPTION_NOT_YET, span, message).help("it comes with a later version");
}

fn mappings(view: &View<'_>, reports: &mut Reports) {
    for mapping in &view.document.mappings {
        let sides = [mapping.from.as_ref(), mapping.into.as_ref()];
        for side in sides.into_iter().flatten() {
            let (span, what) = match &side.relation {
                RelationDef::Table(_) | RelationDef::Node(_) | RelationDef::Relationship(_) => {
                    continue;
                }
                RelationDef::Keys(name) => (name.span, "keys"),
            };
            let message = format!("{what} can't be mapped yet");
            reports
                .error(codes::MAPPING_NOT_YET, span, message)
                .help("tables, nodes and relationships can");
        }
        if view.is_crossing(mapping) {
            if let Some(on_delete) = mapping.on_delete.filter(|on| on.value != OnDelete::Delete) {
                option(reports, on_delete.span, "`on_delete` into another database");
            }
            continue;
        }
        if let (true, Some(from), Some(into)) = (mapping.is_across(), &mapping.from, &mapping.into)
            && view.knows_target(&into.target.value)
        {
            let message = "rows can't be copied from one database into another yet";
            reports
                .error(codes::MAPPING_NOT_YET, into.target.span, message)
                .help(instead(view, from, into));
        }
    }
}

/// What can be copied in place of rows that can't go from one database into another.
fn instead(view: &View<'_>, from: &SideDef, into: &SideDef) -> &'static str {
    let engine = |side: &SideDef| {
        let target = view.document.targets.iter().find(|it| it.name.value == side.target.value);
        target.and_then(|target| target.engine).map(|engine| engine.value)
    };
    let is_table = |side: &SideDef| matches!(side.relation, RelationDef::Table(_));
    match (is_table(from), is_table(into)) {
        (true, false) if engine(from) == Some(Engine::Postgres) => {
            "map into a node or a relationship of neo4j, or inside one target"
        }
        (true, false) => {
            "tables of PostgreSQL can be copied into a graph; map others inside one target"
        }
        (true, true) => {
            "map inside one target; only nodes and relationships of neo4j can be filled from another database, by a table of PostgreSQL"
        }
        (false, _) => {
            "map inside one target; only a table of PostgreSQL can be copied into another database, into a graph of neo4j"
        }
    }
}

fn actions(action: &ActionDef, span: Span, reports: &mut Reports) {
    match action {
        ActionDef::Redis | ActionDef::Backup | ActionDef::Command => {
            let message = format!("`{}` can't be run yet", action.name());
            reports
                .error(codes::ACTION_NOT_YET, span, message)
                .help("it comes with a later version");
        }
        ActionDef::DualWrite(dual_write) => match dual_write.by {
            Some(by) if by.value == Writer::Nobody => option(reports, by.span, "`by: nobody`"),
            _ => {}
        },
        ActionDef::Verify(verify) => {
            if let CheckDef::Later(what) = &verify.check {
                option(reports, what.span, &format!("a verify by `{}`", what.value));
            }
        }
        ActionDef::Gate(gate) => {
            for condition in &gate.later {
                let message = format!("the condition `{}` can't be judged yet", condition.value);
                reports
                    .error(codes::CONDITION_NOT_YET, condition.span, message)
                    .help(format!("{} can", super::read::JUDGED));
            }
        }
        ActionDef::Sql(_)
        | ActionDef::Cypher(_)
        | ActionDef::Backfill(_)
        | ActionDef::Retire(_)
        | ActionDef::Drop { .. }
        | ActionDef::StopDualWrite { .. } => {}
    }
}

/// Signatures come later; an environment that asks for them can't be run in until then.
fn people(view: &View<'_>, reports: &mut Reports) {
    let surroundings = view.surroundings;
    let (Some(identity), Some(project)) = (surroundings.policy.identity, surroundings.project)
    else {
        return;
    };
    if identity.value == Identity::Ssh {
        let message = format!(
            "the policy of `{}` asks for signatures, which can't be checked yet",
            surroundings.environment
        );
        let place = crate::diagnostic::Location {
            file: std::sync::Arc::clone(&project.source.path),
            line: identity.span.line,
            column: identity.span.column,
            length: identity.span.length,
        };
        let finding = crate::diagnostic::Diagnostic::error(codes::OPTION_NOT_YET, message)
            .at(place)
            .with_help("`identity: os` and `identity: claimed` can be used");
        reports.add(finding);
    }
}
