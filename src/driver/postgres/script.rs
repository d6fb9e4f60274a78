//! Running the statements of a step in one transaction.

use sqlx::AssertSqlSafe;

use super::connection::Tx;
use super::error::{failed, position, refused};
use super::leftovers::{self, IndexState};
use super::{Postgres, hints, ledger, statements};
use crate::driver::{Applied, Error, Fence, TxKind, Work};
use crate::run::{Script, Statement, Way};
use crate::sql::{Dialect, NewIndex, drops_one, index_made};

/// Runs a script in one transaction with its row in the ledger. Going back, it does nothing when the ledger has no entry of
/// the way forward.
pub(super) async fn transactional(
    postgres: &Postgres,
    fence: &Fence,
    work: &Work,
    script: &Script,
) -> Result<Applied, Error> {
    let (error, at) = match attempt(postgres, fence, work, script).await {
        Ok(applied) => return Ok(applied),
        Err(failed) => failed,
    };
    Err(match at.and_then(|at| script.statements.get(at)) {
        Some(at) => hints::explain(postgres, error, at, script.file.as_deref()).await,
        None => error,
    })
}

/// An error, and the number of the statement that it belongs to.
type At = (Error, Option<usize>);

async fn attempt(
    postgres: &Postgres,
    fence: &Fence,
    work: &Work,
    script: &Script,
) -> Result<Applied, At> {
    let ours = |error| (error, None);
    let notes = clear_leftovers(postgres, fence, work, script).await?;
    let connections = &postgres.connections;
    let begun = connections.begin_waiting(fence, TxKind::Execute, work.lock_timeout_ms).await;
    let mut tx = begun.map_err(ours)?;
    match apply(postgres, &mut tx, (fence, work), (script, notes)).await {
        Ok(applied) if applied.before => {
            tx.roll_back().await;
            Ok(applied)
        }
        Ok(applied) => {
            tx.commit().await.map_err(ours)?;
            Ok(applied)
        }
        Err((error, at)) => Err((tx.give_up(error).await, at)),
    }
}

async fn apply(
    postgres: &Postgres,
    tx: &mut Tx<'_>,
    (fence, work): (&Fence, &Work),
    (script, mut notes): (&Script, Vec<String>),
) -> Result<Applied, At> {
    let ours = |error| (error, None);
    let before = ledger::applied(tx, fence.run(), &work.step, work.way).await.map_err(ours)?;
    if let Some(before) = before {
        return Ok(before);
    }
    if work.way == Way::Back && !was_begun(postgres, tx, fence, work).await.map_err(ours)? {
        let detail = Some("it had not been done, so there was nothing to undo".to_owned());
        return ledger::record(tx, fence, work, (0, detail)).await.map_err(ours);
    }
    tx.close_afterwards();
    let mut rows = 0;
    for (at, statement) in script.statements.iter().enumerate() {
        let done = match work.way {
            Way::Forward => run_one(tx, statement).await.map(|rows| (rows, None)),
            Way::Back => undo_one(tx, statement).await,
        };
        let (changed, note) = done.map_err(|error| (error, Some(at)))?;
        rows += changed;
        notes.extend(note);
    }
    let detail = (!notes.is_empty()).then(|| notes.join("; "));
    ledger::record(tx, fence, work, (rows, detail)).await.map_err(ours)
}

/// Whether there is anything to undo. Statements that ran each by themselves count: some may have been done though the step
/// was not.
async fn was_begun(
    postgres: &Postgres,
    tx: &mut Tx<'_>,
    fence: &Fence,
    work: &Work,
) -> Result<bool, Error> {
    if ledger::applied(tx, fence.run(), &work.step, Way::Forward).await?.is_some() {
        return Ok(true);
    }
    if !statements::has_marks(tx, fence, work, Way::Forward).await? {
        return Ok(false);
    }
    let mut bare = postgres.connections.bare(fence).await?;
    statements::end_begun(&mut bare, fence, work).await?;
    bare.close().await;
    Ok(true)
}

/// Drops the INVALID indexes that failed builds left under the names of those that the script makes: `IF NOT EXISTS` would
/// take them for the indexes. That goes before the transaction, where nobody is kept from the table meanwhile. Returns what
/// there is to say of it.
async fn clear_leftovers(
    postgres: &Postgres,
    fence: &Fence,
    work: &Work,
    script: &Script,
) -> Result<Vec<String>, At> {
    let mut notes = Vec::new();
    for (at, statement) in script.statements.iter().enumerate() {
        let Some(index) = index_made(&statement.text) else { continue };
        let cleared = clear_leftover(postgres, fence, work, &index).await;
        notes.extend(cleared.map_err(|error| (error, Some(at)))?);
    }
    Ok(notes)
}

async fn clear_leftover(
    postgres: &Postgres,
    fence: &Fence,
    work: &Work,
    index: &NewIndex,
) -> Result<Option<String>, Error> {
    let mut tx =
        postgres.connections.bare(fence).await?.begin(fence, TxKind::Execute, None).await?;
    let is_done = ledger::applied(&mut tx, fence.run(), &work.step, work.way).await?.is_some();
    let found = leftovers::index(tx.conn()?, index).await?;
    let Some(mut bare) = tx.give_up_bare().await else { return Ok(None) };
    let name = match found {
        Some(IndexState::Invalid(name)) if !is_done => name,
        Some(IndexState::Building(pid)) if !is_done => {
            return Err(leftovers::building(index.name.as_deref().unwrap_or(""), pid));
        }
        _ => {
            bare.close().await;
            return Ok(None);
        }
    };
    let watcher = bare.wait_for_locks(0).await?;
    let dropped = leftovers::drop_index(bare.conn()?, &name).await;
    dropped.map_err(|error| watcher.explain(refused(&error)))?;
    bare.close().await;
    Ok(Some(leftovers::dropped(&name)))
}

/// Runs a statement. Returns the rows it changed.
pub(super) async fn run_one(tx: &mut Tx<'_>, statement: &Statement) -> Result<u64, Error> {
    let done = sqlx::query(AssertSqlSafe(statement.text.clone()))
        .persistent(false)
        .execute(tx.conn()?)
        .await
        .map_err(|error| at_statement(&error, statement))?;
    Ok(done.rows_affected())
}

/// Runs a statement of an undo. What it drops and is gone already is no reason to fail: then there is nothing to do, and the
/// note says so. Returns the rows it changed, and that note.
pub(super) async fn undo_one(
    tx: &mut Tx<'_>,
    statement: &Statement,
) -> Result<(u64, Option<String>), Error> {
    if !drops_one(Dialect::Postgres, &statement.text) {
        let done = run_one(tx, statement).await;
        return done.map(|rows| (rows, None)).map_err(hints::of_undo);
    }
    let mark = async |tx: &mut Tx<'_>, words: &'static str| {
        let done = sqlx::query(words).execute(tx.conn()?).await;
        done.map(|_| ()).map_err(failed("mark the place"))
    };
    mark(tx, "SAVEPOINT phasegate_undo").await?;
    match run_one(tx, statement).await {
        Ok(rows) => {
            mark(tx, "RELEASE SAVEPOINT phasegate_undo").await?;
            Ok((rows, None))
        }
        Err(error) => match hints::gone_already(&error, statement) {
            Some(note) => {
                mark(tx, "ROLLBACK TO SAVEPOINT phasegate_undo").await?;
                Ok((0, Some(note)))
            }
            None => Err(hints::of_undo(error)),
        },
    }
}

/// An error with the line of the plan (or file) that the server points at.
pub(super) fn at_statement(error: &sqlx::Error, statement: &Statement) -> Error {
    let mut error_of_ours = refused(error);
    let before = position(error).map_or(0, |at| {
        statement.text.chars().take(at.saturating_sub(1)).filter(|char| *char == '\n').count()
    });
    if let Error::Failed(failure) | Error::Unknown(failure) = &mut error_of_ours {
        failure.line = Some(statement.line + u32::try_from(before).unwrap_or(0));
    }
    error_of_ours
}
