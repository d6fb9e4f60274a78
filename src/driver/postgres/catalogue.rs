//! What PostgreSQL's catalogue says of tables: columns, keys, indexes, triggers.
//!
//! Names in mappings are written as the catalogue spells them, with the schema before a dot where it isn't on the search
//! path. Absent on purpose: judging what was found, which is `introspect`'s.

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::error::failed;
use crate::driver::Error;
use crate::run::FailureClass;
use crate::sql::{self, Dialect};

/// A relation as the catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// `relkind`: r table, p partitioned table, v view, m materialised view, f foreign table, S sequence.
    pub kind: char,
    /// `relpersistence`: p permanent, u unlogged, t temporary.
    pub persistence: char,
    /// Whether it is a partition of another table.
    pub is_partition: bool,
    /// The owner.
    pub owner: String,
    /// Whether row security is on, and whether it binds the owner too.
    pub row_security: bool,
    pub force_row_security: bool,
    /// In their order; dropped ones left out.
    pub columns: Vec<Column>,
    pub indexes: Vec<Index>,
    /// Ours too, internal ones (of constraints) left out; sorted by name.
    pub triggers: Vec<Trigger>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub number: i16,
    pub name: String,
    /// The type with its modifier, as people write it: `character varying(20)`.
    pub declared: String,
    /// The type without modifier, qualified where it isn't built in, as a cast takes it. Of a domain it is what the domain is
    /// over: a cast to a domain cuts off what is too long for it, where storing would be an error.
    pub type_sql: String,
    /// The same with its modifier.
    pub stored_sql: String,
    /// The type's oid (of a domain: the domain's own).
    pub type_oid: u32,
    /// The oid of what a domain is over; otherwise the type's.
    pub base_oid: u32,
    /// The collation, qualified and quoted, where the type has one.
    pub collation: Option<String>,
    /// Whether that collation takes different texts for equal.
    pub is_nondeterministic: bool,
    pub not_null: bool,
    /// The default's expression.
    pub default: Option<String>,
    /// `attidentity`: a always, d by default; `None`: no identity.
    pub identity: Option<char>,
    /// Whether it is computed from others.
    pub is_generated: bool,
}

/// An index.
#[allow(clippy::struct_excessive_bools, reason = "as the catalogue has them, each on its own")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub oid: u32,
    pub name: String,
    pub is_unique: bool,
    pub is_primary: bool,
    pub is_valid: bool,
    /// Whether uniqueness is checked at once, and not at the end of the transaction.
    pub is_immediate: bool,
    pub is_partial: bool,
    /// Whether it is an exclusion constraint's.
    pub is_exclusion: bool,
    /// Whether it is marked as the table's replica identity.
    pub is_replica_identity: bool,
    /// Its key columns; `None`: an expression.
    pub columns: Vec<Option<String>>,
    pub definition: String,
}

/// A trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trigger {
    pub name: String,
    /// `tgenabled`: O origin, A always, R replica, D disabled.
    pub enabled: char,
    pub definition: String,
}

impl Table {
    /// Stands for a table that isn't there, under the name that a mapping writes.
    pub(super) fn absent(written: &str) -> Self {
        let (schema, name) = parts(written);
        Self {
            oid: 0,
            schema: schema.unwrap_or_default(),
            name,
            kind: ' ',
            persistence: ' ',
            is_partition: false,
            owner: String::new(),
            row_security: false,
            force_row_security: false,
            columns: Vec::new(),
            indexes: Vec::new(),
            triggers: Vec::new(),
        }
    }

    /// The table, qualified and quoted.
    pub(super) fn sql(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// The table's name as a mapping writes it.
    pub(super) fn written(&self) -> String {
        sql::written_name(Some(&self.schema), &self.name)
    }

    /// The column of a name.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Every set of columns that identifies a row: unique at once, never NULL, not partial, not an expression, valid.
    pub(super) fn identities(&self) -> Vec<Vec<&str>> {
        let mut found: Vec<Vec<&str>> = Vec::new();
        for index in self.indexes.iter().filter(|index| index.is_identity()) {
            let columns: Option<Vec<&Column>> =
                index.columns.iter().map(|name| self.column(name.as_deref()?)).collect();
            let Some(columns) = columns else { continue };
            let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            if columns.iter().all(|column| column.not_null) && !found.contains(&names) {
                found.push(names);
            }
        }
        found
    }
}

impl Column {
    /// Whether its type is a domain.
    pub(super) const fn is_of_domain(&self) -> bool {
        self.type_oid != self.base_oid
    }
}

impl Index {
    /// Whether it says of any two rows that they differ.
    pub(super) const fn is_identity(&self) -> bool {
        self.is_unique && self.is_valid && self.is_immediate && !self.is_partial
    }
}

/// An identifier as SQL text.
pub(super) fn quote(name: &str) -> String {
    sql::quote(Dialect::Postgres, name)
}

/// Text as a literal.
pub(super) fn literal(text: &str) -> String {
    sql::literal(Dialect::Postgres, text)
}

/// A table's name as a mapping writes it, in parts: the schema, where one is named, and the name.
pub(super) fn parts(name: &str) -> (Option<String>, String) {
    sql::qualified_name(name)
}

/// A table's name as SQL text, from how a mapping writes it.
pub(super) fn name_sql(name: &str) -> String {
    match parts(name) {
        (Some(schema), name) => format!("{}.{}", quote(&schema), quote(&name)),
        (None, name) => quote(&name),
    }
}

const TABLE: &str = "\
SELECT c.oid::bigint AS oid, n.nspname, c.relname, c.relkind::text AS kind, c.relpersistence::text AS persistence,
       c.relispartition, pg_get_userbyid(c.relowner) AS owner, c.relrowsecurity, c.relforcerowsecurity
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)";

/// The schema of a relation that a bare name would mean if the role could use it, which the server passes over without a word; and
/// what lets it.
const HIDDEN: &str = "\
SELECT n.nspname, format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, current_user)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = $1 AND c.relkind IN ('r', 'p') AND NOT has_schema_privilege(n.oid, 'USAGE') AND n.nspname IN
    (SELECT CASE item WHEN '$user' THEN current_user ELSE item END
     FROM unnest(string_to_array(translate(current_setting('search_path'), '\" ', ''), ',')) AS path (item))
LIMIT 1";

const COLUMNS: &str = "\
SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) AS declared, a.atttypid::bigint AS type_oid,
       CASE WHEN tn.nspname = 'pg_catalog' THEN format_type(t.oid, -1)
            ELSE quote_ident(tn.nspname) || '.' || quote_ident(t.typname) END AS type_sql,
       CASE WHEN tn.nspname = 'pg_catalog' THEN format_type(t.oid, base.typmod)
            ELSE quote_ident(tn.nspname) || '.' || quote_ident(t.typname)
              || coalesce(substring(format_type(t.oid, base.typmod) FROM '\\([^()\"]*\\)(?=(?:\\[\\])?$)'), '') END AS stored_sql,
       t.oid::bigint AS base_oid,
       CASE WHEN a.attcollation <> 0 THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) END AS collation,
       coalesce(NOT co.collisdeterministic, false) AS is_nondeterministic,
       a.attnotnull, pg_get_expr(d.adbin, d.adrelid) AS default_sql, a.attidentity::text AS identity,
       a.attgenerated::text AS generated
FROM pg_attribute a
CROSS JOIN LATERAL (
  WITH RECURSIVE under (oid, typmod, depth) AS (
    SELECT a.atttypid, a.atttypmod, 0
    UNION ALL SELECT d.typbasetype, d.typtypmod, depth + 1 FROM under JOIN pg_type d ON d.oid = under.oid AND d.typtype = 'd')
  SELECT oid, typmod FROM under ORDER BY depth DESC LIMIT 1) AS base
JOIN pg_type t ON t.oid = base.oid JOIN pg_namespace tn ON tn.oid = t.typnamespace
LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

const INDEXES: &str = "\
SELECT i.indexrelid::bigint AS oid, ic.relname, i.indisunique, i.indisprimary, i.indisvalid, i.indimmediate, i.indpred IS NOT NULL AS is_partial, i.indisexclusion, i.indisreplident,
       ARRAY(SELECT CASE WHEN k.attnum = 0 THEN NULL ELSE a.attname END
             FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, at)
             LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE k.at <= i.indnkeyatts ORDER BY k.at)::text[] AS columns,
       pg_get_indexdef(i.indexrelid) AS definition
FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid WHERE i.indrelid = $1::bigint::oid
ORDER BY i.indisprimary DESC, ic.relname";

const TRIGGERS: &str = "\
SELECT tgname, tgenabled::text AS enabled, pg_get_triggerdef(oid) AS definition FROM pg_trigger
WHERE tgrelid = $1::bigint::oid AND NOT tgisinternal ORDER BY tgname";

/// The relation of a name as a mapping writes it, if there is one.
pub(super) async fn table(conn: &mut PgConnection, name: &str) -> Result<Option<Table>, Error> {
    let doing = "read the catalogue";
    let found = sqlx::query(TABLE).bind(name_sql(name)).fetch_optional(&mut *conn).await;
    let Some(row) = found.map_err(failed(doing))? else { return hidden(conn, name).await };
    let oid: i64 = row.try_get("oid").map_err(failed(doing))?;
    let columns =
        sqlx::query(COLUMNS).bind(oid).fetch_all(&mut *conn).await.map_err(failed(doing))?;
    let indexes =
        sqlx::query(INDEXES).bind(oid).fetch_all(&mut *conn).await.map_err(failed(doing))?;
    let triggers =
        sqlx::query(TRIGGERS).bind(oid).fetch_all(&mut *conn).await.map_err(failed(doing))?;
    read(&row, &columns, &indexes, &triggers).map(Some).map_err(failed(doing))
}

/// There is no such relation, or none that the role can see.
async fn hidden(conn: &mut PgConnection, name: &str) -> Result<Option<Table>, Error> {
    let (None, bare) = parts(name) else { return Ok(None) };
    let doing = "read the catalogue";
    let found = sqlx::query(HIDDEN).bind(bare).fetch_optional(conn).await.map_err(failed(doing))?;
    let Some(row) = found else { return Ok(None) };
    let schema: String = row.try_get(0).map_err(failed(doing))?;
    let grant: String = row.try_get(1).map_err(failed(doing))?;
    let message = format!("table {name} is in schema {schema}, which this role may not use");
    Err(Error::failed(FailureClass::NotPermitted, message).with_help(grant))
}

fn read(
    row: &PgRow,
    columns: &[PgRow],
    indexes: &[PgRow],
    triggers: &[PgRow],
) -> Result<Table, sqlx::Error> {
    Ok(Table {
        oid: oid(row, "oid")?,
        schema: row.try_get("nspname")?,
        name: row.try_get("relname")?,
        kind: letter(row, "kind")?.unwrap_or(' '),
        persistence: letter(row, "persistence")?.unwrap_or(' '),
        is_partition: row.try_get("relispartition")?,
        owner: row.try_get("owner")?,
        row_security: row.try_get("relrowsecurity")?,
        force_row_security: row.try_get("relforcerowsecurity")?,
        columns: columns.iter().map(column).collect::<Result<_, _>>()?,
        indexes: indexes.iter().map(index).collect::<Result<_, _>>()?,
        triggers: triggers.iter().map(trigger).collect::<Result<_, _>>()?,
    })
}

fn column(row: &PgRow) -> Result<Column, sqlx::Error> {
    Ok(Column {
        number: row.try_get("attnum")?,
        name: row.try_get("attname")?,
        declared: row.try_get("declared")?,
        type_sql: row.try_get("type_sql")?,
        stored_sql: row.try_get("stored_sql")?,
        type_oid: oid(row, "type_oid")?,
        base_oid: oid(row, "base_oid")?,
        collation: row.try_get("collation")?,
        is_nondeterministic: row.try_get("is_nondeterministic")?,
        not_null: row.try_get("attnotnull")?,
        default: row.try_get("default_sql")?,
        identity: letter(row, "identity")?,
        is_generated: letter(row, "generated")?.is_some(),
    })
}

fn index(row: &PgRow) -> Result<Index, sqlx::Error> {
    Ok(Index {
        oid: oid(row, "oid")?,
        name: row.try_get("relname")?,
        is_unique: row.try_get("indisunique")?,
        is_primary: row.try_get("indisprimary")?,
        is_valid: row.try_get("indisvalid")?,
        is_immediate: row.try_get("indimmediate")?,
        is_partial: row.try_get("is_partial")?,
        is_exclusion: row.try_get("indisexclusion")?,
        is_replica_identity: row.try_get("indisreplident")?,
        columns: row.try_get("columns")?,
        definition: row.try_get("definition")?,
    })
}

fn trigger(row: &PgRow) -> Result<Trigger, sqlx::Error> {
    Ok(Trigger {
        name: row.try_get("tgname")?,
        enabled: letter(row, "enabled")?.unwrap_or(' '),
        definition: row.try_get("definition")?,
    })
}

/// An oid that was asked for as a bigint.
fn oid(row: &PgRow, column: &str) -> Result<u32, sqlx::Error> {
    let number: i64 = row.try_get(column)?;
    u32::try_from(number).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// A `"char"` that was asked for as text; none where it is empty.
fn letter(row: &PgRow, column: &str) -> Result<Option<char>, sqlx::Error> {
    let text: String = row.try_get(column)?;
    Ok(text.chars().next().filter(|char| *char != '\0'))
}

/// Whether two names, of which either may leave its schema out, are those of one table.
pub(super) fn same_table(one: &str, two: &str) -> bool {
    let ((one_schema, one), (two_schema, two)) = (parts(one), parts(two));
    one == two && (one_schema.is_none() || two_schema.is_none() || one_schema == two_schema)
}

/// What stands in the first double quotes of a message: the name it is about.
pub(super) fn quoted(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once('"')?;
    rest.split_once('"').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_have_parts() {
        let cases = [
            ("leads", (None, "leads"), "\"leads\""),
            ("crm.leads", (Some("crm"), "leads"), "\"crm\".\"leads\""),
            ("\"a.b\"", (None, "a.b"), "\"a.b\""),
            ("\"a.b\".Order", (Some("a.b"), "Order"), "\"a.b\".\"Order\""),
        ];
        for (name, (schema, table), sql) in cases {
            assert_eq!(parts(name), (schema.map(str::to_owned), table.to_owned()), "{name}");
            assert_eq!(name_sql(name), sql, "{name}");
        }
    }
}
