//! Claims: which run has the database, and the tokens of its slots.
//!
//! Invariants:
//! - The check for overlap, our node and the tokens are one transaction, and only one such transaction is open at a time: each
//!   makes a node of the same unique key and deletes it at its end, so that the next waits for it.
//! - A claim is the whole database: nodes have whatever labels and properties clients give them.
//! - Who takes over ends whoever holds a slot, writes the new token to all of them, and then ends what had begun without a
//!   slot: from there on nobody can begin anything with an older token.

use neo4rs::query;

use super::Neo4j;
use super::connection::{Ask as _, Connections, META_RUN, META_TOKEN, NAMED, Tx};
use super::error::{damaged, failed};
use super::landing;
use super::ledger::{self, ending_name, get, signed, unsigned};
use super::script::Begun;
use crate::bounds::neo4j::{ALONE_WITHIN, GONE_LOOK_EVERY, GONE_WITHIN_MS};
use crate::clock::Stopwatch;
use crate::driver::claim::Entered;
use crate::driver::ledger as words;
use crate::driver::{Claim, Error, Fence, Head, Holder, Remnant, Shared, TxKind};
use crate::run::{Digest, Ending, FailureClass, RunId};

/// The key of the node that only one may have.
const ONLY_ONE: &str = "(entering or leaving)";

const HOLDER: &str = "MATCH (r:phasegate_runs) WHERE r.state STARTS WITH 'active' AND r.run_id <> $run \
     RETURN r.run_id AS run, r.plan AS plan, r.store AS store, r.host AS host, r.pid AS pid, \
     toString(r.started_at) AS since ORDER BY since LIMIT 1";

/// An unfinished run other than this one.
pub(super) async fn holder(
    connections: &Connections,
    run: &RunId,
) -> Result<Option<Holder>, Error> {
    let mut reader = connections.read().await?;
    let rows = reader.rows(query(HOLDER).param("run", run.as_str())).await;
    let holder = read_holder(&rows.map_err(failed("look for other runs"))?)?;
    reader.release();
    Ok(holder)
}

fn read_holder(rows: &[neo4rs::Row]) -> Result<Option<Holder>, Error> {
    let Some(row) = rows.first() else { return Ok(None) };
    let pid: i64 = get(row, "pid")?;
    Ok(Some(Holder {
        run: RunId::new(get::<String>(row, "run")?),
        plan: get(row, "plan")?,
        store: get(row, "store")?,
        host: get(row, "host")?,
        pid: u32::try_from(pid).map_err(|_| damaged("a process id is out of range"))?,
        since: get(row, "since")?,
        over: Shared::Database,
    }))
}

/// What the database has of this run, and whose it is; the newest token is that of its slots.
const OWN: &str = "MATCH (r:phasegate_runs {run_id: $run}) \
     OPTIONAL MATCH (s:phasegate_slots {run_id: $run}) \
     WITH r, coalesce(max(s.token), 0) AS token \
     RETURN r.run_id AS run, r.plan AS plan, r.store AS store, r.host AS host, r.pid AS pid, \
     toString(r.started_at) AS since, token, r.head_version AS version, r.head_hash AS hash";

/// This run, where another state store drives it now. Changes nothing.
pub(super) async fn elsewhere(
    connections: &Connections,
    claim: &Claim,
) -> Result<Option<Holder>, Error> {
    let mut reader = connections.read().await?;
    let rows = reader.rows(query(OWN).param("run", claim.run.as_str())).await;
    let holder = read_elsewhere(&rows.map_err(failed("look who drives this run"))?, claim)?;
    reader.release();
    Ok(holder)
}

fn read_elsewhere(rows: &[neo4rs::Row], claim: &Claim) -> Result<Option<Holder>, Error> {
    let Some(row) = rows.first() else { return Ok(None) };
    let version: Option<i64> = get(row, "version")?;
    let hash: Option<String> = get(row, "hash")?;
    let head = match version.zip(hash) {
        Some((version, hash)) => Some(words::head(version, hash).map_err(damaged)?),
        None => None,
    };
    let entered = Entered { store: get(row, "store")?, token: unsigned(get(row, "token")?)?, head };
    if claim.may_go_on(&entered) {
        return Ok(None);
    }
    let holder = read_holder(rows)?;
    Ok(holder.map(|holder| Holder { over: Shared::Run, ..holder }))
}

/// Begins a transaction that only one may have open at a time.
async fn only_one(connections: &Connections, kind: TxKind) -> Result<Tx<'_>, Error> {
    let mut tx = connections.begin_unfenced(kind).await?;
    let make = query("CREATE (:phasegate_runs {run_id: $one})").param("one", ONLY_ONE);
    match tokio::time::timeout(ALONE_WITHIN, tx.run(make)).await {
        Ok(done) => done.map_err(failed("wait for another run that enters or leaves"))?,
        Err(_) => {
            let message = "another run enters or leaves this database, and doesn't come to an end";
            return Err(Error::failed(FailureClass::Contention, message)
                .with_help("see SHOW TRANSACTIONS for what it is blocked by"));
        }
    };
    Ok(tx)
}

async fn commit(mut tx: Tx<'_>) -> Result<(), Error> {
    let delete = query("MATCH (r:phasegate_runs {run_id: $one}) DELETE r").param("one", ONLY_ONE);
    tx.run(delete).await.map_err(failed("let another run enter or leave"))?;
    tx.commit().await
}

/// Enters a claim and writes the token to every slot: to so many, and to those that an earlier runner may have had beyond.
pub(super) async fn enter(
    neo4j: &Neo4j,
    claim: &Claim,
    token: u64,
    slots_count: u32,
) -> Result<Vec<Fence>, Error> {
    let connections = &neo4j.connections;
    ledger::create_runs(connections).await?;
    let mut tx = only_one(connections, TxKind::Enter).await?;
    let own = tx.rows(query(OWN).param("run", claim.run.as_str())).await;
    let own = own.map_err(failed("look who drives this run"))?;
    if let Some(holder) = read_elsewhere(&own, claim)? {
        return Err(Error::Held(Box::new(holder)));
    }
    let rows = tx.rows(query(HOLDER).param("run", claim.run.as_str())).await;
    if let Some(holder) = read_holder(&rows.map_err(failed("look for other runs"))?)? {
        return Err(Error::Held(Box::new(holder)));
    }
    ledger::create_others(connections).await?;
    let of_whom: Option<String> = own.first().map(|row| get(row, "store")).transpose()?;
    let anew = of_whom.as_deref().and_then(|store| claim.anew(store));
    write((connections, &mut tx), (claim, anew), token, slots_count).await?;
    commit(tx).await?;
    end_earlier(neo4j, &claim.run, token).await?;
    let fence = |slot| Fence::new(claim.run.clone(), slot, token);
    Ok((0..slots_count).map(fence).collect())
}

async fn write(
    (connections, tx): (&Connections, &mut Tx<'_>),
    (claim, anew): (&Claim, Option<&Head>),
    token: u64,
    slots_count: u32,
) -> Result<(), Error> {
    let run = claim.run.as_str();
    let ask = query(
        "MATCH (s:phasegate_slots {run_id: $run}) RETURN coalesce(max(s.token), 0) AS newest",
    );
    let rows = tx.rows(ask.param("run", run)).await.map_err(failed("check the fencing token"))?;
    let newest = match rows.first() {
        Some(row) => unsigned(get(row, "newest")?)?,
        None => 0,
    };
    if newest > token {
        return Err(Error::Fenced { ours: token, newest });
    }
    let objects = serde_json::to_string(&claim.objects)
        .map_err(|error| damaged(format!("the claim can't be written: {error}")))?;
    let enter = query(
        "MERGE (r:phasegate_runs {run_id: $run}) ON CREATE SET r.started_at = datetime(), r.rows_total = 0 \
         SET r.plan = $plan, r.digest = $digest, r.store = $store, r.host = $host, r.pid = $pid, \
         r.state = CASE WHEN r.state IS NULL THEN 'active' WHEN r.state STARTS WITH 'active' THEN r.state ELSE 'active ' + r.state END, \
         r.objects = $objects, r.ended_at = null",
    )
    .param("run", run)
    .param("plan", claim.plan.as_str())
    .param("digest", claim.digest.as_str())
    .param("store", claim.store.as_str())
    .param("host", claim.host.as_str())
    .param("pid", i64::from(claim.pid))
    .param("objects", objects);
    tx.run(enter).await.map_err(failed("enter the claim"))?;
    if let Some(head) = anew {
        ledger::begin_anew(tx, &claim.run, head).await?;
    }
    // Whoever holds a slot is an earlier runner of this run, in a transaction that it must not commit.
    let mark = uuid::Uuid::now_v7().simple().to_string();
    let take = query(&format!(
        "/* {mark} */ UNWIND range(0, $count - 1) AS slot MERGE (s:phasegate_slots {{run_id: $run, slot: slot}}) \
         WITH count(s) AS taken MATCH (s:phasegate_slots {{run_id: $run}}) SET s.token = $token"
    ))
    .param("run", run)
    .param("token", signed(token))
    .param("count", i64::from(slots_count));
    tokio::select! {
        done = tx.run(take) => done.map(|_| ()).map_err(failed("write the fencing token")),
        error = clear_the_way(connections, &mark) => Err(error),
    }
}

/// Ends whoever a statement waits for, which has a mark in its text. Ends by itself only with an error.
pub(super) async fn clear_the_way(connections: &Connections, mark: &str) -> Error {
    let watch = Stopwatch::start();
    loop {
        tokio::time::sleep(GONE_LOOK_EVERY).await;
        if let Err(error) = end_blockers(connections, mark).await {
            return error;
        }
        if watch.elapsed_ms() > GONE_WITHIN_MS {
            let message = "an earlier runner of this run holds its place and can't be ended";
            return Error::failed(FailureClass::Contention, message)
                .with_help("see SHOW TRANSACTIONS, and end what the others are blocked by");
        }
    }
}

async fn end_blockers(connections: &Connections, mark: &str) -> Result<(), Error> {
    let mut reader = connections.read().await?;
    let look = query(
        "SHOW TRANSACTIONS YIELD currentQuery, status WHERE currentQuery STARTS WITH $begins AND status STARTS WITH 'Blocked' \
         RETURN status",
    )
    .param("begins", format!("/* {mark} */"));
    let rows = reader.rows(look).await.map_err(failed("look for earlier runners"))?;
    for row in &rows {
        let status: String = get(row, "status")?;
        let listed = status.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        let ids: Vec<String> = listed
            .map(|(ids, _)| ids.split(',').map(|id| id.trim().to_owned()).collect())
            .unwrap_or_default();
        let end = query("TERMINATE TRANSACTIONS $ids").param("ids", ids);
        reader.rows(end).await.map_err(failed("end earlier runners"))?;
    }
    reader.release();
    Ok(())
}

/// Ends what earlier runners of a run have under way and holds no slot, and waits until it has no locks any more. What was ended
/// is listed until its client says something, and can't be committed.
pub(super) async fn end_earlier(neo4j: &Neo4j, run: &RunId, token: u64) -> Result<(), Error> {
    let mut reader = neo4j.connections.read().await?;
    let marks = query(
        "MATCH (s:phasegate_steps {run_id: $run}) WHERE s.detail IS NOT NULL RETURN s.detail AS said",
    );
    let rows = reader.rows(marks.param("run", run.as_str())).await;
    let rows = rows.map_err(failed("read the ledger"))?;
    reader.release();
    let said: Vec<String> = rows.iter().map(|row| get(row, "said")).collect::<Result<_, _>>()?;
    let begun = said.iter().filter_map(|said| serde_json::from_str::<Begun>(said).ok());
    end_all(neo4j, (run, token), begun.map(|begun| begun.transaction).collect()).await
}

/// Ends what earlier tokens of a run have under way, and transactions by their names, likewise.
pub(super) async fn end_all(
    neo4j: &Neo4j,
    (run, token): (&RunId, u64),
    begun: Vec<String>,
) -> Result<(), Error> {
    let watch = Stopwatch::start();
    loop {
        let mut reader = neo4j.connections.read().await?;
        let look = query(&format!(
            "SHOW TRANSACTIONS YIELD transactionId, startTime, metaData, status, activeLockCount \
             WHERE (metaData.{META_RUN} = $run AND metaData.{META_TOKEN} < $token OR {NAMED} IN $begun) \
             AND NOT (status STARTS WITH 'Terminated' AND activeLockCount = 0) RETURN transactionId AS id"
        ))
        .param("run", run.as_str())
        .param("token", signed(token))
        .param("begun", begun.clone());
        let rows = reader.rows(look).await.map_err(failed("look for earlier runners"))?;
        let ids: Vec<String> = rows.iter().map(|row| get(row, "id")).collect::<Result<_, _>>()?;
        if !ids.is_empty() {
            let end = query("TERMINATE TRANSACTIONS $ids").param("ids", ids.clone());
            reader.rows(end).await.map_err(failed("end earlier runners"))?;
        }
        reader.release();
        if ids.is_empty() {
            return Ok(());
        }
        if watch.elapsed_ms() > GONE_WITHIN_MS {
            let message =
                format!("{} of an earlier runner of this run did not end", ids.join(", "));
            return Err(Error::failed(FailureClass::Contention, message).with_help(
                "see SHOW TRANSACTIONS; it ends when the server comes to look whether it should",
            ));
        }
        tokio::time::sleep(GONE_LOOK_EVERY).await;
    }
}

/// Writes down which plan a run has now.
pub(super) async fn keep_plan(tx: &mut Tx<'_>, run: &RunId, plan: &Digest) -> Result<(), Error> {
    let keep = query("MATCH (r:phasegate_runs {run_id: $run}) SET r.digest = $plan")
        .param("run", run.as_str())
        .param("plan", plan.as_str());
    tx.run(keep).await.map(|_| ()).map_err(failed("keep the plan's digest"))
}

/// What there is of the runs of a plan.
pub(super) async fn remnants(connections: &Connections, plan: &str) -> Result<Vec<Remnant>, Error> {
    let doing = "look for runs of the plan";
    let mut reader = connections.read().await?;
    let ask = query(
        "MATCH (r:phasegate_runs {plan: $plan}) \
         RETURN r.run_id AS run, r.digest AS digest, r.store AS store, r.host AS host, r.pid AS pid, \
         toString(r.started_at) AS since, r.state AS state, r.head_version AS version, r.head_hash AS hash \
         ORDER BY r.state STARTS WITH 'active' DESC, since DESC",
    );
    let rows = reader.rows(ask.param("plan", plan)).await.map_err(failed(doing))?;
    let mut remnants = Vec::with_capacity(rows.len());
    for row in &rows {
        let run = RunId::new(get::<String>(row, "run")?);
        let ask = query(
            "MATCH (s:phasegate_slots) WHERE s.run_id = $run OR s.run_id STARTS WITH $relays \
             RETURN s.run_id AS of, coalesce(max(s.token), 0) AS token",
        )
        .param("run", run.as_str())
        .param("relays", landing::below(&run));
        let slots = reader.rows(ask).await.map_err(failed(doing))?;
        let token = |row: &neo4rs::Row| -> Result<(RunId, u64), Error> {
            Ok((RunId::new(get::<String>(row, "of")?), unsigned(get(row, "token")?)?))
        };
        let version: Option<i64> = get(row, "version")?;
        let hash: Option<String> = get(row, "hash")?;
        let head = version.zip(hash).map(|(version, hash)| words::head(version, hash));
        let (is_open, left) = words::standing(&get::<String>(row, "state")?);
        let pid: i64 = get(row, "pid")?;
        remnants.push(Remnant {
            digest: get(row, "digest")?,
            store: get(row, "store")?,
            host: get(row, "host")?,
            pid: u32::try_from(pid).map_err(|_| damaged("a process id is out of range"))?,
            since: get(row, "since")?,
            is_open,
            left,
            tokens: slots.iter().map(token).collect::<Result<_, _>>()?,
            head: head.transpose().map_err(damaged)?,
            run,
        });
    }
    reader.release();
    Ok(remnants)
}

/// Whether a run has closed its node.
pub(super) async fn has_left(connections: &Connections, run: &RunId) -> Result<bool, Error> {
    let mut reader = connections.read().await?;
    let ask = query(
        "MATCH (r:phasegate_runs {run_id: $run}) WHERE NOT r.state STARTS WITH 'active' RETURN 1 AS one",
    );
    let rows = reader.rows(ask.param("run", run.as_str())).await;
    let has_left = !rows.map_err(failed("read the run's node"))?.is_empty();
    reader.release();
    Ok(has_left)
}

/// Closes a run's node and removes its bookkeeping.
pub(super) async fn close(
    connections: &Connections,
    fence: &Fence,
    (ending, head): (Ending, &Head),
) -> Result<(), Error> {
    let run = fence.run().as_str();
    // Relays can apply nothing any more, and then there are versions, perhaps very many, which no run but this one has made.
    let mut tx = connections.begin(fence, TxKind::Leave).await?;
    let relays = query("MATCH (s:phasegate_slots) WHERE s.run_id STARTS WITH $relays DELETE s")
        .param("relays", landing::below(fence.run()));
    tx.run(relays).await.map_err(failed("shut relays out"))?;
    tx.commit().await?;
    landing::forget_versions(connections, (fence, TxKind::Leave), None).await?;
    let mut tx = connections.begin(fence, TxKind::Leave).await?;
    ledger::keep_head(&mut tx, fence.run(), head).await?;
    for text in [
        "MATCH (r:phasegate_runs {run_id: $run}) \
         OPTIONAL MATCH (s:phasegate_steps {run_id: $run, way: 'forward'}) \
         WITH r, coalesce(sum(s.rows), 0) AS done \
         SET r.state = $state, r.ended_at = datetime(), r.rows_total = coalesce(r.rows_total, 0) + done",
        "MATCH (s:phasegate_steps {run_id: $run}) DELETE s",
        "MATCH (t:phasegate_turns) DELETE t",
        "MATCH (s:phasegate_slots|phasegate_copies|phasegate_chunks|phasegate_passes|phasegate_syncs {run_id: $run}) DELETE s",
    ] {
        let query = query(text).param("run", run).param("state", ending_name(ending));
        tx.run(query).await.map_err(failed("close the run's node"))?;
    }
    tx.commit().await
}

/// Removes what no run needs any more.
pub(super) async fn tidy(connections: &Connections) -> Result<(), Error> {
    let mut tx = only_one(connections, TxKind::Leave).await?;
    let rows = tx.rows(query(HOLDER).param("run", "")).await;
    if rows.map_err(failed("look for other runs"))?.is_empty() {
        ledger::drop_others(connections).await?;
    }
    commit(tx).await
}
