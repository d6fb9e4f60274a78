//! Running the statements of a step.

use sqlx::AssertSqlSafe;

use super::connection::{Tx, TxKind};
use super::error::{position, refused};
use super::{Postgres, ledger};
use crate::driver::{Applied, Error, Fence, Work};
use crate::run::{Script, Statement, Way};

/// Runs a script in one transaction with its row in the ledger. Going back, it does nothing when the ledger has no entry of
/// the way forward.
pub(super) async fn transactional(
    postgres: &Postgres,
    fence: &Fence,
    work: &Work,
    script: &Script,
) -> Result<Applied, Error> {
    let connections = &postgres.connections;
    let mut tx = connections.begin_waiting(fence, TxKind::Execute, work.lock_timeout_ms).await?;
    if let Some(before) = ledger::applied(&mut tx, fence.run(), &work.step, work.way).await? {
        tx.roll_back().await;
        return Ok(before);
    }
    let is_undone_before_done = work.way == Way::Back
        && ledger::applied(&mut tx, fence.run(), &work.step, Way::Forward).await?.is_none();
    let recorded = if is_undone_before_done {
        let detail = Some("it had not been done, so there was nothing to undo".to_owned());
        ledger::record(&mut tx, fence, work, (0, detail)).await
    } else {
        tx.close_afterwards();
        match run(&mut tx, script).await {
            Ok(rows) => ledger::record(&mut tx, fence, work, (rows, None)).await,
            Err(error) => Err(error),
        }
    };
    match recorded {
        Ok(applied) => {
            tx.commit().await?;
            Ok(applied)
        }
        Err(error) => {
            tx.roll_back().await;
            Err(error)
        }
    }
}

/// Runs the statements in order. Returns the rows they changed.
async fn run(tx: &mut Tx<'_>, script: &Script) -> Result<u64, Error> {
    let mut rows = 0;
    for statement in &script.statements {
        let done = sqlx::query(AssertSqlSafe(statement.text.clone()))
            .persistent(false)
            .execute(tx.conn()?)
            .await
            .map_err(|error| at_statement(&error, statement))?;
        rows += done.rows_affected();
    }
    Ok(rows)
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
