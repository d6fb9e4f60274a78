//! Unfinished comparisons: how far each has come, and what it was begun under.
//!
//! Invariants:
//! - One row for each step, written under the fence, so that a runner that lost its lease can't move a pass on.
//! - [`BASIS`] changes with whatever makes rows compared before and rows compared later a comparison of two things: a column,
//!   a trigger (switched off and on again, too), a partition that came or went, another table of the same name. Indexes don't.
//!   The part of it that stands for the sync changes only with its own triggers, their functions, and the tables they are on.
//! - Row security that was switched on and off again may have hidden rows from those functions, and leaves one trace: the row of
//!   `pg_class`, which VACUUM, ANALYZE and new indexes change in place, and every other ALTER of the table, and TRUNCATE, write anew.
//!   So where the functions' owner is not above row security, any of these asks for another comparison.
//! - Where the new side is in another database, a statement may change values of the old side alone, and fire no trigger: another type
//!   for a column, with all rows written anew, or another label in an enumeration. So there the sync stands on the tables' files, too,
//!   which are others after whatever writes all rows anew (VACUUM FULL and TRUNCATE among it), and on the labels of the enumerations that
//!   the columns have.
//!
//! Absent on purpose: what is in the text that is kept, which is the engine's.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::name_sql;
use super::connection::{Reader, Tx};
use super::error::failed;
use super::ledger::{has_table, signed};
use super::partitions::partitions;
use super::prepared::into_sql;
use super::shape::id_of;
use super::sync_sql::{FUNCTION_PREFIX, TRIGGER_PREFIX};
use crate::driver::{Basis, Error, Fence, Work};
use crate::run::{FailureClass, Mapping, RunId, StepId};

/// Stands for the definitions of two tables and their partitions: rows of the catalogue carry the transaction that wrote
/// them, so that a change that was taken back shows as well. What VACUUM and ANALYZE note does not. Beside it what stands for the
/// sync, whose triggers' names begin with `$3` and whose functions' with `$5`, in schema `$4`.
const BASIS: &str = "\
SELECT coalesce(string_agg(concat_ws(';', t.place, r.oid,
    (SELECT string_agg(concat(a.attnum, ':', a.xmin), ',' ORDER BY a.attnum) FROM pg_attribute a
     WHERE a.attrelid = r.oid AND a.attnum > 0),
    (SELECT string_agg(concat(g.oid, ':', g.xmin), ',' ORDER BY g.oid) FROM pg_trigger g
     WHERE g.tgrelid = r.oid AND NOT g.tgisinternal)), '|' ORDER BY t.place, r.oid), ''),
  concat(string_agg(concat_ws(';', t.place, r.oid,
    (SELECT string_agg(concat(g.oid, ':', g.xmin), ',' ORDER BY g.oid) FROM pg_trigger g
     WHERE g.tgrelid = r.oid AND starts_with(g.tgname, $3)),
    (SELECT concat('f', pg_relation_filenode(r.oid)) WHERE $2::text IS NULL),
    (SELECT string_agg(concat(e.oid, ':', e.xmin), ',' ORDER BY e.oid) FROM pg_enum e WHERE $2::text IS NULL AND e.enumtypid IN (
     WITH RECURSIVE used (oid) AS (
       SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attnum > 0
       UNION SELECT u.oid FROM used JOIN pg_type y ON y.oid = used.oid CROSS JOIN LATERAL (
         SELECT y.typelem UNION ALL SELECT y.typbasetype
         UNION ALL SELECT m.atttypid FROM pg_attribute m WHERE m.attrelid = y.typrelid AND m.attnum > 0) AS u (oid))
     SELECT oid FROM used)),
    (SELECT concat('c', c.xmin) FROM pg_class c WHERE c.oid = r.oid AND r.oid = t.oid AND EXISTS (SELECT FROM pg_class f
     JOIN pg_roles o ON o.oid = f.relowner WHERE f.oid = to_regclass($1) AND NOT (o.rolsuper OR o.rolbypassrls)))),
    '|' ORDER BY t.place, r.oid), '/',
    (SELECT string_agg(concat(p.oid, ':', p.xmin), ',' ORDER BY p.oid) FROM pg_proc p
     WHERE p.pronamespace = to_regnamespace($4) AND starts_with(p.proname, $5)))
FROM (VALUES (1, to_regclass($1)::oid), (2, to_regclass($2)::oid)) AS t (place, oid)
CROSS JOIN LATERAL (SELECT t.oid UNION SELECT p.relid::oid FROM pg_partition_tree(t.oid) AS p) AS r (oid)";

/// What stands for the definitions of a mapping's tables and for its sync.
/// `schema` is our own, quoted.
pub(super) async fn basis(
    conn: &mut PgConnection,
    schema: &str,
    mapping: &Mapping,
) -> Result<Basis, Error> {
    let id = id_of(mapping);
    let basis = sqlx::query(BASIS)
        .bind(name_sql(&mapping.from.table))
        .bind(into_sql(mapping))
        .bind(format!("{TRIGGER_PREFIX}{id}_"))
        .bind(schema)
        .bind(format!("{FUNCTION_PREFIX}{id}_"))
        .fetch_one(&mut *conn)
        .await
        .and_then(|row| Ok(Basis { tables: row.try_get(0)?, sync: row.try_get(1)? }))
        .map_err(failed("look for changes of the catalogue"))?;
    // TRUNCATE of a partition that the sync knows nothing of, too.
    let sync = format!("{}/{}", basis.sync, partitions(conn, mapping).await?);
    Ok(Basis { sync, ..basis })
}

/// Sees that the sync is the one under which the sides were compared. Since a gate saw that, and until these locks were had, it
/// may have been off and on again.
pub(super) async fn as_compared(
    tx: &mut Tx<'_>,
    mapping: &Mapping,
    work: &Work,
) -> Result<(), Error> {
    let Some(compared_under) = &work.compared_under else { return Ok(()) };
    let schema = tx.schema().to_owned();
    if basis(tx.conn()?, &schema, mapping).await?.of_sync() == *compared_under {
        return Ok(());
    }
    let message = format!(
        "mapping {}: its triggers were made anew, changed, or switched off and on again, or its tables altered or emptied, since \
         both sides were compared: writes may have passed them by",
        mapping.name
    );
    Err(Error::failed(FailureClass::Stale, message)
        .with_help("retry: the gate shuts, and has both sides compared again"))
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
    use super::super::fixture::{Database, entered, mapping, work};
    use crate::driver::{DualWriter as _, Error, Session as _, Verifier as _};
    use crate::run::{Direction, StepId, Way};

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
            let after = postgres.basis(&pairs).await.unwrap();
            assert_eq!(before.tables != after.tables, changes, "{statement}");
        }
    }

    #[tokio::test]
    async fn what_stands_for_the_sync_changes_with_nothing_else() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        database.run("ALTER TABLE p RENAME TO q; CREATE TABLE p (LIKE o INCLUDING ALL)").await;
        let postgres = database.open().await;
        let pairs = mapping(("o", &["id"]), ("p", &["id"]));
        let fence = entered(&postgres, 1).await.remove(0);
        let sync = work("sync", Way::Forward);
        postgres.install(&fence, &sync, &pairs, Direction::Forward).await.unwrap();
        let ours = |what: &str| {
            format!(
                "DO $$ DECLARE name text; BEGIN
                   FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'o'::regclass AND tgname LIKE 'zzzz%' LOOP
                     EXECUTE format('ALTER TABLE o {what} TRIGGER %I', name); END LOOP; END $$"
            )
        };
        let (off, on) = (ours("DISABLE"), ours("ENABLE ALWAYS"));
        let away = "DO $$ DECLARE it regprocedure; path text; BEGIN
             SELECT oid::regprocedure INTO it FROM pg_proc WHERE proname LIKE 'phasegate%' ORDER BY oid LIMIT 1;
             EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pg_monitor', it); END $$";
        for (statement, changes) in [
            ("INSERT INTO o VALUES (1, 'x')", false),
            ("VACUUM FREEZE pg_catalog.pg_trigger", false),
            ("VACUUM FULL pg_catalog.pg_trigger", false),
            ("ALTER TABLE o DISABLE TRIGGER t; ALTER TABLE o ENABLE TRIGGER t", false),
            ("ALTER TABLE p ADD COLUMN w int; CREATE INDEX ON o (v)", false),
            // Whoever is above row security sees all there is.
            (
                "ALTER TABLE o ENABLE ROW LEVEL SECURITY; ALTER TABLE o DISABLE ROW LEVEL SECURITY",
                false,
            ),
            (&*off, true),
            (&*on, true),
            (away, true),
            ("ALTER TABLE o RENAME TO x; CREATE TABLE o (LIKE x INCLUDING ALL)", true),
        ] {
            let before = postgres.basis(&pairs).await.unwrap();
            database.run(statement).await;
            let after = postgres.basis(&pairs).await.unwrap();
            assert_eq!(before.of_sync() != after.of_sync(), changes, "{statement}");
        }
    }

    /// Forced on the owner of a table, or with another owner than the old one's, it hides rows from the sync's functions.
    #[tokio::test]
    async fn row_security_that_was_on_and_is_off_again_shows_where_it_may_have_hidden_rows() {
        let owner = format!("owner_{}", uuid::Uuid::now_v7().simple());
        let Some(database) = Database::with(SCHEMA).await else { return };
        database.run("DROP TABLE p; CREATE TABLE p (LIKE o INCLUDING ALL)").await;
        database
            .run(&format!(
                "CREATE ROLE {owner}; ALTER TABLE o OWNER TO {owner}; ALTER TABLE p OWNER TO {owner}"
            ))
            .await;
        let postgres = database.open().await;
        let pairs = mapping(("o", &["id"]), ("p", &["id"]));
        let fence = entered(&postgres, 1).await.remove(0);
        let sync = work("sync", Way::Forward);
        postgres.install(&fence, &sync, &pairs, Direction::Forward).await.unwrap();
        let away = format!("ALTER ROLE {owner} BYPASSRLS");
        for (statement, changes) in [
            ("INSERT INTO o VALUES (1, 'x'); UPDATE o SET v = 'y'; DELETE FROM o", false),
            ("VACUUM FREEZE ANALYZE o", false),
            ("VACUUM FULL pg_catalog.pg_class", false),
            ("CREATE INDEX ON o (v); CREATE STATISTICS apart ON id, v FROM o", false),
            ("ALTER TABLE o ALTER v SET DEFAULT 'z', ALTER v SET STATISTICS 7", false),
            ("CREATE TABLE q (id int REFERENCES o); COMMENT ON TABLE o IS 'o'", false),
            ("ALTER TABLE o FORCE ROW LEVEL SECURITY, ENABLE ROW LEVEL SECURITY", true),
            ("ALTER TABLE o NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY", true),
            (
                "ALTER TABLE p ENABLE ROW LEVEL SECURITY; ALTER TABLE p DISABLE ROW LEVEL SECURITY",
                true,
            ),
            (&*away, true),
        ] {
            let before = postgres.basis(&pairs).await.unwrap();
            database.run(statement).await;
            let after = postgres.basis(&pairs).await.unwrap();
            assert_eq!(before.of_sync() != after.of_sync(), changes, "{statement}");
        }
        database.run(&format!("DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}")).await;
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
