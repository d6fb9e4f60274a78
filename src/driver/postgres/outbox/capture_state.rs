//! Whether a mapping is captured, by the catalogue: every trigger on every partition, firing always, with exactly our functions, which run
//! as the table's owner under our settings, and an outbox to write to.
//!
//! A partition that was attached later has the triggers for rows, since PostgreSQL makes them, and none for TRUNCATE, which counts
//! as in place: what TRUNCATE of that partition alone takes, only a comparison finds.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::Resolved;
use super::capture::BY_INDEX;
use super::capture_sql::capture_sql;
use super::form::{AS_HERE, PINNED};
use super::mapped::carried;
use super::tables::{SEQUENCE, TABLE};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::error::failed;
use crate::driver::postgres::ledger::has_table;
use crate::driver::postgres::planted::Fault;
use crate::driver::postgres::sync_objects::check_inheritance;
use crate::driver::postgres::sync_sql::{Side, Trigger, function_name};
use crate::driver::postgres::sync_state::{
    functions, hidden_rows, judge_functions, judge_triggers, not_always, triggers,
};
use crate::driver::{Error, SyncState};
use crate::run::{FailureClass, Mapping};

/// Whether everything that captures a mapping is in place.
pub(super) async fn state(postgres: &Postgres, mapping: &Mapping) -> Result<SyncState, Error> {
    let schema = postgres.connections.schema().to_owned();
    let mut reader = postgres.connections.snapshot().await?;
    let state = judge(reader.conn()?, mapping, &schema).await?;
    reader.release().await;
    Ok(state)
}

async fn judge(
    conn: &mut PgConnection,
    mapping: &Mapping,
    schema: &str,
) -> Result<SyncState, Error> {
    if Fault::SyncUnproven.is_planted() {
        return Ok(SyncState::Active);
    }
    // The table may be another by now than the one whose changes were captured, or hold something else.
    let now = match Resolved::since_capture(conn, mapping, schema).await {
        Ok(now) => now,
        Err(Error::Failed(failure))
            if matches!(failure.class, FailureClass::Stale | FailureClass::Refused) =>
        {
            return Ok(SyncState::Broken(failure.message));
        }
        Err(error) => return Err(error),
    };
    let (shape, expected) = (now.shape(), capture_sql(&now, schema));
    let mut wrong = Vec::new();
    let found = functions(conn, shape, schema).await?;
    let row = function_name(shape, "o");
    let carried = found.iter().find(|it| it.name == row).and_then(|it| carried(&it.body));
    if let Some(carried) = carried.filter(|carried| *carried != now.carries()) {
        return Ok(SyncState::Broken(carries_other(&mapping.from.table, &carried, &now.carries())));
    }
    judge_functions(shape, &expected.functions, &found, &mut wrong);
    let pins = pins(conn).await?;
    for function in expected.functions.iter().filter(|function| function.returns == "trigger") {
        let by_index = BY_INDEX.iter().filter(|_| function.name == row);
        let by_index = by_index.map(|(name, value)| format!(" {name}={value} "));
        let pins: Vec<String> = pins.iter().cloned().chain(by_index).collect();
        let there = found.iter().find(|it| it.name == function.name);
        let is_pinned = |path: &str| pins.iter().all(|pin| format!(" {path} ").contains(pin));
        if there.is_some_and(|there| !is_pinned(&there.path)) {
            wrong.push(format!("the settings of function {} were changed", function.name));
        }
    }
    // One that inherits from it since then: its rows are among the table's, and fire none of its triggers.
    match check_inheritance(conn, shape, Side::Old).await {
        Err(Error::Failed(failure)) if failure.class == FailureClass::Unsafe => {
            wrong.push(failure.message);
        }
        other => other?,
    }
    let found = triggers(conn, shape, (&shape.old, schema)).await?;
    let triggers: Vec<&Trigger> = expected.triggers.iter().collect();
    judge_triggers(&triggers, (&shape.old, &found), &mut wrong, |enabled| {
        not_always(enabled, "verify with repair, since writes may have been missed")
    });
    wrong.extend(hidden_rows(conn, shape).await?);
    wrong.extend(outbox(conn, schema).await?);
    Ok(if wrong.is_empty() { SyncState::Active } else { SyncState::Broken(wrong.join("; ")) })
}

/// What each trigger's function has to have set, as the catalogue has it, between blanks.
async fn pins(conn: &mut PgConnection) -> Result<Vec<String>, Error> {
    let sql =
        "SELECT ' ' || name || '=' || current_setting(name) || ' ' FROM unnest($1::text[]) AS name";
    let rows = sqlx::query(sql).bind(&AS_HERE[..]).fetch_all(conn).await;
    let rows = rows.map_err(failed("read the settings of this session"))?;
    let here = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>();
    let here = here.map_err(failed("read the settings of this session"))?;
    let fixed = PINNED.iter().map(|(name, value)| format!(" {name}={value} "));
    Ok(fixed.chain(here).collect())
}

/// What images hold that were written so far, and what is read of the table now, where these aren't the same.
fn carries_other(table: &str, before: &[String], now: &[String]) -> String {
    let only = |of: &[String], not: &[String]| -> String {
        let only: Vec<&str> =
            of.iter().filter(|one| !not.contains(one)).map(String::as_str).collect();
        if only.is_empty() { "nothing".to_owned() } else { only.join(", ") }
    };
    format!(
        "what is captured of {table} is not what there is of it: {} then, {} now",
        only(before, now),
        only(now, before)
    )
}

/// What is wrong with the outbox. A sequence that keeps numbers back, or begins anew, gives versions that say nothing.
async fn outbox(conn: &mut PgConnection, schema: &str) -> Result<Option<String>, Error> {
    let (table, sequence) = (format!("{schema}.{TABLE}"), format!("{schema}.{SEQUENCE}"));
    if !has_table(conn, &table).await? {
        return Ok(Some(format!("the table {TABLE}, which the triggers write to, is missing")));
    }
    let sql = "SELECT seqcache = 1 AND seqincrement > 0 AND NOT seqcycle FROM pg_sequence WHERE seqrelid = to_regclass($1)";
    let row = sqlx::query(sql).bind(&sequence).fetch_optional(&mut *conn).await;
    let is_ours: Option<bool> = row
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(failed("read the catalogue"))?;
    match is_ours {
        None => return Ok(Some(format!("the sequence {SEQUENCE} is missing"))),
        Some(false) => return Ok(Some(format!("the sequence {SEQUENCE} was changed"))),
        Some(true) => {}
    }
    let sql = format!(
        "SELECT s.last_value >= coalesce((SELECT max(version) FROM {table}), 0) FROM {sequence} AS s"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await;
    let goes_on: bool = row.and_then(|row| row.try_get(0)).map_err(failed("read the sequence"))?;
    Ok((!goes_on).then(|| format!("the sequence {SEQUENCE} was set back")))
}
