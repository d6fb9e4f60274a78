//! One sequence for the generated keys of both tables of a two-way mapping.
//!
//! Were there two, a client of the new shape could be given a key that a row of the old side has had for long, and its
//! insert would be taken for a write of that row. So while the sync is active the new side's key draws from the old side's
//! sequence. What it drew from before is kept in a table of ours, and given back when the sync goes, behind what was drawn
//! meanwhile.
//!
//! Invariants:
//! - An identity comes back as it was: its sequence's name, options, grants and comment, and the numbers that it would have
//!   come to by itself, so that those of two databases which share them out by START and INCREMENT don't meet.
//! - Rights on the old side's sequence are given to whom they lack, noted, and taken back with the rest.
//!
//! Absent on purpose: keys that the new side doesn't generate, and tables that share a sequence already, as `LIKE …
//! INCLUDING ALL` makes of a serial column.

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row as _};

use super::carried::{narrow, widen};
use super::catalogue::{Column, literal, quote};
use super::connection::Tx;
use super::dual_write::run;
use super::error::{damaged, failed};
use super::handover::{behind_sql, go_on_sql, next_sql};
use super::ledger;
use super::shape::Shape;
use crate::driver::Error;

/// The sequence that a column draws from: of its identity, or named by its default.
const SEQUENCE: &str = "\
SELECT s.oid::bigint, quote_ident(n.nspname) || '.' || quote_ident(s.relname) FROM (
  SELECT d.objid AS oid FROM pg_depend d
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
    AND d.refobjid = $1::bigint::oid AND d.refobjsubid = $2
  UNION
  SELECT d.refobjid FROM pg_attrdef ad JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = ad.oid
  WHERE d.refclassid = 'pg_class'::regclass AND ad.adrelid = $1::bigint::oid AND ad.adnum = $2) AS found
JOIN pg_class s ON s.oid = found.oid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace LIMIT 1";

/// What a column draws from, to be made again: `$1` the table, `$2` the column's number, `$3` its sequence.
const DRAWN: &str = "\
SELECT jsonb_build_object('default', pg_get_expr(f.adbin, f.adrelid), 'identity', CASE WHEN a.attidentity <> '' THEN jsonb_build_object(
    'kind', CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END,
    'name', format('%I.%I', n.nspname, s.relname),
    'options', format('START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s %s', q.seqstart, q.seqincrement, q.seqmin, q.seqmax,
        q.seqcache, CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END),
    'comment', obj_description(s.oid, 'pg_class'),
    'grants', (SELECT coalesce(jsonb_agg(jsonb_build_object('privilege', x.privilege_type,
        'grantee', CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
        'is_grantable', x.is_grantable)), '[]') FROM aclexplode(s.relacl) x WHERE x.grantee <> s.relowner)) END)::text
FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
JOIN pg_class s ON s.oid = $3::bigint::oid JOIN pg_namespace n ON n.oid = s.relnamespace JOIN pg_sequence q ON q.seqrelid = s.oid
WHERE a.attrelid = $1::bigint::oid AND a.attnum = $2";

/// Who draws from the new side's sequence (`$2`; of an identity whoever may insert into the table, `$1`) and has no right to
/// draw from the old side's (`$3`).
const STRANGERS: &str = "\
SELECT CASE may.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(may.grantee)) END
FROM pg_class t JOIN pg_class own ON own.oid = $2::bigint::oid JOIN pg_class shared ON shared.oid = $3::bigint::oid,
LATERAL (
  SELECT x.grantee FROM aclexplode(coalesce(t.relacl, acldefault('r', t.relowner))) x
  WHERE $4 AND x.privilege_type = 'INSERT'
  UNION SELECT x.grantee FROM pg_attribute a, aclexplode(a.attacl) x
  WHERE $4 AND a.attrelid = t.oid AND NOT a.attisdropped AND x.privilege_type = 'INSERT'
  UNION SELECT x.grantee FROM aclexplode(coalesce(own.relacl, acldefault('S', own.relowner))) x
  WHERE NOT $4 AND x.privilege_type IN ('USAGE', 'UPDATE')) may
WHERE t.oid = $1::bigint::oid AND may.grantee <> shared.relowner AND NOT EXISTS (
  SELECT FROM aclexplode(shared.relacl) x WHERE x.grantee = may.grantee AND x.privilege_type IN ('USAGE', 'UPDATE'))
ORDER BY may.grantee";

/// What a key of the new side drew from before.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Drawn {
    /// The default's expression, qualified throughout, where it is no identity.
    default: Option<String>,
    identity: Option<Identity>,
    /// The old side's sequence, by its oid.
    #[serde(default)]
    shared: u32,
    /// Who was given the right to draw from that one, quoted.
    #[serde(default)]
    strangers: Vec<String>,
    /// What the own sequence would have given next.
    #[serde(default)]
    next: i64,
}

/// An identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Identity {
    /// `ALWAYS` or `BY DEFAULT`.
    kind: String,
    /// Its sequence, qualified and quoted.
    name: String,
    options: String,
    comment: Option<String>,
    grants: Vec<SequenceGrant>,
}

/// A right on a sequence.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SequenceGrant {
    privilege: String,
    /// Quoted, or `PUBLIC`.
    grantee: String,
    is_grantable: bool,
}

/// A sequence.
struct Sequence {
    oid: u32,
    /// Qualified and quoted.
    name: String,
}

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

async fn sequence(tx: &mut Tx<'_>, table: u32, column: i16) -> Result<Option<Sequence>, Error> {
    let doing = "look for the key's sequence";
    let row = sqlx::query(SEQUENCE)
        .bind(i64::from(table))
        .bind(i32::from(column))
        .fetch_optional(tx.conn()?)
        .await
        .map_err(failed(doing))?;
    let Some(row) = row else { return Ok(None) };
    let oid: i64 = row.try_get(0).map_err(failed(doing))?;
    let oid = u32::try_from(oid).map_err(|_| damaged("an oid is out of range"))?;
    Ok(Some(Sequence { oid, name: row.try_get(1).map_err(failed(doing))? }))
}

/// Has the new side's generated keys drawn from the old side's sequence.
pub(super) async fn share(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    for (old, new) in shape.key_columns() {
        let theirs = sequence(tx, shape.old.oid, old.number).await?;
        let own = sequence(tx, shape.new.oid, new.number).await?;
        let (Some(theirs), Some(own)) = (theirs, own) else { continue };
        if theirs.oid != own.oid {
            share_one(tx, shape, (new, &theirs, &own)).await?;
        }
    }
    Ok(())
}

async fn share_one(
    tx: &mut Tx<'_>,
    shape: &Shape,
    (column, shared, own): (&Column, &Sequence, &Sequence),
) -> Result<(), Error> {
    let doing = "share the key's sequence";
    let table_of_drawn = tx.ours(&shape.drawn_name());
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {table_of_drawn} (number int2 PRIMARY KEY, was text NOT NULL)"
    );
    run(tx.conn()?, doing, create).await?;
    let mut drawn = drawn(tx, shape, (column, own)).await?;
    drawn.shared = shared.oid;
    drawn.strangers = strangers(tx, shape, (column, shared, own)).await?;
    let was = serde_json::to_string(&drawn)
        .map_err(|error| damaged(format!("what a key drew from can't be noted: {error}")))?;
    let remember = format!("INSERT INTO {table_of_drawn} VALUES ($1, $2) ON CONFLICT DO NOTHING");
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
    }
    for grantee in &drawn.strangers {
        let grant = format!("GRANT USAGE ON SEQUENCE {} TO {grantee}", shared.name);
        run(tx.conn()?, "let clients draw from the key's sequence", grant).await?;
    }
    let default = format!(
        "ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT nextval({}::regclass)",
        literal(&shared.name)
    );
    run(tx.conn()?, doing, default).await.map(|_| ())
}

/// What a key draws from.
async fn drawn(
    tx: &mut Tx<'_>,
    shape: &Shape,
    (column, own): (&Column, &Sequence),
) -> Result<Drawn, Error> {
    let doing = "read what the key draws from";
    let path = narrow(tx.conn()?).await?;
    let row = sqlx::query(DRAWN)
        .bind(i64::from(shape.new.oid))
        .bind(column.number)
        .bind(i64::from(own.oid))
        .fetch_one(tx.conn()?)
        .await
        .map_err(failed(doing))?;
    widen(tx.conn()?, path).await?;
    let text: String = row.try_get(0).map_err(failed(doing))?;
    let mut drawn = read(&text)?;
    let next = format!("SELECT {}", next_sql(&own.name));
    let row = sqlx::query(AssertSqlSafe(next)).fetch_one(tx.conn()?).await;
    drawn.next = row.and_then(|row| row.try_get(0)).map_err(failed(doing))?;
    Ok(drawn)
}

fn read(text: &str) -> Result<Drawn, Error> {
    serde_json::from_str(text)
        .map_err(|error| damaged(format!("what a key drew from can't be read: {error}")))
}

async fn strangers(
    tx: &mut Tx<'_>,
    shape: &Shape,
    (column, shared, own): (&Column, &Sequence, &Sequence),
) -> Result<Vec<String>, Error> {
    let doing = "look who draws from the key's sequence";
    let rows = sqlx::query(STRANGERS)
        .bind(i64::from(shape.new.oid))
        .bind(i64::from(own.oid))
        .bind(i64::from(shared.oid))
        .bind(column.identity.is_some())
        .fetch_all(tx.conn()?)
        .await
        .map_err(failed(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed(doing))
}

/// Gives the new side's keys back what they drew from, behind everything that was drawn meanwhile.
pub(super) async fn part(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let doing = "give the key its own sequence back";
    let table = tx.ours(&shape.drawn_name());
    if !ledger::has_table(tx.conn()?, &table).await? {
        return Ok(());
    }
    let rows = sqlx::query(AssertSqlSafe(format!("SELECT number, was FROM {table}")))
        .fetch_all(tx.conn()?)
        .await
        .map_err(failed(doing))?;
    for row in rows {
        let number: i16 = row.try_get(0).map_err(failed(doing))?;
        let was: String = row.try_get(1).map_err(failed(doing))?;
        let drawn = read(&was)?;
        if let Some(column) = shape.new.columns.iter().find(|column| column.number == number) {
            part_one(tx, shape, (column, &drawn)).await?;
        }
        send_away(tx, shape, &drawn).await?;
    }
    run(tx.conn()?, doing, format!("DROP TABLE {table}")).await.map(|_| ())
}

async fn part_one(
    tx: &mut Tx<'_>,
    shape: &Shape,
    (column, drawn): (&Column, &Drawn),
) -> Result<(), Error> {
    let doing = "give the key its own sequence back";
    let shared = sequence(tx, shape.new.oid, column.number).await?;
    let (table, name) = (shape.new.sql(), quote(&column.name));
    let alter = match (&drawn.identity, &drawn.default) {
        (Some(identity), _) => {
            let named = if ledger::has_table(tx.conn()?, &identity.name).await? {
                String::new()
            } else {
                format!("SEQUENCE NAME {} ", identity.name)
            };
            format!(
                "DROP DEFAULT, ALTER COLUMN {name} ADD GENERATED {} AS IDENTITY ({named}{})",
                identity.kind, identity.options
            )
        }
        (None, Some(default)) => format!("SET DEFAULT {default}"),
        (None, None) => "DROP DEFAULT".to_owned(),
    };
    run(tx.conn()?, doing, format!("ALTER TABLE {table} ALTER COLUMN {name} {alter}")).await?;
    let own = sequence(tx, shape.new.oid, column.number).await?;
    let (Some(own), Some(shared)) = (own, shared) else { return Ok(()) };
    if own.oid == shared.oid {
        return Ok(());
    }
    if let Some(identity) = &drawn.identity {
        furnish(tx, &own, identity).await?;
    }
    let next = drawn.next.to_string();
    let next = if drawn.identity.is_some() { next } else { next_sql(&own.name) };
    let sql = go_on_sql(&own.name, &next, &[behind_sql(&shared.name)]);
    run(tx.conn()?, doing, sql).await.map(|_| ())
}

/// Gives a sequence that was made again what it had.
async fn furnish(tx: &mut Tx<'_>, own: &Sequence, identity: &Identity) -> Result<(), Error> {
    let doing = "give the key's sequence its grants back";
    if let Some(comment) = &identity.comment {
        let sql = format!("COMMENT ON SEQUENCE {} IS {}", own.name, literal(comment));
        run(tx.conn()?, doing, sql).await?;
    }
    for SequenceGrant { privilege, grantee, is_grantable } in &identity.grants {
        if is_role(tx, grantee).await? {
            let option = if *is_grantable { " WITH GRANT OPTION" } else { "" };
            let sql = format!("GRANT {privilege} ON SEQUENCE {} TO {grantee}{option}", own.name);
            run(tx.conn()?, doing, sql).await?;
        }
    }
    Ok(())
}

/// Takes back what was granted on the old side's sequence, and lets it belong to the old side again where nothing else draws
/// from it: `retire` may have given it to the new one, which has its own from now on.
async fn send_away(tx: &mut Tx<'_>, shape: &Shape, drawn: &Drawn) -> Result<(), Error> {
    let doing = "take back a right on the key's sequence";
    let row = sqlx::query(
        "SELECT format('%I.%I', n.nspname, s.relname), (
           SELECT a.attname::text FROM pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
           JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
           WHERE f.adrelid = $2::bigint::oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid AND EXISTS (
             SELECT FROM pg_depend o WHERE o.classid = 'pg_class'::regclass AND o.objid = s.oid AND o.deptype = 'a'
               AND o.refclassid = 'pg_class'::regclass AND o.refobjid = $3::bigint::oid)
             AND NOT EXISTS (SELECT FROM pg_attrdef x JOIN pg_depend e ON e.classid = 'pg_attrdef'::regclass AND e.objid = x.oid
               WHERE x.adrelid <> $2::bigint::oid AND e.refclassid = 'pg_class'::regclass AND e.refobjid = s.oid) LIMIT 1)
         FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace WHERE s.oid = $1::bigint::oid AND s.relkind = 'S'",
    )
    .bind(i64::from(drawn.shared))
    .bind(i64::from(shape.old.oid))
    .bind(i64::from(shape.new.oid))
    .fetch_optional(tx.conn()?)
    .await
    .map_err(failed(doing))?;
    let Some(row) = row else { return Ok(()) };
    let name: String = row.try_get(0).map_err(failed(doing))?;
    let column: Option<String> = row.try_get(1).map_err(failed(doing))?;
    for grantee in &drawn.strangers {
        if is_role(tx, grantee).await? {
            let sql = format!("REVOKE USAGE ON SEQUENCE {name} FROM {grantee}");
            run(tx.conn()?, doing, sql).await?;
        }
    }
    let Some(column) = column else { return Ok(()) };
    let owned = format!("ALTER SEQUENCE {name} OWNED BY {}.{}", shape.old.sql(), quote(&column));
    run(tx.conn()?, "hand the sequence back", owned).await.map(|_| ())
}

/// Whether a role, quoted, is there.
async fn is_role(tx: &mut Tx<'_>, role: &str) -> Result<bool, Error> {
    if role == "PUBLIC" {
        return Ok(true);
    }
    let doing = "look for a role";
    let row = sqlx::query("SELECT to_regrole($1) IS NOT NULL").bind(role).fetch_one(tx.conn()?);
    row.await.and_then(|row| row.try_get(0)).map_err(failed(doing))
}
