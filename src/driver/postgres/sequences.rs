//! One sequence for the generated keys of both tables of a two-way mapping.
//!
//! Were there two, a client of the new shape could be given a key that a row of the old side has had for long, and its
//! insert would be taken for a write of that row. So while the sync is active the new side's key draws from the old side's
//! sequence. What it drew from before is kept in a table of ours, and given back when the sync goes, behind what was drawn
//! meanwhile.
//!
//! Absent on purpose: keys that the new side doesn't generate, and tables that share a sequence already, as `LIKE …
//! INCLUDING ALL` makes of a serial column.

use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{Column, literal, quote};
use super::connection::Tx;
use super::dual_write::run;
use super::error::{damaged, failed};
use super::ledger;
use super::shape::Shape;
use crate::driver::Error;

/// The sequence that a column draws from: of its identity, or named by its default.
const SEQUENCE: &str = "\
SELECT quote_ident(n.nspname) || '.' || quote_ident(s.relname) FROM (
  SELECT d.objid AS oid FROM pg_depend d
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
    AND d.refobjid = $1::bigint::oid AND d.refobjsubid = $2
  UNION
  SELECT d.refobjid FROM pg_attrdef ad JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = ad.oid
  WHERE d.refclassid = 'pg_class'::regclass AND ad.adrelid = $1::bigint::oid AND ad.adnum = $2) AS found
JOIN pg_class s ON s.oid = found.oid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace LIMIT 1";

impl Shape {
    /// The table of what the new side's keys drew from, by its bare name.
    fn drawn_name(&self) -> String {
        format!("drawn_{}", self.id)
    }

    /// The key columns of both sides.
    fn key_columns(&self) -> impl Iterator<Item = (&Column, &Column)> {
        self.keys
            .iter()
            .filter_map(|pair| Some((self.old.column(&pair.old)?, self.new.column(&pair.new)?)))
    }
}

async fn sequence(tx: &mut Tx<'_>, table: u32, column: i16) -> Result<Option<String>, Error> {
    let row = sqlx::query(SEQUENCE)
        .bind(i64::from(table))
        .bind(i32::from(column))
        .fetch_optional(tx.conn()?)
        .await
        .map_err(failed("look for the key's sequence"))?;
    row.map(|row| row.try_get(0)).transpose().map_err(failed("look for the key's sequence"))
}

/// Has the new side's generated keys drawn from the old side's sequence.
pub(super) async fn share(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    for (old, new) in shape.key_columns() {
        let theirs = sequence(tx, shape.old.oid, old.number).await?;
        let own = sequence(tx, shape.new.oid, new.number).await?;
        let (Some(theirs), Some(own)) = (theirs, own) else { continue };
        if theirs != own {
            share_one(tx, shape, (new, &theirs)).await?;
        }
    }
    Ok(())
}

async fn share_one(
    tx: &mut Tx<'_>,
    shape: &Shape,
    (column, sequence): (&Column, &str),
) -> Result<(), Error> {
    let doing = "share the key's sequence";
    let drawn = tx.ours(&shape.drawn_name());
    let create =
        format!("CREATE TABLE IF NOT EXISTS {drawn} (number int2 PRIMARY KEY, was text NOT NULL)");
    run(tx.conn()?, doing, create).await?;
    let was = match column.identity {
        Some(kind) => format!("identity {kind}"),
        None => format!("default {}", column.default.clone().unwrap_or_default()),
    };
    let remember = format!("INSERT INTO {drawn} VALUES ($1, $2) ON CONFLICT DO NOTHING");
    sqlx::query(AssertSqlSafe(remember))
        .bind(column.number)
        .bind(was)
        .execute(tx.conn()?)
        .await
        .map_err(failed(doing))?;
    let (table, name) = (shape.new.sql(), quote(&column.name));
    if column.identity.is_some() {
        let drop = format!("ALTER TABLE {table} ALTER COLUMN {name} DROP IDENTITY");
        run(tx.conn()?, doing, drop).await?;
        let_draw(tx, shape, sequence).await?;
    }
    let default = format!(
        "ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT nextval({}::regclass)",
        literal(sequence)
    );
    run(tx.conn()?, doing, default).await.map(|_| ())
}

/// Whoever may insert into the new table may draw from the sequence: an identity asks for no right of its own.
async fn let_draw(tx: &mut Tx<'_>, shape: &Shape, sequence: &str) -> Result<(), Error> {
    let doing = "let clients draw from the key's sequence";
    let rows = sqlx::query(
        "SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
         FROM pg_class c, aclexplode(c.relacl) AS a WHERE c.oid = $1::bigint::oid AND a.privilege_type = 'INSERT'",
    )
    .bind(i64::from(shape.new.oid))
    .fetch_all(tx.conn()?)
    .await
    .map_err(failed(doing))?;
    for row in rows {
        let grantee: String = row.try_get(0).map_err(failed(doing))?;
        run(tx.conn()?, doing, format!("GRANT USAGE ON SEQUENCE {sequence} TO {grantee}")).await?;
    }
    Ok(())
}

/// Gives the new side's keys back what they drew from, behind everything that was drawn meanwhile.
pub(super) async fn part(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let doing = "give the key its own sequence back";
    let drawn = tx.ours(&shape.drawn_name());
    if !ledger::has_table(tx.conn()?, &drawn).await? {
        return Ok(());
    }
    let rows = sqlx::query(AssertSqlSafe(format!("SELECT number, was FROM {drawn}")))
        .fetch_all(tx.conn()?)
        .await
        .map_err(failed(doing))?;
    for row in rows {
        let number: i16 = row.try_get(0).map_err(failed(doing))?;
        let was: String = row.try_get(1).map_err(failed(doing))?;
        let Some(column) = shape.new.columns.iter().find(|column| column.number == number) else {
            continue;
        };
        part_one(tx, shape, (column, &was)).await?;
    }
    run(tx.conn()?, doing, format!("DROP TABLE {drawn}")).await.map(|_| ())
}

async fn part_one(
    tx: &mut Tx<'_>,
    shape: &Shape,
    (column, was): (&Column, &str),
) -> Result<(), Error> {
    let doing = "give the key its own sequence back";
    let shared = sequence(tx, shape.new.oid, column.number).await?;
    let (table, name) = (shape.new.sql(), quote(&column.name));
    let alter = match was.split_once(' ') {
        Some(("identity", kind)) => {
            let kind = if kind == "a" { "ALWAYS" } else { "BY DEFAULT" };
            format!("DROP DEFAULT, ALTER COLUMN {name} ADD GENERATED {kind} AS IDENTITY")
        }
        Some(("default", default)) => format!("SET DEFAULT {default}"),
        _ => return Err(damaged("what a key drew from can't be read")),
    };
    run(tx.conn()?, doing, format!("ALTER TABLE {table} ALTER COLUMN {name} {alter}")).await?;
    let own = sequence(tx, shape.new.oid, column.number).await?;
    if let (Some(own), Some(shared)) = (own, shared)
        && own != shared
    {
        // Unlike setval on a sequence that was never drawn from, this leaves the first number its own.
        let advance = format!(
            "SELECT setval({}, CASE WHEN s.is_called THEN s.last_value + 1 ELSE s.last_value END, false) FROM {shared} AS s",
            literal(&own)
        );
        run(tx.conn()?, doing, advance).await?;
    }
    Ok(())
}
