//! Our nodes in the target: which runs were here, who may write, and which steps are committed.
//!
//! Invariants:
//! - Every node that says that something was done is written in the transaction that did it, or by the two marks around what can
//!   be in none.
//! - Every writing transaction has called [`check_fence`], through `Connections::begin`.
//!
//! Labels stand for tables: `phasegate_runs`, which stay, `phasegate_slots` and `phasegate_steps`. Each has a unique constraint on its
//! key, without which two MERGE at once would make two nodes. Absent on purpose: claims, which are in `claim`.

use neo4rs::{Query, Row, query};

use super::Neo4j;
use super::connection::{Ask, Connections, Reader, Tx};
use super::error::{damaged, failed, is_name_taken};
use crate::bounds::neo4j::{LEFT_AFTER_MS, LEFT_LOOK_EVERY, OURS_ONLINE_WITHIN_S};
use crate::clock::Stopwatch;
use crate::driver::ledger as words;
use crate::driver::{Applied, Error, Fence, Head, TxKind, Work};
use crate::run::{RunId, Way};
pub(super) use words::{ending_name, signed, way_name};

/// The constraint that stays with the nodes of runs.
const RUNS: (&str, &str) =
    ("phasegate_runs_key", "FOR (n:phasegate_runs) REQUIRE n.run_id IS UNIQUE");

/// The others, by their names.
const OTHERS: [(&str, &str); 8] = [
    (
        "phasegate_chunks_key",
        "FOR (n:phasegate_chunks) REQUIRE (n.run_id, n.step, n.seq) IS UNIQUE",
    ),
    ("phasegate_copies_key", "FOR (n:phasegate_copies) REQUIRE (n.run_id, n.step) IS UNIQUE"),
    ("phasegate_passes_key", "FOR (n:phasegate_passes) REQUIRE (n.run_id, n.step) IS UNIQUE"),
    ("phasegate_syncs_key", "FOR (n:phasegate_syncs) REQUIRE (n.run_id, n.mapping) IS UNIQUE"),
    ("phasegate_slots_key", "FOR (n:phasegate_slots) REQUIRE (n.run_id, n.slot) IS UNIQUE"),
    ("phasegate_steps_key", "FOR (n:phasegate_steps) REQUIRE (n.run_id, n.step, n.way) IS UNIQUE"),
    ("phasegate_turns_key", "FOR (n:phasegate_turns) REQUIRE (n.mapping, n.turn) IS UNIQUE"),
    ("phasegate_versions_key", "FOR (n:phasegate_versions) REQUIRE n.key IS UNIQUE"),
];

/// What names of indexes and constraints of ours begin with.
pub(super) const PREFIX: &str = "phasegate_";

/// Makes the constraint of runs.
pub(super) async fn create_runs(connections: &Connections) -> Result<(), Error> {
    create(connections, &[RUNS]).await
}

/// Makes the others: by somebody who keeps others out meanwhile.
pub(super) async fn create_others(connections: &Connections) -> Result<(), Error> {
    create(connections, &OTHERS).await
}

async fn create(connections: &Connections, all: &[(&str, &str)]) -> Result<(), Error> {
    let texts: Vec<String> = all
        .iter()
        .map(|(name, what)| format!("CREATE CONSTRAINT {name} IF NOT EXISTS {what}"))
        .collect();
    let watch = Stopwatch::start();
    // While a constraint is made its index is there before it. Of somebody who was killed it goes after a while, of a server that was
    // killed it stays. Should somebody else remove it at the same moment, the constraint is made or there.
    loop {
        match constrain(connections, texts.clone()).await {
            Err(error) if is_name_taken(&error) && watch.elapsed_ms() < LEFT_AFTER_MS => {
                tokio::time::sleep(LEFT_LOOK_EVERY).await;
            }
            Err(error) if is_name_taken(&error) => {
                let _ = drop_left(connections, all).await;
                constrain(connections, texts).await?;
                break;
            }
            other => break other?,
        }
    }
    let mut reader = connections.read().await?;
    for (name, _) in all {
        await_index(&mut reader, name, OURS_ONLINE_WITHIN_S)
            .await
            .map_err(failed("wait for our constraints"))?;
    }
    reader.release();
    Ok(())
}

/// Removes the indexes of our labels that are called as constraints of ours and belong to none.
async fn drop_left(connections: &Connections, all: &[(&str, &str)]) -> Result<(), Error> {
    let mut reader = connections.read().await?;
    let left = "SHOW INDEXES YIELD name, labelsOrTypes, owningConstraint \
         WHERE owningConstraint IS NULL AND labelsOrTypes[0] STARTS WITH $prefix RETURN collect(name) AS names";
    let rows = reader.rows(query(left).param("prefix", PREFIX)).await;
    let rows = rows.map_err(failed("look for indexes of ours"))?;
    reader.release();
    let left: Vec<String> = rows.first().map_or_else(|| Ok(Vec::new()), |row| get(row, "names"))?;
    let ours = all.iter().filter(|(name, _)| left.iter().any(|left| left == name));
    let drops = ours.map(|(name, _)| format!("DROP INDEX {name} IF EXISTS"));
    constrain(connections, drops.collect()).await
}

/// Removes them again, likewise.
pub(super) async fn drop_others(connections: &Connections) -> Result<(), Error> {
    let texts = OTHERS.map(|(name, _)| format!("DROP CONSTRAINT {name} IF EXISTS"));
    constrain(connections, texts.to_vec()).await
}

async fn constrain(connections: &Connections, texts: Vec<String>) -> Result<(), Error> {
    let mut tx = connections.begin_unfenced(TxKind::Enter).await?;
    for text in texts {
        tx.run(query(&text)).await.map_err(failed("make our constraints"))?;
    }
    tx.commit().await
}

/// Waits until an index is there, which may be a constraint's own. An error where it could not be built. Never for all that there
/// are: others may be somebody else's, and broken, or long in coming.
pub(super) async fn await_index(
    reader: &mut Reader<'_>,
    name: &str,
    seconds: i64,
) -> Result<(), neo4rs::Error> {
    let wait = query("CALL db.awaitIndex($name, $seconds)");
    reader.rows(wait.param("name", name).param("seconds", seconds)).await.map(|_| ())
}

/// The key of a column's value in a row.
pub(super) fn get<'a, T: serde::Deserialize<'a>>(row: &'a Row, key: &str) -> Result<T, Error> {
    row.get(key).map_err(|error| damaged(format!("{key} can't be read: {error}")))
}

/// A count that the database gave.
pub(super) fn unsigned(count: i64) -> Result<u64, Error> {
    words::unsigned(count).map_err(damaged)
}

/// Holds a fence's token against its slot's node, whose write lock is taken first: it stays true until the end.
pub(super) async fn check_fence(tx: &mut Tx<'_>, fence: &Fence) -> Result<(), Error> {
    let ask = query(
        "MATCH (s:phasegate_slots {run_id: $run, slot: $slot}) SET s.held = true \
         WITH s RETURN s.token AS token",
    )
    .param("run", fence.run().as_str())
    .param("slot", i64::from(fence.slot()));
    let rows = tx.rows(ask).await.map_err(failed("check the fencing token"))?;
    let row = rows.first().ok_or_else(|| words::no_claim(fence.run()))?;
    let newest = unsigned(get(row, "token")?)?;
    words::hold(fence, newest, damaged)
}

fn applied_query(run: &RunId, step: &str, way: Way) -> Query {
    query("MATCH (s:phasegate_steps {run_id: $run, step: $step, way: $way}) RETURN s.rows AS rows, s.detail AS detail")
        .param("run", run.as_str())
        .param("step", step)
        .param("way", way_name(way))
}

fn read_applied(rows: &[Row]) -> Result<Option<Applied>, Error> {
    let Some(row) = rows.first() else { return Ok(None) };
    let rows = unsigned(get(row, "rows")?)?;
    Ok(Some(Applied { before: true, rows, detail: get(row, "detail")? }))
}

/// What the ledger has of a piece of work: then it was done before, and is not done again.
pub(super) async fn applied(
    who: &mut impl Ask,
    run: &RunId,
    step: &str,
    way: Way,
) -> Result<Option<Applied>, Error> {
    let rows = who.rows(applied_query(run, step, way)).await.map_err(failed("read the ledger"))?;
    read_applied(&rows)
}

impl Neo4j {
    /// What the ledger has of a piece of work under a name. The commit of an attempt whose answer was lost may be under way, and this is
    /// the answer once it has ended: it holds the entry by then, which is made here, too, and taken back. Under the fence, so that who
    /// was taken over is told, and is ended by whoever took over.
    pub(super) async fn done(
        &self,
        fence: &Fence,
        (name, way): (&str, Way),
    ) -> Result<Option<Applied>, Error> {
        let mut tx = self.connections.begin(fence, TxKind::Execute).await?;
        let hold = query(
            "MERGE (s:phasegate_steps {run_id: $run, step: $step, way: $way}) SET s.held = true REMOVE s.held \
             WITH s RETURN s.rows AS rows, s.detail AS detail",
        )
        .param("run", fence.run().as_str())
        .param("step", name)
        .param("way", way_name(way));
        let rows = tx.rows(hold).await.map_err(failed("read the ledger"))?;
        tx.roll_back().await;
        let rows_done: Option<i64> = rows.first().map_or(Ok(None), |row| get(row, "rows"))?;
        // An entry without it was made here.
        rows_done.map_or(Ok(None), |_| read_applied(&rows))
    }

    /// The same of a step's whole work.
    pub(super) async fn done_before(
        &self,
        fence: &Fence,
        work: &Work,
    ) -> Result<Option<Applied>, Error> {
        self.done(fence, (work.step.as_str(), work.way)).await
    }
}

/// Enters a piece of work under a name in the ledger, and the journal's head with it. Returns what to answer after the commit.
pub(super) async fn record(
    tx: &mut Tx<'_>,
    fence: &Fence,
    (name, work): (&str, &Work),
    (rows, detail): (u64, Option<String>),
) -> Result<Applied, Error> {
    let enter = query(
        "MERGE (s:phasegate_steps {run_id: $run, step: $step, way: $way}) \
         SET s.rows = $rows, s.detail = $detail, s.token = $token, s.head_version = $version, s.committed_at = datetime()",
    )
    .param("run", fence.run().as_str())
    .param("step", name)
    .param("way", way_name(work.way))
    .param("rows", signed(rows))
    .param("detail", detail.clone())
    .param("token", signed(fence.token()))
    .param("version", signed(work.head.version));
    tx.run(enter).await.map_err(failed("enter the step in the ledger"))?;
    keep_head(tx, fence.run(), &work.head).await?;
    Ok(Applied { before: false, rows, detail })
}

/// Removes entries of a piece of work whose names begin so.
pub(super) async fn forget(
    tx: &mut Tx<'_>,
    fence: &Fence,
    (begins, way): (&str, Way),
) -> Result<(), Error> {
    let forget = query(
        "MATCH (s:phasegate_steps {run_id: $run, way: $way}) WHERE s.step STARTS WITH $begins DELETE s",
    )
    .param("run", fence.run().as_str())
    .param("way", way_name(way))
    .param("begins", begins);
    tx.run(forget).await.map(|_| ()).map_err(failed("forget marks in the ledger"))
}

/// Keeps the journal's head, if it is higher than the one kept.
pub(super) async fn keep_head(tx: &mut Tx<'_>, run: &RunId, head: &Head) -> Result<(), Error> {
    let keep = query(
        "MATCH (r:phasegate_runs {run_id: $run}) WHERE coalesce(r.head_version, -1) < $version \
         SET r.held = true REMOVE r.held WITH r WHERE coalesce(r.head_version, -1) < $version \
         SET r.head_version = $version, r.head_hash = $hash",
    )
    .param("run", run.as_str())
    .param("version", signed(head.version))
    .param("hash", head.hash.as_str());
    tx.run(keep).await.map(|_| ()).map_err(failed("keep the head of the journal"))
}

/// Keeps the head of a journal that takes the place of a lost one. What was entered under that one is from before.
pub(super) async fn begin_anew(tx: &mut Tx<'_>, run: &RunId, head: &Head) -> Result<(), Error> {
    for text in [
        "MATCH (r:phasegate_runs {run_id: $run}) REMOVE r.head_version, r.head_hash",
        "MATCH (s:phasegate_steps {run_id: $run}) SET s.head_version = 0",
    ] {
        let forget = query(text).param("run", run.as_str());
        tx.run(forget).await.map_err(failed("keep the head of the journal"))?;
    }
    keep_head(tx, run, head).await
}

/// The journal's head as kept.
pub(super) async fn head(reader: &mut Reader<'_>, run: &RunId) -> Result<Option<Head>, Error> {
    let ask = query(
        "MATCH (r:phasegate_runs {run_id: $run}) WHERE r.head_version IS NOT NULL AND r.head_hash IS NOT NULL \
         RETURN r.head_version AS version, r.head_hash AS hash",
    )
    .param("run", run.as_str());
    let rows = reader.rows(ask).await.map_err(failed("read the head of the journal"))?;
    let Some(row) = rows.first() else { return Ok(None) };
    words::head(get(row, "version")?, get(row, "hash")?).map(Some).map_err(damaged)
}
