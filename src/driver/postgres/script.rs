//! Running the statements of a step in one transaction.

use sqlx::AssertSqlSafe;

use super::connection::{Tx, TxKind};
use super::error::{position, refused};
use super::leftovers::{self, IndexState};
use super::{Postgres, hints, ledger, statements};
use crate::driver::{Applied, Error, Fence, Work};
use crate::run::{Script, Statement, Way};
use crate::sql::{NewIndex, index_made};

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
    (script, notes): (&Script, Vec<String>),
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
        rows += run_one(tx, statement).await.map_err(|error| (error, Some(at)))?;
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
