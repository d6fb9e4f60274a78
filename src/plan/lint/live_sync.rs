//! While a dual-write is live, nobody changes its tables under it. (That nobody touches the engine's own triggers holds
//! always, and is said where statements are read.)

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, known as codes};
use crate::run::CopyColumns;
use crate::sql::{self, Change, Dialect};

use super::super::document::{ActionDef, MappingDef};
use super::super::reports::Reports;
use super::super::resolve::{Life, View};

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let guarded: Vec<Guarded<'_>> =
        view.mappings().filter_map(|(m, l)| Guarded::of(view, m, l)).collect();
    for (at, step) in view.all() {
        if let Some(dropped) = dropped(view, at) {
            let others = guarded.iter().filter(|guarded| {
                guarded.target == dropped.target && guarded.mapping.name.value != dropped.mapping
            });
            let broken = others.filter_map(|guarded| guarded.broken_by(view, at, &dropped.change));
            for (message, _) in broken {
                reports
                    .error(codes::TOUCHES_LIVE_SYNC, step.id.span, message)
                    .help("let that dual-write end before");
            }
        }
        let (Some(script), Some(target)) = (&view.steps[at].script, view.steps[at].target) else {
            continue;
        };
        let target = view.document.targets[target].name.value.as_str();
        for (statement, facts, _) in &script.statements {
            for change in &facts.changes {
                let broken = guarded
                    .iter()
                    .filter(|guarded| guarded.target == target)
                    .find_map(|guarded| guarded.broken_by(view, at, change));
                if let Some((message, help)) = broken {
                    let finding = Diagnostic::error(codes::TOUCHES_LIVE_SYNC, message)
                        .at(script.location(statement))
                        .with_help(help);
                    reports.add(finding);
                }
            }
        }
    }
}

/// What the `drop` of a mapping between two databases takes away from under other mappings. Inside one database that is a table
/// with a name of its own, which nothing else is mapped from.
struct Dropped<'a> {
    mapping: &'a str,
    target: &'a str,
    change: Change,
}

fn dropped<'a>(view: &View<'a>, at: usize) -> Option<Dropped<'a>> {
    let Some(ActionDef::Drop { mapping }) = view.action(at) else { return None };
    let from = view.crossing(at)?.from.as_ref()?;
    let change = Change::DropTable { table: from.table()?.to_owned() };
    Some(Dropped { mapping: &mapping.value, target: &from.target.value, change })
}

/// A mapping whose sync may be live.
struct Guarded<'a> {
    mapping: &'a MappingDef,
    life: &'a Life,
    dialect: Dialect,
    target: &'a str,
    /// The tables of the old side, under the names they have in the course of the plan.
    old: Vec<String>,
    /// The table of the new side, where it is in the same database.
    new: Option<&'a str>,
    /// The mapped columns; `None`: all.
    columns: Option<BTreeSet<String>>,
}

impl<'a> Guarded<'a> {
    fn of(view: &'a View<'_>, mapping: &'a MappingDef, life: &'a Life) -> Option<Self> {
        if life.dual_writes.is_empty() {
            return None;
        }
        let (from, source, new) = match mapping.tables() {
            Some((from, source, _, new)) => (from, source, Some(new)),
            None if view.is_crossing(mapping) => {
                let from = mapping.from.as_ref()?;
                (from, from.table()?, None)
            }
            None => return None,
        };
        let dialect = view.dialect_of(Some(from))?;
        let retired = life.retires.iter().filter_map(|retire| match view.action(*retire)? {
            ActionDef::Retire(retire) => {
                Some(sql::renamed(dialect, source, &retire.old_name.as_ref()?.value))
            }
            _ => None,
        });
        let columns = (mapping.copies() == CopyColumns::Listed).then(|| columns(mapping, dialect));
        let old = [source.to_owned()].into_iter().chain(retired).collect();
        Some(Self { mapping, life, dialect, target: from.target.value.as_str(), old, new, columns })
    }

    /// What is wrong with a change made by a step, and what to use instead.
    fn broken_by(&self, view: &View<'_>, at: usize, change: &Change) -> Option<(String, String)> {
        let table = match change {
            Change::Schema { schema } => self.in_schema(schema)?,
            _ => change.table()?,
        };
        let is = |name: &str| sql::same_name(self.dialect, name, table);
        let is_old = self.old.iter().any(|old| is(old));
        if !(is_old || self.new.is_some_and(is)) || !self.may_be_live(view, at, is_old) {
            return None;
        }
        let is_mapped = |column: &str| {
            self.columns.as_ref().is_none_or(|mapped| mapped.contains(&column.to_ascii_lowercase()))
        };
        let (what, instead) = match change {
            Change::RenameTable { .. } => ("renames a table", Some("`retire`")),
            Change::DropTable { .. } if self.new.is_none() => ("drops a table", Some("`drop`")),
            Change::DropTable { .. } => ("drops a table", Some("`retire`, and then `drop`")),
            Change::RenameColumn { column, .. } if is_mapped(column) => {
                ("renames a mapped column", Some("`retire`"))
            }
            Change::DropColumn { column, .. } if is_mapped(column) => {
                ("drops a mapped column", Some("`retire`, and then `drop`"))
            }
            _ => return self.broken_otherwise(change, &is_mapped),
        };
        // Between two databases nothing is retired.
        let instead = instead.filter(|it| self.new.is_some() || *it == "`drop`");
        let help = instead.map_or_else(
            || "do it before the dual-write or after its end".to_owned(),
            |instead| format!(
                "use {instead}: it does so in one transaction with the sync; or do it before the dual-write or after its end"
            ),
        );
        Some((self.message(what, table), help))
    }

    /// What no action does in its place.
    fn broken_otherwise(
        &self,
        change: &Change,
        is_mapped: &dyn Fn(&str) -> bool,
    ) -> Option<(String, String)> {
        let what = match change {
            Change::ChangeType { column, .. } if is_mapped(column) => {
                "changes the type of a mapped column"
            }
            Change::Attach { .. } => "attaches a part to a table",
            Change::Detach { .. } => "detaches a part from a table",
            Change::Truncate { .. } => "empties a table",
            // A trigger that is named is one of the plan's or the user's: ours are refused by their names.
            Change::SwitchTriggers { trigger: None, .. } => "switches all triggers of a table",
            Change::Schema { .. } => "takes a schema away",
            _ => return None,
        };
        let table = match change {
            Change::Schema { schema } => self.in_schema(schema)?,
            _ => change.table()?,
        };
        let help = match change {
            Change::ChangeType { .. } => {
                "map it into a new column of the other type; or change it before the dual-write or after its end"
            }
            Change::SwitchTriggers { .. } => {
                "name the triggers to switch: those of the sync must stay on"
            }
            Change::Truncate { .. } => {
                "delete the rows: no trigger sees which rows TRUNCATE takes; or do it before the dual-write or after its end"
            }
            _ => "do it before the dual-write or after its end",
        };
        Some((self.message(what, table), help.to_owned()))
    }

    fn message(&self, what: &str, table: &str) -> String {
        let mapping = &self.mapping.name.value;
        format!("this {what} while the dual-write of `{mapping}` is live on `{table}`")
    }

    /// A table of this mapping that is in a schema.
    fn in_schema(&self, schema: &str) -> Option<&str> {
        let tables = self.old.iter().map(String::as_str).chain(self.new);
        tables.into_iter().find(|table| match sql::qualified_name(table) {
            (Some(own), _) => own.eq_ignore_ascii_case(schema),
            (None, _) => schema == "public",
        })
    }

    /// Whether the sync, or the guard that a forward `retire` leaves on the old table, may be there when a step runs.
    fn may_be_live(&self, view: &View<'_>, at: usize, is_old: bool) -> bool {
        let graph = view.graph;
        let is_before_all =
            self.life.dual_writes.iter().all(|(sync, _)| graph.is_before(at, *sync));
        let mut ends: Vec<usize> =
            self.life.drops.iter().chain(&self.life.stops).copied().collect();
        if !is_old && !self.life.is_both_ways() {
            ends.extend(&self.life.retires);
        }
        !is_before_all && !ends.iter().any(|end| graph.is_before(*end, at))
    }
}

fn columns(mapping: &MappingDef, dialect: Dialect) -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    let pairs = mapping.columns.iter().chain(&mapping.reverse);
    columns.extend(pairs.map(|(column, _)| column.value.to_ascii_lowercase()));
    let written = mapping.written().iter().chain(&mapping.reverse);
    let ends = mapping.into.iter().flat_map(|into| into.ends.iter().flatten());
    // Of a node at an end a name without an expression is that of the column.
    let of_ends = ends.flat_map(|end| &end.key).map(|(name, value)| value.as_ref().unwrap_or(name));
    let expressions = written.map(|(_, expression)| expression).chain(of_ends);
    for expression in expressions.chain(&mapping.filter) {
        let read = sql::column_refs(dialect, &expression.value).unwrap_or_default();
        columns.extend(read.into_iter().map(|column| column.to_ascii_lowercase()));
    }
    let sides = mapping.from.iter().chain(&mapping.into);
    let keys = sides.flat_map(|side| side.key.iter().flatten());
    columns.extend(keys.map(|column| column.value.to_ascii_lowercase()));
    columns
}
