//! Foreign keys of other tables to columns that took others' names, when `retire` is taken back.
//!
//! An author who is told to make a key anew lets it refer to the new columns before `retire`. It would hold the primary key that has
//! to go back, and afterwards columns that are about to be dropped.
//!
//! Invariants:
//! - A key comes back to the columns that have their own names again, in the same transaction, NOT VALID; it is checked right
//!   after that, as those are that `retire` itself carried over.
//! - That is done only where the mapping takes the values over as they are. Where it changes them the key is refused by name.
//!
//! Absent on purpose: keys to tables, which stay with the table that they refer to.

use sqlx::postgres::PgConnection;

use super::carried::{Holder, Key, in_the_way};
use super::catalogue::quote;
use super::connection::Tx;
use super::dual_write::run;
use super::incoming::{self, Incoming};
use super::retirable::Retiring;
use super::shape::Shape;
use crate::driver::Error;
use crate::run::RetiredColumn;
use crate::sql::{Dialect, folded_name};

/// The keys that come back with the columns' names. `aside` has the names from after `retire`.
pub(super) async fn returning(
    conn: &mut PgConnection,
    what: &Retiring<'_>,
    aside: &Shape,
) -> Result<Vec<Incoming>, Error> {
    let Some(columns) = what.columns().filter(|_| aside.in_place) else { return Ok(Vec::new()) };
    let took =
        |name: &String| columns.iter().find(|it| it.take_name.is_some() && it.column == *name);
    let mut keys = incoming::to(conn, &aside.old).await?;
    keys.retain(|key| key.referenced.iter().any(|name| took(name).is_some()));
    let problem = |key: &&Incoming| {
        !key.is_ours || !key.referenced.iter().filter_map(took).all(|it| is_plain(what, it))
    };
    let problems: Vec<String> =
        keys.iter().filter(problem).map(|key| format!("foreign key {}", said(key))).collect();
    if problems.is_empty() {
        return Ok(keys);
    }
    let message = "these refer to columns whose names go back, and can't be moved along";
    Err(in_the_way(what.mapping.name.as_str(), message, &problems)
        .with_help("drop them, or let them refer to other columns, then retry"))
}

/// Whether the column that took another's name has that one's values.
fn is_plain(what: &Retiring<'_>, column: &RetiredColumn) -> bool {
    let is_it = |(name, _): &&(String, String)| column.take_name.as_ref() == Some(name);
    let written = what.mapping.columns.iter().find(is_it);
    written.is_some_and(|(_, value)| folded_name(Dialect::Postgres, value.trim()) == column.column)
}

fn said(key: &Incoming) -> String {
    format!("{} of {}", key.name, key.shown)
}

/// The tables that have these keys.
pub(super) fn holders(keys: &[Incoming], aside: &Shape) -> Vec<Holder> {
    let others = keys.iter().filter(|key| key.table != aside.old.sql());
    others.map(|key| Holder { name: key.table.clone(), owner: None }).collect()
}

/// Lets them go.
pub(super) async fn let_go(tx: &mut Tx<'_>, keys: &[Incoming]) -> Result<(), Error> {
    for key in keys {
        let sql = format!("ALTER TABLE {} DROP CONSTRAINT {}", key.table, quote(&key.name));
        run(tx.conn()?, "let a foreign key go", sql).await?;
    }
    Ok(())
}

/// Makes them again, of the columns that have these names now. Returns those to check, and what there is to say.
pub(super) async fn make_again(
    tx: &mut Tx<'_>,
    keys: &[Incoming],
    before: &Shape,
) -> Result<(Vec<Key>, Vec<String>), Error> {
    let (mut unchecked, mut notes) = (Vec::new(), Vec::new());
    for key in keys {
        for sql in key.statements(&before.old) {
            run(tx.conn()?, "let a foreign key refer to the old columns", sql).await?;
        }
        if key.is_valid {
            unchecked.push(Key { table_oid: key.table_oid, name: key.name.clone() });
        }
        notes.push(format!("{} refers to {} of before", said(key), key.referenced.join(", ")));
    }
    Ok((unchecked, notes))
}
