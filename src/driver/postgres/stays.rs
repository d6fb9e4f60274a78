//! What a table that takes another's place keeps of its own though the other had it otherwise: nobody carries it over, since it
//! would write every row anew, or take away what an author or a default gave. So it is said.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::failed;
use super::shape::Shape;
use crate::driver::Error;

/// `$1` and `$2`: the old and the new table.
const STAYS: &str = "\
WITH t AS (
  SELECT o.*, n.oid AS new_oid, n.relowner AS new_owner, n.relpersistence AS new_persistence, n.relacl AS new_acl,
         coalesce(oa.amname, '') AS am, coalesce(na.amname, '') AS new_am,
         coalesce(os.spcname, ds.spcname) AS space, coalesce(ns.spcname, ds.spcname) AS new_space
  FROM pg_class o JOIN pg_class n ON n.oid = $2::bigint::oid
  JOIN pg_database db ON db.datname = current_database() JOIN pg_tablespace ds ON ds.oid = db.dattablespace
  LEFT JOIN pg_am oa ON oa.oid = o.relam LEFT JOIN pg_am na ON na.oid = n.relam
  LEFT JOIN pg_tablespace os ON os.oid = o.reltablespace LEFT JOIN pg_tablespace ns ON ns.oid = n.reltablespace
  WHERE o.oid = $1::bigint::oid
)
SELECT 1 AS at, format('tablespace %s, not %s', new_space, space) FROM t WHERE space <> new_space
UNION ALL
SELECT 2, format('access method %s, not %s', new_am, am) FROM t WHERE am <> new_am AND am <> '' AND new_am <> ''
UNION ALL
SELECT 3, CASE new_persistence WHEN 'u' THEN 'unlogged' ELSE 'logged, not unlogged' END FROM t WHERE relpersistence <> new_persistence
UNION ALL
SELECT 4, format('%s for %s, which the old one did not give', string_agg(DISTINCT x.privilege_type, ', ' ORDER BY x.privilege_type),
                 CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee) END)
FROM t, aclexplode(t.new_acl) x
WHERE x.grantee NOT IN (t.relowner, t.new_owner) AND NOT EXISTS (
  SELECT FROM aclexplode(t.relacl) y WHERE y.grantee = x.grantee AND y.privilege_type = x.privilege_type)
GROUP BY x.grantee
ORDER BY 1, 2";

/// It, for people.
pub(super) async fn stays(conn: &mut PgConnection, shape: &Shape) -> Result<Option<String>, Error> {
    let doing = "read what the new table keeps of its own";
    let rows = sqlx::query(STAYS)
        .bind(i64::from(shape.old.oid))
        .bind(i64::from(shape.new.oid))
        .fetch_all(conn)
        .await
        .map_err(failed(doing))?;
    let kept: Vec<String> =
        rows.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>().map_err(failed(doing))?;
    Ok((!kept.is_empty())
        .then(|| format!("it keeps what {} had: {}", shape.new.name, kept.join("; "))))
}
