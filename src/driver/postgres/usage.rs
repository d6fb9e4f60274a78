//! What PostgreSQL's counters say of a table's uses, and how large it is.
//!
//! Counters lag: a connection reports what it did when its transaction ends, at most once a second, an idle one after 10 s.
//! Whoever is in the middle of a transaction on the table is seen by its locks meanwhile; those of VACUUM and ANALYZE, which
//! use nothing, aren't counted. Both work as a plain role.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::catalogue::name_sql;
use super::error::failed;
use crate::driver::{Error, TableSize};
use crate::run::{FailureClass, Usage};

/// The table and all of its partitions. A reset shows in `pg_stat_database`, a crash (which loses all counters) in the
/// statistics of the background writer, whose reset time is set then; another table of the name has another oid.
const USAGE: &str = "\
WITH RECURSIVE parts(oid) AS (
    SELECT to_regclass($1::text)::oid
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts p ON i.inhparent = p.oid
), seen AS (
    SELECT coalesce(sum(coalesce(s.seq_scan, 0) + coalesce(s.idx_scan, 0) + s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0)::bigint AS uses,
           string_agg(p.oid::text, ',' ORDER BY p.oid) AS oids
    FROM parts p LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = p.oid
)
SELECT uses,
       concat_ws(' / ', current_database(), oids,
           coalesce((SELECT stats_reset FROM pg_catalog.pg_stat_database WHERE datname = current_database())::text, '-'),
           coalesce((SELECT stats_reset FROM pg_catalog.pg_stat_bgwriter)::text, '-')) AS counters,
       current_setting('track_counts')::boolean AS is_counting,
       to_regclass($1::text) IS NOT NULL AS is_there,
       EXISTS (SELECT FROM pg_catalog.pg_locks l JOIN parts p ON l.relation = p.oid
               WHERE l.locktype = 'relation' AND l.pid <> pg_backend_pid()
                 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
                 AND l.mode <> 'ShareUpdateExclusiveLock') AS is_in_use
FROM seen";

const SIZE: &str = "\
WITH RECURSIVE parts(oid) AS (
    SELECT to_regclass($1::text)::oid
    UNION
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts p ON i.inhparent = p.oid
)
SELECT sum(greatest(c.reltuples, s.n_live_tup, 0)) FILTER (WHERE c.relkind <> 'p')::bigint AS rows,
       coalesce(bool_and(c.reltuples >= 0 OR s.n_live_tup > 0 OR pg_relation_size(c.oid) = 0)
           FILTER (WHERE c.relkind <> 'p'), false) AS is_known,
       sum(pg_total_relation_size(c.oid))::bigint AS bytes
FROM parts p JOIN pg_catalog.pg_class c ON c.oid = p.oid LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid";

/// The counters of a table's uses.
pub(super) async fn usage(conn: &mut PgConnection, table: &str) -> Result<Usage, Error> {
    let doing = "read the counters of a table";
    let row =
        sqlx::query(USAGE).bind(name_sql(table)).fetch_one(conn).await.map_err(failed(doing))?;
    let is = |name: &str| row.try_get::<bool, _>(name).map_err(failed(doing));
    if !is("is_there")? {
        return Err(Error::failed(FailureClass::Stale, format!("there is no table {table}")));
    }
    if !is("is_counting")? {
        return Err(Error::failed(
            FailureClass::Refused,
            "track_counts is off: the server counts no uses",
        )
        .with_help("turn it on, or ask with a query: unused_for: { target, query, for }"));
    }
    let uses: i64 = row.try_get("uses").map_err(failed(doing))?;
    Ok(Usage {
        counters: row.try_get("counters").map_err(failed(doing))?,
        count: u64::try_from(uses).unwrap_or_default(),
        is_in_use: is("is_in_use")?,
    })
}

/// How large a table is with its indexes and partitions. Rows by the last ANALYZE or by the server's counters, whichever says
/// more: a table that was never analyzed is known by the counters, and one whose counters were lost by the ANALYZE. Nothing of
/// it is read, since that would be a use.
pub(super) async fn size(conn: &mut PgConnection, table: &str) -> Result<TableSize, Error> {
    let doing = "read the size of a table";
    let row =
        sqlx::query(SIZE).bind(name_sql(table)).fetch_one(conn).await.map_err(failed(doing))?;
    let is_known: Option<bool> = row.try_get("is_known").map_err(failed(doing))?;
    let number = |name: &str| -> Result<Option<u64>, Error> {
        let found: Option<i64> = row.try_get(name).map_err(failed(doing))?;
        Ok(found.and_then(|number| u64::try_from(number).ok()))
    };
    let rows = number("rows")?.filter(|_| is_known == Some(true));
    Ok(TableSize { rows, bytes: number("bytes")? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use sqlx::Connection as _;

    use super::super::fixture::Database;
    use super::*;

    /// The reading of a client that is not ours, once those before it are gone.
    async fn read(database: &Database, table: &str) -> Usage {
        database.is_left().await;
        let mut client = database.client().await;
        let usage = usage(&mut client, table).await.unwrap();
        client.close().await.unwrap();
        usage
    }

    #[tokio::test]
    async fn uses_of_others_are_counted_and_upkeep_is_not() {
        let Some(database) = Database::with(
            "CREATE TABLE old (id int PRIMARY KEY); INSERT INTO old SELECT generate_series(1, 100); ANALYZE old",
        )
        .await
        else {
            return;
        };
        let first = read(&database, "old").await;
        assert_eq!(read(&database, "old").await, first, "looking is no use");
        database.run("VACUUM old").await;
        database.run("ANALYZE old").await;
        assert_eq!(read(&database, "old").await, first, "upkeep is no use");
        for use_of_it in ["SELECT count(*) FROM old", "DELETE FROM old WHERE id = 7"] {
            let before = read(&database, "old").await;
            database.run(use_of_it).await;
            let after = read(&database, "old").await;
            assert!(after.count > before.count, "{use_of_it}");
            assert_eq!(after.counters, before.counters);
        }
        let mut busy = database.client().await;
        sqlx::raw_sql("BEGIN; SELECT count(*) FROM old").execute(&mut busy).await.unwrap();
        assert!(read(&database, "old").await.is_in_use);
        sqlx::raw_sql("ROLLBACK").execute(&mut busy).await.unwrap();
        busy.close().await.unwrap();
        let before = read(&database, "old").await;
        database.run("SELECT pg_stat_reset()").await;
        assert_ne!(read(&database, "old").await.counters, before.counters);
        let mut client = database.client().await;
        assert!(usage(&mut client, "nothing").await.is_err());
        assert!(size(&mut client, "old").await.unwrap().bytes.unwrap() > 8_192);
        client.close().await.unwrap();
    }

    #[tokio::test]
    async fn the_rows_at_stake_are_known_before_anybody_analyzed_and_without_a_use() {
        let Some(database) = Database::with(
            "CREATE TABLE new (id int PRIMARY KEY) WITH (autovacuum_enabled = off);
             CREATE TABLE parts (id int) PARTITION BY RANGE (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000) WITH (autovacuum_enabled = off);
             CREATE TABLE empty (id int)",
        )
        .await
        else {
            return;
        };
        database
            .run("INSERT INTO new SELECT generate_series(1, 700); INSERT INTO parts SELECT generate_series(1, 300)")
            .await;
        let uses = read(&database, "new").await;
        let mut client = database.client().await;
        for (table, rows) in [("new", 700), ("parts", 300), ("empty", 0)] {
            assert_eq!(size(&mut client, table).await.unwrap().rows, Some(rows), "{table}");
        }
        client.close().await.unwrap();
        assert_eq!(read(&database, "new").await, uses);
        database.run("ANALYZE new; SELECT pg_stat_reset()").await;
        let mut client = database.client().await;
        assert_eq!(size(&mut client, "new").await.unwrap().rows, Some(700));
        client.close().await.unwrap();
    }
}
