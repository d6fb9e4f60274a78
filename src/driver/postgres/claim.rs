//! Claims: which runs have which objects, and the tokens of their slots.
//!
//! Invariant: the check for overlap, our row and the tokens are one transaction, in which the table of runs is locked
//! against others of its kind, so that two runs can't both pass the check.

use std::collections::BTreeSet;

use serde::Serialize;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue;
use super::connection::{Reader, Tx};
use super::error::{damaged, failed};
use super::ledger::{self, RUNS, ending_name, signed, unsigned};
use super::outbox::{called, slots_of};
use super::shape::id_of_name;
use crate::driver::claim::Entered;
use crate::driver::ledger as words;
use crate::driver::{Claim, Error, Fence, Head, Holder, Remnant, Shared};
use crate::run::{Digest, Ending, FailureClass, MappingName, RunId};

/// Unfinished runs other than this one, oldest first.
fn others(runs: &str) -> String {
    format!(
        "SELECT run_id, plan, store, host, pid, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),
            objects, current_schema(), mappings
         FROM {runs} WHERE starts_with(state, 'active') AND run_id <> $1 ORDER BY started_at"
    )
}

/// An unfinished run whose objects overlap with a claim's. Changes nothing.
pub(super) async fn holder(
    reader: &mut Reader<'_>,
    claim: &Claim,
) -> Result<Option<Holder>, Error> {
    let runs = reader.ours(RUNS);
    if !ledger::has_table(reader.conn()?, &runs).await? {
        return Ok(None);
    }
    let rows = sqlx::query(AssertSqlSafe(others(&runs)))
        .bind(claim.run.as_str())
        .fetch_all(reader.conn()?)
        .await
        .map_err(failed("look for other runs"))?;
    overlapping(&rows, claim)
}

/// This run, where another state store drives it now. Changes nothing.
pub(super) async fn elsewhere(
    reader: &mut Reader<'_>,
    claim: &Claim,
) -> Result<Option<Holder>, Error> {
    let (runs, slots) = (reader.ours(RUNS), reader.ours("slots"));
    if !ledger::has_table(reader.conn()?, &runs).await? {
        return Ok(None);
    }
    // A run that has left has its row, and may have left no other table.
    let has_slots = ledger::has_table(reader.conn()?, &slots).await?;
    own(reader.conn()?, (&runs, has_slots.then_some(slots.as_str())), claim).await
}

async fn own(
    conn: &mut PgConnection,
    (runs, slots): (&str, Option<&str>),
    claim: &Claim,
) -> Result<Option<Holder>, Error> {
    let doing = "look who drives this run";
    let sql = format!(
        "SELECT plan, store, host, pid, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),
            head_version, head_hash
         FROM {runs} WHERE run_id = $1"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(claim.run.as_str())
        .fetch_optional(&mut *conn)
        .await
        .map_err(failed(doing))?;
    let Some(row) = row else { return Ok(None) };
    let text = |at| row.try_get::<String, _>(at).map_err(failed(doing));
    // Of a run of this store nothing more is asked: the table of slots goes with the last run that leaves.
    if claim.is_of(&text(1)?) {
        return Ok(None);
    }
    let version: Option<i64> = row.try_get(5).map_err(failed(doing))?;
    let hash: Option<String> = row.try_get(6).map_err(failed(doing))?;
    let head = match version.zip(hash) {
        Some((version, hash)) => Some(words::head(version, hash).map_err(damaged)?),
        None => None,
    };
    let token = match slots.filter(|_| claim.adopts.is_some()) {
        Some(slots) => newest_token(conn, slots, &claim.run).await?,
        None => 0,
    };
    let entered = Entered { store: text(1)?, token, head };
    if claim.may_go_on(&entered) {
        return Ok(None);
    }
    let pid: i64 = row.try_get(3).map_err(failed(doing))?;
    Ok(Some(Holder {
        run: claim.run.clone(),
        plan: text(0)?,
        store: entered.store,
        host: text(2)?,
        pid: u32::try_from(pid).map_err(|_| damaged("a process id is out of range"))?,
        since: text(4)?,
        over: Shared::Run,
    }))
}

async fn newest_token(conn: &mut PgConnection, slots: &str, run: &RunId) -> Result<u64, Error> {
    let sql = format!("SELECT coalesce(max(token), 0) FROM {slots} WHERE run_id = $1");
    let newest = sqlx::query(AssertSqlSafe(sql))
        .bind(run.as_str())
        .fetch_one(conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("check the fencing token"))?;
    unsigned(newest)
}

fn overlapping(rows: &[PgRow], claim: &Claim) -> Result<Option<Holder>, Error> {
    for row in rows {
        let text = |at| row.try_get::<String, _>(at).map_err(failed("look for other runs"));
        let schema: Option<String> = row.try_get(7).map_err(failed("look for other runs"))?;
        let theirs = Claimed { objects: names(&text(6)?)?, mappings: names(&text(8)?)? };
        let ours = Claimed {
            objects: claim.objects.clone(),
            mappings: claim.mappings.iter().map(ToString::to_string).collect(),
        };
        let Some(over) = overlap(&ours, &theirs, schema.as_deref()) else { continue };
        let pid: i64 = row.try_get(4).map_err(failed("look for other runs"))?;
        return Ok(Some(Holder {
            run: RunId::new(text(0)?),
            plan: text(1)?,
            store: text(2)?,
            host: text(3)?,
            pid: u32::try_from(pid).map_err(|_| damaged("a process id is out of range"))?,
            since: text(5)?,
            over,
        }));
    }
    Ok(None)
}

/// What a run claims, by names.
#[derive(Debug, Default)]
struct Claimed {
    objects: Vec<String>,
    mappings: Vec<String>,
}

fn names(written: &str) -> Result<Vec<String>, Error> {
    serde_json::from_str(written).map_err(|_| damaged("the objects of a run can't be read"))
}

fn written(names: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(names)
        .map_err(|error| damaged(format!("the claim can't be written: {error}")))
}

/// What two claims have in common, if anything. One without objects is the whole database. Names of tables are compared
/// without regard to case: what the plan wrote unquoted was folded, and taking two names for one is the careful reading.
fn overlap(ours: &Claimed, theirs: &Claimed, schema: Option<&str>) -> Option<Shared> {
    if ours.objects.is_empty() || theirs.objects.is_empty() {
        return Some(Shared::Database);
    }
    let whole = |object: &String| {
        let (own, name) = catalogue::parts(object);
        let schema = own.unwrap_or_else(|| schema.unwrap_or("public").to_owned());
        (schema.to_lowercase(), name.to_lowercase())
    };
    let known: BTreeSet<_> = theirs.objects.iter().map(whole).collect();
    let table = ours.objects.iter().find(|object| known.contains(&whole(object)));
    let mapping = || ours.mappings.iter().find(|name| theirs.mappings.contains(name));
    table
        .map(|name| Shared::Table(name.clone()))
        .or_else(|| mapping().map(|name| Shared::Mapping(MappingName::new(name.as_str()))))
}

/// Enters a claim and writes the token to every slot: to so many, and to those that an earlier runner may have had beyond.
pub(super) async fn enter(
    tx: &mut Tx<'_>,
    claim: &Claim,
    token: u64,
    slots_count: u32,
) -> Result<Vec<Fence>, Error> {
    let (runs, slots) = (tx.ours(RUNS), tx.ours("slots"));
    let lock = format!("LOCK TABLE {runs} IN SHARE ROW EXCLUSIVE MODE");
    sqlx::query(AssertSqlSafe(lock))
        .execute(tx.conn()?)
        .await
        .map_err(failed("lock the table of runs"))?;
    let rows = sqlx::query(AssertSqlSafe(others(&runs)))
        .bind(claim.run.as_str())
        .fetch_all(tx.conn()?)
        .await
        .map_err(failed("look for other runs"))?;
    if let Some(holder) = own(tx.conn()?, (&runs, Some(&slots)), claim).await? {
        return Err(Error::Held(Box::new(holder)));
    }
    if let Some(holder) = overlapping(&rows, claim)? {
        return Err(Error::Held(Box::new(holder)));
    }
    let newest = newest_token(tx.conn()?, &slots, &claim.run).await?;
    if newest > token {
        return Err(Error::Fenced { ours: token, newest });
    }
    let of_whom = format!("SELECT store FROM {runs} WHERE run_id = $1");
    let of_whom = sqlx::query_scalar(AssertSqlSafe(of_whom))
        .bind(claim.run.as_str())
        .fetch_optional(tx.conn()?)
        .await;
    let of_whom: Option<String> = of_whom.map_err(failed("look who drives this run"))?;
    let anew = of_whom.as_deref().and_then(|store| claim.anew(store));
    let insert = format!(
        "INSERT INTO {runs} AS r (run_id, plan, digest, store, host, pid, state, objects, mappings, started_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'active', $7, $8, clock_timestamp())
         ON CONFLICT (run_id) DO UPDATE SET plan = $2, digest = $3, store = $4, host = $5, pid = $6,
            state = CASE WHEN starts_with(r.state, 'active') THEN r.state ELSE 'active ' || r.state END,
            objects = $7, mappings = $8, ended_at = NULL"
    );
    sqlx::query(AssertSqlSafe(insert))
        .bind(claim.run.as_str())
        .bind(&claim.plan)
        .bind(claim.digest.as_str())
        .bind(&claim.store)
        .bind(&claim.host)
        .bind(i64::from(claim.pid))
        .bind(written(&claim.objects)?)
        .bind(written(&claim.mappings)?)
        .execute(tx.conn()?)
        .await
        .map_err(failed("enter the claim"))?;
    if let Some(head) = anew {
        ledger::begin_anew(tx, &claim.run, head).await?;
    }
    write_tokens(tx, &claim.run, token, slots_count).await?;
    Ok((0..slots_count).map(|slot| Fence::new(claim.run.clone(), slot, token)).collect())
}

async fn write_tokens(
    tx: &mut Tx<'_>,
    run: &RunId,
    token: u64,
    slots_count: u32,
) -> Result<(), Error> {
    let slots = tx.ours("slots");
    for sql in [
        format!("UPDATE {slots} SET token = $2 WHERE run_id = $1 AND slot >= $3"),
        format!(
            "INSERT INTO {slots} (run_id, slot, token) SELECT $1, slot, $2 FROM generate_series(0, $3 - 1) AS slot
             ON CONFLICT (run_id, slot) DO UPDATE SET token = $2"
        ),
    ] {
        sqlx::query(AssertSqlSafe(sql))
            .bind(run.as_str())
            .bind(signed(token))
            .bind(i64::from(slots_count))
            .execute(tx.conn()?)
            .await
            .map_err(failed("write the fencing token"))?;
    }
    Ok(())
}

/// Sessions of earlier runners of a run: those that are called after it with a lower token.
const EARLIER: &str = "FROM pg_stat_activity
     WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
       AND starts_with(application_name, 'phasegate ' || $1 || ' ')
       AND substring(application_name FROM '([0-9]+)$')::numeric < $2::text::numeric";

/// Ends the sessions of earlier runners of a run. Otherwise a stopped process would keep its locks, and a new runner wait
/// with everybody else. Returns how many there still were.
pub(super) async fn end_earlier_sessions(
    reader: &mut Reader<'_>,
    run: &RunId,
    token: u64,
) -> Result<u64, Error> {
    // Within a transaction the server shows what it showed first.
    sqlx::query("SELECT pg_stat_clear_snapshot()")
        .execute(reader.conn()?)
        .await
        .map_err(failed("look for the sessions of an earlier runner"))?;
    let sql = format!("SELECT count(pg_terminate_backend(pid)) {EARLIER}");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(called(run))
        .bind(token.to_string())
        .fetch_one(reader.conn()?)
        .await
        .map_err(failed("end the sessions of an earlier runner"))?;
    unsigned(row.try_get(0).map_err(failed("end the sessions of an earlier runner"))?)
}

/// The error for sessions of an earlier runner that don't end.
pub(super) async fn not_gone(reader: &mut Reader<'_>, run: &RunId, token: u64) -> Error {
    let sql = format!("SELECT string_agg(pid::text, ', ') {EARLIER}");
    let pids = async {
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(called(run))
            .bind(token.to_string())
            .fetch_one(reader.conn()?)
            .await;
        row.and_then(|row| row.try_get::<Option<String>, _>(0))
            .map_err(failed("look for the sessions of an earlier runner"))
    };
    let pids = pids.await.ok().flatten().unwrap_or_default();
    let message = format!("sessions of an earlier runner have not ended: pid {pids}");
    Error::failed(FailureClass::Contention, message)
        .with_help("they are being ended; look at them in pg_stat_activity")
}

/// Writes down which plan a run has now.
pub(super) async fn keep_plan(tx: &mut Tx<'_>, run: &RunId, plan: &Digest) -> Result<(), Error> {
    let sql = format!("UPDATE {} SET digest = $2 WHERE run_id = $1", tx.ours(RUNS));
    sqlx::query(AssertSqlSafe(sql))
        .bind(run.as_str())
        .bind(plan.as_str())
        .execute(tx.conn()?)
        .await
        .map(|_| ())
        .map_err(failed("keep the plan's digest"))
}

/// What there is of the runs of a plan.
pub(super) async fn remnants(reader: &mut Reader<'_>, plan: &str) -> Result<Vec<Remnant>, Error> {
    let doing = "look for runs of the plan";
    let (runs, slots) = (reader.ours(RUNS), reader.ours("slots"));
    if !ledger::has_table(reader.conn()?, &runs).await? {
        return Ok(Vec::new());
    }
    let has_slots = ledger::has_table(reader.conn()?, &slots).await?;
    let sql = format!(
        "SELECT run_id, digest, store, host, pid, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),
            state
         FROM {runs} WHERE plan = $1 ORDER BY starts_with(state, 'active') DESC, started_at DESC"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(plan).fetch_all(reader.conn()?).await;
    let mut remnants = Vec::new();
    for row in rows.map_err(failed(doing))? {
        let text = |at| row.try_get::<String, _>(at).map_err(failed(doing));
        let pid: i64 = row.try_get(4).map_err(failed(doing))?;
        let run = RunId::new(text(0)?);
        let tokens =
            if has_slots { tokens(reader.conn()?, &slots, &run).await? } else { Vec::new() };
        let (is_open, left) = words::standing(&text(6)?);
        remnants.push(Remnant {
            digest: text(1)?,
            store: text(2)?,
            host: text(3)?,
            pid: u32::try_from(pid).map_err(|_| damaged("a process id is out of range"))?,
            since: text(5)?,
            is_open,
            left,
            tokens,
            head: ledger::head(reader, &run).await?,
            run,
        });
    }
    Ok(remnants)
}

/// The newest tokens of a run and of its relays.
async fn tokens(
    conn: &mut PgConnection,
    slots: &str,
    run: &RunId,
) -> Result<Vec<(RunId, u64)>, Error> {
    let doing = "read the fencing tokens";
    let sql =
        format!("SELECT run_id, max(token) FROM {slots} WHERE {} GROUP BY run_id", slots_of());
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(run.as_str()).fetch_all(conn).await;
    rows.map_err(failed(doing))?
        .iter()
        .map(|row| {
            let of: String = row.try_get(0).map_err(failed(doing))?;
            Ok((RunId::new(of), unsigned(row.try_get(1).map_err(failed(doing))?)?))
        })
        .collect()
}

/// Whether a run has closed its row.
pub(super) async fn has_left(tx: &mut Tx<'_>, run: &RunId) -> Result<bool, Error> {
    let runs = tx.ours(RUNS);
    if !ledger::has_table(tx.conn()?, &runs).await? {
        return Ok(false);
    }
    let sql =
        format!("SELECT 1 FROM {runs} WHERE run_id = $1 AND NOT starts_with(state, 'active')");
    sqlx::query(AssertSqlSafe(sql))
        .bind(run.as_str())
        .fetch_optional(tx.conn()?)
        .await
        .map(|row| row.is_some())
        .map_err(failed("read the run's row"))
}

/// Closes a run's row and removes everything of ours that no other run needs.
///
/// A run that entered again after it had left (because its last record was never written) has nothing in the ledger any
/// more, so what it counts now is added to what stands in the row.
pub(super) async fn leave(
    tx: &mut Tx<'_>,
    run: &RunId,
    ending: Ending,
    head: &Head,
) -> Result<(), Error> {
    let runs = tx.ours(RUNS);
    let lock = format!("LOCK TABLE {runs} IN SHARE ROW EXCLUSIVE MODE");
    sqlx::query(AssertSqlSafe(lock))
        .execute(tx.conn()?)
        .await
        .map_err(failed("lock the table of runs"))?;
    ledger::keep_head(tx, run, head).await?;
    let (steps, copies, chunks) = (tx.ours("steps"), tx.ours("copies"), tx.ours("chunks"));
    let close = format!(
        "UPDATE {runs} SET state = $2, ended_at = clock_timestamp(),
            rows_total = rows_total
              + (SELECT coalesce(sum(rows), 0) FROM {steps} WHERE run_id = $1 AND way = 'forward')
              + (SELECT coalesce(sum(rows_written), 0) FROM {copies} AS c WHERE run_id = $1
                 AND NOT EXISTS (SELECT 1 FROM {steps} AS s
                                 WHERE s.run_id = $1 AND s.step = c.step AND s.way = 'forward'))
              + (SELECT coalesce(sum(rows_written), 0) FROM {chunks} WHERE run_id = $1 AND committed)
         WHERE run_id = $1"
    );
    sqlx::query(AssertSqlSafe(close))
        .bind(run.as_str())
        .bind(ending_name(ending))
        .execute(tx.conn()?)
        .await
        .map_err(failed("close the run's row"))?;
    let active = format!("SELECT mappings FROM {runs} WHERE starts_with(state, 'active')");
    let others = sqlx::query(AssertSqlSafe(active))
        .fetch_all(tx.conn()?)
        .await
        .map_err(failed("look for other runs"))?;
    let mut kept = Vec::new();
    for row in &others {
        let theirs: String = row.try_get(0).map_err(failed("look for other runs"))?;
        kept.extend(names(&theirs)?.iter().map(|name| id_of_name(name)));
    }
    if others.is_empty() {
        let tables = ledger::tables().filter(|table| *table != RUNS);
        let tables = tables.chain([super::outbox::TABLE]).collect();
        return drop_objects(tx, tables, &kept).await;
    }
    forget_run(tx, run).await?;
    drop_objects(tx, Vec::new(), &kept).await?;
    super::outbox::forget_but(tx, &kept).await?;
    super::outbox::drop_if_unused(tx).await
}

/// Removes a run's rows, and its relays' slots, where another run still needs the tables.
async fn forget_run(tx: &mut Tx<'_>, run: &RunId) -> Result<(), Error> {
    for table in ["slots", "steps", "copies", "chunks", "passes"] {
        let of_it = if table == "slots" { slots_of() } else { "run_id = $1".to_owned() };
        let sql = format!("DELETE FROM {} WHERE {of_it}", tx.ours(table));
        sqlx::query(AssertSqlSafe(sql))
            .bind(run.as_str())
            .execute(tx.conn()?)
            .await
            .map_err(failed("remove the run's bookkeeping"))?;
    }
    Ok(())
}

/// Triggers of syncs that plans never ended: on their tables, calling functions of ours, but for those whose names are like `$2`.
/// Those of partitions go with their parents'.
const TRIGGERS: &str = "\
SELECT format('%I ON %I.%I', t.tgname, n.nspname, c.relname)
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pronamespace = to_regnamespace($1) AND starts_with(p.proname::text, 'phasegate_')
  AND NOT t.tgisinternal AND t.tgparentid = 0 AND ($2 = '' OR t.tgname !~ $2)
ORDER BY c.oid, t.tgname";

/// Our objects in our schema, by their exact names: the tables of the ledger but that of runs, the marks that a sync leaves
/// (`touched_`, `kept_` and `parked_` with a mapping's id), and functions called `phasegate_…`; but for marks and functions whose
/// names are like `$3`. The schema may have been made for us, with others' objects and a state store in it.
const OURS: &str = "\
SELECT 'FUNCTION', p.oid::regprocedure::text
FROM pg_proc p WHERE p.pronamespace = to_regnamespace($1) AND starts_with(p.proname::text, 'phasegate_')
  AND ($3 = '' OR p.proname !~ $3)
UNION ALL
SELECT 'TABLE', quote_ident(n.nspname) || '.' || quote_ident(c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.oid = to_regnamespace($1) AND c.relkind = 'r'
  AND (c.relname = ANY ($2) OR c.relname ~ '^(touched|kept|parked|drawn|written)_[0-9a-z]+$' AND ($3 = '' OR c.relname !~ $3))";

/// Removes these tables of the ledger and every sync, but those of mappings with the ids that are kept.
async fn drop_objects(tx: &mut Tx<'_>, tables: Vec<&str>, kept: &[String]) -> Result<(), Error> {
    let schema = tx.schema().to_owned();
    let kept = match kept {
        [] => String::new(),
        ids => format!("(^|_)({})(_|$)", ids.join("|")),
    };
    let triggers = sqlx::query(TRIGGERS)
        .bind(&schema)
        .bind(&kept)
        .fetch_all(tx.conn()?)
        .await
        .map_err(failed("list our triggers"))?;
    for row in triggers {
        let name: String = row.try_get(0).map_err(failed("list our triggers"))?;
        let statement = format!("DROP TRIGGER IF EXISTS {name}");
        sqlx::query(AssertSqlSafe(statement))
            .execute(tx.conn()?)
            .await
            .map_err(failed("remove our triggers"))?;
    }
    let rows = sqlx::query(OURS)
        .bind(&schema)
        .bind(tables)
        .bind(&kept)
        .fetch_all(tx.conn()?)
        .await
        .map_err(failed("list our objects"))?;
    for row in rows {
        let kind: String = row.try_get(0).map_err(failed("list our objects"))?;
        let name: String = row.try_get(1).map_err(failed("list our objects"))?;
        let statement = format!("DROP {kind} IF EXISTS {name}");
        sqlx::query(AssertSqlSafe(statement))
            .execute(tx.conn()?)
            .await
            .map_err(failed("remove our objects"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(objects: &[&str], mappings: &[&str]) -> Claimed {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Claimed { objects: names(objects), mappings: names(mappings) }
    }

    #[test]
    fn claims_overlap_by_name_and_schema() {
        let table = [
            (vec![], vec!["leads"], true),
            (vec!["leads"], vec!["leads_v2"], false),
            (vec!["Leads"], vec!["public.leads"], true),
            (vec!["crm.leads"], vec!["leads"], false),
        ];
        for (one, two, expected) in table {
            let (a, b) = (claimed(&one, &[]), claimed(&two, &[]));
            assert_eq!(overlap(&a, &b, Some("public")).is_some(), expected, "{one:?} {two:?}");
            assert_eq!(overlap(&b, &a, Some("public")).is_some(), expected, "{two:?} {one:?}");
        }
    }

    #[test]
    fn mappings_of_one_name_overlap_whatever_their_tables() {
        let (one, two) = (claimed(&["a"], &["m"]), claimed(&["b"], &["x", "m"]));
        assert_eq!(overlap(&one, &two, None), Some(Shared::Mapping("m".into())));
        let two = claimed(&["b"], &["M"]);
        assert_eq!(overlap(&one, &two, None), None);
        let two = claimed(&["a"], &["m"]);
        assert_eq!(overlap(&one, &two, None), Some(Shared::Table("a".into())));
        assert_eq!(overlap(&one, &claimed(&[], &[]), None), Some(Shared::Database));
    }
}
