//! Whether a sync is in place, by the catalogue: every trigger on every partition, what it fires on, and its function's text.
//!
//! Triggers of ours fire ALWAYS: for the writes of logical replication's apply workers too, and of sessions with
//! `session_replication_role = replica`. One that was switched off and on again by ENABLE TRIGGER doesn't any more.
//!
//! A partition that was attached later has the triggers for rows, since PostgreSQL makes them, and none for TRUNCATE, which
//! counts as in place: what was compared before a TRUNCATE of that partition alone counts no more (see `partitions`).

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::catalogue::Table;
use super::error::failed;
use super::ledger;
use super::planted::Fault;
use super::shape::Shape;
use super::sync_sql::{
    Function, Side, SyncSql, TRIGGER_PREFIX, Trigger, function_name, trigger_name,
};
use crate::driver::{Error, SyncState};
use crate::run::Winner;

/// A function as the catalogue has it.
pub(super) struct FoundFunction {
    pub(super) name: String,
    pub(super) body: String,
    is_definer: bool,
    pub(super) path: String,
    owner: String,
}

/// A trigger as the catalogue has it, or a table without one.
pub(super) struct FoundTrigger {
    pub(super) table_oid: i64,
    pub(super) table: String,
    pub(super) name: Option<String>,
    pub(super) enabled: String,
    fires: i16,
    is_conditional: bool,
    function: String,
    columns: Vec<String>,
    arguments: Vec<u8>,
}

const FUNCTIONS: &str = "\
SELECT proname, prosrc, prosecdef, coalesce(array_to_string(proconfig, ' '), '') AS path, pg_get_userbyid(proowner) AS owner
FROM pg_proc WHERE pronamespace = to_regnamespace($1) AND starts_with(proname, $2)";

const TRIGGERS: &str = "\
SELECT c.oid::bigint AS table_oid, c.relname, t.tgname, coalesce(t.tgenabled::text, '') AS enabled,
       coalesce(t.tgtype, 0::int2) AS fires, t.tgqual IS NOT NULL AS is_conditional,
       CASE WHEN p.pronamespace = to_regnamespace($3) THEN p.proname::text ELSE '' END AS function,
       ARRAY(SELECT a.attname FROM unnest(t.tgattr::int2[]) WITH ORDINALITY AS k (number, at)
             JOIN pg_attribute a ON a.attrelid = t.tgrelid AND a.attnum = k.number ORDER BY k.at)::text[] AS columns,
       coalesce(t.tgargs, '') AS arguments
FROM (SELECT $1::bigint::oid AS relid UNION SELECT relid::oid FROM pg_partition_tree($1::bigint::oid::regclass)) AS tree
JOIN pg_class c ON c.oid = tree.relid
LEFT JOIN (pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid)
  ON t.tgrelid = c.oid AND starts_with(t.tgname, $2)
ORDER BY c.oid, t.tgname";

/// Triggers of others that fire before a row is written, after ours and all others like them: by name.
const LATE: &str = "\
SELECT c.relname, t.tgname
FROM (SELECT $1::bigint::oid AS relid UNION SELECT relid::oid FROM pg_partition_tree($1::bigint::oid::regclass)) AS tree
JOIN pg_class c ON c.oid = tree.relid JOIN pg_trigger t ON t.tgrelid = c.oid
WHERE NOT t.tgisinternal AND t.tgtype & 3 = 3 AND t.tgtype & 20 <> 0 AND t.tgenabled <> 'D'
  AND t.tgname COLLATE \"C\" > $2 COLLATE \"C\" AND NOT starts_with(t.tgname, $3) ORDER BY 1, 2 LIMIT 1";

/// Holds what should be there against what is. `schema` is our own, quoted.
pub(super) async fn judge(
    conn: &mut PgConnection,
    shape: &Shape,
    schema: &str,
    expected: &SyncSql,
) -> Result<SyncState, Error> {
    if Fault::SyncUnproven.is_planted() {
        return Ok(SyncState::Active);
    }
    let mut wrong = Vec::new();
    let found = functions(conn, shape, schema).await?;
    judge_functions(shape, &expected.functions, &found, &mut wrong);
    let sides: &[Side] = if shape.in_place { &[Side::Old] } else { &[Side::Old, Side::New] };
    for side in sides {
        let expected: Vec<&Trigger> =
            expected.triggers.iter().filter(|trigger| trigger.side == *side).collect();
        let found = triggers(conn, shape, (shape.side(*side), schema)).await?;
        let helps = helps(shape, *side, &expected);
        judge_triggers(&expected, (shape.side(*side), &found), &mut wrong, |enabled| {
            not_always(enabled, &helps)
        });
    }
    if shape.in_place
        && let Some((table, name)) = late_trigger(conn, shape).await?
    {
        wrong.push(format!(
            "trigger {name} on {table} fires after ours and may change the row again"
        ));
    }
    wrong.extend(hidden_rows(conn, shape).await?);
    for name in [shape.touched_name(), shape.kept_name(), shape.parked_name()] {
        if !ledger::has_table(conn, &format!("{schema}.\"{name}\"")).await? {
            wrong.push(format!("the table {name}, which the triggers write to, is missing"));
        }
    }
    Ok(if wrong.is_empty() { SyncState::Active } else { SyncState::Broken(wrong.join("; ")) })
}

/// Where row security would hide rows from the functions, which run as the old table's owner: no error would tell of it.
pub(super) async fn hidden_rows(
    conn: &mut PgConnection,
    shape: &Shape,
) -> Result<Option<String>, Error> {
    let owner = &shape.old.owner;
    let binds = |table: &&&std::sync::Arc<Table>| {
        table.row_security && (table.force_row_security || table.owner != *owner)
    };
    let Some(table) = [&shape.old, &shape.new].iter().find(binds).map(|table| &table.name) else {
        return Ok(None);
    };
    let is_above: bool =
        sqlx::query("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = $1")
            .bind(owner)
            .fetch_one(conn)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed("look for privileges"))?;
    Ok((!is_above).then(|| format!("row security of {table} would hide rows from {owner}")))
}

/// A trigger of a user that would have the last word over a row written in place.
pub(super) async fn late_trigger(
    conn: &mut PgConnection,
    shape: &Shape,
) -> Result<Option<(String, String)>, Error> {
    let row = sqlx::query(LATE)
        .bind(i64::from(shape.old.oid))
        .bind(trigger_name(shape, ""))
        .bind(TRIGGER_PREFIX)
        .fetch_optional(conn)
        .await
        .map_err(failed("read the catalogue"))?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .transpose()
        .map_err(failed("read the catalogue"))
}

/// A trigger of a sync that is there.
pub(super) struct OwnTrigger {
    pub name: String,
    /// Its table, as SQL has it.
    pub table: String,
    /// Whether that is a table of the mapping, or a partition of one.
    pub is_on_side: bool,
}

/// `$1`: what names of a mapping's triggers begin with; `$2`: our schema; `$3` and `$4`: its tables.
const OWN_TRIGGERS: &str = "\
SELECT t.tgname, quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       c.oid IN (SELECT unnest(ARRAY[$3, $4]::bigint[])::oid UNION SELECT relid::oid FROM pg_partition_tree($3::bigint::oid::regclass)
                 UNION SELECT relid::oid FROM pg_partition_tree($4::bigint::oid::regclass))
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgparentid = 0 AND starts_with(t.tgname, $1) AND p.pronamespace = to_regnamespace($2) ORDER BY c.oid, t.tgname";

/// The triggers of a mapping's name that call functions of our schema, wherever they are; those that PostgreSQL made on partitions
/// are left out, since they go with the others. Under another schema of ours the same name is another mapping's.
pub(super) async fn own_triggers(
    conn: &mut PgConnection,
    shape: &Shape,
    schema: &str,
) -> Result<Vec<OwnTrigger>, Error> {
    let rows = sqlx::query(OWN_TRIGGERS)
        .bind(trigger_name(shape, ""))
        .bind(schema)
        .bind(i64::from(shape.old.oid))
        .bind(i64::from(shape.new.oid))
        .fetch_all(conn)
        .await
        .map_err(failed("read the catalogue"))?;
    let read = |row: &PgRow| {
        let (name, table) = (row.try_get(0)?, row.try_get(1)?);
        Ok(OwnTrigger { name, table, is_on_side: row.try_get(2)? })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed("read the catalogue"))
}

pub(super) async fn functions(
    conn: &mut PgConnection,
    shape: &Shape,
    schema: &str,
) -> Result<Vec<FoundFunction>, Error> {
    let rows = sqlx::query(FUNCTIONS)
        .bind(schema)
        .bind(function_name(shape, ""))
        .fetch_all(conn)
        .await
        .map_err(failed("read the catalogue"))?;
    let read = |row: &PgRow| {
        Ok(FoundFunction {
            name: row.try_get("proname")?,
            body: row.try_get("prosrc")?,
            is_definer: row.try_get("prosecdef")?,
            path: row.try_get("path")?,
            owner: row.try_get("owner")?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed("read the catalogue"))
}

pub(super) fn judge_functions(
    shape: &Shape,
    expected: &[Function],
    found: &[FoundFunction],
    wrong: &mut Vec<String>,
) {
    for function in expected {
        let Some(there) = found.iter().find(|it| it.name == function.name) else {
            wrong.push(format!("function {} is missing", function.name));
            continue;
        };
        let is_trigger = function.returns == "trigger";
        let is_pinned = there.path.starts_with("search_path=pg_catalog");
        let is_ours = there.body == function.body || function.also.as_ref() == Some(&there.body);
        if !is_ours || is_trigger != there.is_definer || is_trigger != is_pinned {
            wrong.push(format!("function {} was changed", function.name));
        }
        if there.owner != shape.old.owner {
            wrong.push(format!("function {} belongs to {} now", function.name, there.owner));
        }
    }
}

pub(super) async fn triggers(
    conn: &mut PgConnection,
    shape: &Shape,
    (table, schema): (&Table, &str),
) -> Result<Vec<FoundTrigger>, Error> {
    let rows = sqlx::query(TRIGGERS)
        .bind(i64::from(table.oid))
        .bind(trigger_name(shape, ""))
        .bind(schema)
        .fetch_all(conn)
        .await
        .map_err(failed("read the catalogue"))?;
    let read = |row: &PgRow| {
        Ok(FoundTrigger {
            table_oid: row.try_get("table_oid")?,
            table: row.try_get("relname")?,
            name: row.try_get("tgname")?,
            enabled: row.try_get("enabled")?,
            fires: row.try_get("fires")?,
            is_conditional: row.try_get("is_conditional")?,
            function: row.try_get("function")?,
            columns: row.try_get("columns")?,
            arguments: row.try_get("arguments")?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed("read the catalogue"))
}

/// What is wrong with how a trigger is switched that fires always.
pub(super) fn not_always(enabled: &str, helps: &str) -> Option<String> {
    let how = match enabled {
        "A" => return None,
        "D" => "is disabled",
        "R" => "fires for replication only, and is disabled for clients",
        _ => "was switched off and on again, and does not fire for replication",
    };
    Some(format!("{how} (ALTER TABLE … ENABLE ALWAYS TRIGGER; then {helps})"))
}

/// What to do once a trigger that was off is on again. What clients of the new shape wrote meanwhile may be nowhere else.
fn helps(shape: &Shape, side: Side, expected: &[&Trigger]) -> String {
    // In place there is one trigger with `forward`, and more with `both`.
    let follows_new = side == Side::New || (shape.in_place && expected.len() > 1);
    if follows_new && shape.winner == Winner::New {
        let table = &shape.side(side).name;
        format!(
            "verify: what clients of the new shape wrote to {table} meanwhile may be nowhere else, so repair leaves \
             what differs to you"
        )
    } else {
        "verify with repair, since writes may have been missed".to_owned()
    }
}

/// What is wrong with a table's triggers and those of its partitions. `off` says what is wrong with how one is switched.
pub(super) fn judge_triggers(
    expected: &[&Trigger],
    (root, found): (&Table, &[FoundTrigger]),
    wrong: &mut Vec<String>,
    off: impl Fn(&str) -> Option<String>,
) {
    let mut tables: Vec<(i64, &str)> =
        found.iter().map(|it| (it.table_oid, it.table.as_str())).collect();
    tables.dedup();
    for (oid, table) in tables {
        for trigger in expected {
            let there = found.iter().find(|it| {
                it.table_oid == oid && it.name.as_deref() == Some(trigger.name.as_str())
            });
            let Some(there) = there else {
                if trigger.is_for_rows() || oid == i64::from(root.oid) {
                    wrong.push(format!("trigger {} on {table} is missing", trigger.name));
                }
                continue;
            };
            if let Some(off) = off(&there.enabled) {
                wrong.push(format!("trigger {} on {table} {off}", trigger.name));
            }
            if !is_as_made(trigger, there) {
                wrong.push(format!("trigger {} on {table} was changed", trigger.name));
            }
        }
    }
    for there in found {
        if let Some(name) = &there.name
            && !expected.iter().any(|trigger| trigger.name == *name)
        {
            wrong.push(format!("trigger {name} on {} does not belong here", there.table));
        }
    }
}

pub(super) fn is_as_made(trigger: &Trigger, there: &FoundTrigger) -> bool {
    let mut arguments = trigger.argument.clone().map_or_else(Vec::new, String::into_bytes);
    if trigger.argument.is_some() {
        arguments.push(0);
    }
    there.fires == trigger.fires
        && !there.is_conditional
        && there.function == trigger.function
        && there.columns == trigger.columns
        && there.arguments == arguments
}
