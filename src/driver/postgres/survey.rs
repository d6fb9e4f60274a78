//! Holding what a plan needs against what is there, before its first change.
//!
//! What earlier steps of the plan create counts as present and is not looked into. Names and expressions are judged by the
//! server itself: it parses and plans them, and runs none. Absent on purpose: reading the data, which may be large, but for
//! the thousand rows by which `inverse` tries a way back; and what the plan's reader already knows without a database.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::postgres::{PgConnection, PgTypeInfo};
use sqlx::{
    AssertSqlSafe, Executor as _, Row as _, SqlSafeStr as _, Statement as _, TypeInfo as _,
};

use super::catalogue::{self, Table, quoted, same_table};
use super::connection::Reader;
use super::error::{failed, failure, given};
use super::identity::{identity_problem, unfit};
use super::rights::{self, NO_RIGHT};
use super::shape::Shape;
use super::steady::{Steadiness, steadiness};
use super::surroundings::{Surroundings, around};
use super::{ahead, deferrable, gaps, stricter, sync_objects, version};
use crate::bounds::probe::{POSTGRES_LOCK_WAIT_MS, POSTGRES_STATEMENT_WITHIN_MS};
use crate::driver::probed::Right;
use crate::driver::suggest::nearest;
use crate::driver::{CreatedObject, Error, Finding, Severity, Survey, SurveyedMapping};
use crate::run::{Direction, FailureClass, Mapping, Private, Relation, RetireShape, StepId};

/// A table isn't there.
pub(super) const NO_TABLE: &str = "D201";
/// A name stands for something that can't be mapped.
pub(super) const NOT_A_TABLE: &str = "D202";
/// A column isn't there.
pub(super) const NO_COLUMN: &str = "D203";
/// A key doesn't identify rows.
pub(super) const NO_IDENTITY: &str = "D204";
/// The server does not accept an expression.
pub(super) const BAD_EXPRESSION: &str = "D205";
/// The server does not accept a query.
pub(super) const BAD_QUERY: &str = "D210";
/// The sync can't keep a mapping in step.
pub(super) const NO_SYNC: &str = "D211";
/// An expression that may give another value another time.
pub(super) const UNSTEADY: &str = "D215";

/// Whether a value of one type can be stored in a column of another without a cast being written, and both types' names:
/// the same type, a cast that INSERT makes by itself, or anything into text. Domains count as what they are over, and arrays
/// as their elements; but not elements of a domain, which a trigger's cast would cut to the domain's length without a word.
/// From <https://www.postgresql.org/docs/current/typeconv-query.html>.
const TAKES: &str = "\
WITH RECURSIVE base (side, type) AS (
    SELECT side, type::oid FROM (VALUES ('source', $1::bigint), ('target', $2::bigint)) AS given (side, type)
    UNION ALL
    SELECT side, t.typbasetype FROM base JOIN pg_type t ON t.oid = base.type WHERE t.typtype = 'd'
), bare AS (
    SELECT side, t.oid, t.typcategory, t.typelem FROM base JOIN pg_type t ON t.oid = base.type WHERE t.typtype <> 'd'
), pair AS (
    SELECT s.oid AS source, t.oid AS target, t.typcategory AS category FROM bare s, bare t
    WHERE s.side = 'source' AND t.side = 'target'
    UNION ALL
    SELECT s.typelem, e.oid, e.typcategory FROM bare s, bare t JOIN pg_type e ON e.oid = t.typelem
    WHERE s.side = 'source' AND t.side = 'target' AND s.typcategory = 'A' AND t.typcategory = 'A' AND e.typtype <> 'd'
)
SELECT coalesce(bool_or(source = target OR category = 'S' OR EXISTS (SELECT FROM pg_cast
           WHERE castsource = source AND casttarget = target AND castcontext IN ('a', 'i'))), false),
       format_type($1::bigint::oid, NULL), format_type($2::bigint::oid, NULL),
       coalesce(bool_or(EXISTS (SELECT FROM pg_type WHERE oid = source AND typcategory = 'S')
           OR EXISTS (SELECT FROM pg_cast WHERE castsource = source AND casttarget = target)), false)
FROM pair";

/// Set for the look alone: the planner folds away what contradicts itself (which `steady` reads), and a statement that
/// would take long is given up.
const SETTINGS: &str = "SELECT set_config('constraint_exclusion', 'on', true), \
     set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true)";

/// Everything that stands in the plan's way, and what the role may do.
pub(super) async fn look(
    reader: &mut Reader<'_>,
    survey: &Survey,
) -> Result<(Vec<Finding>, Vec<Right>), Error> {
    let schema = reader.schema().to_owned();
    let conn = reader.conn()?;
    sqlx::query(SETTINGS)
        .bind(format!("{POSTGRES_STATEMENT_WITHIN_MS}ms"))
        .bind(format!("{POSTGRES_LOCK_WAIT_MS}ms"))
        .execute(&mut *conn)
        .await
        .map_err(failed("prepare to look"))?;
    sqlx::query("SAVEPOINT look").execute(&mut *conn).await.map_err(failed("prepare to look"))?;
    let mut look = Look {
        conn,
        survey,
        schema: &schema,
        step: None,
        tables: BTreeMap::new(),
        found: Vec::new(),
    };
    if look.is_too_old().await? {
        return Ok((look.found, Vec::new()));
    }
    for surveyed in &survey.mappings {
        look.step = Some(&surveyed.step);
        look.mapping(surveyed).await?;
    }
    look.overlaps();
    for (step, query) in &survey.queries {
        look.step = Some(step);
        look.query(query).await?;
    }
    look.scripts().await?;
    let (rights, lacking) = rights::rights(&mut *look.conn, survey, &schema).await?;
    look.found.extend(lacking);
    // Two steps that use one mapping find the same things; the first says it.
    let mut said: Vec<Finding> = Vec::new();
    for finding in look.found {
        if !said.iter().any(|one| one.code == finding.code && one.message == finding.message) {
            said.push(finding);
        }
    }
    Ok((said, rights))
}

/// A table with what stands around it.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub table: Arc<Table>,
    pub around: Arc<Surroundings>,
}

/// One look at the catalogue.
pub(super) struct Look<'a> {
    pub(super) conn: &'a mut PgConnection,
    pub(super) survey: &'a Survey,
    /// Our own schema, quoted.
    schema: &'a str,
    /// The step that is looked at.
    pub(super) step: Option<&'a StepId>,
    /// What was read already, by the name in the plan.
    pub(super) tables: BTreeMap<String, Option<Side>>,
    found: Vec<Finding>,
}

impl Look<'_> {
    /// Whether the server is older than what a mapping needs, which then is all that is found.
    async fn is_too_old(&mut self) -> Result<bool, Error> {
        let Some(first) = self.survey.mappings.first() else { return Ok(false) };
        let Some((message, help)) = version::too_old(self.conn).await? else { return Ok(false) };
        self.step = Some(&first.step);
        self.error(NO_SYNC, message, Some(help));
        Ok(true)
    }

    async fn mapping(&mut self, surveyed: &SurveyedMapping) -> Result<(), Error> {
        let mapping = &surveyed.mapping;
        if !mapping.is_pushdown() {
            return self.crossing(surveyed).await;
        }
        let before = self.found.len();
        let from = self.side(&mapping.from).await?;
        let into =
            if mapping.is_in_place() { from.clone() } else { self.side(&mapping.into).await? };
        self.expressions(surveyed, (from.as_ref(), into.as_ref())).await?;
        let findings = match (&from, &into) {
            (Some(from), Some(into)) if mapping.is_in_place() => {
                let fires = gaps::firing(into, "each row that is backfilled").into_iter().collect();
                let refused = ahead::refused(from, (self.survey, surveyed));
                [stricter::in_place(mapping, from, into), fires, refused].concat()
            }
            (Some(from), Some(into)) => {
                let mut findings = stricter::findings(mapping, from, into);
                findings.extend(gaps::between(surveyed, (from, into), self.retired(mapping)));
                findings
            }
            (Some(from), None) => gaps::of_a_copy(mapping, from, self.survey),
            (None, _) => Vec::new(),
        };
        for (severity, code, message, help) in findings {
            self.find(severity, code, message, help);
        }
        if let Some(from) = &from {
            let sides = (from, into.as_ref());
            let asked = ahead::asked(self.conn, self.survey, mapping, sides).await?;
            for (severity, code, message, help) in asked {
                self.find(severity, code, message, help);
            }
        }
        let sides = from.as_ref().zip(into.as_ref());
        if let Some((from, into)) = sides {
            self.assignments(mapping, from, into).await?;
            if self.is_sound_since(before) && !self.grows(from) && !self.grows(into) {
                self.shape(surveyed, from, into);
            }
        }
        if let Some(from) = &from
            && surveyed.direction == Some(Direction::Both)
            && self.is_sound_since(before)
        {
            self.inverse(mapping, from, into.as_ref()).await?;
        }
        Ok(())
    }

    /// How much was found so far.
    pub(super) const fn found_count(&self) -> usize {
        self.found.len()
    }

    pub(super) fn is_sound_since(&self, before: usize) -> bool {
        self.found[before..].iter().all(|finding| finding.severity == Severity::Warning)
    }

    /// Both sides go together, and a sync can follow them.
    fn shape(&mut self, surveyed: &SurveyedMapping, from: &Side, into: &Side) {
        let mapping = &surveyed.mapping;
        if from.table.oid == into.table.oid && !mapping.is_in_place() {
            let message = format!(
                "mapping {}: {} and {} are one table under two names",
                mapping.name, mapping.from.table, mapping.into.table
            );
            let help = "write it alike on both sides to map in place, or name another table";
            self.error(NO_SYNC, message, Some(help.to_owned()));
            return;
        }
        let shape = Shape::resolve(mapping, Arc::clone(&from.table), Arc::clone(&into.table));
        let direction = surveyed.direction.unwrap_or(Direction::Forward);
        let followed = shape.and_then(|shape| sync_objects::can_follow(&shape, direction));
        if let Err(Error::Failed(failure)) = followed {
            self.error(NO_SYNC, failure.message, failure.help);
        } else if surveyed.direction.is_some()
            && !mapping.is_in_place()
            && let Some((message, help)) = deferrable::problem(&into.around)
        {
            self.error(NO_SYNC, format!("mapping {}: {message}", mapping.name), Some(help));
        }
    }

    /// One side's table, if it is there to be looked into: it exists, can be mapped, and no step creates it.
    pub(super) async fn side(&mut self, relation: &Relation) -> Result<Option<Side>, Error> {
        if let Some(known) = self.tables.get(&relation.table) {
            let known = known.clone();
            if let Some(side) = &known {
                self.key(side, relation);
            }
            return Ok(known);
        }
        let side = self.read(relation).await?;
        if let Some(side) = &side {
            self.key(side, relation);
        }
        self.tables.insert(relation.table.clone(), side.clone());
        Ok(side)
    }

    async fn read(&mut self, relation: &Relation) -> Result<Option<Side>, Error> {
        if self.is_created(&relation.table, None) {
            return Ok(None);
        }
        let (schema, _) = catalogue::parts(&relation.table);
        if let Some(schema) = schema
            && !rights::may_enter(self.conn, &schema).await?
        {
            // What is said of rights names the schema and its GRANT.
            return Ok(None);
        }
        let Some(table) = catalogue::table(self.conn, &relation.table).await? else {
            let help = self.meant_table(&relation.table).await?;
            self.error(NO_TABLE, format!("there is no table {}", relation.table), help);
            return Ok(None);
        };
        let around = around(self.conn, table.oid, self.schema).await?;
        if let Some((message, help)) = unfit(&table, &around) {
            self.error(NOT_A_TABLE, message, Some(help));
            return Ok(None);
        }
        Ok(Some(Side { table: Arc::new(table), around: Arc::new(around) }))
    }

    /// The key's columns are there and identify rows.
    fn key(&mut self, side: &Side, relation: &Relation) {
        let mut is_complete = true;
        for name in &relation.key {
            is_complete &= self.has_column(Some(side), name) && side.table.column(name).is_some();
        }
        if is_complete && let Some((message, help)) = identity_problem(&side.table, &relation.key) {
            self.error(NO_IDENTITY, message, Some(help));
        }
    }

    async fn expressions(
        &mut self,
        surveyed: &SurveyedMapping,
        (from, into): (Option<&Side>, Option<&Side>),
    ) -> Result<(), Error> {
        let mapping = &surveyed.mapping;
        for (name, expression) in &mapping.columns {
            self.has_column(into, name);
            self.expression(from, expression, &format!("column {name}")).await?;
        }
        if let Some(filter) = &mapping.filter {
            self.expression(from, filter, "where").await?;
        }
        if surveyed.direction == Some(Direction::Both) {
            for (name, expression) in &mapping.reverse {
                self.has_column(from, name);
                self.expression(into, expression, &format!("reverse column {name}")).await?;
            }
        }
        Ok(())
    }

    /// Whether a column is there or will be; finds it missing otherwise. A table that can't be looked into has all.
    fn has_column(&mut self, side: Option<&Side>, name: &str) -> bool {
        let Some(Side { table, .. }) = side else { return true };
        if table.column(name).is_some() || self.is_created(&table.written(), Some(name)) {
            return true;
        }
        let names = table.columns.iter().map(|column| column.name.as_str());
        let help = nearest(name, names).map(|name| format!("did you mean {name}?"));
        self.error(NO_COLUMN, format!("the table {} has no column {name}", table.name), help);
        false
    }

    /// Lets the server parse and plan an expression over one row.
    pub(super) async fn expression(
        &mut self,
        side: Option<&Side>,
        expression: &str,
        place: &str,
    ) -> Result<(), Error> {
        let Some(Side { table, .. }) = side else { return Ok(()) };
        let name = table.sql();
        // In WHERE aggregates and functions that return sets are refused, which in SELECT are not; a list of two shows as
        // the type of what is selected. The line break ends a comment.
        let sql = format!("SELECT (\n{expression}\n) FROM {name} WHERE (\n{expression}\n) IS NULL");
        match self.prepare(sql).await? {
            Ok(columns)
                if columns
                    .first()
                    .is_some_and(|kind| kind.name().eq_ignore_ascii_case("record")) =>
            {
                let message = format!("the expression of {place} gives several values");
                self.error(BAD_EXPRESSION, message, Some("write one expression".to_owned()));
                return Ok(());
            }
            Ok(_) => {}
            Err(refusal) => {
                if !self.names_created(&refusal.message, Some(&table.written())) {
                    let names = table.columns.iter().map(|column| column.name.as_str());
                    let help = refusal.help.clone().or_else(|| {
                        let missing = quoted(&refusal.message)?;
                        let typed = missing.rsplit('.').next().unwrap_or(missing);
                        nearest(typed, names).map(|name| format!("did you mean {name}?"))
                    });
                    let message = format!(
                        "the expression of {place} does not fit {}: {}",
                        table.name, refusal.message
                    );
                    self.error(BAD_EXPRESSION, message, help);
                }
                return Ok(());
            }
        }
        self.steady(&name, expression, place).await
    }

    /// A value that a client's trigger computes must be the one that the copy computes.
    async fn steady(&mut self, table: &str, expression: &str, place: &str) -> Result<(), Error> {
        let found = match steadiness(self.conn, table, expression).await {
            Ok(found) => found,
            Err(error) => {
                let Some(refusal) = self.refusal(&error).await? else { return Ok(()) };
                let message =
                    format!("the expression of {place} can't be planned: {}", refusal.message);
                self.error(BAD_EXPRESSION, message, refusal.help);
                return Ok(());
            }
        };
        match found {
            Steadiness::Immutable => {}
            Steadiness::Depends => {
                let message = format!(
                    "the expression of {place} is not immutable: a client's write and the copy may compute different values"
                );
                let help = "use immutable functions, or declare the function IMMUTABLE if it is; name the time zone \
                            where a value depends on it";
                self.warning(UNSTEADY, message, Some(help.to_owned()));
            }
            Steadiness::Unsteady(word) => {
                let message = format!(
                    "the expression of {place} uses {word}, whose value is never the same twice"
                );
                let help = "the value must follow from the row alone; let a DEFAULT or a statement of the plan fill the column";
                self.error(UNSTEADY, message, Some(help.to_owned()));
            }
        }
        Ok(())
    }

    /// Whether each written column takes its value's type, by the catalogue: preparing an INSERT would lock the table as
    /// one does.
    async fn assignments(
        &mut self,
        mapping: &Mapping,
        from: &Side,
        into: &Side,
    ) -> Result<(), Error> {
        let Ok(writes) = stricter::writes(mapping, &from.table, &into.table) else { return Ok(()) };
        for (column, value) in writes {
            let Some(target) = into.table.column(&column).map(|target| target.type_oid) else {
                continue;
            };
            let sql = format!("SELECT (\n{value}\n) FROM {}", from.table.sql());
            // What else is wrong with it was said of the expression.
            let Ok(Some(source)) = self.prepare(sql).await?.map(|types| types.first().cloned())
            else {
                continue;
            };
            let Some(source) = source.oid() else { continue };
            let row = sqlx::query(TAKES)
                .bind(i64::from(source.0))
                .bind(i64::from(target))
                .fetch_one(&mut *self.conn)
                .await
                .map_err(failed("read the catalogue"))?;
            if row.try_get(0).map_err(failed("read the catalogue"))? {
                continue;
            }
            let kind =
                |at: usize| row.try_get::<String, _>(at).map_err(failed("read the catalogue"));
            let message = format!(
                "{}: column \"{column}\" is of type {} but expression is of type {}",
                into.table.name,
                kind(2)?,
                kind(1)?,
            );
            let can_be_cast: bool = row.try_get(3).map_err(failed("read the catalogue"))?;
            let help = if can_be_cast {
                format!("write a cast under columns: {column}: ({value})::{}", kind(2)?)
            } else {
                format!("write an expression that gives {} under columns: {column}: …", kind(2)?)
            };
            self.error(stricter::OTHER_TYPE, message, Some(help));
        }
        Ok(())
    }

    /// Lets the server parse a query, which gives one column.
    async fn query(&mut self, query: &str) -> Result<(), Error> {
        let sql = query.trim_end().trim_end_matches(';').to_owned();
        match self.prepare(sql).await? {
            Ok(columns) if columns.len() == 1 => {}
            Ok(columns) => {
                let message = format!("the query gives {} columns", columns.len());
                let help = "write a query that gives exactly one row with one column";
                self.error(BAD_QUERY, message, Some(help.to_owned()));
            }
            Err(refusal) => {
                if self.names_created(&refusal.message, None) {
                    return Ok(());
                }
                let help = match (&refusal.help, quoted(&refusal.message)) {
                    (None, Some(name)) if refusal.code == "42P01" => {
                        let name = name.to_owned();
                        self.meant_table(&name).await?
                    }
                    _ => refusal.help,
                };
                self.error(BAD_QUERY, format!("the query can't be run: {}", refusal.message), help);
            }
        }
        Ok(())
    }

    /// The types of the columns that a statement gives, or why the server refuses it. It is not run.
    async fn prepare(&mut self, sql: String) -> Result<Result<Vec<PgTypeInfo>, Refusal>, Error> {
        let prepared = (&mut *self.conn).prepare(AssertSqlSafe(sql).into_sql_str()).await;
        match prepared {
            Ok(statement) => {
                let kind =
                    |column: &sqlx::postgres::PgColumn| sqlx::Column::type_info(column).clone();
                Ok(Ok(statement.columns().iter().map(kind).collect()))
            }
            Err(error) => match self.refusal(&error).await? {
                Some(refusal) => Ok(Err(refusal)),
                None => Ok(Ok(Vec::new())),
            },
        }
    }

    /// What the server said, where it is the author's to mend; `None` where a right is lacking, which is said apart.
    /// Trouble with the server itself is an error. The transaction goes on.
    pub(super) async fn refusal(&mut self, error: &sqlx::Error) -> Result<Option<Refusal>, Error> {
        let Some(code) = given(error).map(|given| given.code().to_owned()) else {
            return Err(Error::Failed(failure(error)));
        };
        let said = failure(error);
        if said.class != FailureClass::Refused && code != "42501" {
            return Err(Error::Failed(said));
        }
        sqlx::query("ROLLBACK TO SAVEPOINT look")
            .execute(&mut *self.conn)
            .await
            .map_err(failed("go on looking"))?;
        if code != "42501" {
            let help = given(error).and_then(|given| given.hint()).map(str::to_owned);
            return Ok(Some(Refusal { code, message: said.message, help, private: said.private }));
        }
        if let Some(name) = said.message.strip_prefix("permission denied for function ") {
            let help = format!("GRANT EXECUTE ON FUNCTION {name} TO the role");
            self.error(NO_RIGHT, said.message.clone(), Some(help));
        }
        Ok(None)
    }

    pub(super) fn is_created(&self, table: &str, column: Option<&str>) -> bool {
        self.survey.created.iter().any(|object: &CreatedObject| {
            same_table(&object.table, table)
                && match (object.column.as_deref(), column) {
                    (None, _) => true,
                    (Some(created), Some(asked)) => created == asked,
                    (Some(_), None) => false,
                }
        })
    }

    /// What `retire` puts aside of a mapping.
    fn retired(&self, mapping: &Mapping) -> Option<&RetireShape> {
        let of_it = self.survey.retired.iter().find(|(name, _)| *name == mapping.name);
        of_it.map(|(_, shape)| shape)
    }

    /// Whether the plan adds columns to a table.
    pub(super) fn grows(&self, side: &Side) -> bool {
        self.survey.created.iter().any(|object| same_table(&object.table, &side.table.written()))
    }

    /// Whether a message is about something that the plan creates before it is used.
    fn names_created(&self, message: &str, table: Option<&str>) -> bool {
        let Some(name) = quoted(message) else { return false };
        let (_, last) = catalogue::parts(name);
        self.survey.created.iter().any(|object| match &object.column {
            None => same_table(&object.table, name),
            Some(column) => *column == last && table.is_none_or(|it| same_table(&object.table, it)),
        })
    }

    pub(super) fn error(&mut self, code: &'static str, message: String, help: Option<String>) {
        self.find(Severity::Error, code, message, help);
    }

    /// Marks what of the last finding is data.
    pub(super) fn hide_last(&mut self, private: Vec<Private>) {
        if let Some(last) = self.found.last_mut() {
            last.private = private;
        }
    }

    pub(super) fn warning(&mut self, code: &'static str, message: String, help: Option<String>) {
        self.find(Severity::Warning, code, message, help);
    }

    /// Says what of the last finding is the plan's data.
    pub(super) fn private(&mut self, private: Vec<Private>) {
        if let Some(finding) = self.found.last_mut() {
            finding.private = private;
        }
    }

    pub(super) fn find(
        &mut self,
        severity: Severity,
        code: &'static str,
        message: String,
        help: Option<String>,
    ) {
        let Some(step) = self.step.cloned() else { return };
        self.found.push(Finding { severity, step, code, message, help, private: Vec::new() });
    }
}

/// Why the server refuses a statement.
pub(super) struct Refusal {
    code: String,
    pub(super) message: String,
    /// Its hint.
    help: Option<String>,
    /// What of it is the plan's data.
    pub(super) private: Vec<Private>,
}
