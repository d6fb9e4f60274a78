//! Looking at the catalogue: [`Introspect`] for PostgreSQL.
//!
//! Absent on purpose: any change, and any opinion of what to do about a finding beyond its help.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::Row as _;

use super::catalogue::name_sql;
use super::connection::Reader;
use super::error::{damaged, failed};
use super::{Postgres, probe, survey, usage};
use crate::driver::{Error, Finding, Introspect, Probed, Survey, TableSize};
use crate::run::{Digest, Usage};

#[async_trait]
impl Introspect for Postgres {
    async fn survey(&self, survey: &Survey) -> Result<Vec<Finding>, Error> {
        let mut reader = self.connections.snapshot().await?;
        let (findings, _) = survey::look(&mut reader, survey).await?;
        reader.release().await;
        Ok(findings)
    }

    async fn probe(&self, survey: &Survey) -> Result<Probed, Error> {
        probe::probe(&self.connections, survey).await
    }

    async fn fingerprint(&self, tables: &[String]) -> Result<Digest, Error> {
        let mut reader = self.connections.snapshot().await?;
        let digest = fingerprint(&mut reader, tables).await?;
        reader.release().await;
        Ok(digest)
    }

    async fn usage(&self, table: &str) -> Result<Usage, Error> {
        let mut reader = self.connections.read().await?;
        let usage = usage::usage(reader.conn()?, table).await?;
        reader.release().await;
        Ok(usage)
    }

    async fn size(&self, table: &str) -> Result<TableSize, Error> {
        let mut reader = self.connections.read().await?;
        let size = usage::size(reader.conn()?, table).await?;
        reader.release().await;
        Ok(size)
    }
}

/// Oids of tables by their names as the session's path finds them.
const OIDS: &str = "SELECT to_regclass(name)::oid::bigint FROM unnest($1::text[]) WITH ORDINALITY AS n (name, at) ORDER BY at";

/// What of tables their readers and writers can notice: names only, no oids, so that a restored copy has the same. Ours,
/// by the schema of the trigger's function, is left out. Partitions are not part of it: they come and go with time.
const SHAPES: &str = "\
SELECT jsonb_build_object(
  'name', n.nspname || '.' || c.relname, 'kind', c.relkind, 'persistence', c.relpersistence,
  'row_security', ARRAY[c.relrowsecurity, c.relforcerowsecurity],
  'columns', (SELECT jsonb_agg(jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
          pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated,
          CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END) ORDER BY a.attnum)
      FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  'constraints', (SELECT jsonb_agg(jsonb_build_array(k.conname, pg_get_constraintdef(k.oid), k.convalidated)
          ORDER BY k.conname) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype <> 't'),
  'indexes', (SELECT jsonb_agg(jsonb_build_array(pg_get_indexdef(i.indexrelid), i.indisvalid) ORDER BY ic.relname)
      FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid WHERE i.indrelid = c.oid),
  'triggers', (SELECT jsonb_agg(jsonb_build_array(pg_get_triggerdef(t.oid), t.tgenabled) ORDER BY t.tgname)
      FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
      WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND p.pronamespace IS DISTINCT FROM to_regnamespace($2)::oid),
  'policies', (SELECT jsonb_agg(jsonb_build_array(p.polname, p.polcmd, p.polpermissive, pg_get_expr(p.polqual, p.polrelid),
          pg_get_expr(p.polwithcheck, p.polrelid)) ORDER BY p.polname) FROM pg_policy p WHERE p.polrelid = c.oid)
)::text, c.oid::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::bigint[]::oid[])";

/// The fingerprint of tables, in whatever order they are named.
async fn fingerprint(reader: &mut Reader<'_>, tables: &[String]) -> Result<Digest, Error> {
    let doing = "read the catalogue";
    let schema = reader.schema().to_owned();
    let conn = reader.conn()?;
    let names: Vec<String> = tables.iter().map(|name| name_sql(name)).collect();
    let rows = sqlx::query(OIDS).bind(&names).fetch_all(&mut *conn).await.map_err(failed(doing))?;
    let oids: Result<Vec<Option<i64>>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    let oids = oids.map_err(failed(doing))?;
    // Definitions name what is on the path without its schema: who looks must not matter.
    sqlx::query("SELECT set_config('search_path', 'pg_catalog', true)")
        .execute(&mut *conn)
        .await
        .map_err(failed(doing))?;
    let known: Vec<i64> = oids.iter().flatten().copied().collect();
    let rows = sqlx::query(SHAPES).bind(&known).bind(&schema).fetch_all(conn).await;
    let mut found = Vec::new();
    for row in rows.map_err(failed(doing))? {
        let text: String = row.try_get(0).map_err(failed(doing))?;
        let shape: Value = serde_json::from_str(&text)
            .map_err(|error| damaged(format!("the catalogue answered no JSON: {error}")))?;
        found.push((row.try_get::<i64, _>(1).map_err(failed(doing))?, shape));
    }
    let mut shapes = serde_json::Map::new();
    for (name, oid) in names.into_iter().zip(oids) {
        let shape = found.iter().find(|(known, _)| Some(*known) == oid);
        shapes.insert(name, shape.map_or(Value::Null, |(_, shape)| shape.clone()));
    }
    Ok(Digest::of("postgres tables", &Value::Object(shapes)))
}
