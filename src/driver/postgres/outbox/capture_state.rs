//! Whether a mapping is captured, by the catalogue: every trigger on every partition, enabled, with exactly our functions, which run
//! as the table's owner under our settings, and an outbox to write to.
//!
//! A partition that was attached later has the triggers for rows, since PostgreSQL makes them, and none for TRUNCATE, which counts
//! as in place: what TRUNCATE of that partition alone takes, only a comparison finds.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::Resolved;
use super::capture_sql::capture_sql;
use super::form::PINNED;
use super::tables::{SEQUENCE, TABLE};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::error::failed;
use crate::driver::postgres::ledger::has_table;
use crate::driver::postgres::sync_sql::Trigger;
use crate::driver::postgres::sync_state::{
    functions, hidden_rows, judge_functions, judge_triggers, triggers,
};
use crate::driver::{Error, SyncState};
use crate::run::FailureClass;

impl Postgres {
    /// Whether everything that captures a mapping is in place.
    pub(in crate::driver::postgres) async fn capture_state(
        &self,
        of: &Resolved,
    ) -> Result<SyncState, Error> {
        let schema = self.connections.schema().to_owned();
        let mut reader = self.connections.snapshot().await?;
        let state = judge(reader.conn()?, of, &schema).await?;
        reader.release().await;
        Ok(state)
    }
}

async fn judge(conn: &mut PgConnection, of: &Resolved, schema: &str) -> Result<SyncState, Error> {
    // The table may be another by now than the one that the mapping was held against, or hold something else.
    let broken = |why: String| Ok(SyncState::Broken(why));
    let table = &of.captured().table;
    let now = match Resolved::of(conn, of.captured()).await {
        Ok(now) => now,
        Err(Error::Failed(failure))
            if matches!(failure.class, FailureClass::Stale | FailureClass::Refused) =>
        {
            return broken(failure.message);
        }
        Err(error) => return Err(error),
    };
    if now.shape().old.oid != of.shape().old.oid {
        return broken(format!("{table} is another table now"));
    }
    if now.keys != of.keys || now.forms != of.forms {
        return broken(format!("the types of what is read of {table} changed"));
    }
    let (shape, expected) = (now.shape(), capture_sql(&now, schema));
    let mut wrong = Vec::new();
    let found = functions(conn, shape, schema).await?;
    judge_functions(shape, &expected.functions, &found, &mut wrong);
    let pins = PINNED.map(|(name, value)| format!("{name}={value}"));
    for function in expected.functions.iter().filter(|function| function.returns == "trigger") {
        let there = found.iter().find(|it| it.name == function.name);
        if there.is_some_and(|there| !pins.iter().all(|pin| there.path.contains(pin))) {
            wrong.push(format!("the settings of function {} were changed", function.name));
        }
    }
    let found = triggers(conn, shape, (&shape.old, schema)).await?;
    let triggers: Vec<&Trigger> = expected.triggers.iter().collect();
    judge_triggers(&triggers, (&shape.old, &found), &mut wrong, not_for_clients);
    wrong.extend(hidden_rows(conn, shape).await?);
    wrong.extend(outbox(conn, schema).await?);
    Ok(if wrong.is_empty() { SyncState::Active } else { SyncState::Broken(wrong.join("; ")) })
}

/// What is wrong with how a trigger is switched. One that fires always fires for clients, too.
fn not_for_clients(enabled: &str) -> Option<String> {
    let help = "is disabled (ALTER TABLE … ENABLE TRIGGER; then verify with repair, since writes may have been missed)";
    (!matches!(enabled, "O" | "A")).then(|| help.to_owned())
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
