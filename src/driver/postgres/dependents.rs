//! What depends on a table, or on some of its columns: the inventory that is taken before anything is renamed or dropped.
//!
//! Invariants:
//! - Everything that the catalogue ties to the table is in the list, but for the table's own parts (its indexes, defaults,
//!   triggers, policies, …, which go or come with it). What we know no name for is `unknown`.
//! - A table is a type, too: what uses that type, or arrays of it, depends on the table. On its columns depends only what holds
//!   such rows, since it would call their values by other names.
//! - Functions whose text the catalogue doesn't read are found by the table's name in it (`by_name`), which may be a chance:
//!   [`Dependent::is_certain`] tells them apart.
//!
//! Absent on purpose: deciding what may stay. That depends on whether the table is put aside, replaced or dropped.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::by_name;
use super::catalogue::Table;
use super::error::failed;
use crate::driver::Error;
use crate::driver::probed::ObjectFacts;

/// Something that depends on a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dependent {
    /// What it is, in lower case: `view`, `materialized view`, `rule`, `foreign key`, `constraint`, `function`, `policy`,
    /// `trigger`, `statistics`, `publication`, `default`, `column`, `index`, `extension`, `subscription`, `security label`,
    /// `unknown`;
    /// [`BY_NAME`] for a function that only names it.
    pub kind: String,
    /// As the server describes it.
    pub name: String,
    /// A constraint's definition, or that it is tied to nothing but the table's row type; the full name of a function that only
    /// names it.
    pub detail: Option<String>,
    /// Whether it is a part of the table itself that goes on with its columns, whatever they are called.
    pub is_own: bool,
}

/// A function in whose text the table's name stands as a word.
pub(super) const BY_NAME: &str = "function by name";

impl Dependent {
    /// Whether the catalogue itself says that it depends on the table.
    pub(super) fn is_certain(&self) -> bool {
        self.kind != BY_NAME
    }

    /// Its name without what it is.
    pub(super) fn shown(&self) -> &str {
        let kind = if self.is_certain() { self.kind.as_str() } else { "function" };
        self.name.strip_prefix(kind).map_or(&*self.name, str::trim_start)
    }

    /// It, for people.
    pub(super) fn said(&self) -> String {
        match (self.kind.as_str(), &self.detail) {
            ("view" | "materialized view", _) => format!("{} {}", self.kind, self.name),
            ("unknown", None) => format!("{} (of a kind that is not known here)", self.name),
            (BY_NAME, _) => format!("{}, whose text names it", self.name),
            (_, Some(detail)) => format!("{}: {detail}", self.name),
            (_, None) => self.name.clone(),
        }
    }

    /// It, for a dry run.
    pub(super) fn facts(self) -> ObjectFacts {
        let by_name = !self.is_certain();
        let kind = if by_name { "function".to_owned() } else { self.kind };
        let detail = if by_name { Some("by its text".to_owned()) } else { self.detail };
        // The server begins most descriptions with the kind.
        let name = self.name.strip_prefix(&format!("{kind} ")).unwrap_or(&self.name).to_owned();
        ObjectFacts { kind, name, detail }
    }
}

/// `$1`: the table's oid; `$2`: numbers of columns, or NULL for the whole table; `$3`: our schema; `$4`: expressions, all of
/// which a function's text must match.
const DEPENDENTS: &str = "\
WITH d AS (
  SELECT d.classid, d.objid, CASE WHEN d.classid = 'pg_class'::regclass THEN d.objsubid ELSE 0 END AS objsubid,
         bool_and(d.refclassid = 'pg_type'::regclass) AS by_type
  FROM pg_depend d
  WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND ($2::int2[] IS NULL OR d.refobjsubid = ANY ($2))
     OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
          SELECT t.oid FROM pg_type t WHERE t.typrelid = $1::bigint::oid
          UNION SELECT t.typarray FROM pg_type t WHERE t.typrelid = $1::bigint::oid AND t.typarray <> 0)
        AND ($2 IS NULL OR d.classid = 'pg_type'::regclass OR d.classid = 'pg_class'::regclass AND d.objsubid > 0
             AND (SELECT h.relkind FROM pg_class h WHERE h.oid = d.objid) <> 'v')
  GROUP BY 1, 2, 3
)
SELECT CASE
    WHEN d.classid = 'pg_rewrite'::regclass AND r.rulename <> '_RETURN' THEN 'rule'
    WHEN d.classid = 'pg_rewrite'::regclass AND v.relkind = 'v' THEN 'view'
    WHEN d.classid = 'pg_rewrite'::regclass AND v.relkind = 'm' THEN 'materialized view'
    WHEN d.classid = 'pg_rewrite'::regclass THEN 'rule'
    WHEN d.classid = 'pg_constraint'::regclass AND k.contype = 'f' AND k.conrelid <> $1::bigint::oid THEN 'foreign key'
    WHEN d.classid = 'pg_constraint'::regclass THEN 'constraint'
    WHEN d.classid = 'pg_proc'::regclass THEN 'function'
    WHEN d.classid = 'pg_policy'::regclass THEN 'policy'
    WHEN d.classid = 'pg_trigger'::regclass THEN 'trigger'
    WHEN d.classid = 'pg_statistic_ext'::regclass THEN 'statistics'
    WHEN d.classid = 'pg_publication_rel'::regclass THEN 'publication'
    WHEN d.classid = 'pg_attrdef'::regclass THEN 'default'
    WHEN d.classid = 'pg_class'::regclass AND d.objsubid > 0 THEN 'column'
    WHEN d.classid = 'pg_class'::regclass AND c.relkind IN ('i', 'I') THEN 'index'
    ELSE 'unknown' END AS kind,
  CASE WHEN v.relkind IN ('v', 'm') AND r.rulename = '_RETURN' THEN v.oid::regclass::text ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END AS name,
  coalesce(pg_get_constraintdef(k.oid), CASE WHEN d.by_type THEN 'uses its row type' END) AS detail,
  coalesce(i.indrelid = $1::bigint::oid, s.stxrelid = $1::bigint::oid, k.conrelid = $1::bigint::oid
    AND NOT (k.contype = 'f' AND k.confrelid = k.conrelid AND $2 IS NOT NULL AND k.confkey && $2), false) AS is_own
FROM d
LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
LEFT JOIN pg_class v ON v.oid = r.ev_class
LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
LEFT JOIN pg_proc f ON d.classid = 'pg_proc'::regclass AND f.oid = d.objid
LEFT JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid
LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
LEFT JOIN pg_proc tf ON tf.oid = t.tgfoid
LEFT JOIN pg_statistic_ext s ON d.classid = 'pg_statistic_ext'::regclass AND s.oid = d.objid
LEFT JOIN pg_publication_rel u ON d.classid = 'pg_publication_rel'::regclass AND u.oid = d.objid
LEFT JOIN pg_attrdef a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid
LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE (
     d.classid = 'pg_type'::regclass AND d.objid IN (SELECT oid FROM pg_type WHERE typrelid = $1::bigint::oid)
  OR d.classid = 'pg_type'::regclass AND d.objid IN (SELECT typarray FROM pg_type WHERE typrelid = $1::bigint::oid)
  OR c.relkind IN ('t', 'S') AND d.objsubid = 0
  OR c.oid = $1::bigint::oid AND $2 IS NULL
  OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::bigint::oid)
  OR coalesce(f.pronamespace, tf.pronamespace) = to_regnamespace($3)::oid
     AND starts_with(coalesce(f.proname, tf.proname), 'phasegate_')
  OR coalesce(t.tgisinternal, false) OR t.tgparentid <> 0
  OR k.conparentid <> 0 AND k.conrelid <> $1::bigint::oid
  OR v.oid = $1::bigint::oid AND $2 IS NULL
  OR t.tgrelid = $1::bigint::oid AND $2 IS NULL
  OR p.polrelid = $1::bigint::oid AND $2 IS NULL
  OR u.prrelid = $1::bigint::oid AND $2 IS NULL
  OR s.stxrelid = $1::bigint::oid AND ($2 IS NULL OR s.stxkeys::int2[] <@ $2 AND 'e' <> ALL (s.stxkind))
  OR i.indrelid = $1::bigint::oid AND ($2 IS NULL OR i.indkey::int2[] <@ $2)
  OR k.conrelid = $1::bigint::oid AND ($2 IS NULL OR k.conkey <@ $2)
  OR a.adrelid = $1::bigint::oid AND ($2 IS NULL OR a.adnum = ANY ($2))
) IS NOT TRUE
UNION
SELECT 'function by name', 'function ' || f.oid::regprocedure::text, NULL, false
FROM pg_proc f JOIN pg_language l ON l.oid = f.prolang JOIN pg_namespace n ON n.oid = f.pronamespace
WHERE l.lanname NOT IN ('c', 'internal') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND NOT (f.pronamespace IS NOT DISTINCT FROM to_regnamespace($3)::oid AND starts_with(f.proname, 'phasegate_'))
  AND (NOT EXISTS (SELECT FROM unnest($4::text[]) AS w (word) WHERE f.prosrc !~* w.word) OR f.prosrc ~* ($4::text[])[2] AND EXISTS (
    SELECT FROM pg_trigger t WHERE t.tgfoid = f.oid AND t.tgrelid = $1::bigint::oid AND NOT t.tgisinternal))
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = f.oid AND e.deptype = 'e')
UNION
SELECT 'extension', pg_describe_object(e.refclassid, e.refobjid, 0), NULL, false FROM pg_depend e
WHERE e.classid = 'pg_class'::regclass AND e.objid = $1::bigint::oid AND e.deptype = 'e'
UNION
SELECT 'subscription', 'a subscription writes to it', NULL, false FROM pg_subscription_rel WHERE srrelid = $1::bigint::oid
UNION
SELECT 'security label', 'a security label of ' || provider, label, false FROM pg_seclabel
WHERE classoid = 'pg_class'::regclass AND objoid = $1::bigint::oid AND ($2::int2[] IS NULL OR objsubid = ANY ($2))
ORDER BY 1, 2";

/// What depends on a table, or on the columns named. `schema` is our own, quoted; our own functions in it don't
/// count, others do: it may have been made by somebody else.
pub(super) async fn dependents(
    conn: &mut PgConnection,
    table: &Table,
    columns: Option<&[&str]>,
    schema: &str,
) -> Result<Vec<Dependent>, Error> {
    let doing = "take the inventory of dependents";
    let numbers: Option<Vec<i16>> = columns.map(|names| {
        names.iter().filter_map(|name| table.column(name)).map(|column| column.number).collect()
    });
    let words = |names: &[&str]| names.iter().map(|name| word(name)).collect::<Vec<_>>().join("|");
    let mut texts = vec![word(&table.name)];
    texts.extend(columns.map(words));
    let rows = sqlx::query(DEPENDENTS)
        .bind(i64::from(table.oid))
        .bind(numbers)
        .bind(schema)
        .bind(texts)
        .fetch_all(&mut *conn)
        .await
        .map_err(failed(doing))?;
    let found: Result<Vec<Dependent>, Error> = rows
        .iter()
        .map(|row| {
            Ok(Dependent {
                kind: row.try_get(0).map_err(failed(doing))?,
                name: row.try_get(1).map_err(failed(doing))?,
                detail: row.try_get(2).map_err(failed(doing))?,
                is_own: row.try_get(3).map_err(failed(doing))?,
            })
        })
        .collect();
    by_name::read(conn, found?, (table, columns)).await
}

/// A regular expression for a name as a word of its own, in whatever case.
fn word(name: &str) -> String {
    let mut escaped = String::from(r"\m");
    for char in name.chars() {
        if !(char.is_alphanumeric() || char == '_') {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped.push_str(r"\M");
    escaped
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::catalogue;
    use super::super::fixture::Database;
    use super::*;

    const SCHEMA: &str = "
        CREATE TABLE accounts (id bigint PRIMARY KEY);
        CREATE TABLE leads (id bigserial PRIMARY KEY, email text UNIQUE, status text, at date,
            account_id bigint REFERENCES accounts, boss bigint REFERENCES leads, CHECK (email <> status));
        CREATE INDEX leads_status ON leads (status);
        CREATE INDEX leads_both ON leads (status, at);
        CREATE TABLE notes (id int PRIMARY KEY, lead_id bigint REFERENCES leads);
        CREATE VIEW hot AS SELECT id, email FROM leads;
        CREATE VIEW hotter AS SELECT * FROM hot;
        CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM leads;
        CREATE FUNCTION by_text() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(email) FROM Leads); END';
        CREATE FUNCTION not_it() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN 'misleads leads_v2 email'; END$$;
        CREATE FUNCTION by_body() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM leads; END;
        CREATE FUNCTION by_row(l leads) RETURNS text LANGUAGE sql AS 'SELECT 1::text';
        CREATE TABLE holds (l leads, ls leads[]);
        CREATE VIEW casting AS SELECT to_json(json_populate_record(NULL::leads, '{}')) AS j;
        CREATE DOMAIN odd AS leads;
        CREATE POLICY own ON leads USING (true);
        CREATE POLICY others ON accounts USING (EXISTS (SELECT FROM leads l WHERE l.account_id = accounts.id));
        CREATE RULE away AS ON DELETE TO accounts DO ALSO DELETE FROM leads WHERE account_id = old.id;
        CREATE STATISTICS together ON status, at FROM leads;
        CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER of_status BEFORE UPDATE OF status ON leads FOR EACH ROW EXECUTE FUNCTION noted();
        CREATE SCHEMA phasegate;
        CREATE FUNCTION phasegate.phasegate_ours(l leads) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN $1::leads::text; END';";

    #[tokio::test]
    async fn everything_that_depends_is_in_the_inventory_and_nothing_of_the_table_itself() {
        let Some(database) = Database::with(SCHEMA).await else { return };
        let mut conn = database.client().await;
        sqlx::query("SET search_path = public").execute(&mut conn).await.unwrap();
        let table = catalogue::table(&mut conn, "public.leads").await.unwrap().unwrap();
        let said = async |conn: &mut PgConnection, columns: Option<&[&str]>| -> Vec<String> {
            let found = dependents(conn, &table, columns, "\"phasegate\"").await.unwrap();
            found.iter().map(Dependent::said).collect()
        };
        assert_eq!(
            said(&mut conn, None).await,
            [
                "column l of table holds: uses its row type",
                "column ls of table holds: uses its row type",
                "constraint notes_lead_id_fkey on table notes: FOREIGN KEY (lead_id) REFERENCES leads(id)",
                "function by_body()",
                "function by_row(leads): uses its row type",
                "function by_text(), whose text names it",
                "materialized view counted",
                "policy others on table accounts",
                "rule away on table accounts",
                "type odd: uses its row type",
                "view casting",
                "view hot",
            ]
        );
        assert_eq!(
            said(&mut conn, Some(&["status"])).await,
            [
                "column l of table holds: uses its row type",
                "column ls of table holds: uses its row type",
                "constraint leads_check on table leads: CHECK ((email <> status))",
                "index leads_both",
                "statistics object together",
                "trigger of_status on table leads",
                "type odd: uses its row type",
            ]
        );
        assert_eq!(
            said(&mut conn, Some(&["email"])).await,
            [
                "column l of table holds: uses its row type",
                "column ls of table holds: uses its row type",
                "constraint leads_check on table leads: CHECK ((email <> status))",
                "function by_text(), whose text names it",
                "type odd: uses its row type",
                "view hot",
            ]
        );
        // What is over nothing but the columns goes with them.
        let both = said(&mut conn, Some(&["email", "status"])).await;
        assert!(!both.iter().any(|it| it.contains("leads_check")), "{both:?}");
        let accounts = catalogue::table(&mut conn, "accounts").await.unwrap().unwrap();
        let found = dependents(&mut conn, &accounts, None, "\"phasegate\"").await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].kind, "foreign key");
    }

    #[test]
    fn names_are_words_whatever_is_in_them() {
        assert_eq!(word("leads"), r"\mleads\M");
        assert_eq!(word("a.b c"), r"\ma\.b\ c\M");
    }
}
