//! What names a table, or some of its columns, in a text of its own and is made again from that text: plain views, and the
//! policies of other tables.
//!
//! Invariants:
//! - The text is taken while the names stand for the old shape, and is run when they stand for the new one; the other way
//!   round it is the very same text. Whoever reads a view finds the same columns of the same types, or the server refuses.
//! - Where a text tells columns by their places, the new ones must stand where the old ones stood: the server would not notice.
//! - A view stays the object that it is: who reads it, what is granted on it and what is built on it don't notice.
//!
//! Absent on purpose: materialised views, whose rows would have to be gathered anew, rules and functions, which may do
//! anything. They are refused.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::carried::{Gift, Holder, Need, narrow, widen};
use super::catalogue::Table;
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
    /// Whether columns of the table are told in it by their places, so that it would read others where they stand in another
    /// order.
    is_by_place: bool,
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

    /// It, where what is read in the old one's place is `new`, and the columns of the one need not stand where those of the other
    /// do. No `new`: columns change names within one table.
    pub(super) fn held_against(mut self, old: &Table, new: Option<&Table>) -> Self {
        let is_alike = |new: &Table| {
            let mut pairs = old.columns.iter().zip(&new.columns);
            old.columns.len() <= new.columns.len()
                && pairs.all(|(was, is)| was.name == is.name && was.declared == is.declared)
        };
        if self.is_by_place && self.problem.is_none() && !new.is_some_and(is_alike) {
            self.problem = Some(match new {
                Some(new) => format!(
                    "{} {} tells columns of {} by their places, and those of {} stand in another order or are others",
                    self.what, self.name, old.name, new.name
                ),
                None => format!(
                    "{} {} gives the columns of {} names of its own, by their places, which stay",
                    self.what, self.name, old.name
                ),
            });
        }
        self
    }

    /// What is locked for it.
    pub(super) const fn holder(&self) -> &Holder {
        &self.on
    }
}

/// What a text is tied to: the table or its columns, and where the whole table changes, its row type. `$1`: the table's oid;
/// `$2`: numbers of columns, or NULL for the whole table; `$3`: schemas that people leave out.
const TIED: &str = "\
SELECT d.classid, d.objid, bool_or(d.refclassid = 'pg_type'::regclass) AS by_type FROM pg_depend d
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND ($2::int2[] IS NULL OR d.refobjsubid = ANY ($2))
   OR $2 IS NULL AND d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
        SELECT t.oid FROM pg_type t WHERE t.typrelid = $1::bigint::oid
        UNION SELECT t.typarray FROM pg_type t WHERE t.typrelid = $1::bigint::oid AND t.typarray <> 0)
GROUP BY d.classid, d.objid";

/// The table followed by other names for its columns, which stand for them by their places: in a FROM, `leads l(a, b)`.
const PLACED: &str = "\
SELECT regexp_replace(format('%I.%I', n.nspname, c.relname), '(\\W)', '\\\\\\1', 'g') || ' (\"([^\"]|\"\")*\"|[^\\s\"(),;]+)\\(' AS pattern
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1::bigint::oid";

/// The views that are tied to it.
const VIEWS: &str = "\
SELECT format('%I.%I', n.nspname, v.relname), quote_ident(pg_get_userbyid(v.relowner)), pg_has_role(v.relowner, 'USAGE'),
       v.relpersistence = 't', CASE WHEN n.nspname = ANY ($3) THEN v.relname ELSE format('%s.%s', n.nspname, v.relname) END,
       format('CREATE OR REPLACE VIEW %I.%I%s AS %s', n.nspname, v.relname,
              coalesce(' WITH (' || array_to_string(v.reloptions, ', ') || ')', ''), rtrim(d.definition, ';')),
       tied.by_type OR d.definition ~ placed.pattern
FROM tied JOIN pg_rewrite r ON tied.classid = 'pg_rewrite'::regclass AND r.oid = tied.objid AND r.rulename = '_RETURN'
JOIN pg_class v ON v.oid = r.ev_class JOIN pg_namespace n ON n.oid = v.relnamespace, placed,
LATERAL (SELECT pg_get_viewdef(v.oid) AS definition) d
WHERE v.relkind = 'v' AND v.oid <> $1::bigint::oid ORDER BY 1";

/// The same for policies; where columns are named, the table's own count.
const POLICIES: &str = "\
SELECT format('%I.%I', n.nspname, c.relname), quote_ident(pg_get_userbyid(c.relowner)), pg_has_role(c.relowner, 'USAGE'),
       false, format('%s on %s', p.polname, CASE WHEN n.nspname = ANY ($3) THEN c.relname ELSE format('%s.%s', n.nspname, c.relname) END),
       format('ALTER POLICY %I ON %I.%I%s%s', p.polname, n.nspname, c.relname,
              coalesce(' USING (' || d.reads || ')', ''), coalesce(' WITH CHECK (' || d.writes || ')', '')),
       tied.by_type OR concat_ws(' ', d.reads, d.writes) ~ placed.pattern
FROM tied JOIN pg_policy p ON tied.classid = 'pg_policy'::regclass AND p.oid = tied.objid
JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace, placed,
LATERAL (SELECT pg_get_expr(p.polqual, p.polrelid) AS reads, pg_get_expr(p.polwithcheck, p.polrelid) AS writes) d
WHERE p.polrelid <> $1::bigint::oid OR $2 IS NOT NULL ORDER BY 1, p.polname";

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
        let query = format!("WITH tied AS ({TIED}), placed AS ({PLACED}) {query}");
        let rows = sqlx::query(AssertSqlSafe(query))
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
        is_by_place: row.try_get(6)?,
        problem,
    })
}
