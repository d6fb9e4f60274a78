//! The sequences behind generated columns, when one side takes the other's place.
//!
//! One sequence for both sides is handed over: it belongs to the side that lives on, so that it doesn't go with the other.
//! Two are set level: the side that lives on goes on behind the highest value that either gave, with a number of its own
//! row (START and INCREMENT). A sequence that was set further stays so when the transaction is rolled back, which leaves a
//! gap and no double.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{literal, quote};
use super::error::failed;
use super::rename::run;
use super::survey::Side;
use crate::driver::Error;

/// The statement that has a sequence go on at the farthest of some numbers or behind it, with one that it would have come to
/// by itself: two databases that share numbers out by START and INCREMENT go on doing so. `next` is what it would give
/// otherwise. At its end it stays there, as it would by itself. Gives what it goes on behind.
pub(super) fn go_on_sql(sequence: &str, next: &str, floor: &[String]) -> String {
    let name = literal(sequence);
    let floor: Vec<String> = floor.iter().map(|number| format!("({number}::numeric)")).collect();
    format!(
        "WITH q AS (SELECT seqrelid, seqstart, seqmin, seqmax, seqincrement::numeric AS step, \
         CASE WHEN seqincrement > 0 THEN seqmax ELSE seqmin END::numeric AS edge, ({next})::numeric AS next, \
         (SELECT CASE WHEN seqincrement > 0 THEN max(f.n) ELSE min(f.n) END FROM (VALUES {}) AS f (n)) AS floor \
         FROM pg_sequence WHERE seqrelid = {name}::regclass), \
         v AS (SELECT q.*, next + greatest(ceil((floor - next) / step), 0) * step AS value FROM q), \
         w AS (SELECT v.*, (edge - value) * sign(step) < 0 AS is_over, \
           value = seqstart OR value - step NOT BETWEEN seqmin AND seqmax AS is_first FROM v) \
         SELECT CASE WHEN is_over THEN edge ELSE value - step END::bigint, setval(seqrelid::regclass, \
           CASE WHEN is_over THEN edge WHEN is_first THEN value ELSE value - step END::bigint, is_over OR NOT is_first) FROM w",
        floor.join(", ")
    )
}

/// What a sequence would give next, as an expression.
pub(super) fn next_sql(sequence: &str) -> String {
    format!(
        "(SELECT CASE WHEN s.is_called THEN s.last_value + (SELECT seqincrement FROM pg_sequence WHERE seqrelid = {}::regclass) \
         ELSE s.last_value END FROM {sequence} AS s)",
        literal(sequence)
    )
}

/// The first number that a sequence has not given, or the first it ever would.
pub(super) fn behind_sql(sequence: &str) -> String {
    format!(
        "(SELECT CASE WHEN s.is_called THEN s.last_value + (SELECT sign(seqincrement)::int FROM pg_sequence \
         WHERE seqrelid = {}::regclass) ELSE s.last_value END FROM {sequence} AS s)",
        literal(sequence)
    )
}

/// These pairs of columns, and with them those that draw from one sequence though the mapping says nothing of them.
pub(super) fn drawing_together(
    from: &Side,
    into: &Side,
    mut pairs: Vec<(String, String)>,
) -> Vec<(String, String)> {
    for old in &from.around.sequences {
        for new in into.around.sequences.iter().filter(|new| new.oid == old.oid) {
            let pair = (old.column.clone(), new.column.clone());
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
    }
    pairs
}

/// Hands sequences from one side to the other, for pairs of columns of which the second takes the first one's place.
/// Returns what was done, for people.
pub(super) async fn hand_over(
    conn: &mut PgConnection,
    (from, into): (&Side, &Side),
    pairs: &[(String, String)],
) -> Result<Vec<String>, Error> {
    let mut done = Vec::new();
    for (old, new) in pairs {
        let of = |side: &Side, column: &str| -> Vec<_> {
            side.around.sequences.iter().filter(|it| it.column == column).cloned().collect()
        };
        let (olds, news) = (of(from, old), of(into, new));
        let shared = olds.iter().find(|old| news.iter().any(|new| new.oid == old.oid));
        if let Some(shared) = shared {
            if shared.is_owned && !shared.is_identity {
                // The server lets a sequence belong only to a table of its own schema and owner.
                let fits =
                    from.table.schema == into.table.schema && from.table.owner == into.table.owner;
                let owner = if fits {
                    format!("{}.{}", into.table.sql(), quote(new))
                } else {
                    "NONE".to_owned()
                };
                let sql = format!("ALTER SEQUENCE {} OWNED BY {owner}", shared.name);
                run(conn, "hand over the sequence", sql).await?;
                done.push(if fits {
                    format!("{} belongs to {}.{new}", shared.name, into.table.name)
                } else {
                    format!("{} belongs to no table any more", shared.name)
                });
            }
            continue;
        }
        for sequence in &news {
            let mut floor = vec![behind_sql(&sequence.name)];
            floor.extend(olds.iter().map(|old| behind_sql(&old.name)));
            let is_led = into.table.indexes.iter().any(|index| {
                !index.is_partial && index.columns.first() == Some(&Some(new.clone()))
            });
            let is_number = into.table.column(new).is_some_and(|column| {
                matches!(column.type_sql.as_str(), "smallint" | "integer" | "bigint" | "numeric")
            });
            // Without an index it would be a scan while clients wait; then the sequences alone must do.
            if is_led && is_number {
                let extreme = if sequence.increment < 0 { "min" } else { "max" };
                floor.push(format!(
                    "(SELECT {extreme}({}) + {} FROM {})",
                    quote(new),
                    sequence.increment.signum(),
                    into.table.sql()
                ));
            }
            let sql = go_on_sql(&sequence.name, &next_sql(&sequence.name), &floor);
            let row = sqlx::query(AssertSqlSafe(sql))
                .fetch_one(&mut *conn)
                .await
                .map_err(failed("advance the sequence"))?;
            let value: i64 = row.try_get(0).map_err(failed("advance the sequence"))?;
            done.push(format!("{} goes on behind {value}", sequence.name));
        }
    }
    Ok(done)
}
