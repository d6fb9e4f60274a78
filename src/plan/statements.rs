//! The statements of sql steps: fetched, split, read, and judged in the light of what the plan itself made before.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location, known as codes};
use crate::run::{CreatedTable, Hazard, Language, Script, Statement, Transaction};
use crate::sql::cypher::{self, Section};
use crate::sql::{self, Change, Dialect, Facts, Object};

use super::document::ScriptDef;
use super::files::Files;
use super::reports::Reports;

/// Why schema and data don't go together.
const MIXED: &str = "Neo4j changes schema and data in transactions of their own";

/// A script that was read.
#[derive(Clone, Debug)]
pub struct ReadScript {
    /// Where its lines are: the plan, or a file.
    pub file: Arc<str>,
    /// Whose SQL it is.
    pub dialect: Dialect,
    /// Its statements with what they do, and the hazard that is left in this plan.
    pub statements: Vec<(Statement, Facts, Hazard)>,
    /// The file it came from, as the plan names it.
    pub named_file: Option<String>,
    /// Whether they run in one transaction.
    pub transaction: Transaction,
}

impl ReadScript {
    /// The most severe hazard of its statements.
    pub fn hazard(&self) -> Hazard {
        sql::worst(self.statements.iter().map(|(_, _, hazard)| hazard.clone()))
    }

    /// The first statement that the database refuses inside a transaction, with the reason.
    pub fn outside_transaction(&self) -> Option<(&Statement, &str)> {
        self.statements.iter().find_map(|(statement, facts, _)| {
            facts.outside_transaction.as_deref().map(|reason| (statement, reason))
        })
    }

    /// The same, or the first that the database refuses in one transaction with those before it.
    pub fn outside_one(&self) -> Option<(&Statement, &str)> {
        self.outside_transaction().or_else(|| self.mixed().map(|statement| (statement, MIXED)))
    }

    /// Cypher: the first statement that changes the schema where others change data, or the other way round.
    fn mixed(&self) -> Option<&Statement> {
        if self.dialect != Dialect::Cypher {
            return None;
        }
        let sections = self.statements.iter().map(|(it, ..)| (it, cypher::section(&it.text)));
        let mut changing = sections.filter(|(_, section)| *section != Section::Reads);
        let (_, first) = changing.next()?;
        changing.find(|(_, section)| *section != first).map(|(statement, _)| statement)
    }

    /// Where a statement stands.
    pub fn location(&self, statement: &Statement) -> Location {
        Location { file: Arc::clone(&self.file), line: statement.line, column: 1, length: 0 }
    }

    /// What it compiles to.
    pub fn compile(&self) -> Script {
        let creates = self.statements.iter().flat_map(|(_, facts, _)| {
            facts.creates.iter().chain(&facts.ensures).map(|object| CreatedTable {
                table: object.table.clone(),
                column: object.column.clone(),
            })
        });
        let tables: BTreeSet<String> =
            self.statements.iter().flat_map(|(_, facts, _)| facts.tables.iter().cloned()).collect();
        Script {
            tables: tables.into_iter().collect(),
            statements: self.statements.iter().map(|(statement, ..)| statement.clone()).collect(),
            file: self.named_file.clone(),
            hazard: self.hazard(),
            creates: creates.collect(),
            language: match self.dialect {
                Dialect::Cypher => Language::Cypher,
                _ => Language::Sql,
            },
            transaction: self.transaction,
            is_opaque: self
                .statements
                .iter()
                .any(|(_, facts, _)| matches!(facts.hazard, Hazard::Unknown(_))),
        }
    }
}

/// Whether statements and expressions can be read. The other languages come with their drivers; plans in them are refused
/// until then, and nothing further is said of their statements.
pub const fn can_be_read(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Sqlite | Dialect::Postgres | Dialect::Cypher)
}

/// What the plan made itself on one target, in the order of its steps.
#[derive(Clone, Debug, Default)]
pub struct Created {
    /// What is there now.
    now: Vec<Object>,
    /// What was made at some time, under any name.
    ever: Vec<Object>,
}

impl Created {
    /// Whether the plan made this table, or this column of it.
    pub fn has(&self, dialect: Dialect, object: &Object) -> bool {
        self.now.iter().any(|made| made.covers(dialect, object))
    }

    /// Whether the plan made this table, or this column of it, at any time.
    pub fn had(&self, dialect: Dialect, object: &Object) -> bool {
        self.ever.iter().any(|made| made.covers(dialect, object))
    }

    /// Follows what a statement does: a name that was given away or dropped is no longer that of our object.
    fn follow(&mut self, dialect: Dialect, facts: &Facts) {
        for change in &facts.changes {
            match change {
                Change::RenameTable { table, to } => {
                    let was_ours = self.has(dialect, &Object::table(table.as_str()));
                    self.forget(dialect, &Object::table(table.as_str()));
                    self.forget(dialect, &Object::table(to.as_str()));
                    if was_ours {
                        self.now.push(Object::table(to.as_str()));
                    }
                }
                Change::RenameColumn { table, column, to } => {
                    let old = Object::column(table.as_str(), column.as_str());
                    let was_ours = self.now.contains(&old);
                    self.forget(dialect, &old);
                    if was_ours {
                        self.now.push(Object::column(table.as_str(), to.as_str()));
                    }
                }
                Change::Schema { schema } => {
                    let inside = |made: &Object| {
                        sql::qualified_name(&made.table).0.as_deref().unwrap_or("public") == schema
                    };
                    self.now.retain(|made| !inside(made));
                }
                _ => {}
            }
        }
        for dropped in &facts.drops {
            self.forget(dialect, dropped);
        }
        self.now.extend(facts.creates.iter().cloned());
        self.ever.extend(facts.creates.iter().cloned());
    }

    fn forget(&mut self, dialect: Dialect, gone: &Object) {
        self.now.retain(|made| !gone.covers(dialect, made));
    }
}

/// What the plan has made when a script runs.
pub enum Standing<'a> {
    /// A step: what it makes is there for the steps below.
    Follow(&'a mut Created),
    /// An undo: it runs instead of what comes later, so nothing below sees what it makes or drops.
    Look(&'a Created),
}

impl Standing<'_> {
    fn now(&self) -> &[Object] {
        match self {
            Self::Follow(created) => &created.now,
            Self::Look(created) => &created.now,
        }
    }
}

/// Reads scripts, and remembers what they make.
pub struct Scripts<'a> {
    /// The files beside the plan.
    pub files: &'a mut Files,
    /// The findings about the plan.
    pub reports: &'a mut Reports,
    /// The plan's own file.
    pub plan: Arc<str>,
    /// What the step says of transactions.
    pub transaction: Transaction,
}

impl Scripts<'_> {
    /// Reads the statements of a step, or of an undo. None, with a finding, if they can't be told apart.
    pub fn read(
        &mut self,
        script: &ScriptDef,
        dialect: Dialect,
        mut created: Standing<'_>,
    ) -> Option<ReadScript> {
        let (file, text, first_line, named, span) = match script {
            ScriptDef::Inline { text, first_line } => {
                let shown = Arc::clone(&self.plan);
                (shown, Arc::from(text.value.as_str()), *first_line, None, text.span)
            }
            ScriptDef::File(path) => {
                let source = self.files.text(path, self.reports)?;
                (source.path, source.text, 1, Some(path.value.clone()), path.span)
            }
        };
        let statements = match sql::split(dialect, &text, first_line) {
            Ok(statements) if self.transaction == Transaction::Auto => {
                sql::unwrapped(dialect, statements)
            }
            Ok(statements) => statements,
            Err(error) => {
                let line = Location { file, line: error.line, column: 1, length: 0 };
                let diagnostic = Diagnostic::error(codes::UNREADABLE_SQL, error.message).at(line);
                self.reports.add(diagnostic.with_help(error.help));
                return None;
            }
        };
        if statements.is_empty() {
            self.reports
                .error(codes::NO_STATEMENTS, span, "there are no statements here")
                .help("write a statement, or remove the step");
        }
        let mut judged = Vec::with_capacity(statements.len());
        for statement in statements {
            let facts = sql::classify(dialect, &statement.text);
            let hazard = facts.hazard_given(dialect, created.now());
            if let Standing::Follow(created) = &mut created {
                created.follow(dialect, &facts);
            }
            judged.push((statement, facts, hazard));
        }
        Some(ReadScript {
            file,
            dialect,
            statements: judged,
            named_file: named,
            transaction: self.transaction,
        })
    }
}
