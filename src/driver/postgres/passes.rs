//! Unfinished comparisons: how far each has come, and what it was begun under.
//!
//! Invariants:
//! - One row for each step, written under the fence, so that a runner that lost its lease can't move a pass on.
//! - [`BASIS`] changes with whatever makes rows compared before and rows compared later a comparison of two things: a column,
//!   a trigger (switched off and on again, too), a partition that came or went, another table of the same name. Indexes don't.
//!
//! Absent on purpose: what is in the text that is kept, which is the engine's.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::name_sql;
use super::connection::{Reader, Tx};
use super::error::failed;
use super::ledger::{has_table, signed};
use super::partitions::partitions;
use crate::driver::{Error, Fence};
use crate::run::{Mapping, RunId, StepId};

/// Stands for the definitions of two tables and their partitions: rows of the catalogue carry the transaction that wrote
/// them, so that a change that was taken back shows as well. What VACUUM and ANALYZE note does not.
const BASIS: &str = "\
SELECT coalesce(string_agg(concat_ws(';', t.place, r.oid,
    (SELECT string_agg(concat(a.attnum, ':', a.xmin), ',' ORDER BY a.attnum) FROM pg_attribute a
     WHERE a.attrelid = r.oid AND a.attnum > 0),
    (SELECT string_agg(concat(g.oid, ':', g.xmin), ',' ORDER BY g.oid) FROM pg_trigger g
     WHERE g.tgrelid = r.oid AND NOT g.tgisinternal)), '|' ORDER BY t.place, r.oid), '')
FROM (VALUES (1, to_regclass($1)::oid), (2, to_regclass($2)::oid)) AS t (place, oid)
CROSS JOIN LATERAL (SELECT t.oid UNION SELECT p.relid::oid FROM pg_partition_tree(t.oid) AS p) AS r (oid)";

/// What stands for the definitions of a mapping's tables.
pub(super) async fn basis(conn: &mut PgConnection, mapping: &Mapping) -> Result<String, Error> {
    let tables: String = sqlx::query(BASIS)
        .bind(name_sql(&mapping.from.table))
        .bind(name_sql(&mapping.into.table))
        .fetch_one(&mut *conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("look for changes of the catalogue"))?;
    // TRUNCATE of a partition that the sync knows nothing of, too.
    Ok(format!("{tables}/{}", partitions(conn, mapping).await?))
}

/// What was kept of a step's pass.
pub(super) async fn kept(
    reader: &mut Reader<'_>,
    run: &RunId,
    step: &StepId,
) -> Result<Option<String>, Error> {
    let passes = reader.ours("passes");
    if !has_table(reader.conn()?, &passes).await? {
        return Ok(None);
    }
    let sql = format!("SELECT pass FROM {passes} WHERE run_id = $1 AND step = $2");
    sqlx::query(AssertSqlSafe(sql))
        .bind(run.as_str())
        .bind(step.as_str())
        .fetch_optional(reader.conn()?)
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(failed("read how far a comparison has come"))
}

/// Keeps what there is of a pass, or forgets it.
pub(super) async fn keep(
    tx: &mut Tx<'_>,
    fence: &Fence,
    (step, pass): (&StepId, Option<&str>),
) -> Result<(), Error> {
    let passes = tx.ours("passes");
    let sql = match pass {
        Some(_) => format!(
            "INSERT INTO {passes} (run_id, step, pass, token) VALUES ($1, $2, $3, $4)
             ON CONFLICT (run_id, step) DO UPDATE SET pass = excluded.pass, token = excluded.token"
        ),
        None => format!("DELETE FROM {passes} WHERE run_id = $1 AND step = $2"),
    };
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(fence.run().as_str()).bind(step.as_str());
    if let Some(pass) = pass {
        query = query.bind(pass).bind(signed(fence.token()));
    }
    query
        .execute(tx.conn()?)
        .await
        .map(|_| ())
        .map_err(failed("keep how far a comparison has come"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::fixture::{Database, entered, mapping};
    use crate::driver::{Error, Session as _, Verifier as _};
    use crate::run::StepId;

    const SCHEMA: &str = "
        CREATE TABLE o (id int PRIMARY KEY, v text);
        CREATE TABLE p (id int NOT NULL, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER t AFTER INSERT ON o FOR EACH ROW EXECUTE FUNCTION f();
        CREATE TRIGGER u AFTER INSERT ON p FOR EACH ROW EXECUTE FUNCTION f();";

    #[tokio::test]
    async fn the_basis_changes_with_what_a_comparison_depends_on_and_with_nothing_else() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        let postgres = database.open().await;
        let pairs = mapping(("o", &["id"]), ("p", &["id"]));
        for (statement, changes) in [
            ("INSERT INTO o VALUES (1, 'x'); INSERT INTO p VALUES (1, 'x')", false),
            ("ANALYZE o, p", false),
            ("VACUUM o, p", false),
            ("CREATE INDEX ON o (v)", false),
            ("ALTER TABLE o ADD CHECK (id > 0)", false),
            ("CREATE TABLE q (id int REFERENCES o)", false),
            ("ALTER TABLE o DISABLE TRIGGER t; ALTER TABLE o ENABLE TRIGGER t", true),
            ("ALTER TABLE p1 DISABLE TRIGGER u", true),
            ("ALTER TABLE p ADD COLUMN w int", true),
            ("ALTER TABLE o ALTER COLUMN v TYPE varchar(9)", true),
            ("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200)", true),
            ("ALTER TABLE p DETACH PARTITION p2", true),
            (
                "ALTER TABLE q RENAME TO q2; ALTER TABLE o RENAME TO q; ALTER TABLE q2 RENAME TO o",
                true,
            ),
        ] {
            let before = postgres.basis(&pairs).await.unwrap();
            database.run(statement).await;
            assert_eq!(before != postgres.basis(&pairs).await.unwrap(), changes, "{statement}");
        }
    }

    #[tokio::test]
    async fn a_pass_is_kept_under_the_fence_and_forgotten() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        let postgres = database.open().await;
        let step = StepId::new("compare");
        let old = entered(&postgres, 1).await.remove(0);
        let run = old.run().clone();
        assert_eq!(postgres.kept_pass(&run, &step).await, Ok(None));
        for text in ["first", "second"] {
            postgres.keep_pass(&old, &step, Some(text)).await.unwrap();
            assert_eq!(postgres.kept_pass(&run, &step).await, Ok(Some(text.to_owned())));
        }
        let other = StepId::new("other");
        assert_eq!(postgres.kept_pass(&run, &other).await, Ok(None));
        let new = entered(&postgres, 2).await.remove(0);
        let late = postgres.keep_pass(&old, &step, Some("third")).await;
        assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
        let late = postgres.keep_pass(&old, &step, None).await;
        assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
        assert_eq!(postgres.kept_pass(&run, &step).await, Ok(Some("second".to_owned())));
        postgres.keep_pass(&new, &step, None).await.unwrap();
        assert_eq!(postgres.kept_pass(&run, &step).await, Ok(None));
        postgres.close().await;
    }
}
