//! The sequences behind generated columns, when one side takes the other's place.
//!
//! One sequence for both sides is handed over: it belongs to the side that lives on, so that it doesn't go with the other.
//! Two are set level: the side that lives on goes on behind the highest value that either gave. A sequence that was set
//! further stays so when the transaction is rolled back, which leaves a gap and no double.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{literal, quote};
use super::error::failed;
use super::rename::run;
use super::survey::Side;
use crate::driver::Error;

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
            let mut values = vec![format!("(SELECT last_value FROM {})", sequence.name)];
            values.extend(olds.iter().map(|old| format!("(SELECT last_value FROM {})", old.name)));
            let is_led = into.table.indexes.iter().any(|index| {
                !index.is_partial && index.columns.first() == Some(&Some(new.clone()))
            });
            let (best, extreme) =
                if sequence.increment < 0 { ("least", "min") } else { ("greatest", "max") };
            // Without an index it would be a scan while clients wait; then the sequences alone must do.
            if is_led {
                values.push(format!(
                    "(SELECT {extreme}({}) FROM {})",
                    quote(new),
                    into.table.sql()
                ));
            }
            let sql = format!(
                "SELECT setval({}, {best}({}))",
                literal(&sequence.name),
                values.join(", ")
            );
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
