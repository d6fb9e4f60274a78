//! What is particular where a partitioned table is put aside, or takes another table's place.
//!
//! Invariants:
//! - What a publication sends of a partitioned table bears the partitions' names unless it is told otherwise, so subscribers
//!   of a plain table would lose it: the publication must be told before.
//! - What stands on a single partition of the old table stays with it, and is in the way by its name.
//!
//! Absent on purpose: grants and policies of single partitions, by which only those are reached who name them.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::error::failed;
use super::shape::Shape;
use crate::driver::Error;

/// Publications of the old table, which is none, that would send the new one's partitions by their names.
const BY_PARTITION: &str = "\
SELECT format('ALTER PUBLICATION %I SET (publish_via_partition_root = true)', p.pubname)
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
JOIN pg_class o ON o.oid = $1::bigint::oid JOIN pg_class n ON n.oid = $2::bigint::oid
WHERE r.prrelid = o.oid AND o.relkind = 'r' AND n.relkind = 'p' AND NOT p.pubviaroot ORDER BY 1";

/// Publications that name a partition of the old table.
const OF_PARTITIONS: &str = "\
SELECT format('publication %s, which names the partition %s', p.pubname, c.relname)
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid JOIN pg_class c ON c.oid = r.prrelid
WHERE c.relispartition AND $1::bigint <> $2::bigint AND r.prrelid IN (SELECT t.relid FROM pg_partition_tree($1::bigint::oid::regclass) t)
ORDER BY 1";

async fn told(
    conn: &mut PgConnection,
    shape: &Shape,
    query: &'static str,
) -> Result<Vec<String>, Error> {
    let doing = "read the publications";
    let rows = sqlx::query(AssertSqlSafe(query.to_owned()))
        .bind(i64::from(shape.old.oid))
        .bind(i64::from(shape.new.oid))
        .fetch_all(conn)
        .await
        .map_err(failed(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed(doing))
}

/// The statements without which subscribers would lose the table.
pub(super) async fn missing(conn: &mut PgConnection, shape: &Shape) -> Result<Vec<String>, Error> {
    told(conn, shape, BY_PARTITION).await
}

/// What stands on single partitions of the old table.
pub(super) async fn problems(conn: &mut PgConnection, shape: &Shape) -> Result<Vec<String>, Error> {
    told(conn, shape, OF_PARTITIONS).await
}
