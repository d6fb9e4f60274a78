//! What an operator says came of a statement of which nothing in the database tells: the marks that they are shown, and their answer
//! in the marks.
//!
//! Invariants:
//! - An answer is about what was begun before it was given. What was begun since has a newer mark, and is in doubt anew.
//! - An answer is entered under the fence, before anything else is done. Entering it once more changes nothing, so we may end anywhere.
//! - Where it is said that something was done and no mark is there which that could be about, nothing is done at all.

use sqlx::{AssertSqlSafe, Row as _};

use super::Postgres;
use super::connection::{Reader, Tx};
use super::error::failed;
use super::ledger::{self, has_table, signed, way_name};
use super::leftovers;
use super::statements::{AGAIN, BEGUN, IN_PART, has_marks, session_in};
use crate::driver::{Error, Fence, TxKind, Work};
use crate::run::{Marked, Resolution, Resolved, RunId, Script, Statement, StepId, Way};
use crate::sql::{Alone, Shared, alone, shared_object};

/// Enters an operator's answer in the mark that it is about.
pub(super) async fn settle(postgres: &Postgres, fence: &Fence, work: &Work) -> Result<(), Error> {
    let Some(answer) = work.resolved else { return Ok(()) };
    let mut tx = postgres.connections.begin(fence, TxKind::Execute).await?;
    match enter(&mut tx, fence, work, answer).await {
        Ok(()) => tx.commit().await.map(|_| ()),
        Err(error) => Err(tx.give_up(error).await),
    }
}

async fn enter(tx: &mut Tx<'_>, fence: &Fence, work: &Work, answer: Resolved) -> Result<(), Error> {
    let steps = tx.ours("steps");
    let which = "run_id = $1 AND starts_with(step, $2) AND way = $3 AND head_version < $4 AND starts_with(detail, $5)";
    let again = format!("detail LIKE '%{AGAIN}'");
    let texts = match answer.outcome {
        Resolution::Applied => vec![format!(
            "UPDATE {steps} SET rows = 0, detail = NULL, committed_at = clock_timestamp() WHERE {which}"
        )],
        // As where the server has said that it failed. What failed before that and left something has left it still.
        Resolution::NotApplied => vec![
            format!("DELETE FROM {steps} WHERE {which} AND NOT {again}"),
            format!("UPDATE {steps} SET detail = '{IN_PART}' WHERE {which} AND {again}"),
        ],
    };
    for text in texts {
        sqlx::query(AssertSqlSafe(text))
            .bind(fence.run().as_str())
            .bind(format!("{}/statement/", work.step))
            .bind(way_name(answer.way))
            .bind(signed(answer.version))
            .bind(BEGUN)
            .execute(tx.conn()?)
            .await
            .map_err(failed("enter the answer in the ledger"))?;
    }
    let is_in_doubt = work.is_told_done()
        && ledger::applied(tx, fence.run(), &work.step, work.way).await?.is_none()
        && !has_marks(tx, fence, work, work.way).await?;
    if is_in_doubt { Err(work.unmarked()) } else { Ok(()) }
}

/// The marks of a step's statements.
pub(super) async fn marks(
    postgres: &Postgres,
    (run, step): (&RunId, &StepId),
    script: Option<(Way, &Script)>,
) -> Result<Vec<Marked>, Error> {
    let mut reader = postgres.connections.read().await?;
    let marks = read(&mut reader, (run, step), script).await?;
    reader.release().await;
    Ok(marks)
}

async fn read(
    reader: &mut Reader<'_>,
    (run, step): (&RunId, &StepId),
    script: Option<(Way, &Script)>,
) -> Result<Vec<Marked>, Error> {
    let steps = reader.ours("steps");
    if !has_table(reader.conn()?, &steps).await? {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT substr(step, length($2) + 1), way, detail,
                to_char(committed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS\"Z\"')
         FROM {steps} WHERE run_id = $1 AND starts_with(step, $2)
         ORDER BY way DESC, length(step), step"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(run.as_str())
        .bind(format!("{step}/statement/"))
        .fetch_all(reader.conn()?)
        .await
        .map_err(failed("read the ledger"))?;
    let mut marks = Vec::new();
    for row in rows {
        let fields = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
        let (number, way, detail, at): (String, String, Option<String>, String) =
            fields().map_err(failed("read the ledger"))?;
        let way = if way == way_name(Way::Back) { Way::Back } else { Way::Forward };
        let at_script = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let script = script.filter(|(of, _)| *of == way);
        let statement =
            script.zip(at_script).and_then(|((_, script), at)| script.statements.get(at));
        let session = detail.as_deref().and_then(session_in);
        let is_again = detail.as_deref().is_some_and(|it| it.ends_with(AGAIN));
        let mut seen = Vec::new();
        if let Some(session) = &session {
            let is_there = leftovers::is_alive(reader.conn()?, session).await?;
            let is = if is_there { "is still there: wait until it has ended" } else { "is gone" };
            seen.push(format!("its session, {} of {}, {is}", session.pid, session.began));
            if let Some(statement) = statement {
                seen.push(catalogue(reader, statement).await?);
            }
            if is_again {
                seen.push("an attempt before it failed and left something, which has to be done again or undone".to_owned());
            }
        }
        marks.push(Marked {
            way,
            part: format!("statement {number}"),
            lines: statement.iter().map(|statement| statement.line).collect(),
            stands: match (&session, detail.as_deref()) {
                (Some(_), _) => "begun, and not seen to end".to_owned(),
                (None, Some(IN_PART)) => format!("{IN_PART}; it is to be done again"),
                (None, _) => "done".to_owned(),
            },
            is_open: session.is_some(),
            has_left: session.is_none() || is_again,
            at,
            seen,
        });
    }
    Ok(marks)
}

/// What the catalogue tells of a statement that may have been done.
async fn catalogue(reader: &mut Reader<'_>, statement: &Statement) -> Result<String, Error> {
    if alone(&statement.text) != Alone::Opaque {
        return Ok("the next attempt asks the catalogue whether it was done".to_owned());
    }
    let Some((kind, name)) = shared_object(&statement.text) else {
        return Ok("nothing in the catalogue tells whether it was done".to_owned());
    };
    let (word, catalogue) = match kind {
        Shared::Database => ("database", "pg_database WHERE datname"),
        Shared::Tablespace => ("tablespace", "pg_tablespace WHERE spcname"),
        Shared::Subscription => ("subscription", "pg_subscription WHERE subname"),
    };
    let sql = format!("SELECT EXISTS (SELECT FROM {catalogue} = (parse_ident($1))[1])");
    let is_there: bool = sqlx::query(AssertSqlSafe(sql))
        .bind(&name)
        .fetch_one(reader.conn()?)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("look for what the statement is about"))?;
    let has = if is_there { "a" } else { "no" };
    Ok(format!("the catalogue has {has} {word} {name} now"))
}

#[cfg(test)]
#[path = "answered_tests.rs"]
mod tests;
