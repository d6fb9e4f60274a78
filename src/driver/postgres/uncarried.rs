//! What can't go over with a name, found before any lock is asked for: the server says so only when the names are the new ones,
//! and then clients wait.
//!
//! Invariants:
//! - What names a column that the new table hasn't is told from the catalogue. So is a publication that only another role may
//!   change.
//! - A view whose columns may be of another type is made for trial, as a temporary one over the new table, in a transaction that
//!   is rolled back. It takes no lock that anybody waits for. Where that can't be tried (no right to make one, a text that is
//!   put together in a way not known here), the server has the last word, behind the locks.
//!
//! Absent on purpose: what can be made again though it tells columns by their places, which is `remade`'s.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::carried::{narrow, widen};
use super::catalogue::Table;
use super::connection::Tx;
use super::error::{code, failed};
use super::shape::Shape;
use crate::driver::Error;

/// `$1` and `$2`: the old and the new table, which need not be there yet; `$3`: the new one's columns; `$4`: columns of the old
/// key; `$5`: whether the new table takes the name, and with it policies and publications; `$6`: the new one's name.
const PROBLEMS: &str = "\
WITH t AS (SELECT $1::bigint::oid AS o, $2::bigint::oid AS n), used AS (
  SELECT d.classid, d.objid, string_agg(DISTINCT a.attname, ', ' ORDER BY a.attname) AS columns
  FROM t JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.o AND d.refobjsubid > 0
  JOIN pg_attribute a ON a.attrelid = t.o AND a.attnum = d.refobjsubid
  WHERE a.attname <> ALL ($3::text[]) AND NOT (d.classid = 'pg_publication_rel'::regclass AND a.attname = ANY ($4::text[]))
  GROUP BY 1, 2
)
SELECT format('view %s names %s, which %s has not', v.oid::regclass, u.columns, $6)
FROM used u JOIN pg_rewrite r ON u.classid = 'pg_rewrite'::regclass AND r.oid = u.objid AND r.rulename = '_RETURN'
JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
UNION ALL
SELECT format('policy %s on %s names %s, which %s has not', p.polname, p.polrelid::regclass, u.columns, $6)
FROM t, used u JOIN pg_policy p ON u.classid = 'pg_policy'::regclass AND p.oid = u.objid
WHERE p.polrelid <> t.o OR $5 AND NOT EXISTS (SELECT FROM pg_policy x WHERE x.polrelid = t.n AND x.polname = p.polname)
UNION ALL
SELECT CASE WHEN u.objid IS NULL THEN format('publication %s belongs to %s, who has to add %s to it', p.pubname, pg_get_userbyid(p.pubowner), $6)
            ELSE format('publication %s names %s, which %s has not: add %s to it as it should be', p.pubname, u.columns, $6, $6) END
FROM t JOIN pg_publication_rel r ON r.prrelid = t.o JOIN pg_publication p ON p.oid = r.prpubid
LEFT JOIN used u ON u.classid = 'pg_publication_rel'::regclass AND u.objid = r.oid
WHERE $5 AND NOT EXISTS (SELECT FROM pg_publication_rel x WHERE x.prpubid = p.oid AND x.prrelid = t.n)
  AND (u.objid IS NOT NULL OR NOT pg_has_role(p.pubowner, 'USAGE'))
ORDER BY 1";

/// What can't go over, with the reason. `takes`: whether the new table takes the old one's name.
pub(super) async fn problems(
    conn: &mut PgConnection,
    shape: &Shape,
    takes: Takes,
) -> Result<Vec<String>, Error> {
    let doing = "look for what can't go over";
    let columns: Vec<&str> = shape.new.columns.iter().map(|column| column.name.as_str()).collect();
    let keys: Vec<&str> = shape.keys.iter().map(|pair| pair.old.as_str()).collect();
    let rows = sqlx::query(PROBLEMS)
        .bind(i64::from(shape.old.oid))
        .bind(i64::from(shape.new.oid))
        .bind(columns)
        .bind(keys)
        .bind(takes == Takes::Name)
        .bind(&shape.new.name)
        .fetch_all(conn)
        .await
        .map_err(failed(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed(doing))
}

/// What a new table takes from the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Name,
    Nothing,
}

/// Views over columns of the old table, `$1`, that the new one, `$2`, has with another type, each with its text over the new one.
const DOUBTFUL: &str = "\
WITH t AS (
  SELECT o.oid AS o, n.oid AS n, o.relname,
         '(?<![\\w$\".])' || regexp_replace(format('%I.%I', ons.nspname, o.relname), '(\\W)', '\\\\\\1', 'g') AS pattern,
         replace(format('%I.%I', nns.nspname, n.relname), '\\', '\\\\') AS name, replace(quote_ident(o.relname), '\\', '\\\\') AS alias
  FROM pg_class o JOIN pg_namespace ons ON ons.oid = o.relnamespace, pg_class n JOIN pg_namespace nns ON nns.oid = n.relnamespace
  WHERE o.oid = $1::bigint::oid AND n.oid = $2::bigint::oid
), doubtful AS (
  SELECT r.ev_class AS view, string_agg(DISTINCT format('%s (%s)', a.attname, format_type(x.atttypid, x.atttypmod)), ', ') AS columns
  FROM t JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.o AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_rewrite r ON r.oid = d.objid AND r.rulename = '_RETURN'
  JOIN pg_attribute a ON a.attrelid = t.o AND a.attnum = d.refobjsubid
  JOIN pg_attribute x ON x.attrelid = t.n AND x.attname = a.attname AND NOT x.attisdropped
  WHERE (a.atttypid, a.atttypmod, a.attcollation) IS DISTINCT FROM (x.atttypid, x.atttypmod, x.attcollation)
  GROUP BY 1
)
SELECT v.oid::bigint, format('%I.%I', ns.nspname, v.relname), u.columns,
       regexp_replace(regexp_replace(rtrim(pg_get_viewdef(v.oid), ';'), t.pattern || '(?= [a-z_\"])', t.name, 'g'),
                      t.pattern || '(?![\\w$\".(])(?! [a-z_\"])', t.name || ' AS ' || t.alias, 'g')
FROM t, doubtful u JOIN pg_class v ON v.oid = u.view AND v.relkind = 'v' JOIN pg_namespace ns ON ns.oid = v.relnamespace ORDER BY v.oid";

/// How the columns of a view, `$1`, differ from those of the one that was made for trial.
const DIFFERS: &str = "\
SELECT format('its column %s would be %s, not %s', o.attname, format_type(n.atttypid, n.atttypmod), format_type(o.atttypid, o.atttypmod))
FROM pg_attribute o LEFT JOIN pg_attribute n ON n.attrelid = to_regclass('pg_temp.phasegate_trial') AND n.attnum = o.attnum
WHERE o.attrelid = $1::bigint::oid AND o.attnum > 0
  AND (o.attname, o.atttypid, o.atttypmod, o.attcollation) IS DISTINCT FROM (n.attname, n.atttypid, n.atttypmod, n.attcollation)
ORDER BY o.attnum LIMIT 1";

/// A view that reads a column whose type is another one.
#[derive(Clone, Debug)]
struct Doubtful {
    oid: i64,
    name: String,
    /// The columns, each with the type that it would have.
    columns: String,
    text: String,
}

async fn doubtful(
    conn: &mut PgConnection,
    old: &Table,
    new: &Table,
) -> Result<Vec<Doubtful>, Error> {
    let doing = "look for views that can't be made again";
    let path = narrow(conn).await?;
    let rows = sqlx::query(DOUBTFUL)
        .bind(i64::from(old.oid))
        .bind(i64::from(new.oid))
        .fetch_all(&mut *conn)
        .await
        .map_err(failed(doing))?;
    widen(conn, path).await?;
    let read = |row: &PgRow| {
        let (oid, name) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Doubtful { oid, name, columns: row.try_get(2)?, text: row.try_get(3)? })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed(doing))
}

/// Views that may have columns of other types: where nothing is to be written, it isn't tried.
pub(super) async fn doubts(conn: &mut PgConnection, shape: &Shape) -> Result<Vec<String>, Error> {
    let views = doubtful(conn, &shape.old, &shape.new).await?;
    let said = |it: Doubtful| {
        let (new, columns) = (&shape.new.name, it.columns);
        format!(
            "view {} can't be made again if it shows what is of another type in {new}: {columns}",
            it.name
        )
    };
    Ok(views.into_iter().map(said).collect())
}

/// Views that can't be made again over the new table, each with the reason. Whoever calls rolls the transaction back.
pub(super) async fn tried(tx: &mut Tx<'_>, shape: &Shape) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for view in doubtful(tx.conn()?, &shape.old, &shape.new).await? {
        point(tx, "SAVEPOINT trial").await?;
        let path = narrow(tx.conn()?).await?;
        let made = format!("CREATE TEMPORARY VIEW phasegate_trial AS {}", view.text);
        match sqlx::raw_sql(AssertSqlSafe(made)).execute(tx.conn()?).await {
            Ok(_) => {
                let differs = sqlx::query_scalar::<_, String>(DIFFERS).bind(view.oid);
                let differs = differs.fetch_optional(tx.conn()?).await;
                let differs = differs.map_err(failed("hold a view against another"))?;
                found.extend(differs.map(|why| format!("view {}: {why}", view.name)));
                widen(tx.conn()?, path).await?;
            }
            Err(error) => {
                // No column, no function or operator, types that don't go together, what must be grouped: whatever else it is,
                // it is about the trial.
                let is_told = matches!(code(&error), Some("42703" | "42883" | "42804" | "42803"));
                let why = error.as_database_error().map(|it| it.message().to_owned());
                if let Some(why) = why.filter(|_| is_told) {
                    found.push(format!("view {}: {why}", view.name));
                } else {
                    tracing::debug!(view = %view.name, %error, "a view could not be made for trial");
                }
            }
        }
        point(tx, "ROLLBACK TO SAVEPOINT trial").await?;
    }
    Ok(found)
}

async fn point(tx: &mut Tx<'_>, sql: &'static str) -> Result<(), Error> {
    sqlx::query(sql).execute(tx.conn()?).await.map(|_| ()).map_err(failed("mark the place"))
}
