//! SELECT, INSERT, UPDATE, DELETE and WITH: statements over rows.
//!
//! Decisions:
//! - `REPLACE`, `INSERT OR REPLACE` and `UPDATE OR REPLACE` delete the rows in their way, so they are destructive.
//! - `INSERT … ON CONFLICT … DO UPDATE` is an UPDATE of the columns it sets.
//! - An INSERT is harmless; a trigger that it fires is the database's, and not in the text.
//! - One that can't be read is destructive where its first word alone says so, and unknown otherwise.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, Insert, OnConflictAction, OnInsert,
    SqliteOnConflict, Statement, TableFactor, TableObject, TableWithJoins, Update, Visit as _,
    Visitor,
};

use crate::run::Hazard;

use super::super::facts::Facts;
use super::super::reader::Reader;
use super::{destructive, parse};

/// SQLite's own tables, which hold the schema.
const SCHEMA_TABLES: [&str; 4] =
    ["sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"];

/// What a statement over rows does.
pub(super) fn facts(reader: Reader<'_>) -> Facts {
    let text = reader.rest_text();
    match parse::statement(text) {
        Ok(statement) => read(&statement),
        Err(reason) => unread(reader, &reason),
    }
}

fn unread(reader: Reader<'_>, reason: &str) -> Facts {
    let mut facts = Facts::unknown(format!("it can't be read: {reason}"));
    let does = match verb(reader).as_deref() {
        Some("delete") => "deletes",
        Some("update") => "updates",
        Some("replace") => "replaces",
        _ => return facts,
    };
    facts.endanger(destructive(format!("it {does} rows, and can't be read further: {reason}")));
    facts
}

/// What a statement does, by its words outside of parentheses: CTEs stand inside, and `INSERT OR REPLACE` is one verb.
fn verb(mut reader: Reader<'_>) -> Option<String> {
    const VERBS: [&str; 6] = ["select", "values", "insert", "replace", "update", "delete"];
    let mut depth = 0_u32;
    while !reader.is_at_end() {
        if reader.eats(&["insert", "or", "replace"]) {
            return Some("replace".to_owned());
        }
        if reader.eats_punct("(") {
            depth += 1;
        } else if reader.eats_punct(")") {
            depth = depth.saturating_sub(1);
        } else if let Some(word) = reader.word() {
            if depth == 0 && VERBS.contains(&word.as_str()) {
                return Some(word);
            }
        } else {
            reader.skip();
        }
    }
    None
}

fn read(statement: &Statement) -> Facts {
    let mut walk = Walk { facts: Facts::harmless() };
    for table in parse::relations(statement) {
        walk.facts.mention(table);
    }
    let _ = statement.visit(&mut walk);
    walk.facts
}

/// Looks at a statement and at every statement in it: `WITH … DELETE` is a query with a DELETE inside.
struct Walk {
    facts: Facts,
}

impl Visitor for Walk {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match statement {
            Statement::Query(_) => {}
            Statement::Insert(insert) => self.insert(insert),
            Statement::Update(update) => self.update(update),
            Statement::Delete(delete) => self.delete(delete),
            _ => {
                let reason = "it can't be told what it does to rows".to_owned();
                self.facts.endanger(Hazard::Unknown(reason));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            let name = parse::name_of(&function.name);
            if name.eq_ignore_ascii_case("load_extension") {
                let reason = "it loads code with load_extension()".to_owned();
                self.facts.endanger(Hazard::Unknown(reason));
            }
        }
        ControlFlow::Continue(())
    }
}

impl Walk {
    fn insert(&mut self, insert: &Insert) {
        let TableObject::TableName(name) = &insert.table else {
            let reason = "it inserts into what is no table".to_owned();
            self.facts.endanger(Hazard::Unknown(reason));
            return;
        };
        let table = parse::name_of(name);
        self.target(&table);
        if insert.replace_into || insert.or == Some(SqliteOnConflict::Replace) {
            self.facts.endanger(destructive(format!("it replaces rows of {table}")));
        }
        self.refuse_rollback(insert.or);
        match &insert.on {
            Some(OnInsert::OnConflict(conflict)) => {
                if let OnConflictAction::DoUpdate(update) = &conflict.action {
                    self.assign(&table, &update.assignments);
                }
            }
            Some(OnInsert::DuplicateKeyUpdate(assignments)) => self.assign(&table, assignments),
            None => {}
            Some(_) => {
                let reason = "what it does on a conflict can't be told".to_owned();
                self.facts.endanger(Hazard::Unknown(reason));
            }
        }
        // Full-text tables take commands, `delete-all` among them, as a value of the column of their own name.
        if let [column] = insert.columns.as_slice()
            && parse::name_of(column).eq_ignore_ascii_case(&table)
        {
            let reason = format!("it may be a command to the full-text table {table}");
            self.facts.endanger(Hazard::Unknown(reason));
        }
    }

    fn update(&mut self, update: &Update) {
        let TableFactor::Table { name, .. } = &update.table.relation else {
            self.facts.endanger(destructive("it updates rows".to_owned()));
            return;
        };
        let table = parse::name_of(name);
        self.target(&table);
        if update.or == Some(SqliteOnConflict::Replace) {
            self.facts.endanger(destructive(format!("it replaces rows of {table}")));
        }
        self.refuse_rollback(update.or);
        self.assign(&table, &update.assignments);
    }

    fn delete(&mut self, delete: &Delete) {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let names: Vec<String> = from.iter().filter_map(table_name).collect();
        for table in &names {
            self.target(table);
        }
        self.facts.endanger(destructive(format!("it deletes rows of {}", names.join(", "))));
    }

    fn assign(&mut self, table: &str, assignments: &[Assignment]) {
        let mut columns = Vec::new();
        for assignment in assignments {
            match &assignment.target {
                AssignmentTarget::ColumnName(name) => columns.push(column_name(name)),
                AssignmentTarget::Tuple(names) => columns.extend(names.iter().map(column_name)),
            }
        }
        self.facts.overwrite(table, columns);
    }

    fn target(&mut self, table: &str) {
        self.facts.mention(table);
        if SCHEMA_TABLES.iter().any(|schema| schema.eq_ignore_ascii_case(table)) {
            self.facts.complain(
                format!("it writes to {table}, which is SQLite's own"),
                "use CREATE, ALTER and DROP",
            );
        }
    }

    /// It would end the transaction in which the step and its row in the ledger commit together.
    fn refuse_rollback(&mut self, or: Option<SqliteOnConflict>) {
        if or == Some(SqliteOnConflict::Rollback) {
            self.facts.complain(
                "OR ROLLBACK ends the transaction that the step runs in",
                "leave it out: a statement that fails undoes the step anyway",
            );
        }
    }
}

fn table_name(table: &TableWithJoins) -> Option<String> {
    match &table.relation {
        TableFactor::Table { name, .. } => Some(parse::name_of(name)),
        _ => None,
    }
}

fn column_name(name: &sqlparser::ast::ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|i| i.value.clone()).unwrap_or_default()
}
