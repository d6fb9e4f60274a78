//! Holding what a plan needs against what is there, before its first change.
//!
//! What earlier steps of the plan create counts as present and is not looked into. Names and expressions are judged by
//! SQLite itself: it prepares them, and runs none. Absent on purpose: reading the data, which may be large, and what the
//! plan's reader already knows without a database.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};

use super::catalogue::{self, Affinity, Generated, Table, TableKind, quote, same_name};
use super::dual_write::{Resolved, check_sync};
use super::error::failure;
use super::identity::identity_problem;
use super::script::meant;
use super::session::as_subquery;
use super::shape::Shape;
use crate::driver::suggest::nearest;
use crate::driver::{CreatedObject, Error, Finding, Severity, Survey, SurveyedMapping};
use crate::run::{CopyColumns, Direction, FailureClass, Mapping, OnDelete, Relation, StepId};

/// A table isn't there.
pub(super) const NO_TABLE: &str = "D201";
/// A name stands for something that is no ordinary table.
pub(super) const NOT_A_TABLE: &str = "D202";
/// A column isn't there.
pub(super) const NO_COLUMN: &str = "D203";
/// A key doesn't identify rows.
pub(super) const NO_IDENTITY: &str = "D204";
/// SQLite does not accept an expression.
pub(super) const BAD_EXPRESSION: &str = "D205";
/// A column of the new side must have a value and gets none.
pub(super) const NO_VALUE: &str = "D206";
/// Values would be changed by being stored under another type.
pub(super) const OTHER_TYPE: &str = "D207";
/// The new side has a UNIQUE that the old side has not.
pub(super) const STRICTER_UNIQUE: &str = "D208";
/// The new side refuses NULLs that the old side may hold.
pub(super) const STRICTER_NULL: &str = "D209";
/// SQLite does not accept a query.
pub(super) const BAD_QUERY: &str = "D210";

/// The sync can't keep a mapping in step.
pub(super) const NO_SYNC: &str = "D211";

/// Everything that stands in the plan's way.
pub(super) async fn look(
    conn: &mut SqliteConnection,
    survey: &Survey,
) -> Result<Vec<Finding>, Error> {
    let mut found = Vec::new();
    for surveyed in &survey.mappings {
        let mut look = Look { conn, survey, step: &surveyed.step, found: Vec::new() };
        look.mapping(surveyed).await?;
        found.append(&mut look.found);
    }
    for (step, query) in &survey.queries {
        let mut look = Look { conn, survey, step, found: Vec::new() };
        look.query(query).await?;
        found.append(&mut look.found);
    }
    // Two steps that use one mapping find the same things; the first says it.
    let mut said: Vec<Finding> = Vec::new();
    for finding in found {
        if !said.iter().any(|one| one.code == finding.code && one.message == finding.message) {
            said.push(finding);
        }
    }
    Ok(said)
}

/// One step's look at the catalogue.
struct Look<'a> {
    conn: &'a mut SqliteConnection,
    survey: &'a Survey,
    step: &'a StepId,
    found: Vec<Finding>,
}

impl Look<'_> {
    async fn mapping(&mut self, surveyed: &SurveyedMapping) -> Result<(), Error> {
        let mapping = &surveyed.mapping;
        let from = self.side(&mapping.from).await?;
        let into =
            if mapping.is_in_place() { from.clone() } else { self.side(&mapping.into).await? };
        for (name, expression) in &mapping.columns {
            self.has_column(into.as_ref(), name);
            self.expression(from.as_ref(), expression, &format!("column {name}")).await?;
        }
        if let Some(filter) = &mapping.filter {
            self.expression(from.as_ref(), filter, "where").await?;
        }
        if surveyed.direction == Some(Direction::Both) {
            for (name, expression) in &mapping.reverse {
                self.has_column(from.as_ref(), name);
                self.expression(into.as_ref(), expression, &format!("reverse column {name}"))
                    .await?;
            }
        }
        let (Some(from), Some(into)) = (from, into) else { return Ok(()) };
        if !mapping.is_in_place() {
            self.values(mapping, &from, &into);
            self.uniques(mapping, &from, &into);
        }
        let grows = |table: &Table| {
            self.survey.created.iter().any(|object| same_name(&object.table, &table.name))
        };
        let is_sound = self.found.iter().all(|finding| finding.severity == Severity::Warning);
        if is_sound && !grows(&from) && !grows(&into) {
            self.sync(surveyed, from, into).await?;
        }
        Ok(())
    }

    /// Whether the sync could be installed on tables that are there as the plan will use them.
    async fn sync(
        &mut self,
        surveyed: &SurveyedMapping,
        from: Table,
        into: Table,
    ) -> Result<(), Error> {
        let direction = surveyed.direction.unwrap_or(Direction::Forward);
        let checked = match Shape::resolve(&surveyed.mapping, &from, &into) {
            Ok(shape) => check_sync(self.conn, &Resolved { shape, from, into }, direction).await,
            Err(error) => Err(error),
        };
        match checked {
            Err(Error::Failed(failure))
                if matches!(failure.class, FailureClass::Refused | FailureClass::Unsafe) =>
            {
                self.find(NO_SYNC, failure.message, failure.help);
                Ok(())
            }
            other => other,
        }
    }

    /// One side's table, if it is there to be looked into: it exists, is a table, and no step creates it.
    async fn side(&mut self, relation: &Relation) -> Result<Option<Table>, Error> {
        if self.is_created(&relation.table, None) {
            return Ok(None);
        }
        let Some(table) = catalogue::table(self.conn, &relation.table).await? else {
            let names = catalogue::names(self.conn).await?;
            let created = self.survey.created.iter().map(|object| object.table.as_str());
            let meant = nearest(&relation.table, names.iter().map(String::as_str).chain(created));
            let help = meant.map(|name| format!("did you mean {name}?"));
            self.find(NO_TABLE, format!("there is no table {}", relation.table), help);
            return Ok(None);
        };
        let kind = match table.kind {
            TableKind::Table => None,
            TableKind::View => Some("a view"),
            TableKind::Virtual => Some("a virtual table"),
            TableKind::Shadow => Some("the storage of a virtual table"),
        };
        if let Some(kind) = kind {
            let help = Some("map the tables behind it".to_owned());
            self.find(
                NOT_A_TABLE,
                format!("{} is {kind}, which can't be mapped", table.name),
                help,
            );
            return Ok(None);
        }
        let mut is_complete = true;
        for name in &relation.key {
            is_complete &= self.has_column(Some(&table), name) && table.column(name).is_some();
        }
        if is_complete
            && let Some((message, help)) =
                identity_problem(self.conn, &table, &relation.key).await?
        {
            self.find(NO_IDENTITY, message, Some(help));
        }
        Ok(Some(table))
    }

    /// Whether a column is there or will be; finds it missing otherwise. A table that can't be looked into has all.
    fn has_column(&mut self, table: Option<&Table>, name: &str) -> bool {
        let Some(table) = table else { return true };
        if table.column(name).is_some() || self.is_created(&table.name, Some(name)) {
            return true;
        }
        let names = table.columns.iter().map(|column| column.name.as_str());
        let help = nearest(name, names).map(|name| format!("did you mean {name}?"));
        self.find(NO_COLUMN, format!("the table {} has no column {name}", table.name), help);
        false
    }

    /// Lets SQLite prepare an expression over one row.
    async fn expression(
        &mut self,
        table: Option<&Table>,
        expression: &str,
        place: &str,
    ) -> Result<(), Error> {
        let Some(table) = table else { return Ok(()) };
        // In WHERE an aggregate or a list of two is refused, which in SELECT is not. The line break ends a comment.
        let sql = format!("SELECT 1 FROM {} WHERE (\n{expression}\n) IS NULL", quote(&table.name));
        let Some(message) = self.refusal(sql).await? else { return Ok(()) };
        if self.names_created(&message, Some(&table.name)) {
            return Ok(());
        }
        let names = table.columns.iter().map(|column| column.name.as_str());
        let help = message
            .split_once("no such column: ")
            .and_then(|(_, typed)| nearest(typed.rsplit('.').next().unwrap_or(typed), names))
            .map(|name| format!("did you mean {name}?"));
        let message = format!("the expression of {place} does not fit {}: {message}", table.name);
        self.find(BAD_EXPRESSION, message, help);
        Ok(())
    }

    /// Lets SQLite prepare a query.
    async fn query(&mut self, query: &str) -> Result<(), Error> {
        let Some(message) = self.refusal(as_subquery(query, 1)).await? else { return Ok(()) };
        if self.names_created(&message, None) {
            return Ok(());
        }
        let help = meant(self.conn, &message).await?;
        self.find(BAD_QUERY, format!("the query can't be run: {message}"), help);
        Ok(())
    }

    /// SQLite's message when it refuses a statement. Trouble with the database itself is an error, not a message.
    async fn refusal(&mut self, sql: String) -> Result<Option<String>, Error> {
        let prepared = (&mut *self.conn).prepare(AssertSqlSafe(sql).into_sql_str()).await;
        let Err(error) = prepared else { return Ok(None) };
        let failure = failure(&error);
        if failure.code.as_deref() == Some("SQLITE_ERROR") {
            return Ok(Some(failure.message));
        }
        Err(Error::Failed(failure))
    }

    /// Every column of the new side gets a value that it takes.
    fn values(&mut self, mapping: &Mapping, from: &Table, into: &Table) {
        for column in &into.columns {
            if column.generated != Generated::No {
                continue;
            }
            let listed = mapping.columns.iter().any(|(name, _)| same_name(name, &column.name));
            let source = source_of(mapping, from, &column.name);
            let Some(source) = source else {
                let is_drawn = into.rowid_alias().is_some_and(|alias| alias.name == column.name);
                if !listed && column.not_null && column.default.is_none() && !is_drawn {
                    let message = format!(
                        "{}.{} must have a value, and the mapping gives none",
                        into.name, column.name
                    );
                    let help = format!("list {} under columns, or give it a DEFAULT", column.name);
                    self.find(NO_VALUE, message, Some(help));
                }
                continue;
            };
            if !into.may_be_null(column) && from.may_be_null(source) {
                let message = format!(
                    "{}.{} may be NULL and {}.{} may not: where it is, copying or a client's write will fail",
                    from.name, source.name, into.name, column.name
                );
                let help = format!(
                    "list it under columns, for example {}: coalesce({}, …)",
                    column.name, source.name
                );
                self.warn(STRICTER_NULL, message, Some(help));
            }
            let types = |what: &str| {
                format!(
                    "{}.{} is {} and {}.{} is {}: {what}",
                    from.name,
                    source.name,
                    shown(&source.declared),
                    into.name,
                    column.name,
                    shown(&column.declared)
                )
            };
            let help = || {
                Some(format!(
                    "say that it is meant with columns: {}: CAST({} AS {})",
                    column.name, source.name, column.declared
                ))
            };
            if changes_values(source.affinity, column.affinity) {
                // Nobody would notice: verify takes a value for what storing it makes of it.
                let message = types("values would be changed, such as '007' to 7");
                self.find(OTHER_TYPE, message, help());
            } else if into.strict
                && column.affinity != Affinity::Blob
                && source.affinity != column.affinity
            {
                let message = types("what does not fit a STRICT table will be refused");
                self.warn(OTHER_TYPE, message, help());
            }
            if mapping.on_delete == OnDelete::Nullify
                && !into.may_be_null(column)
                && !is_key(&mapping.into, &column.name)
            {
                let message =
                    format!("on_delete: nullify can't make {}.{} NULL", into.name, column.name);
                self.find(
                    STRICTER_NULL,
                    message,
                    Some("drop its NOT NULL, or use on_delete: delete".to_owned()),
                );
            }
        }
    }

    /// Every UNIQUE of the new side over copied columns is one of the old side too.
    fn uniques(&mut self, mapping: &Mapping, from: &Table, into: &Table) {
        for index in into.indexes.iter().filter(|index| index.unique && !index.partial) {
            let names: Option<Vec<&str>> =
                index.columns.iter().map(|part| part.name.as_deref()).collect();
            let Some(names) = names else { continue };
            let sources: Option<Vec<&str>> = names
                .iter()
                .map(|name| source_of(mapping, from, name).map(|column| column.name.as_str()))
                .collect();
            let Some(sources) = sources else { continue };
            if !is_unique(from, &sources) {
                let message = format!(
                    "{} is UNIQUE on ({}) and {} is not: where rows share it, copying or a client's write will fail",
                    into.name,
                    names.join(", "),
                    from.name
                );
                let help =
                    "make the old table's columns UNIQUE first, or the new table's afterwards"
                        .to_owned();
                self.warn(STRICTER_UNIQUE, message, Some(help));
            }
        }
    }

    fn is_created(&self, table: &str, column: Option<&str>) -> bool {
        self.survey.created.iter().any(|object: &CreatedObject| {
            same_name(&object.table, table)
                && match (&object.column, column) {
                    (None, _) => true,
                    (Some(created), Some(asked)) => same_name(created, asked),
                    (Some(_), None) => false,
                }
        })
    }

    /// Whether one of SQLite's messages complains of something that a step creates.
    fn names_created(&self, message: &str, over: Option<&str>) -> bool {
        let named = |mark| message.split_once(mark).map(|(_, name): (_, &str)| name.trim());
        let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
        if let Some(table) = named("no such table: ") {
            return self.is_created(&last(table), None);
        }
        named("no such column: ").is_some_and(|column| {
            let column = last(column);
            self.survey.created.iter().any(|object| {
                over.is_none_or(|table| same_name(&object.table, table))
                    && object.column.as_deref().is_none_or(|created| same_name(created, &column))
            })
        })
    }

    fn find(&mut self, code: &'static str, message: String, help: Option<String>) {
        let (severity, step) = (Severity::Error, self.step.clone());
        self.found.push(Finding { severity, step, code, message, help, private: Vec::new() });
    }

    /// Finds what a stricter new side may refuse: that is often what it is made for, and a row that it refuses is named.
    fn warn(&mut self, code: &'static str, message: String, help: Option<String>) {
        self.find(code, message, help);
        if let Some(finding) = self.found.last_mut() {
            finding.severity = Severity::Warning;
        }
    }
}

/// The source column that is copied unchanged into a target column, if one is.
fn source_of<'t>(mapping: &Mapping, from: &'t Table, name: &str) -> Option<&'t catalogue::Column> {
    if let Some((_, expression)) =
        mapping.columns.iter().find(|(listed, _)| same_name(listed, name))
    {
        return from.column(expression.trim().trim_matches('"'));
    }
    if let Some(at) = mapping.into.key.iter().position(|key| same_name(key, name)) {
        return mapping.from.key.get(at).and_then(|key| from.column(key));
    }
    (mapping.copy == CopyColumns::All).then(|| from.column(name)).flatten()
}

fn is_key(relation: &Relation, name: &str) -> bool {
    relation.key.iter().any(|key| same_name(key, name))
}

/// Whether a set of columns, or a part of it, is unique.
fn is_unique(table: &Table, columns: &[&str]) -> bool {
    let has = |name: &str| columns.iter().any(|column| same_name(column, name));
    let by_rowid = table.rowid_alias().is_some_and(|alias| has(&alias.name));
    by_rowid
        || table
            .indexes
            .iter()
            .filter(|index| index.unique && !index.partial)
            .any(|index| index.columns.iter().all(|part| part.name.as_deref().is_some_and(has)))
}

/// Whether storing a value of one affinity under another changes it: '007' becomes 7.
const fn changes_values(from: Affinity, into: Affinity) -> bool {
    matches!(from, Affinity::Text | Affinity::Blob)
        && matches!(into, Affinity::Integer | Affinity::Real | Affinity::Numeric)
}

fn shown(declared: &str) -> &str {
    if declared.is_empty() { "untyped" } else { declared }
}
