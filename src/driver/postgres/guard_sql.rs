//! The guard on a table that a forward `retire` put aside: it refuses clients' writes, so that none is lost in a table that
//! nobody reads any more.
//!
//! Invariants:
//! - The guard's function lives as long as the table is put aside.
//! - A guard refuses rows and not statements, so that partitions have it, too; TRUNCATE it refuses on each of them.
//! - Under [`GUARD`](super::marks::GUARD) with the mapping's id a write passes: the engine's own.
//!
//! Absent on purpose: guarding columns put aside in a table that lives on.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::catalogue::{Table, literal, quote};
use super::connection::Tx;
use super::error::failed;
use super::marks::GUARD;
use super::rename::run;
use super::shape::Shape;
use crate::driver::Error;
use crate::run::RunId;

/// The SQLSTATE of a refused write: of a class that PostgreSQL leaves to applications.
pub(super) const PUT_ASIDE: &str = "PG001";

/// The guard's function, without schema, and its triggers.
fn name(shape: &Shape) -> String {
    format!("phasegate_guard_{}", shape.id)
}

/// Refuses writes to the table from now on. `shape` has the names from after `retire`.
pub(super) async fn install(tx: &mut Tx<'_>, shape: &Shape, run_id: &RunId) -> Result<(), Error> {
    let (table, name) = (shape.old.sql(), quote(&name(shape)));
    let function = format!("{}.{name}", tx.schema());
    let message = format!(
        "{} was put aside by mapping {} of run {run_id} and takes no writes",
        shape.old.name, shape.mapping
    );
    let body = format!(
        "BEGIN\n  IF current_setting({}, true) IS NOT DISTINCT FROM {} THEN\n    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;\n  \
         END IF;\n  RAISE EXCEPTION USING ERRCODE = {}, MESSAGE = {}, HINT = {};\nEND",
        literal(GUARD),
        literal(&shape.id),
        literal(PUT_ASIDE),
        literal(&message),
        literal(&format!("write to {} instead", shape.new.name)),
    );
    for sql in [
        format!(
            "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS {}",
            literal(&body)
        ),
        format!(
            "CREATE TRIGGER {name} BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
        ),
        format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"),
    ] {
        run(tx.conn()?, "guard the table put aside", sql).await?;
    }
    for table in whole_tree(tx.conn()?, &shape.old).await? {
        let truncate = quote(&format!("phasegate_guard_t_{}", shape.id));
        for sql in [
            format!(
                "CREATE TRIGGER {truncate} BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
            ),
            format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {truncate}"),
        ] {
            run(tx.conn()?, "guard the table put aside", sql).await?;
        }
    }
    Ok(())
}

/// A table and its partitions, at every level, as SQL text.
pub(super) async fn whole_tree(
    conn: &mut PgConnection,
    table: &Table,
) -> Result<Vec<String>, Error> {
    let doing = "read the catalogue";
    let rows = sqlx::query(
        "WITH RECURSIVE tree (oid) AS (SELECT $1::bigint::oid
             UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid)
         SELECT format('%I.%I', n.nspname, c.relname) FROM tree JOIN pg_class c ON c.oid = tree.oid
         JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY c.oid",
    )
    .bind(i64::from(table.oid))
    .fetch_all(conn)
    .await
    .map_err(failed(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed(doing))
}

/// Lets clients write again.
pub(super) async fn remove_triggers(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    for trigger in [name(shape), format!("phasegate_guard_t_{}", shape.id)] {
        let tables = if trigger == name(shape) {
            vec![shape.old.sql()]
        } else {
            whole_tree(tx.conn()?, &shape.old).await?
        };
        for table in tables {
            let sql = format!("DROP TRIGGER IF EXISTS {} ON {table}", quote(&trigger));
            run(tx.conn()?, "remove the guard of the table put aside", sql).await?;
        }
    }
    Ok(())
}

/// Removes the function.
pub(super) async fn remove_function(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let sql = format!("DROP FUNCTION IF EXISTS {}.{}()", tx.schema(), quote(&name(shape)));
    run(tx.conn()?, "remove the guard of the table put aside", sql).await
}
