//! What helps against an error of a plan's statement: where it stands, what was likely meant, which privilege is missing.
//!
//! Invariant: looking for help never hides the error: where it fails, the error stands as it was.
//!
//! Absent on purpose: help that the server gives itself (its hint), which is kept.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::Postgres;
use super::catalogue::quote;
use super::wait::shown;
use crate::bounds::message::LIKENESS_MIN;
use crate::bounds::probe::NAMES_OF_HINTS_MAX;
use crate::driver::Error;
use crate::run::{Failure, Statement};

/// An error of a statement with its place and with what helps.
pub(super) async fn explain(
    postgres: &Postgres,
    error: Error,
    statement: &Statement,
    file: Option<&str>,
) -> Error {
    let mut error = located(error, statement, file);
    let Error::Failed(failure) = &mut error else { return error };
    // The hint of the server is about the very case; ours about a code are general.
    let is_told = failure.help.is_some() && failure.code.as_deref() != Some("42501");
    if !is_told && let Ok(Some(help)) = advice(postgres, failure, statement).await {
        failure.help = Some(help);
    }
    error
}

/// Codes of what isn't there: a table, a column, another object, a function, a schema.
const GONE: [&str; 5] = ["42P01", "42703", "42704", "42883", "3F000"];

/// That what a statement drops is gone already, where its error is that.
pub(super) fn gone_already(error: &Error, statement: &Statement) -> Option<String> {
    let Error::Failed(failure) = error else { return None };
    if !GONE.contains(&failure.code.as_deref()?) {
        return None;
    }
    let named = in_quotes(&failure.message).map(str::to_owned);
    let what = named.unwrap_or_else(|| format!("what {} drops", shown(&statement.text)));
    Some(format!("{what} is gone already"))
}

/// An error of an undo. What is not there was there when the plan was made, so that nobody mistyped it.
pub(super) fn of_undo(error: Error) -> Error {
    let Error::Failed(failure) = &error else { return error };
    if !failure.code.as_deref().is_some_and(|code| GONE.contains(&code)) {
        return error;
    }
    let what = in_quotes(&failure.message).unwrap_or("something that it names").to_owned();
    error.with_help(format!(
        "{what} is gone: make it again as it was, then retry; `phasegate abort RUN --leave --reason …` ends the run and leaves \
         what is not undone"
    ))
}

/// What helps where something can't go because of what depends on it, by the server's list of that. Its own hint, to take all of
/// that along, is none that anybody should follow.
pub(super) fn dependents(detail: Option<&str>) -> String {
    let lines = detail.unwrap_or_default().lines();
    let named: Vec<&str> =
        lines.filter_map(|line| line.split_once(" depends on ")).map(|(what, _)| what).collect();
    let what = if named.is_empty() { "what depends on it".to_owned() } else { named.join(", ") };
    format!("drop or move {what}, then retry")
}

/// An error of a statement with its place: the line of the plan, or of the file that it stands in.
pub(super) fn located(error: Error, statement: &Statement, file: Option<&str>) -> Error {
    match error {
        Error::Failed(failure) => Error::Failed(with_place(failure, statement, file)),
        Error::Unknown(failure) => Error::Unknown(with_place(failure, statement, file)),
        other => other,
    }
}

fn with_place(mut failure: Failure, statement: &Statement, file: Option<&str>) -> Failure {
    let line = failure.line.unwrap_or(statement.line);
    let text = shown(&statement.text);
    let place = match file {
        Some(file) => format!("in {text} ({file}:{line})"),
        None => format!("in {text}"),
    };
    // Lines are the plan's; those of a file are said with its name.
    failure.line = file.is_none().then_some(line);
    failure.detail = Some(match failure.detail.take() {
        Some(detail) => format!("{detail}; {place}"),
        None => place,
    });
    failure
}

async fn advice(
    postgres: &Postgres,
    failure: &Failure,
    statement: &Statement,
) -> Result<Option<String>, Error> {
    let message = failure.message.as_str();
    let code = failure.code.as_deref().unwrap_or_default();
    if !matches!(code, "42501" | "42P01" | "42703") {
        return Ok(None);
    }
    let mut reader = postgres.connections.read().await?;
    let conn = reader.conn()?;
    let found = match code {
        "42501" => grant(conn, message, &statement.text).await,
        "42P01" => table_meant(conn, message).await,
        _ => column_meant(conn, message).await,
    };
    // The reader goes either way: an error in it has aborted its transaction, which releasing ends.
    reader.release().await;
    Ok(found.unwrap_or_else(|error| {
        tracing::debug!(%error, "looking for what helps");
        None
    }))
}

/// The kind and name of the object that a privilege is missing on: `permission denied for table leads`.
pub(super) fn denied(message: &str) -> Option<(&str, &str)> {
    let object = message.strip_prefix("permission denied for ")?;
    let (kind, name) = object.rsplit_once(' ')?;
    Some((kind, name))
}

/// The object that only its owner may change: `must be owner of table leads`.
pub(super) fn owned(message: &str) -> Option<(&str, &str)> {
    message.strip_prefix("must be owner of ")?.rsplit_once(' ')
}

/// The table whose rows row security would hide.
pub(super) fn secured(message: &str) -> Option<&str> {
    let start = "query would be affected by row-level security policy for table \"";
    message.strip_prefix(start)?.strip_suffix('"')
}

const TABLE_RIGHTS: &str = "\
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       coalesce(string_agg(p, ', ') FILTER (WHERE NOT has_table_privilege(c.oid, p)), ''),
       coalesce(string_agg(p, ', ') FILTER (WHERE NOT has_table_privilege(c.oid, p) AND p = ANY ($2)), ''),
       quote_ident(current_user)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
     unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p
WHERE c.relname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND p <> ''
GROUP BY c.oid, n.nspname, c.relname ORDER BY pg_table_is_visible(c.oid) DESC, n.nspname LIMIT 1";

async fn grant(
    conn: &mut PgConnection,
    message: &str,
    statement: &str,
) -> Result<Option<String>, sqlx::Error> {
    let me: String =
        sqlx::query("SELECT quote_ident(current_user)").fetch_one(&mut *conn).await?.try_get(0)?;
    if let Some(table) = secured(message) {
        return Ok(Some(row_security(table, &me)));
    }
    if let Some((kind, name)) = owned(message) {
        let kind = kind.to_uppercase();
        return Ok(Some(format!("ALTER {kind} {name} OWNER TO {me}, or let its owner run this")));
    }
    let Some((kind, name)) = denied(message) else { return Ok(None) };
    if !matches!(kind, "table" | "view" | "materialized view" | "foreign table") {
        return Ok(Some(grant_on((kind, name), &me, statement)));
    }
    let row = sqlx::query(TABLE_RIGHTS)
        .bind(name)
        .bind(rights_named(statement))
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(Some(grant_on((kind, name), &me, statement))) };
    let (table, all, named): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let rights = if named.is_empty() { all } else { named };
    Ok((!rights.is_empty()).then(|| format!("GRANT {rights} ON {table} TO {me}")))
}

/// What gives a role the right on an object of which only the message tells.
pub(super) fn grant_on((kind, name): (&str, &str), role: &str, statement: &str) -> String {
    let begins = statement.trim_start().get(..6).unwrap_or_default().to_ascii_uppercase();
    let (rights, kind) = match kind {
        "schema" if begins == "CREATE" => ("USAGE, CREATE", "SCHEMA"),
        "schema" => ("USAGE", "SCHEMA"),
        "sequence" => ("USAGE, SELECT, UPDATE", "SEQUENCE"),
        "database" => ("CREATE", "DATABASE"),
        "function" => ("EXECUTE", "FUNCTION"),
        "procedure" => ("EXECUTE", "PROCEDURE"),
        "type" => ("USAGE", "TYPE"),
        "language" => ("USAGE", "LANGUAGE"),
        "tablespace" => ("CREATE", "TABLESPACE"),
        _ => ("SELECT, INSERT, UPDATE, DELETE", "TABLE"),
    };
    format!("GRANT {rights} ON {kind} {name} TO {role}")
}

/// What to do where row security would hide rows from us.
pub(super) fn row_security(table: &str, role: &str) -> String {
    format!(
        "row security would hide rows of {table}, and a migration must see all: ALTER ROLE {role} BYPASSRLS, or run as the \
         owner of a table without FORCE ROW LEVEL SECURITY"
    )
}

/// The privileges on tables that a statement's own words are about. Where it filters or returns rows it reads them too.
fn rights_named(statement: &str) -> Vec<String> {
    let text = statement.to_ascii_uppercase();
    let has = |word: &str| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|w| w == word);
    ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]
        .into_iter()
        .filter(|right| {
            let reads = *right == "SELECT" && (has("WHERE") || has("RETURNING") || has("FROM"));
            has(right) || reads
        })
        .map(str::to_owned)
        .collect()
}

async fn table_meant(
    conn: &mut PgConnection,
    message: &str,
) -> Result<Option<String>, sqlx::Error> {
    let Some(typed) = in_quotes(message) else { return Ok(None) };
    let rows = sqlx::query(
        "SELECT CASE WHEN pg_table_is_visible(c.oid) THEN c.relname ELSE n.nspname || '.' || c.relname END, c.relname
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
         ORDER BY 1 LIMIT $1",
    )
    .bind(NAMES_OF_HINTS_MAX)
    .fetch_all(conn)
    .await?;
    let mut names: Vec<(String, String)> = Vec::with_capacity(rows.len());
    for row in rows {
        names.push((row.try_get(0)?, row.try_get(1)?));
    }
    // The right name in another schema is as near as can be.
    let bare = typed.rsplit('.').next().unwrap_or(typed);
    let found = nearest(bare, names.iter().map(|(shown, name)| (name.as_str(), shown.as_str())));
    Ok(found.map(|name| format!("did you mean the table {name}?")))
}

async fn column_meant(
    conn: &mut PgConnection,
    message: &str,
) -> Result<Option<String>, sqlx::Error> {
    // `column "emial" of relation "leads" does not exist`; else `column l.emial does not exist`.
    let mut quoted = message.split('"').skip(1).step_by(2);
    let (first, second) = (quoted.next(), quoted.next());
    let typed = first.or_else(|| message.strip_prefix("column ")?.split_whitespace().next());
    let Some(typed) = typed else { return Ok(None) };
    let typed = typed.rsplit('.').next().unwrap_or(typed);
    let rows = sqlx::query(
        "SELECT DISTINCT a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
           AND pg_table_is_visible(c.oid) AND c.relnamespace <> 'pg_catalog'::regnamespace
           AND ($1::text IS NULL OR c.relname = $1) ORDER BY 1 LIMIT $2",
    )
    .bind(second)
    .bind(NAMES_OF_HINTS_MAX)
    .fetch_all(conn)
    .await?;
    let mut names: Vec<String> = Vec::with_capacity(rows.len());
    for row in rows {
        names.push(row.try_get(0)?);
    }
    let found = nearest(typed, names.iter().map(|name| (name.as_str(), name.as_str())));
    Ok(found.map(|name| format!("did you mean the column {}?", plainly(name))))
}

fn plainly(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { quote(name) }
}

fn in_quotes(message: &str) -> Option<&str> {
    message.split('"').nth(1)
}

/// Of pairs of a name and how it is shown, the one whose name is most like what was typed, if one is like it at all.
fn nearest<'a>(
    typed: &str,
    names: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase();
    names
        .into_iter()
        .map(|(name, shown)| (strsim::jaro_winkler(&typed, &name.to_ascii_lowercase()), shown))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|one, two| one.0.total_cmp(&two.0).then_with(|| two.1.cmp(one.1)))
        .map(|(_, shown)| shown)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::catalogue::table;
    use super::super::fixture::{Database, entered, script, work};
    use super::*;
    use crate::driver::{Access, Session as _};
    use crate::run::{FailureClass, Runnable, Way};

    /// What a statement fails with, as the failure's class, code, message, detail, help and line.
    async fn failing(postgres: &Postgres, token: u64, statement: &str) -> Failure {
        let fences = entered(postgres, token).await;
        let statements = script(&[statement]);
        let step = work("fails", Way::Forward);
        let runnable = Runnable::new(&step.step, &statements, None).unwrap();
        match postgres.execute(&fences[0], &step, runnable).await {
            Err(Error::Failed(failure)) => failure,
            other => panic!("{statement}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_slip_is_answered_with_what_was_meant() {
        let setup = "CREATE TABLE leads (id int PRIMARY KEY, email text); CREATE SCHEMA crm;
            CREATE TABLE crm.orders (id int)";
        let Some(database) = Database::with(setup).await else { return };
        let postgres = database.open().await;
        for (statement, help) in [
            ("SELECT 1 FROM leeds", "did you mean the table leads?"),
            ("SELECT 1 FROM orders", "did you mean the table crm.orders?"),
            ("UPDATE leads SET emial = ''", "did you mean the column email?"),
            ("INSERT INTO leads (emial) VALUES ('')", "did you mean the column email?"),
        ] {
            let failure = failing(&postgres, 1, statement).await;
            assert_eq!(failure.help.as_deref(), Some(help), "{statement}");
            assert_eq!(failure.line, Some(10));
        }
        let hinted = failing(&postgres, 1, "SELECT emial FROM leads").await;
        assert!(hinted.help.unwrap().contains("leads.email"), "the server's own hint stands");
    }

    #[tokio::test]
    async fn a_line_of_a_file_is_said_with_its_name() {
        let Some(database) = Database::with("").await else { return };
        let postgres = database.open().await;
        let fences = entered(&postgres, 1).await;
        let mut statements = script(&["SELECT 1,\n nothing"]);
        statements.file = Some("sql/up.sql".to_owned());
        let step = work("fails", Way::Forward);
        let runnable = Runnable::new(&step.step, &statements, None).unwrap();
        let failed = postgres.execute(&fences[0], &step, runnable).await;
        let Err(Error::Failed(failure)) = failed else { panic!("{failed:?}") };
        assert_eq!(failure.line, None);
        assert_eq!(failure.detail.as_deref(), Some("in SELECT …, nothing (sql/up.sql:11)"));
    }

    #[tokio::test]
    async fn a_missing_privilege_is_answered_with_the_grant() {
        let role = format!("plain_{}", uuid::Uuid::now_v7().simple());
        let Some(database) = Database::with("").await else { return };
        database
            .run(&format!(
                "CREATE ROLE {role} LOGIN; CREATE SCHEMA phasegate AUTHORIZATION {role};
                 SET search_path TO public; CREATE TABLE secret (id int); CREATE SCHEMA vault;
                 CREATE TABLE vault.t (id int); CREATE TABLE guarded (id int);
                 ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; GRANT SELECT ON guarded TO {role};
                 CREATE SEQUENCE numbers"
            ))
            .await;
        let mut url = url::Url::parse(&database.url).unwrap();
        url.set_username(&role).unwrap();
        let postgres = Postgres::open(url.as_str(), None, Access::Full).await.unwrap();
        for (statement, help) in [
            (
                "UPDATE secret SET id = 1 WHERE id = 2",
                format!("GRANT SELECT, UPDATE ON public.secret TO {role}"),
            ),
            ("SELECT 1 FROM vault.t", format!("GRANT USAGE ON SCHEMA vault TO {role}")),
            (
                "SELECT nextval('numbers')",
                format!("GRANT USAGE, SELECT, UPDATE ON SEQUENCE numbers TO {role}"),
            ),
            (
                "ALTER TABLE secret ADD x int",
                format!("ALTER TABLE secret OWNER TO {role}, or let its owner run this"),
            ),
            ("SELECT 1 FROM guarded", row_security("guarded", &role)),
        ] {
            let failure = failing(&postgres, 1, statement).await;
            assert_eq!(failure.class, FailureClass::NotPermitted, "{statement} {failure:?}");
            assert_eq!(failure.help, Some(help), "{statement}");
        }
        // A bare name is passed over, without a word of the server's.
        database.run("REVOKE USAGE ON SCHEMA public FROM PUBLIC").await;
        let mut reader = postgres.connections.read().await.unwrap();
        let Err(Error::Failed(failure)) = table(reader.conn().unwrap(), "secret").await else {
            panic!("it is found")
        };
        assert_eq!(failure.class, FailureClass::NotPermitted);
        assert_eq!(failure.help, Some(format!("GRANT USAGE ON SCHEMA public TO {role}")));
        assert!(table(reader.conn().unwrap(), "nothing").await.unwrap().is_none());
        reader.release().await;
        postgres.close().await;
        database.gone().await;
        drop_role(&database, &role).await;
    }

    async fn drop_role(database: &Database, role: &str) {
        let mut server = url::Url::parse(&database.url).unwrap();
        server.set_path("postgres");
        Database { url: server.into() }.run(&format!("DROP ROLE {role}")).await;
    }
}
