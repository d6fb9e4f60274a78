//! Unfinished comparisons: how far each has come, and what it was begun under.
//!
//! Invariants:
//! - One row for each step, written under the fence, so that a runner that lost its lease can't move a pass on.
//! - The basis is the text of both tables and their triggers, so it changes with every column and trigger, and SQLite's own count
//!   of changes of the schema. Switching a trigger off and on again is dropping and making it here, which leaves no other
//!   trace than that count: so any other change of the schema asks for another comparison too.
//!
//! Absent on purpose: what is in the text that is kept, which is the engine's.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::error::failed;
use super::ledger::{has_table, signed};
use crate::driver::{Basis, Error, Fence};
use crate::run::{Mapping, RunId, StepId};

const BASIS: &str = "\
SELECT coalesce(group_concat(sql, ';'), '') FROM (
    SELECT sql FROM sqlite_schema
    WHERE type IN ('table', 'trigger') AND lower(tbl_name) IN (lower(?1), lower(?2)) ORDER BY type, name)";

/// What stands for the definitions of a mapping's tables and for its sync. `conn` is in a transaction.
pub(super) async fn basis(conn: &mut SqliteConnection, mapping: &Mapping) -> Result<Basis, Error> {
    let doing = "look for changes of the schema";
    let tables = sqlx::query(BASIS)
        .bind(mapping.from.table.as_str())
        .bind(mapping.into.table.as_str())
        .fetch_one(&mut *conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed(doing))?;
    let changes: i64 = sqlx::query("PRAGMA main.schema_version")
        .fetch_one(conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed(doing))?;
    Ok(Basis { tables, sync: changes.to_string() })
}

/// What was kept of a step's pass.
pub(super) async fn kept(
    conn: &mut SqliteConnection,
    run: &RunId,
    step: &StepId,
) -> Result<Option<String>, Error> {
    if !has_table(conn, "phasegate_passes").await? {
        return Ok(None);
    }
    sqlx::query("SELECT pass FROM phasegate_passes WHERE run_id = ?1 AND step = ?2")
        .bind(run.as_str())
        .bind(step.as_str())
        .fetch_optional(conn)
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(failed("read how far a comparison has come"))
}

/// Keeps what there is of a pass, or forgets it.
pub(super) async fn keep(
    conn: &mut SqliteConnection,
    fence: &Fence,
    (step, pass): (&StepId, Option<&str>),
) -> Result<(), Error> {
    let query = match pass {
        Some(pass) => sqlx::query(
            "INSERT OR REPLACE INTO phasegate_passes (run_id, step, pass, token) VALUES (?1, ?2, ?3, ?4)",
        )
        .bind(fence.run().as_str())
        .bind(step.as_str())
        .bind(pass)
        .bind(signed(fence.token())),
        None => sqlx::query("DELETE FROM phasegate_passes WHERE run_id = ?1 AND step = ?2")
            .bind(fence.run().as_str())
            .bind(step.as_str()),
    };
    query.execute(conn).await.map(|_| ()).map_err(failed("keep how far a comparison has come"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::fixture::{Database, entered, mapping};
    use crate::driver::{Error, Session as _, Verifier as _};
    use crate::run::StepId;

    const SCHEMA: &str =
        "CREATE TABLE o (id INTEGER PRIMARY KEY, v); CREATE TABLE p (id INTEGER PRIMARY KEY, v)";

    #[tokio::test]
    async fn the_basis_changes_with_what_a_comparison_depends_on_and_with_nothing_else() {
        let database = Database::with(SCHEMA).await;
        let sqlite = database.open().await;
        let pairs = mapping(("O", &["id"]), ("p", &["id"]));
        for (statement, changes) in [
            ("INSERT INTO o VALUES (1, 'x')", false),
            ("CREATE INDEX i ON o (v)", false),
            ("CREATE TABLE q (id)", false),
            ("CREATE TRIGGER t AFTER INSERT ON o BEGIN SELECT 1; END", true),
            ("DROP TRIGGER t", true),
            ("ALTER TABLE p ADD COLUMN w", true),
        ] {
            let before = sqlite.basis(&pairs).await.unwrap();
            database.run(statement).await;
            let after = sqlite.basis(&pairs).await.unwrap();
            assert_eq!(before.tables != after.tables, changes, "{statement}");
        }
        let again = "CREATE TRIGGER t AFTER INSERT ON o BEGIN SELECT 1; END";
        database.run(again).await;
        for (statement, changes) in [
            ("INSERT INTO o VALUES (2, 'x')".to_owned(), false),
            (format!("DROP TRIGGER t; {again}"), true),
        ] {
            let before = sqlite.basis(&pairs).await.unwrap();
            database.run(&statement).await;
            let after = sqlite.basis(&pairs).await.unwrap();
            assert_eq!(before.tables, after.tables, "{statement}");
            assert_eq!(before.of_sync() != after.of_sync(), changes, "{statement}");
        }
    }

    #[tokio::test]
    async fn a_pass_is_kept_under_the_fence_and_forgotten() {
        let database = Database::with(SCHEMA).await;
        let sqlite = database.open().await;
        let step = StepId::new("compare");
        let (old, _) = entered(&sqlite, 1).await;
        let run = old.run().clone();
        assert_eq!(sqlite.kept_pass(&run, &step).await, Ok(None));
        for text in ["first", "second"] {
            sqlite.keep_pass(&old, &step, Some(text)).await.unwrap();
            assert_eq!(sqlite.kept_pass(&run, &step).await, Ok(Some(text.to_owned())));
        }
        let (new, _) = entered(&sqlite, 2).await;
        let late = sqlite.keep_pass(&old, &step, Some("third")).await;
        assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
        assert_eq!(sqlite.kept_pass(&run, &step).await, Ok(Some("second".to_owned())));
        sqlite.keep_pass(&new, &step, None).await.unwrap();
        assert_eq!(sqlite.kept_pass(&run, &step).await, Ok(None));
        sqlite.close().await;
    }
}
