//! How rows are told apart by columns that are put aside in one table: the primary key, the replica identity and identities,
//! of which a table would lose the first two in silence when the columns are dropped.
//!
//! Invariants:
//! - A primary key passes to a unique index that stands ready, and back to one over the old columns that stands ready as well:
//!   the server drops the index of a key that it lets go, and neither way is a row read while clients wait.
//! - What none of the new columns can take over is in the way.
//!
//! Absent on purpose: making the change, which `carry_sql` has as statements; and what other tables refer to, which is
//! refused as a dependent.

use super::catalogue::{Index, Table};
use super::counterpart::{names, of_index};
use super::definition::same;
use super::stricter::behind_using;
use super::surroundings::Constraint;
use super::survey::Side;
use crate::run::{Direction, RetiredColumn};

/// What columns put aside are part of, and nothing can take over.
pub(super) fn problems(
    side: &Side,
    (columns, direction): (&[RetiredColumn], Direction),
) -> Vec<String> {
    let mut found = Vec::new();
    for index in marks_of(side) {
        let of_it = |it: &&RetiredColumn| names(index, &it.column);
        let over: Vec<&RetiredColumn> = columns.iter().filter(of_it).collect();
        let listed = |all: &[&RetiredColumn]| {
            all.iter().map(|it| it.column.as_str()).collect::<Vec<_>>().join(", ")
        };
        let left: Vec<&RetiredColumn> =
            over.iter().copied().filter(|it| it.take_name.is_none()).collect();
        let said = said(side, index);
        if over.is_empty() {
            continue;
        }
        if !left.is_empty() {
            found.push(format!("{said}, in which nothing takes the place of {}", listed(&left)));
        } else if direction == Direction::Forward {
            // It would have to hold NULLs, and the way back to read the whole table while clients wait.
            found.push(format!(
                "{said}: with direction forward nothing fills {} any more, as it has to be; use direction both",
                listed(&over)
            ));
        } else if index.is_primary && side.table.kind == 'p' {
            found.push(format!(
                "{said}: of a partitioned table the server makes one only by building it while clients wait"
            ));
        }
    }
    found.extend(identities(&side.table, columns));
    found
}

/// Identities that a column of another type would have to go on with.
fn identities(table: &Table, columns: &[RetiredColumn]) -> Vec<String> {
    let mut found = Vec::new();
    for retired in columns {
        let was = table.column(&retired.column);
        let is = retired.take_name.as_deref().and_then(|name| table.column(name));
        let (Some(was), Some(is)) = (was, is) else { continue };
        let is_whole = matches!(is.type_sql.as_str(), "smallint" | "integer" | "bigint");
        let has_own = is.identity.is_some() || is.default.is_some() || is.is_generated;
        if was.identity.is_some() && !is_whole && !has_own {
            found.push(format!(
                "{} is an identity, which {} of type {} can't be: give it a DEFAULT",
                was.name, is.name, is.declared
            ));
        }
    }
    found
}

/// Exclusion constraints over columns that are put aside: nothing takes them over.
pub(super) fn exclusions<'a>(
    side: &'a Side,
    columns: &'a [RetiredColumn],
) -> impl Iterator<Item = &'a Constraint> {
    side.around.constraints.iter().filter(|constraint| {
        let is_over = |it: &RetiredColumn| constraint.columns.contains(&it.column);
        constraint.kind == 'x' && columns.iter().any(is_over)
    })
}

/// One of them, for people.
pub(super) fn said_of_exclusion(constraint: &Constraint) -> String {
    format!("exclusion constraint {}: {}", constraint.name, constraint.definition)
}

/// What would go with columns that are dropped, though it is the whole table's.
pub(super) fn goes_along(side: &Side, columns: &[&str]) -> Vec<String> {
    let of_them = |index: &&Index| columns.iter().any(|column| names(index, column));
    marks_of(side).filter(of_them).map(|index| said(side, index)).collect()
}

/// The indexes by which rows of the whole table are known.
fn marks_of(side: &Side) -> impl Iterator<Item = &Index> {
    let by_index = side.around.replica_identity == 'i';
    let is_mark = move |index: &&Index| {
        index.is_valid && (index.is_primary || by_index && index.is_replica_identity)
    };
    side.table.indexes.iter().filter(is_mark)
}

fn said(side: &Side, index: &Index) -> String {
    let what = if index.is_primary { "primary key" } else { "replica identity" };
    format!("{what} {} of {}", index.name, side.table.name)
}

/// The statements that make what a primary key, or the index of a replica identity, needs to pass to other columns: `behind`
/// is what stands behind USING with the new ones.
pub(super) fn missing(side: &Side, index: &Index, behind: &str) -> Vec<String> {
    let Side { table, around } = side;
    let mut statements = Vec::new();
    let mut need = |behind: &str, stands: &dyn Fn(&Index) -> bool| {
        let alike = |it: &&Index| it.is_identity() && same(behind_using(&it.definition), behind);
        let make = format!("CREATE UNIQUE INDEX CONCURRENTLY ON {} USING {behind}", table.sql());
        if !table.indexes.iter().filter(alike).any(stands) {
            statements.push(make);
        }
    };
    if index.is_primary {
        // No other constraint can be made of what one is made of.
        let is_free = |it: &Index| of_index(around, it).is_none();
        need(behind, &is_free);
        need(behind_using(&index.definition), &is_free);
    } else {
        need(behind, &|_| true);
    }
    statements
}
