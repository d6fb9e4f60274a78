//! What names a table, or some of its columns, in a text of its own and is made again from that text: plain views, and the
//! policies of other tables.
//!
//! Invariants:
//! - The text is taken while the names stand for the old shape, and is run when they stand for the new one; the other way
//!   round it is the very same text. Whoever reads a view finds the same columns of the same types, or the server refuses.
//! - A view stays the object that it is: who reads it, what is granted on it and what is built on it don't notice.
//!
//! Absent on purpose: materialised views, whose rows would have to be gathered anew, rules and functions, which may do
//! anything. They are refused.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::carried::{Gift, Holder, Need, narrow, widen};
use super::error::failed;
use crate::driver::Error;

/// Something to be made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remade {
    /// `view` or `policy`.
    pub what: &'static str,
    /// For people.
    pub name: String,
    on: Holder,
    text: String,
    /// Why it can't be.
    pub problem: Option<String>,
}

impl Remade {
    /// It, to be given and taken back.
    pub(super) fn gift(&self) -> Gift {
        Gift {
            what: format!("{} ({})", self.what, self.name),
            on: Some(self.on.clone()),
            role: None,
            forward: self.text.clone(),
            back: self.text.clone(),
            need: Need::Must,
        }
    }

    /// What is locked for it.
    pub(super) const fn holder(&self) -> &Holder {
        &self.on
    }
}

/// `$1`: the table's oid; `$2`: numbers of columns, or NULL for the whole table; `$3`: schemas that people leave out.
const VIEWS: &str = "\
SELECT format('%I.%I', n.nspname, v.relname), quote_ident(pg_get_userbyid(v.relowner)), pg_has_role(v.relowner, 'USAGE'),
       v.relpersistence = 't', CASE WHEN n.nspname = ANY ($3) THEN v.relname ELSE format('%s.%s', n.nspname, v.relname) END,
       format('CREATE OR REPLACE VIEW %I.%I%s AS %s', n.nspname, v.relname,
              coalesce(' WITH (' || array_to_string(v.reloptions, ', ') || ')', ''), rtrim(pg_get_viewdef(v.oid), ';'))
FROM pg_class v JOIN pg_namespace n ON n.oid = v.relnamespace
WHERE v.relkind = 'v' AND v.oid <> $1::bigint::oid AND EXISTS (
  SELECT FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
  WHERE r.ev_class = v.oid AND r.rulename = '_RETURN' AND d.refclassid = 'pg_class'::regclass
    AND d.refobjid = $1::bigint::oid AND ($2::int2[] IS NULL OR d.refobjsubid = ANY ($2)))
ORDER BY 1";

/// The same for policies; where columns are named, the table's own count.
const POLICIES: &str = "\
SELECT format('%I.%I', n.nspname, c.relname), quote_ident(pg_get_userbyid(c.relowner)), pg_has_role(c.relowner, 'USAGE'),
       false, format('%s on %s', p.polname, CASE WHEN n.nspname = ANY ($3) THEN c.relname ELSE format('%s.%s', n.nspname, c.relname) END),
       format('ALTER POLICY %I ON %I.%I%s%s', p.polname, n.nspname, c.relname,
              coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', ''),
              coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', ''))
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (p.polrelid <> $1::bigint::oid OR $2::int2[] IS NOT NULL) AND EXISTS (
  SELECT FROM pg_depend d WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass
    AND d.refobjid = $1::bigint::oid AND ($2 IS NULL OR d.refobjsubid = ANY ($2)))
ORDER BY 1, p.polname";

/// What is to be made again when a table, or the columns of these numbers, get other names.
pub(super) async fn remade(
    conn: &mut PgConnection,
    table: u32,
    columns: Option<&[i16]>,
) -> Result<Vec<Remade>, Error> {
    let doing = "read what names the table";
    let row = sqlx::query("SELECT current_schemas(false)::text[]").fetch_one(&mut *conn).await;
    let usual: Vec<String> = row.and_then(|row| row.try_get(0)).map_err(failed(doing))?;
    let path = narrow(conn).await?;
    let mut all = Vec::new();
    for (what, query) in [("view", VIEWS), ("policy", POLICIES)] {
        let rows = sqlx::query(AssertSqlSafe(query.to_owned()))
            .bind(i64::from(table))
            .bind(columns)
            .bind(&usual)
            .fetch_all(&mut *conn)
            .await
            .map_err(failed(doing))?;
        for row in rows {
            all.push(read(&row, what).map_err(failed(doing))?);
        }
    }
    widen(conn, path).await?;
    Ok(all)
}

fn read(row: &PgRow, what: &'static str) -> Result<Remade, sqlx::Error> {
    let owner: String = row.try_get(1)?;
    let (is_ours, is_temporary): (bool, bool) = (row.try_get(2)?, row.try_get(3)?);
    let name: String = row.try_get(4)?;
    let problem = match (is_ours, is_temporary) {
        (_, true) => Some(format!("{what} {name} is a session's own and can't be made again")),
        (false, _) => Some(format!("{what} {name} belongs to {owner}, so it can't be made again")),
        _ => None,
    };
    let owner = (what == "view").then_some(owner);
    Ok(Remade {
        what,
        name,
        on: Holder { name: row.try_get(0)?, owner },
        text: row.try_get(5)?,
        problem,
    })
}
