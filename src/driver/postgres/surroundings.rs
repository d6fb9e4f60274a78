//! What stands around a table in the catalogue: constraints, foreign keys of others, triggers, policies, grants,
//! publications, sequences, inheritance. One query for a table, whatever there is.
//!
//! Absent on purpose: judging it. Who puts a table aside, drops it or looks at it before the first change draws their own
//! conclusions.

use serde::Deserialize;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::{damaged, failed};
use crate::driver::Error;

/// What stands around one table.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Surroundings {
    /// The table as definitions name it: qualified where the search path doesn't find it, and quoted where need be.
    pub name: String,
    /// The table's own: checks, foreign keys, exclusions, unique and primary keys.
    pub constraints: Vec<Constraint>,
    /// Foreign keys of other tables to it; those of partitions are counted with their parent's.
    pub references: Vec<Reference>,
    /// Not the database's own; ours too.
    pub triggers: Vec<TriggerFacts>,
    pub policies: Vec<Policy>,
    /// Publications that name it, those of all tables left out.
    pub publications: Vec<String>,
    /// Rights of others than the owner.
    pub grants: Vec<Grant>,
    /// Sequences that its columns draw from, or that belong to them.
    pub sequences: Vec<Sequence>,
    /// Tables it is a partition or a child of.
    pub parents: Vec<String>,
    /// How many partitions or children it has.
    pub children: i64,
    /// `relreplident`: d primary key, n nothing, f all columns, i an index.
    pub replica_identity: char,
    /// Rewrite rules on it.
    pub rules: Vec<String>,
}

/// A constraint of the table.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Constraint {
    pub name: String,
    /// `contype`: c check, f foreign key, x exclusion, u unique, p primary key.
    pub kind: char,
    pub definition: String,
    pub columns: Vec<String>,
    pub comment: Option<String>,
    /// Whether it is a foreign key to its own table.
    pub is_to_itself: bool,
}

/// A foreign key of another table.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Reference {
    pub name: String,
    pub table: String,
    pub definition: String,
}

/// A trigger on the table.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct TriggerFacts {
    pub name: String,
    /// `tgenabled`: O origin, A always, R replica, D disabled.
    pub enabled: char,
    pub is_before: bool,
    pub is_row: bool,
    /// The definition with `%` for its own name and the table's: two of one form do the same.
    pub form: String,
    /// Whether its function is in our schema.
    pub is_ours: bool,
}

/// A policy of row level security.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Policy {
    pub name: String,
    /// `polcmd`: r, a, w, d, or * for all.
    pub command: char,
    pub is_permissive: bool,
    /// Quoted.
    pub roles: Vec<String>,
    pub using: Option<String>,
    pub check: Option<String>,
}

/// A right on the table or on one of its columns.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Grant {
    /// Quoted, or `PUBLIC`.
    pub grantee: String,
    pub privilege: String,
    pub column: Option<String>,
    pub is_grantable: bool,
}

/// A sequence of a column.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Sequence {
    pub column: String,
    pub oid: u32,
    /// Qualified and quoted.
    pub name: String,
    /// Whether it goes when the column goes.
    pub is_owned: bool,
    pub is_identity: bool,
    pub increment: i64,
    /// The last value drawn; `None` before the first, and where the role may not see it.
    pub last_value: Option<i64>,
}

impl Surroundings {
    /// Foreign keys of the table itself.
    pub(super) fn foreign_keys(&self) -> impl Iterator<Item = &Constraint> {
        self.constraints.iter().filter(|constraint| constraint.kind == 'f')
    }

    /// Triggers that are not ours.
    pub(super) fn user_triggers(&self) -> impl Iterator<Item = &TriggerFacts> {
        self.triggers.iter().filter(|trigger| !trigger.is_ours)
    }
}

/// `$1` is the table's oid, `$2` our schema.
const SURROUNDINGS: &str = "\
SELECT jsonb_build_object('name', c.oid::regclass::text,
  'constraints', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', k.conname, 'kind', k.contype,
      'definition', pg_get_constraintdef(k.oid), 'columns', ARRAY(
          SELECT a.attname FROM unnest(k.conkey) WITH ORDINALITY u (n, at)
          JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.at),
      'comment', obj_description(k.oid, 'pg_constraint'), 'is_to_itself', k.confrelid = k.conrelid) ORDER BY k.conname), '[]')
      FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('c', 'f', 'x', 'u', 'p')),
  'references', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', k.conname, 'table', k.conrelid::regclass::text,
      'definition', pg_get_constraintdef(k.oid), 'columns', ARRAY(
          SELECT a.attname FROM unnest(k.confkey) WITH ORDINALITY u (n, at)
          JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.at)) ORDER BY k.conname), '[]')
      FROM pg_constraint k
      WHERE k.confrelid = c.oid AND k.conrelid <> c.oid AND k.contype = 'f' AND k.conparentid = 0),
  'triggers', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', t.tgname, 'enabled', t.tgenabled,
      'is_before', t.tgtype::int & 66 = 2, 'is_row', t.tgtype::int & 1 = 1, 'definition', pg_get_triggerdef(t.oid),
      'form', replace(replace(pg_get_triggerdef(t.oid), 'TRIGGER ' || quote_ident(t.tgname) || ' ', 'TRIGGER % '),
          format(' ON %I.%I ', cn.nspname, c.relname), ' ON % '),
      'is_ours', coalesce(p.pronamespace = to_regnamespace($2)::oid, false)) ORDER BY t.tgname), '[]')
      FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
  'policies', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', p.polname, 'command', p.polcmd,
      'is_permissive', p.polpermissive, 'roles', ARRAY(
          SELECT CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END FROM unnest(p.polroles) r ORDER BY 1),
      'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid))
      ORDER BY p.polname), '[]') FROM pg_policy p WHERE p.polrelid = c.oid),
  'publications', ARRAY(SELECT p.pubname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
      WHERE r.prrelid = c.oid ORDER BY 1),
  'grants', (SELECT coalesce(jsonb_agg(jsonb_build_object('grantee', CASE g.grantee WHEN 0 THEN 'PUBLIC'
          ELSE quote_ident(pg_get_userbyid(g.grantee)) END, 'privilege', g.privilege_type, 'column', g.column_name,
          'is_grantable', g.is_grantable) ORDER BY g.grantee, g.column_name NULLS FIRST, g.privilege_type), '[]')
      FROM (SELECT a.*, NULL::name AS column_name FROM aclexplode(c.relacl) a
            UNION ALL SELECT a.*, t.attname FROM pg_attribute t, aclexplode(t.attacl) a
            WHERE t.attrelid = c.oid AND NOT t.attisdropped) g
      WHERE g.grantee <> c.relowner),
  'sequences', (SELECT coalesce(jsonb_agg(jsonb_build_object('column', a.attname, 'oid', s.oid::bigint,
      'name', format('%I.%I', n.nspname, s.relname), 'is_owned', d.objid IS NOT NULL,
      'is_identity', coalesce(d.deptype = 'i', false), 'increment', q.seqincrement, 'last_value',
      CASE WHEN has_sequence_privilege(s.oid, 'SELECT, USAGE') THEN pg_sequence_last_value(s.oid) END)
      ORDER BY a.attnum, s.oid), '[]')
      FROM pg_attribute a
      JOIN LATERAL (
          SELECT x.refobjid AS oid FROM pg_attrdef f JOIN pg_depend x ON x.classid = 'pg_attrdef'::regclass
              AND x.objid = f.oid AND x.refclassid = 'pg_class'::regclass WHERE f.adrelid = c.oid AND f.adnum = a.attnum
          UNION SELECT x.objid FROM pg_depend x WHERE x.classid = 'pg_class'::regclass AND x.deptype IN ('a', 'i')
              AND x.refclassid = 'pg_class'::regclass AND x.refobjid = c.oid AND x.refobjsubid = a.attnum) used ON true
      JOIN pg_class s ON s.oid = used.oid AND s.relkind = 'S'
      JOIN pg_namespace n ON n.oid = s.relnamespace JOIN pg_sequence q ON q.seqrelid = s.oid
      LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype IN ('a', 'i')
          AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  'parents', ARRAY(SELECT i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = c.oid ORDER BY 1),
  'children', (SELECT count(*) FROM pg_inherits i WHERE i.inhparent = c.oid),
  'replica_identity', c.relreplident,
  'rules', ARRAY(SELECT r.rulename FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN' ORDER BY 1)
)::text
FROM pg_class c JOIN pg_namespace cn ON cn.oid = c.relnamespace WHERE c.oid = $1::bigint::oid";

/// What stands around a table. `schema` is our own, quoted.
pub(super) async fn around(
    conn: &mut PgConnection,
    oid: u32,
    schema: &str,
) -> Result<Surroundings, Error> {
    let row = sqlx::query(SURROUNDINGS)
        .bind(i64::from(oid))
        .bind(schema)
        .fetch_one(conn)
        .await
        .map_err(failed("read the catalogue"))?;
    let text: String = row.try_get(0).map_err(failed("read the catalogue"))?;
    serde_json::from_str(&text)
        .map_err(|error| damaged(format!("the catalogue answered something unknown: {error}")))
}
