//! The ledger of copies and of comparisons: which chunks were planned, which are committed, what they add up to, and how far a
//! comparison has come.
//!
//! Invariants:
//! - A chunk is entered with its exact bounds before it is copied, and is copied under those bounds only.
//! - Chunks below the watermark are folded into the copy's one node, so the ledger does not grow with the graph.
//! - A copy's node outlives its chunks until the run leaves, so that its totals can be asked for again.

use neo4rs::{Query, Row, query};
use serde::Deserialize;

use super::connection::{Ask, Reader, Tx};
use super::error::{damaged, failed};
use super::ledger::{get, signed, unsigned};
use crate::copy::chunk::{Chunk, Key, Planned, Walk};
pub(super) use crate::driver::ledger::{Copy, Rows};
use crate::driver::{CopyState, Error, Fence};
use crate::run::{FailureClass, Mapping, MappingName, RunId, StepId};

fn of(text: &str, run: &RunId, step: &StepId) -> Query {
    query(text).param("run", run.as_str()).param("step", step.as_str())
}

const LOAD: &str = "MATCH (c:phasegate_copies {run_id: $run, step: $step}) \
     RETURN c.seq AS seq, c.hi AS hi, c.frozen AS frozen, c.ended AS ended, c.watermark AS watermark, \
     c.rows_read AS rows_read, c.rows_written AS rows_written";

fn read_copy(row: &Row) -> Result<Copy, Error> {
    Ok(Copy {
        seq: count(row, "seq")?,
        hi: key(row, "hi")?,
        frozen: key(row, "frozen")?,
        ended: get(row, "ended")?,
        watermark: count(row, "watermark")?,
        rows_read: count(row, "rows_read")?,
        rows_written: count(row, "rows_written")?,
    })
}

/// A copy's node, or `None` before its first call.
pub(super) async fn load(
    who: &mut impl Ask,
    run: &RunId,
    step: &StepId,
) -> Result<Option<Copy>, Error> {
    let rows = who.rows(of(LOAD, run, step)).await.map_err(failed("read the ledger of copies"))?;
    rows.first().map(read_copy).transpose()
}

/// Whether a mapping is being copied.
pub(super) async fn is_copied_now(
    reader: &mut Reader<'_>,
    run: &RunId,
    mapping: &Mapping,
) -> Result<bool, Error> {
    let ask = query(
        "MATCH (c:phasegate_copies {run_id: $run}) WHERE c.open_of = $mapping RETURN 1 AS one",
    )
    .param("run", run.as_str())
    .param("mapping", mapping.name.as_str());
    let rows = reader.rows(ask).await.map_err(failed("read the ledger of copies"))?;
    Ok(!rows.is_empty())
}

/// Writes a copy's node, with the mapping that it is of until it is whole.
pub(super) async fn save(
    tx: &mut Tx<'_>,
    (run, step): (&RunId, &StepId),
    (copy, open_of): (&Copy, Option<&MappingName>),
) -> Result<(), Error> {
    let save = of(
        "MERGE (c:phasegate_copies {run_id: $run, step: $step}) \
         SET c.open_of = $open_of, c.seq = $seq, c.hi = $hi, c.frozen = $frozen, c.ended = $ended, c.watermark = $watermark, \
         c.rows_read = $rows_read, c.rows_written = $rows_written",
        run,
        step,
    )
    .param("open_of", open_of.map(MappingName::as_str))
    .param("seq", signed(copy.seq))
    .param("hi", json(copy.hi.as_ref())?)
    .param("frozen", json(copy.frozen.as_ref())?)
    .param("ended", copy.ended)
    .param("watermark", signed(copy.watermark))
    .param("rows_read", signed(copy.rows_read))
    .param("rows_written", signed(copy.rows_written));
    tx.run(save).await.map(|_| ()).map_err(failed("write the ledger of copies"))
}

/// Moves the watermark up to the first chunk that is not committed, and folds what is below it.
pub(super) async fn fold(
    tx: &mut Tx<'_>,
    (run, step): (&RunId, &StepId),
    copy: &mut Copy,
) -> Result<(), Error> {
    let ask = of(WATERMARK, run, step).param("last", signed(copy.seq));
    let rows = tx.rows(ask).await.map_err(failed("read the ledger of chunks"))?;
    let Some(row) = rows.first() else { return Ok(()) };
    copy.watermark = count(row, "watermark")?;
    let fold = of(
        "MATCH (c:phasegate_chunks {run_id: $run, step: $step}) WHERE c.seq <= $watermark \
         WITH c, c.rows_read AS rows_read, c.rows_written AS rows_written DELETE c \
         RETURN coalesce(sum(rows_read), 0) AS rows_read, coalesce(sum(rows_written), 0) AS rows_written",
        run,
        step,
    )
    .param("watermark", signed(copy.watermark));
    let rows = tx.rows(fold).await.map_err(failed("fold the ledger of chunks"))?;
    if let Some(row) = rows.first() {
        copy.rows_read += count(row, "rows_read")?;
        copy.rows_written += count(row, "rows_written")?;
    }
    Ok(())
}

/// The number below the first chunk that is not committed; the last number given when all are.
const WATERMARK: &str = "OPTIONAL MATCH (c:phasegate_chunks {run_id: $run, step: $step}) WHERE NOT c.committed \
     RETURN coalesce(min(c.seq) - 1, $last) AS watermark";

/// Enters a chunk that is to be copied.
pub(super) async fn plan(
    tx: &mut Tx<'_>,
    (fence, step): (&Fence, &StepId),
    planned: &Planned,
) -> Result<(), Error> {
    let enter = of(
        "CREATE (:phasegate_chunks {run_id: $run, step: $step, seq: $seq, lo: $lo, hi: $hi, token: $token, \
         committed: false, rows_read: 0, rows_written: 0})",
        fence.run(),
        step,
    )
    .param("seq", signed(planned.seq))
    .param("lo", json(planned.chunk.lo.as_ref())?)
    .param("hi", json(planned.chunk.hi.as_ref())?)
    .param("token", signed(fence.token()));
    tx.run(enter).await.map(|_| ()).map_err(failed("enter a chunk in the ledger"))
}

/// Takes back chunks with numbers above `after`, as far as none behind them is committed: the next plan finds other bounds for them.
/// They are locked first: one may be about to be committed.
pub(super) async fn forget(
    tx: &mut Tx<'_>,
    (run, step): (&RunId, &StepId),
    after: u64,
) -> Result<(), Error> {
    let forget = of(
        "OPTIONAL MATCH (h:phasegate_chunks {run_id: $run, step: $step}) WHERE h.seq > $after \
         SET h.held = true REMOVE h.held WITH count(h) AS held \
         OPTIONAL MATCH (d:phasegate_chunks {run_id: $run, step: $step}) WHERE d.committed \
         WITH coalesce(max(d.seq), 0) AS last \
         MATCH (c:phasegate_chunks {run_id: $run, step: $step}) WHERE c.seq > $after AND c.seq > last \
         WITH c, c.seq AS seq, c.lo AS lo ORDER BY seq DELETE c RETURN seq, lo",
        run,
        step,
    )
    .param("after", signed(after));
    let rows = tx.rows(forget).await.map_err(failed("take chunks back"))?;
    let Some(first) = rows.first() else { return Ok(()) };
    let (seq, hi): (i64, Option<String>) = (get(first, "seq")?, get(first, "lo")?);
    let replan = of(
        "MATCH (c:phasegate_copies {run_id: $run, step: $step}) SET c.seq = $seq, c.hi = $hi, c.ended = false",
        run,
        step,
    )
    .param("seq", seq - 1)
    .param("hi", hi);
    tx.run(replan).await.map(|_| ()).map_err(failed("write the ledger of copies"))
}

/// The rows of a chunk that is committed, or `None` for one that is to be copied under just these bounds. Of one that is folded
/// there are none any more: they are in the totals. The chunk is locked before it is looked at: an attempt whose answer was lost may
/// be about to commit it, and whoever plans may fold it then, so that it is gone.
pub(super) async fn copied_before(
    tx: &mut Tx<'_>,
    (run, step): (&RunId, &StepId),
    chunk: &Planned,
) -> Result<Option<Rows>, Error> {
    let find = of(
        "MATCH (c:phasegate_chunks {run_id: $run, step: $step, seq: $seq}) SET c.held = true REMOVE c.held \
         WITH c WHERE c.committed IS NOT NULL RETURN c.lo AS lo, c.hi AS hi, \
         c.committed AS committed, c.rows_read AS rows_read, c.rows_written AS rows_written",
        run,
        step,
    )
    .param("seq", signed(chunk.seq));
    let rows = tx.rows(find).await.map_err(failed("read the ledger of chunks"))?;
    let stale = |message: String| Error::failed(FailureClass::Stale, message);
    if let Some(row) = rows.first() {
        if (Chunk { lo: key(row, "lo")?, hi: key(row, "hi")? }) != chunk.chunk {
            return Err(stale(format!(
                "chunk {} of {step} has other bounds in the ledger",
                chunk.seq
            )));
        }
        let rows = Rows { read: count(row, "rows_read")?, written: count(row, "rows_written")? };
        return Ok(get::<bool>(row, "committed")?.then_some(rows));
    }
    let copy = load(tx, run, step).await?.ok_or_else(|| not_begun(step))?;
    if chunk.seq <= copy.watermark {
        return Ok(Some(Rows::default()));
    }
    Err(stale(format!("chunk {} of {step} was never planned", chunk.seq)))
}

/// Marks a chunk committed, in the transaction that copied it.
pub(super) async fn commit(
    tx: &mut Tx<'_>,
    (fence, step): (&Fence, &StepId),
    seq: u64,
    rows: Rows,
) -> Result<(), Error> {
    let mark = of(
        "MATCH (c:phasegate_chunks {run_id: $run, step: $step, seq: $seq}) WHERE NOT c.committed \
         SET c.committed = true, c.rows_read = $read, c.rows_written = $written, c.token = $token RETURN c.seq AS seq",
        fence.run(),
        step,
    )
    .param("seq", signed(seq))
    .param("read", signed(rows.read))
    .param("written", signed(rows.written))
    .param("token", signed(fence.token()));
    let marked = tx.rows(mark).await.map_err(failed("mark a chunk in the ledger"))?;
    if marked.len() == 1 {
        Ok(())
    } else {
        Err(damaged(format!("chunk {seq} of {step} vanished from the ledger")))
    }
}

/// Chunks that are not folded, with the copy that they are of: all in one statement, which looks at each of them once. Other chunks are
/// committed while it runs, and it sees that from then on.
const STATE: &str = "MATCH (p:phasegate_copies {run_id: $run, step: $step}) \
     OPTIONAL MATCH (c:phasegate_chunks {run_id: $run, step: $step}) WITH p, c ORDER BY c.seq WITH p, collect(c) AS all \
     RETURN p.seq AS seq, p.hi AS hi, p.frozen AS frozen, p.ended AS ended, p.watermark AS watermark, \
     p.rows_read + reduce(sum = 0, it IN all | sum + it.rows_read) AS rows_read, \
     p.rows_written + reduce(sum = 0, it IN all | sum + it.rows_written) AS rows_written, \
     [it IN all WHERE NOT it.committed | {seq: it.seq, lo: it.lo, hi: it.hi}] AS open";

/// A chunk as the ledger has it.
#[derive(Deserialize)]
struct Open {
    seq: i64,
    lo: Option<String>,
    hi: Option<String>,
}

/// What the ledger knows of a copy: the beginning of one when it knows nothing.
pub(super) async fn state(
    who: &mut impl Ask,
    run: &RunId,
    step: &StepId,
) -> Result<CopyState, Error> {
    let rows = who.rows(of(STATE, run, step)).await.map_err(failed("read the ledger of copies"))?;
    read_state(&rows)
}

fn read_state(rows: &[Row]) -> Result<CopyState, Error> {
    let Some(row) = rows.first() else {
        let walk = Walk::At { seq: 0, hi: None };
        return Ok(CopyState {
            walk,
            open: Vec::new(),
            watermark: 0,
            rows_read: 0,
            rows_written: 0,
        });
    };
    let copy = read_copy(row)?;
    let found: Vec<Open> = get(row, "open")?;
    let mut open = Vec::with_capacity(found.len());
    for Open { seq, lo, hi } in found {
        let chunk = Chunk { lo: from_json(lo.as_deref())?, hi: from_json(hi.as_deref())? };
        open.push(Planned { seq: unsigned(seq)?, chunk });
    }
    let Copy { seq, rows_read, rows_written, .. } = copy;
    Ok(CopyState {
        watermark: open.first().map_or(seq, |first| first.seq - 1),
        open,
        rows_read,
        rows_written,
        walk: if copy.ended { Walk::Ended { seq } } else { Walk::At { seq, hi: copy.hi } },
    })
}

/// The error for a copy of which the ledger knows nothing.
pub(super) fn not_begun(step: &StepId) -> Error {
    Error::failed(FailureClass::Stale, format!("the ledger knows nothing of the copy of {step}"))
}

/// What was kept of a step's comparison.
pub(super) async fn kept_pass(
    reader: &mut Reader<'_>,
    run: &RunId,
    step: &StepId,
) -> Result<Option<String>, Error> {
    let ask = of(
        "MATCH (p:phasegate_passes {run_id: $run, step: $step}) RETURN p.pass AS pass",
        run,
        step,
    );
    let rows = reader.rows(ask).await.map_err(failed("read how far a comparison has come"))?;
    rows.first().map(|row| get(row, "pass")).transpose()
}

/// Keeps what there is of a comparison, or forgets it.
pub(super) async fn keep_pass(
    tx: &mut Tx<'_>,
    (fence, step): (&Fence, &StepId),
    pass: Option<&str>,
) -> Result<(), Error> {
    let keep = match pass {
        Some(pass) => of(
            "MERGE (p:phasegate_passes {run_id: $run, step: $step}) SET p.pass = $pass",
            fence.run(),
            step,
        )
        .param("pass", pass),
        None => {
            of("MATCH (p:phasegate_passes {run_id: $run, step: $step}) DELETE p", fence.run(), step)
        }
    };
    tx.run(keep).await.map(|_| ()).map_err(failed("keep how far a comparison has come"))
}

fn json(key: Option<&Key>) -> Result<Option<String>, Error> {
    let text = key.map(serde_json::to_string).transpose();
    text.map_err(|error| damaged(format!("a key can't be written: {error}")))
}

fn from_json(text: Option<&str>) -> Result<Option<Key>, Error> {
    let key = text.map(serde_json::from_str).transpose();
    key.map_err(|error| damaged(format!("a key in the ledger can't be read: {error}")))
}

fn key(row: &Row, name: &str) -> Result<Option<Key>, Error> {
    from_json(get::<Option<String>>(row, name)?.as_deref())
}

fn count(row: &Row, name: &str) -> Result<u64, Error> {
    unsigned(get(row, name)?)
}
