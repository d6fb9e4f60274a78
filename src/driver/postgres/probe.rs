//! What a dry run learns of a PostgreSQL database by looking.
//!
//! Invariants: everything is read in one READ ONLY transaction of one snapshot, with a time limit for each statement and each
//! lock, and no lock stronger than a SELECT's. Where somebody holds a stronger one, what can't be looked at for it is said.
//!
//! Absent on purpose: reading more of a large table than a few thousand rows.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{self, Table, quote};
use super::connection::{Connections, Reader};
use super::dependents::{Dependent, dependents};
use super::error::failed;
use super::surroundings::{Surroundings, around};
use super::{beside, gaps, probe_server, survey};
use crate::bounds::message::PLAN_LINES_MAX;
use crate::bounds::probe::{POSTGRES_COUNTED_BYTES_MAX, SAMPLE_ROWS};
use crate::clock::Stopwatch;
use crate::driver::probed::{
    Estimate, KeyAccess, MappingFacts, ObjectFacts, RowSecurity, Sample, TableFacts,
};
use crate::driver::{Error, Probed, Survey};
use crate::run::{Direction, FailureClass, Relation};

/// Oids below are the server's own: its catalogues and views, of which there is nothing to say (`access/transam.h`).
const FIRST_OID_OF_USERS: u32 = 16_384;

/// Looks.
pub(super) async fn probe(connections: &Connections, survey: &Survey) -> Result<Probed, Error> {
    let mut reader = connections.snapshot().await?;
    let mut probed = Probed::default();
    match survey::look(&mut reader, survey).await {
        Ok((findings, rights)) => (probed.findings, probed.rights) = (findings, rights),
        Err(error) => {
            probed.unseen = Some(error.clone());
            give_up(&mut reader, &mut probed, ("the plan's needs", error)).await?;
        }
    }
    let mut oids = Vec::new();
    for used in &survey.uses {
        if probed.tables.iter().any(|facts| facts.table == used.table) {
            continue;
        }
        match table(&mut reader, &used.table).await {
            Ok(Some((oid, facts))) => {
                oids.push(oid);
                probed.tables.push(facts);
            }
            Ok(None) => {}
            Err(error) => give_up(&mut reader, &mut probed, (&used.table, error)).await?,
        }
    }
    for surveyed in &survey.mappings {
        let from = &surveyed.mapping.from;
        match copying(reader.conn()?, from).await {
            Ok(Some((key, sample))) => {
                let mapping = surveyed.mapping.name.clone();
                probed.mappings.push(MappingFacts { mapping, key, sample });
            }
            Ok(None) => {}
            Err(error) => give_up(&mut reader, &mut probed, (&from.table, error)).await?,
        }
    }
    for (name, shape) in &survey.retired {
        let Some(of) = survey.mappings.iter().find(|of| of.mapping.name == *name) else { continue };
        let direction = of.direction.unwrap_or(Direction::Forward);
        match beside::beside(reader.conn()?, (&of.mapping, direction), shape).await {
            Ok(locked) => probed.beside.extend(locked),
            Err(error) => give_up(&mut reader, &mut probed, (name.as_str(), error)).await?,
        }
    }
    probe_server::look(reader.conn()?, &oids, &mut probed).await?;
    reader.release().await;
    Ok(probed)
}

/// Notes what can't be looked at, where that is no fault of the server or the connection, and lets the look go on.
async fn give_up(
    reader: &mut Reader<'_>,
    probed: &mut Probed,
    (what, error): (&str, Error),
) -> Result<(), Error> {
    let goes_on = [
        FailureClass::Contention,
        FailureClass::NotPermitted,
        FailureClass::TimedOut,
        FailureClass::Refused,
    ];
    if !error.class().is_some_and(|class| goes_on.contains(&class)) {
        return Err(error);
    }
    probed.notes.push(format!("{what} can't be looked at now: {error}"));
    sqlx::query("ROLLBACK TO SAVEPOINT look")
        .execute(reader.conn()?)
        .await
        .map(|_| ())
        .map_err(failed("go on looking"))
}

async fn table(reader: &mut Reader<'_>, written: &str) -> Result<Option<(u32, TableFacts)>, Error> {
    let schema = reader.schema().to_owned();
    let conn = reader.conn()?;
    let (named, _) = catalogue::parts(written);
    if let Some(named) = named
        && !super::rights::may_enter(conn, &named).await?
    {
        return Ok(None);
    }
    let Some(table) = catalogue::table(conn, written).await? else { return Ok(None) };
    if table.oid < FIRST_OID_OF_USERS {
        return Ok(None);
    }
    let around = around(conn, table.oid, &schema).await?;
    let size = size(conn, &table).await?;
    let rows = match table.kind {
        'r' | 'p' | 'm' => Some(rows(conn, &table, &size).await?),
        _ => None,
    };
    let found = dependents(conn, &table, None, &schema).await?;
    let mut dependents: Vec<ObjectFacts> = found.into_iter().map(Dependent::facts).collect();
    dependents.extend(around.publications.iter().map(|name| ObjectFacts {
        kind: "publication".to_owned(),
        name: name.clone(),
        detail: None,
    }));
    let facts = TableFacts {
        table: written.to_owned(),
        kind: kind(&table, &around),
        owner: Some(table.owner.clone()),
        rows,
        table_bytes: Some(size.table_bytes),
        index_bytes: Some(size.index_bytes),
        dependents,
        not_copied: gaps::not_copied(&table.owner, &around),
        triggers: triggers(&around),
        row_security: row_security(conn, &table, &around).await?,
    };
    Ok(Some((table.oid, facts)))
}

fn kind(table: &Table, around: &Surroundings) -> Option<String> {
    let kind = match (table.kind, table.persistence) {
        ('p', _) => format!("a partitioned table with {} partitions", around.children),
        (_, 't') => "a temporary table".to_owned(),
        ('r', 'u') => "an unlogged table".to_owned(),
        ('r', _) if table.is_partition => format!("a partition of {}", around.parents.join(", ")),
        ('r', _) if around.children > 0 => "a table that others inherit from".to_owned(),
        ('r', _) => return None,
        ('v', _) => "a view".to_owned(),
        ('m', _) => "a materialized view".to_owned(),
        ('f', _) => "a foreign table".to_owned(),
        _ => "not a table".to_owned(),
    };
    Some(kind)
}

fn triggers(around: &Surroundings) -> Vec<ObjectFacts> {
    around
        .user_triggers()
        .map(|trigger| {
            let when = if trigger.is_before { "before" } else { "after" };
            let per = if trigger.is_row { "each row" } else { "each statement" };
            let disabled = if trigger.enabled == 'D' { ", disabled" } else { "" };
            ObjectFacts {
                kind: "trigger".to_owned(),
                name: trigger.name.clone(),
                detail: Some(format!("{when} {per}{disabled}")),
            }
        })
        .collect()
}

async fn row_security(
    conn: &mut PgConnection,
    table: &Table,
    around: &Surroundings,
) -> Result<Option<RowSecurity>, Error> {
    if !table.row_security {
        return Ok(None);
    }
    let binds_us = sqlx::query("SELECT row_security_active($1::bigint::oid)")
        .bind(i64::from(table.oid))
        .fetch_one(conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("see whether row security holds"))?;
    let policies = around.policies.iter().map(|policy| policy.name.clone()).collect();
    Ok(Some(RowSecurity { is_forced: table.force_row_security, binds_us, policies }))
}

/// How large a table is, partitions included.
struct Size {
    table_bytes: u64,
    index_bytes: u64,
    /// What statistics say, and when they were gathered; `None` where they never were.
    rows: Option<(u64, String)>,
    can_read: bool,
}

const SIZE: &str = "\
WITH RECURSIVE tree (oid) AS (
    SELECT $1::bigint::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid)
SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint, coalesce(sum(pg_indexes_size(c.oid)), 0)::bigint,
       coalesce(sum(greatest(c.reltuples, 0)) FILTER (WHERE c.relkind <> 'p'), 0)::bigint,
       coalesce(bool_and(c.reltuples >= 0) FILTER (WHERE c.relkind <> 'p'), false),
       to_char(min(greatest(s.last_analyze, s.last_autoanalyze)) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI \"UTC\"'),
       has_table_privilege($1::bigint::oid, 'SELECT') AND NOT row_security_active($1::bigint::oid)
FROM tree JOIN pg_class c ON c.oid = tree.oid LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid";

async fn size(conn: &mut PgConnection, table: &Table) -> Result<Size, Error> {
    let doing = "read how large a table is";
    let row = sqlx::query(SIZE)
        .bind(i64::from(table.oid))
        .fetch_one(conn)
        .await
        .map_err(failed(doing))?;
    let number = |at: usize| -> Result<u64, Error> {
        let value: i64 = row.try_get(at).map_err(failed(doing))?;
        Ok(u64::try_from(value).unwrap_or(0))
    };
    let is_known: bool = row.try_get(3).map_err(failed(doing))?;
    let when: Option<String> = row.try_get(4).map_err(failed(doing))?;
    let basis = when.map_or_else(
        || "by statistics of an unknown time".to_owned(),
        |when| format!("by the statistics of {when}"),
    );
    Ok(Size {
        table_bytes: number(0)?,
        index_bytes: number(1)?,
        rows: if is_known { Some((number(2)?, basis)) } else { None },
        can_read: row.try_get(5).map_err(failed(doing))?,
    })
}

/// How many rows a table has: counted where it is small, by statistics, or as the planner guesses from its pages.
async fn rows(conn: &mut PgConnection, table: &Table, size: &Size) -> Result<Estimate, Error> {
    if size.can_read && size.table_bytes <= POSTGRES_COUNTED_BYTES_MAX {
        let sql = format!("SELECT count(*) FROM {}", table.sql());
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await;
        let rows: i64 = row
            .and_then(|row| row.try_get(0))
            .map_err(failed("count the rows of a small table"))?;
        return Ok(Estimate {
            rows: u64::try_from(rows).unwrap_or(0),
            basis: "counted".to_owned(),
        });
    }
    if let Some((rows, basis)) = &size.rows {
        return Ok(Estimate { rows: *rows, basis: basis.clone() });
    }
    let basis = "by the planner's guess from its size: it was never analyzed".to_owned();
    if !size.can_read {
        // A row is seldom less than 100 bytes with what belongs to it; without the right to plan a query nobody knows more.
        let basis = "by its size at 100 bytes each: it was never analyzed".to_owned();
        return Ok(Estimate { rows: size.table_bytes / 100, basis });
    }
    let plan = explain(conn, format!("EXPLAIN SELECT FROM {}", table.sql())).await?;
    let guess = plan
        .first()
        .and_then(|line| line.split_once("rows="))
        .and_then(|(_, rest)| rest.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok());
    Ok(Estimate { rows: guess.unwrap_or(0), basis })
}

async fn explain(conn: &mut PgConnection, sql: String) -> Result<Vec<String>, Error> {
    let doing = "see how the server plans";
    let rows = sqlx::query(AssertSqlSafe(sql))
        .persistent(false)
        .fetch_all(conn)
        .await
        .map_err(failed(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed(doing))
}

/// How a mapping's source would be walked, and a piece of it as a sample; nothing where it isn't there.
async fn copying(
    conn: &mut PgConnection,
    from: &Relation,
) -> Result<Option<(KeyAccess, Option<Sample>)>, Error> {
    let (named, _) = catalogue::parts(&from.table);
    if let Some(named) = named
        && !super::rights::may_enter(conn, &named).await?
    {
        return Ok(None);
    }
    let Some(table) = catalogue::table(conn, &from.table).await? else { return Ok(None) };
    let is_there = from.key.iter().all(|name| table.column(name).is_some());
    if !matches!(table.kind, 'r' | 'p') || !is_there {
        return Ok(None);
    }
    let mut key = key_access(conn, &table, from).await?;
    if key.index.is_none() {
        set(conn, "off").await?;
        key = key_access(conn, &table, from).await?;
        set(conn, "on").await?;
    }
    let sample = match &key.index {
        Some(_) => sample(conn, &table, from).await?,
        None => None,
    };
    Ok(Some((key, sample)))
}

/// Makes scans and sorts dear, or as they were.
async fn set(conn: &mut PgConnection, value: &'static str) -> Result<(), Error> {
    sqlx::query(
        "SELECT set_config('enable_seqscan', $1, true), set_config('enable_sort', $1, true),
                set_config('enable_incremental_sort', $1, true), set_config('enable_bitmapscan', $1, true)",
    )
    .bind(value)
    .execute(conn)
    .await
    .map(|_| ())
    .map_err(failed("see how the key is used"))
}

fn key_list(from: &Relation) -> String {
    from.key.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

/// How the server finds the end of the next chunk, for a bound that it doesn't know when it plans.
async fn key_access(
    conn: &mut PgConnection,
    table: &Table,
    from: &Relation,
) -> Result<KeyAccess, Error> {
    let key = key_list(from);
    let bound = |name: &String| {
        let type_sql = table.column(name).map_or("text", |column| column.type_sql.as_str());
        // Not known to the planner, as a parameter of a prepared statement isn't.
        format!("(SELECT current_setting('phasegate.bound', true)::{type_sql})")
    };
    let bounds: Vec<String> = from.key.iter().map(bound).collect();
    let plan = explain(
        conn,
        format!(
            "EXPLAIN (COSTS off) SELECT {key} FROM {} WHERE ({key}) > ({}) ORDER BY {key} LIMIT 1 OFFSET 999",
            table.sql(),
            bounds.join(", ")
        ),
    )
    .await?;
    // What stands for the bound is no part of how it is found.
    let is_bound = |line: &str| line.contains("InitPlan") || line.trim() == "->  Result";
    let plan: Vec<String> =
        plan.into_iter().filter(|line| !is_bound(line)).take(PLAN_LINES_MAX).collect();
    Ok(KeyAccess { index: serving(&plan), plan })
}

/// The index that a plan walks from the bound on; none if it sorts or goes through the table.
fn serving(plan: &[String]) -> Option<String> {
    if !plan.iter().any(|line| line.contains("Index Cond")) {
        return None;
    }
    if plan.iter().any(|line| line.contains("Sort") || line.contains("Seq Scan")) {
        return None;
    }
    let line = plan.iter().find(|line| line.contains("Index") && line.contains(" using "))?;
    let (_, behind) = line.split_once(" using ")?;
    behind.split_once(" on ").map(|(name, _)| name.to_owned())
}

/// Reads some whole rows in key order, and sees how long it takes.
async fn sample(
    conn: &mut PgConnection,
    table: &Table,
    from: &Relation,
) -> Result<Option<Sample>, Error> {
    let sql = format!(
        "SELECT count(s) FROM (SELECT * FROM {} ORDER BY {} LIMIT {SAMPLE_ROWS}) AS s",
        table.sql(),
        key_list(from)
    );
    let watch = Stopwatch::start();
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await;
    let rows: i64 = row.and_then(|row| row.try_get(0)).map_err(failed("read some rows"))?;
    let took_us = watch.elapsed_us();
    let rows = u32::try_from(rows).unwrap_or(SAMPLE_ROWS);
    Ok((rows > 0).then_some(Sample { rows, took_us }))
}
