//! Claims: which run has the database, and the tokens of its slots.
//!
//! Invariant: the check for overlap, our row and the tokens are one transaction, so that two runs can't both pass it.
//! On SQLite a claim is always the whole database: there is one writer, and any statement may lock out all others.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::catalogue::quote;
use super::error::{damaged, failed};
use super::ledger::{self, RUNS, ending_name, signed, unsigned};
use crate::driver::claim::Entered;
use crate::driver::ledger::standing;
use crate::driver::{Claim, Error, Fence, Head, Holder, Remnant, Shared};
use crate::run::{Digest, Ending, RunId};

/// An unfinished run other than this one.
pub(super) async fn holder(
    conn: &mut SqliteConnection,
    run: &RunId,
) -> Result<Option<Holder>, Error> {
    if !ledger::has_table(conn, RUNS).await? {
        return Ok(None);
    }
    let row = sqlx::query(
        "SELECT run_id, plan, store, host, pid, started_at FROM phasegate_runs
         WHERE state LIKE 'active%' AND run_id <> ?1 ORDER BY started_at LIMIT 1",
    )
    .bind(run.as_str())
    .fetch_optional(conn)
    .await
    .map_err(failed("look for other runs"))?;
    let Some(row) = row else { return Ok(None) };
    let text = |at| row.try_get::<String, _>(at).map_err(failed("look for other runs"));
    let pid: i64 = row.try_get(4).map_err(failed("look for other runs"))?;
    Ok(Some(Holder {
        run: RunId::new(text(0)?),
        plan: text(1)?,
        store: text(2)?,
        host: text(3)?,
        pid: u32::try_from(pid).map_err(|_| damaged("a process id is out of range"))?,
        since: text(5)?,
        over: Shared::Database,
    }))
}

/// This run, where another state store drives it now. Changes nothing.
pub(super) async fn elsewhere(
    conn: &mut SqliteConnection,
    claim: &Claim,
) -> Result<Option<Holder>, Error> {
    let doing = "look who drives this run";
    if !ledger::has_table(conn, RUNS).await? {
        return Ok(None);
    }
    let row = sqlx::query(
        "SELECT plan, store, host, pid, started_at FROM phasegate_runs WHERE run_id = ?1",
    )
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
    let token = if claim.adopts.is_some() && ledger::has_table(conn, "phasegate_slots").await? {
        newest_token(conn, &claim.run).await?
    } else {
        0
    };
    let head = ledger::head(conn, &claim.run).await?;
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

/// The machine and the process that entered last for a run.
pub(super) async fn entered_by(
    conn: &mut SqliteConnection,
    run: &RunId,
) -> Result<Option<(String, u32)>, Error> {
    let doing = "read the run's row";
    if !ledger::has_table(conn, RUNS).await? {
        return Ok(None);
    }
    let row = sqlx::query("SELECT host, pid FROM phasegate_runs WHERE run_id = ?1")
        .bind(run.as_str())
        .fetch_optional(conn)
        .await
        .map_err(failed(doing))?;
    let Some(row) = row else { return Ok(None) };
    let (host, pid): (String, i64) =
        (row.try_get(0).map_err(failed(doing))?, row.try_get(1).map_err(failed(doing))?);
    Ok(u32::try_from(pid).ok().map(|pid| (host, pid)))
}

async fn newest_token(conn: &mut SqliteConnection, run: &RunId) -> Result<u64, Error> {
    let newest =
        sqlx::query("SELECT coalesce(max(token), 0) FROM phasegate_slots WHERE run_id = ?1")
            .bind(run.as_str())
            .fetch_one(conn)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed("check the fencing token"))?;
    unsigned(newest)
}

/// Enters a claim and writes the token to every slot: to so many, and to those that an earlier runner may have had beyond.
pub(super) async fn enter(
    conn: &mut SqliteConnection,
    claim: &Claim,
    token: u64,
    slots_count: u32,
) -> Result<Vec<Fence>, Error> {
    ledger::create(conn).await?;
    if let Some(holder) = elsewhere(conn, claim).await? {
        return Err(Error::Held(Box::new(holder)));
    }
    if let Some(holder) = holder(conn, &claim.run).await? {
        return Err(Error::Held(Box::new(holder)));
    }
    let newest = newest_token(conn, &claim.run).await?;
    if newest > token {
        return Err(Error::Fenced { ours: token, newest });
    }
    let of_whom = sqlx::query_scalar("SELECT store FROM phasegate_runs WHERE run_id = ?1")
        .bind(claim.run.as_str())
        .fetch_optional(&mut *conn)
        .await;
    let of_whom: Option<String> = of_whom.map_err(failed("look who drives this run"))?;
    let anew = of_whom.as_deref().and_then(|store| claim.anew(store));
    let objects = serde_json::to_string(&claim.objects)
        .map_err(|error| damaged(format!("the claim can't be written: {error}")))?;
    sqlx::query(
        "INSERT INTO phasegate_runs (run_id, plan, digest, store, host, pid, state, objects, started_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'active', ?7, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
         ON CONFLICT (run_id) DO UPDATE SET plan = ?2, digest = ?3, store = ?4, host = ?5, pid = ?6,
            state = CASE WHEN state LIKE 'active%' THEN state ELSE 'active ' || state END,
            objects = ?7, ended_at = NULL",
    )
    .bind(claim.run.as_str())
    .bind(&claim.plan)
    .bind(claim.digest.as_str())
    .bind(&claim.store)
    .bind(&claim.host)
    .bind(i64::from(claim.pid))
    .bind(objects)
    .execute(&mut *conn)
    .await
    .map_err(failed("enter the claim"))?;
    if let Some(head) = anew {
        ledger::begin_anew(conn, &claim.run, head).await?;
    }
    sqlx::query("UPDATE phasegate_slots SET token = ?2 WHERE run_id = ?1")
        .bind(claim.run.as_str())
        .bind(signed(token))
        .execute(&mut *conn)
        .await
        .map_err(failed("write the fencing token"))?;
    let mut fences = Vec::new();
    for slot in 0..slots_count {
        sqlx::query(
            "INSERT INTO phasegate_slots (run_id, slot, token) VALUES (?1, ?2, ?3)
             ON CONFLICT (run_id, slot) DO UPDATE SET token = ?3",
        )
        .bind(claim.run.as_str())
        .bind(i64::from(slot))
        .bind(signed(token))
        .execute(&mut *conn)
        .await
        .map_err(failed("write the fencing token"))?;
        fences.push(Fence::new(claim.run.clone(), slot, token));
    }
    Ok(fences)
}

/// Writes down which plan a run has now.
pub(super) async fn keep_plan(
    conn: &mut SqliteConnection,
    run: &RunId,
    plan: &Digest,
) -> Result<(), Error> {
    sqlx::query("UPDATE phasegate_runs SET digest = ?2 WHERE run_id = ?1")
        .bind(run.as_str())
        .bind(plan.as_str())
        .execute(conn)
        .await
        .map(|_| ())
        .map_err(failed("keep the plan's digest"))
}

/// What there is of the runs of a plan.
pub(super) async fn remnants(
    conn: &mut SqliteConnection,
    plan: &str,
) -> Result<Vec<Remnant>, Error> {
    let doing = "look for runs of the plan";
    if !ledger::has_table(conn, RUNS).await? {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "SELECT run_id, digest, store, host, pid, started_at, state FROM phasegate_runs WHERE plan = ?1
         ORDER BY state LIKE 'active%' DESC, started_at DESC",
    )
    .bind(plan)
    .fetch_all(&mut *conn)
    .await
    .map_err(failed(doing))?;
    let has_slots = ledger::has_table(conn, "phasegate_slots").await?;
    let mut remnants = Vec::with_capacity(rows.len());
    for row in rows {
        let text = |at| row.try_get::<String, _>(at).map_err(failed(doing));
        let pid: i64 = row.try_get(4).map_err(failed(doing))?;
        let run = RunId::new(text(0)?);
        let token = if has_slots { newest_token(conn, &run).await? } else { 0 };
        let (is_open, left) = standing(&text(6)?);
        remnants.push(Remnant {
            digest: text(1)?,
            store: text(2)?,
            host: text(3)?,
            pid: u32::try_from(pid).map_err(|_| damaged("a process id is out of range"))?,
            since: text(5)?,
            is_open,
            left,
            tokens: vec![(run.clone(), token)],
            head: ledger::head(conn, &run).await?,
            run,
        });
    }
    Ok(remnants)
}

/// Whether a run has closed its row.
pub(super) async fn has_left(conn: &mut SqliteConnection, run: &RunId) -> Result<bool, Error> {
    if !ledger::has_table(conn, RUNS).await? {
        return Ok(false);
    }
    sqlx::query("SELECT 1 FROM phasegate_runs WHERE run_id = ?1 AND state NOT LIKE 'active%'")
        .bind(run.as_str())
        .fetch_optional(conn)
        .await
        .map(|row| row.is_some())
        .map_err(failed("read the run's row"))
}

/// Closes a run's row and removes everything of ours that no other run needs.
///
/// A run that entered again after it had left (because its last record was never written) has nothing in the ledger any
/// more, so what it counts now is added to what stands in the row.
pub(super) async fn leave(
    conn: &mut SqliteConnection,
    run: &RunId,
    ending: Ending,
    head: &Head,
) -> Result<(), Error> {
    ledger::keep_head(conn, run, head).await?;
    sqlx::query(
        "UPDATE phasegate_runs SET state = ?2, ended_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
            rows_total = rows_total
              + (SELECT coalesce(sum(rows), 0) FROM phasegate_steps WHERE run_id = ?1 AND way = 'forward')
              + (SELECT coalesce(sum(rows_written), 0) FROM phasegate_copies AS c WHERE run_id = ?1
                 AND NOT EXISTS (SELECT 1 FROM phasegate_steps AS s
                                 WHERE s.run_id = ?1 AND s.step = c.step AND s.way = 'forward'))
              + (SELECT coalesce(sum(rows_written), 0) FROM phasegate_chunks WHERE run_id = ?1 AND committed = 1)
         WHERE run_id = ?1",
    )
    .bind(run.as_str())
    .bind(ending_name(ending))
    .execute(&mut *conn)
    .await
    .map_err(failed("close the run's row"))?;
    if holder(conn, run).await?.is_some() {
        return forget_run(conn, run).await;
    }
    drop_objects(conn).await
}

/// Removes a run's rows, where another run still needs the tables.
async fn forget_run(conn: &mut SqliteConnection, run: &RunId) -> Result<(), Error> {
    for statement in [
        "DELETE FROM phasegate_slots WHERE run_id = ?1",
        "DELETE FROM phasegate_steps WHERE run_id = ?1",
        "DELETE FROM phasegate_copies WHERE run_id = ?1",
        "DELETE FROM phasegate_chunks WHERE run_id = ?1",
        "DELETE FROM phasegate_passes WHERE run_id = ?1",
    ] {
        sqlx::query(statement)
            .bind(run.as_str())
            .execute(&mut *conn)
            .await
            .map_err(failed("remove the run's bookkeeping"))?;
    }
    Ok(())
}

/// Removes every object of ours but the table of runs: triggers first, so that no write meets one without its tables.
async fn drop_objects(conn: &mut SqliteConnection) -> Result<(), Error> {
    let rows = sqlx::query(
        "SELECT type, name FROM sqlite_schema
         WHERE type IN ('trigger', 'view', 'table') AND name LIKE 'phasegate\\_%' ESCAPE '\\' AND name <> ?1
         ORDER BY CASE type WHEN 'trigger' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, name",
    )
    .bind(RUNS)
    .fetch_all(&mut *conn)
    .await
    .map_err(failed("list our objects"))?;
    for row in rows {
        let kind: String = row.try_get(0).map_err(failed("list our objects"))?;
        let name: String = row.try_get(1).map_err(failed("list our objects"))?;
        let statement = format!("DROP {kind} {}", quote(&name));
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut *conn)
            .await
            .map_err(failed("remove our objects"))?;
    }
    Ok(())
}
