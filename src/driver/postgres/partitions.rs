//! What stands for the partitions of a mapping's tables, in what a comparison rests on.
//!
//! Rows come and go with partitions, and no trigger for rows fires: ATTACH brings rows that nobody copied, DETACH and DROP leave
//! their copies behind. PostgreSQL gives a new partition the triggers for rows that its parent has, and none for TRUNCATE,
//! so that a TRUNCATE of one that was made after the sync is not followed either. All of that is seen here, and asks for another
//! comparison, which finds what is missing or left over:
//! - A partition that comes, goes, or goes and comes back writes its row of `pg_inherits` anew.
//! - TRUNCATE gives a table another file. That of a table without a trigger of ours for it is part of the text. So is
//!   VACUUM FULL, CLUSTER and whatever else writes a table anew, which costs a comparison and nothing else.
//!
//! In place TRUNCATE takes both sides along, and files don't matter.
//!
//! Absent on purpose: making triggers for TRUNCATE on partitions that come later. Until the engine meets one it would stand
//! without, so that this would be needed all the same.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::catalogue::name_sql;
use super::error::failed;
use super::prepared::into_sql;
use super::shape::id_of;
use super::sync_sql::TRIGGER_PREFIX;
use crate::driver::Error;
use crate::run::Mapping;

/// The tables of a mapping, `$1` and `$2`, with their partitions; `$3` is what the names of its triggers begin with, and bit 32
/// of `tgtype` is that of TRUNCATE.
const PARTITIONS: &str = "\
SELECT coalesce(string_agg(concat_ws(';', t.place, r.oid, coalesce(i.by, '-'),
    CASE WHEN to_regclass($1) IS DISTINCT FROM to_regclass($2) AND NOT EXISTS (SELECT FROM pg_trigger g
        WHERE g.tgrelid = r.oid AND g.tgtype & 32 <> 0 AND starts_with(g.tgname, $3))
    THEN coalesce(pg_relation_filenode(r.oid)::text, '-') ELSE '-' END), '|' ORDER BY t.place, r.oid), '')
FROM (VALUES (1, to_regclass($1)::oid), (2, to_regclass($2)::oid)) AS t (place, oid)
CROSS JOIN LATERAL (SELECT t.oid UNION SELECT p.relid::oid FROM pg_partition_tree(t.oid) AS p) AS r (oid)
LEFT JOIN LATERAL (SELECT string_agg(concat(h.inhparent, ':', h.xmin), ',' ORDER BY h.inhparent) AS by
    FROM pg_inherits h WHERE h.inhrelid = r.oid AND r.oid <> t.oid) AS i ON true";

/// What stands for the partitions of both tables.
pub(super) async fn partitions(
    conn: &mut PgConnection,
    mapping: &Mapping,
) -> Result<String, Error> {
    sqlx::query(PARTITIONS)
        .bind(name_sql(&mapping.from.table))
        .bind(into_sql(mapping))
        .bind(format!("{TRIGGER_PREFIX}{}_", id_of(mapping)))
        .fetch_one(conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("look for changes of the partitions"))
}
