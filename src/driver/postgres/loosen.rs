//! NOT NULL of columns that only the sync of a table in place fills.
//!
//! `retire` asks for it, and an operator sets it while the triggers see to it. Were it still there when they go, clients that know
//! nothing of these columns could insert no row.
//!
//! Invariants:
//! - It goes in the transaction that removes the triggers, before that: no client ever meets it without them.
//! - What was NOT NULL when the sync went in stays so: that was nobody's answer to `retire`. The ledger's entry of the sync says
//!   which columns were.
//!
//! Absent on purpose: constraints that only mean the same. Of the checks that prove a column to be set the one that `retire` names
//! goes too.

use sqlx::Row as _;

use super::catalogue::{Column, quote};
use super::connection::Tx;
use super::counterpart::proof_of;
use super::dual_write::run;
use super::error::failed;
use super::shape::Shape;
use crate::driver::Error;

/// Checks of a table (`$1`) that say no more than that one of its columns (`$2`) is set, under a name (`$3`).
const PROOF: &str = "\
SELECT k.conname FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
WHERE k.conrelid = $1::bigint::oid AND k.contype = 'c' AND k.conname = $3 AND a.attname = $2
  AND pg_get_expr(k.conbin, k.conrelid) = format('(%I IS NOT NULL)', a.attname)";

/// What the ledger says of a column that was NOT NULL when the sync went in.
fn said(column: &Column) -> String {
    format!("{} was NOT NULL already", column.name)
}

/// The columns that the sync fills.
fn filled(shape: &Shape) -> impl Iterator<Item = &Column> {
    shape.writes.iter().filter_map(|write| shape.new.column(&write.column))
}

/// What the ledger is to say of the columns of a sync in place that goes in now.
pub(super) fn noted(shape: &Shape) -> Vec<String> {
    if !shape.in_place {
        return Vec::new();
    }
    filled(shape).filter(|column| column.not_null).map(said).collect()
}

/// Takes NOT NULL from what was not so when the sync went in, by what the ledger says of that. What was so and has no default
/// can't be emptied: it is left out of what `shape` writes.
pub(super) async fn loosen(
    tx: &mut Tx<'_>,
    shape: &mut Shape,
    noted: Option<&str>,
) -> Result<(), Error> {
    let doing = "let the columns that only the sync fills be empty";
    let was_so = |column: &Column| {
        noted.is_some_and(|noted| noted.split("; ").any(|one| one == said(column)))
    };
    let table = shape.new.sql();
    for column in filled(shape).filter(|column| !was_so(column)) {
        let row = sqlx::query(PROOF)
            .bind(i64::from(shape.new.oid))
            .bind(&column.name)
            .bind(proof_of(&column.name))
            .fetch_optional(tx.conn()?)
            .await
            .map_err(failed(doing))?;
        let mut alter = Vec::new();
        if let Some(row) = row {
            let name: String = row.try_get(0).map_err(failed(doing))?;
            alter.push(format!("DROP CONSTRAINT {}", quote(&name)));
        }
        if column.not_null {
            alter.push(format!("ALTER COLUMN {} DROP NOT NULL", quote(&column.name)));
        }
        if !alter.is_empty() {
            run(tx.conn()?, doing, format!("ALTER TABLE {table} {}", alter.join(", "))).await?;
        }
    }
    let stays: Vec<String> = filled(shape)
        .filter(|column| column.default.is_none() && column.not_null && was_so(column))
        .map(|column| column.name.clone())
        .collect();
    shape.writes.retain(|write| !stays.contains(&write.column));
    Ok(())
}
