//! Tables and columns that the statements of `sql` steps name: they must be there before the plan's first change, or a
//! migration stops half-way for a slip of the pen.
//!
//! Invariant: what is found missing is missing for sure. Where something can't be told from the text (a statement that may
//! make anything, another search path, temporary tables), nothing is said, and the server says it when the step runs.
//!
//! Absent on purpose: columns inside expressions and of index definitions, which only running the statement would resolve.

use sqlx::Row as _;

use super::catalogue::same_table;
use super::error::failed;
use super::survey::{Look, NO_COLUMN, NO_TABLE};
use super::{catalogue, rights};
use crate::driver::suggest::nearest;
use crate::driver::{CreatedObject, Error};
use crate::run::{Hazard, Script};
use crate::sql::{self, Change, Dialect, Facts, Object};

/// First words of statements that make tables of names which they don't say.
const MAKERS: [[&str; 2]; 3] =
    [["CREATE", "EXTENSION"], ["ALTER", "EXTENSION"], ["IMPORT", "FOREIGN"]];

/// Words that give names another meaning for the rest of a script.
const OTHER_NAMES: [&str; 4] = ["SEARCH_PATH", "TEMP", "TEMPORARY", "PG_TEMP"];

impl Look<'_> {
    /// Looks for what the statements of `sql` steps name, up to the first that may make anything.
    pub(super) async fn scripts(&mut self) -> Result<(), Error> {
        let survey = self.survey;
        for (step, script) in &survey.scripts {
            let Some(read) = readable(script) else { return Ok(()) };
            self.step = Some(step);
            if script.statements.iter().any(|statement| renames(&statement.text)) {
                continue;
            }
            for (text, facts) in read {
                if !has_words(text, &["IF", "EXISTS"]) {
                    self.statement(&facts).await?;
                }
            }
        }
        Ok(())
    }

    async fn statement(&mut self, facts: &Facts) -> Result<(), Error> {
        for table in &facts.tables {
            if self.is_made(table, None) || self.is_there(table).await? {
                continue;
            }
            let help = self.meant_table(table).await?;
            self.error(NO_TABLE, format!("there is no table {table}"), help);
        }
        for Object { table, column } in columns(facts) {
            let Some(column) = column else { continue };
            if self.is_made(&table, None) || self.is_made(&table, Some(&column)) {
                continue;
            }
            self.column(&table, &column).await?;
        }
        Ok(())
    }

    async fn column(&mut self, table: &str, column: &str) -> Result<(), Error> {
        if self.is_hidden(table).await? {
            return Ok(());
        }
        let Some(found) = catalogue::table(self.conn, table).await? else { return Ok(()) };
        if found.column(column).is_some() {
            return Ok(());
        }
        let names = found.columns.iter().map(|column| column.name.as_str());
        let help = nearest(column, names).map(|name| format!("did you mean {name}?"));
        self.error(NO_COLUMN, format!("the table {table} has no column {column}"), help);
        Ok(())
    }

    /// Whether a step of the plan makes it, or gives it its name.
    fn is_made(&self, table: &str, column: Option<&str>) -> bool {
        let is_given = |object: &CreatedObject| {
            same_table(&object.table, table) && object.column.as_deref() == column
        };
        self.is_created(table, column) || self.survey.renamed.iter().any(is_given)
    }

    /// Whether a relation of this name is there. `public` is left out of names that were read, whatever the search path.
    async fn is_there(&mut self, table: &str) -> Result<bool, Error> {
        if self.is_hidden(table).await? {
            return Ok(true);
        }
        let name = catalogue::name_sql(table);
        sqlx::query(
            "SELECT to_regclass($1) IS NOT NULL OR ($2 AND to_regclass('public.' || $1) IS NOT NULL)",
        )
        .bind(name)
        .bind(catalogue::parts(table).0.is_none())
        .fetch_one(&mut *self.conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("look for a table that a statement names"))
    }

    /// Whether it is in a schema that the role may not look into, which is said with the rights.
    async fn is_hidden(&mut self, table: &str) -> Result<bool, Error> {
        match catalogue::parts(table).0 {
            Some(schema) => Ok(!rights::may_enter(self.conn, &schema).await?),
            None => Ok(false),
        }
    }
}

/// The statements of a script with what they do; `None` where one of them may make tables that it doesn't name.
fn readable(script: &Script) -> Option<Vec<(&str, Facts)>> {
    if script.is_opaque {
        return None;
    }
    let read = |text| (text, sql::classify(Dialect::Postgres, text));
    let read: Vec<(&str, Facts)> =
        script.statements.iter().map(|statement| read(statement.text.as_str())).collect();
    let is_plain = |(text, facts): &(&str, Facts)| {
        !matches!(facts.hazard, Hazard::Unknown(_))
            && !facts.changes.iter().any(|change| matches!(change, Change::Schema { .. }))
            && !MAKERS.iter().any(|words| begins(text, words))
    };
    read.iter().all(is_plain).then_some(read)
}

/// The columns of tables that a statement wants to be there.
fn columns(facts: &Facts) -> Vec<Object> {
    let changed = facts.changes.iter().filter_map(|change| match change {
        Change::RenameColumn { table, column, .. }
        | Change::DropColumn { table, column }
        | Change::ChangeType { table, column } => {
            Some(Object::column(table.as_str(), column.as_str()))
        }
        _ => None,
    });
    facts.writes_columns.iter().cloned().chain(changed).collect()
}

/// Whether names mean something else after a statement.
fn renames(text: &str) -> bool {
    begins(text, &["SET", "SCHEMA"]) || words(text).any(|word| OTHER_NAMES.contains(&&*word))
}

fn begins(text: &str, first: &[&str; 2]) -> bool {
    words(text).take(2).eq(first.iter().copied())
}

fn has_words(text: &str, pair: &[&str; 2]) -> bool {
    let words: Vec<String> = words(text).collect();
    words.windows(2).any(|two| two.iter().zip(pair).all(|(one, other)| one == other))
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|char: char| !char.is_alphanumeric() && char != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_uppercase)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::fixture::Database;
    use super::*;
    use crate::driver::{Introspect as _, Session as _, Severity, Survey};
    use crate::run::{Language, Transaction};

    fn script(text: &str) -> Script {
        let statements = sql::split(Dialect::Postgres, text, 1).unwrap();
        let facts: Vec<Facts> =
            statements.iter().map(|it| sql::classify(Dialect::Postgres, &it.text)).collect();
        Script {
            hazard: Hazard::None,
            file: None,
            tables: facts.iter().flat_map(|facts| facts.tables.clone()).collect(),
            creates: Vec::new(),
            language: Language::Sql,
            transaction: Transaction::Auto,
            is_opaque: facts.iter().any(|facts| matches!(facts.hazard, Hazard::Unknown(_))),
            statements,
        }
    }

    fn survey(texts: &[&str]) -> Survey {
        let scripts: Vec<(crate::run::StepId, Script)> =
            texts.iter().map(|text| ("s".into(), script(text))).collect();
        let made = scripts.iter().flat_map(|(_, script)| &script.statements).flat_map(|it| {
            let facts = sql::classify(Dialect::Postgres, &it.text);
            facts.creates.into_iter().chain(facts.ensures)
        });
        let created = made.map(|it| CreatedObject { table: it.table, column: it.column }).collect();
        Survey { created, scripts, ..Survey::default() }
    }

    #[tokio::test]
    async fn what_statements_name_is_there_or_made_or_found_missing() {
        let setup = "CREATE TABLE leads (id int PRIMARY KEY, email text); CREATE SCHEMA crm;
            CREATE TABLE crm.orders (id int); CREATE VIEW seen AS SELECT 1 AS n; CREATE INDEX by_email ON leads (email);
            CREATE SEQUENCE numbers";
        let Some(database) = Database::with(setup).await else { return };
        let postgres = database.open().await;
        let table: [(&[&str], &[&str]); 17] = [
            (&["ALTER TABLE leeds ADD x int"], &["there is no table leeds: did you mean leads?"]),
            (
                &["CREATE INDEX i ON crm.order_s (id)"],
                &["there is no table crm.order_s: did you mean crm.orders?"],
            ),
            (&["COMMENT ON TABLE lead IS 'x'"], &["there is no table lead: did you mean leads?"]),
            (
                &["ALTER TABLE leads RENAME emial TO mail"],
                &["the table leads has no column emial: did you mean email?"],
            ),
            (
                &["ALTER TABLE leads DROP COLUMN emial"],
                &["the table leads has no column emial: did you mean email?"],
            ),
            (
                &["UPDATE leads SET emial = ''"],
                &["the table leads has no column emial: did you mean email?"],
            ),
            (&["DROP TABLE leads, leeds"], &["there is no table leeds: did you mean leads?"]),
            (&["DROP TABLE IF EXISTS leeds", "ALTER TABLE IF EXISTS leeds ADD x int"], &[]),
            (&["ALTER TABLE leads DROP COLUMN IF EXISTS emial"], &[]),
            (
                &[
                    "CREATE TABLE made (id int)",
                    "ALTER TABLE made ADD x int; ALTER TABLE made DROP x",
                ],
                &[],
            ),
            (
                &[
                    "ALTER TABLE leads RENAME TO old_leads; ALTER TABLE old_leads RENAME email TO mail; UPDATE old_leads SET mail = ''",
                ],
                &[],
            ),
            (&["CREATE TEMP TABLE t (id int); INSERT INTO t VALUES (1)"], &[]),
            (&["WITH o AS (SELECT id FROM crm.orders) INSERT INTO leads SELECT id FROM o"], &[]),
            (&["SET LOCAL search_path = crm; ALTER TABLE orders ADD x int"], &[]),
            (
                &[
                    "DO $$ BEGIN CREATE TABLE secret (id int); END $$",
                    "ALTER TABLE secret ADD x int",
                ],
                &[],
            ),
            (
                &[
                    "GRANT SELECT ON seen, leads TO CURRENT_USER; DROP INDEX by_email; ALTER SEQUENCE numbers RESTART",
                ],
                &[],
            ),
            (
                &[
                    "INSERT INTO leads SELECT l.id, s.query FROM leads l, pg_stat_activity s, information_schema.tables t",
                ],
                &[],
            ),
        ];
        for (texts, expected) in table {
            let found = postgres.survey(&survey(texts)).await.unwrap();
            let found: Vec<String> = found
                .into_iter()
                .filter(|finding| finding.severity == Severity::Error)
                .map(|finding| format!("{}: {}", finding.message, finding.help.unwrap_or_default()))
                .collect();
            assert_eq!(found, expected, "{texts:?}");
        }
        postgres.close().await;
        database.gone().await;
    }
}
