//! Functions that name an object in their text, of which the catalogue knows nothing.
//!
//! Invariants:
//! - They are looked for by the name as a word, and then read token by token (`sql::mentions`): what only a comment says is no
//!   use. Bodies in other languages than SQL and PL/pgSQL are not read, and the word is enough.
//! - A trigger's function names a column of its table without the table's name.
//! - Whoever looked at such a function says so in the plan (`known`), by its name and schema, for all of its overloads.
//!
//! Absent on purpose: telling an alias or a variable from the object. `known` answers that.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::catalogue::{Table, parts};
use super::dependents::Dependent;
use super::error::failed;
use crate::driver::Error;
use crate::run::RetireShape;
use crate::sql;

/// `$1`: a function as the server shows it; `$2`: the table.
const FUNCTION: &str = "\
SELECT f.prosrc, l.lanname IN ('sql', 'plpgsql'), format('%I.%I', n.nspname, f.proname),
       EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = f.oid AND t.tgrelid = $2::bigint::oid AND NOT t.tgisinternal)
FROM pg_proc f JOIN pg_language l ON l.oid = f.prolang JOIN pg_namespace n ON n.oid = f.pronamespace
WHERE f.oid = to_regprocedure($1)";

/// Leaves out functions that name a table, or the columns of it, in comments only; notes the others' full names.
pub(super) async fn read(
    conn: &mut PgConnection,
    found: Vec<Dependent>,
    (table, columns): (&Table, Option<&[&str]>),
) -> Result<Vec<Dependent>, Error> {
    let doing = "read the functions that name the table";
    let mut kept = Vec::with_capacity(found.len());
    for mut dependent in found {
        if dependent.is_certain() {
            kept.push(dependent);
            continue;
        }
        let row = sqlx::query(FUNCTION)
            .bind(dependent.shown())
            .bind(i64::from(table.oid))
            .fetch_optional(&mut *conn)
            .await
            .map_err(failed(doing))?;
        let Some(row) = row else { continue };
        let body: String = row.try_get(0).map_err(failed(doing))?;
        let is_read: bool = row.try_get(1).map_err(failed(doing))?;
        let is_of_trigger: bool = row.try_get(3).map_err(failed(doing))?;
        let names_table = sql::mentions(&body, Some(&table.schema), &table.name);
        let is_named = match columns {
            None => names_table,
            Some(columns) => {
                (names_table || is_of_trigger)
                    && columns.iter().any(|column| sql::mentions(&body, None, column))
            }
        };
        if is_named || !is_read {
            dependent.detail = Some(row.try_get(2).map_err(failed(doing))?);
            kept.push(dependent);
        }
    }
    Ok(kept)
}

/// Whether the plan says that a function is known.
pub(super) fn is_known(dependent: &Dependent, known: &[String]) -> bool {
    let Some(full) = dependent.detail.as_ref().filter(|_| !dependent.is_certain()) else {
        return false;
    };
    let (schema, name) = parts(full);
    // What is shown without a schema is found without one.
    let shown = dependent.shown();
    let is_visible = parts(shown.split_once('(').map_or(shown, |(name, _)| name)).0.is_none();
    known.iter().any(|known| match parts(known) {
        (None, wanted) => is_visible && wanted == name,
        (wanted_schema, wanted) => wanted == name && wanted_schema == schema,
    })
}

/// The functions that name a new table by the name that it gives up, where nobody says that they are known.
pub(super) fn astray(
    found: &[Dependent],
    (old, new): (&str, &str),
    known: &[String],
) -> Vec<String> {
    let left = found.iter().filter(|it| !it.is_certain() && !is_known(it, known));
    left.map(|it| {
        let name = it.shown().split_once('(').map_or(it.shown(), |(name, _)| name);
        format!(
            "{}, whose text names {new}: it would find none, as that is called {old} from then on; have it name {old}, and list {name} \
             under known",
            it.name
        )
    })
    .collect()
}

/// The functions that are in the way, each with what would become of it, where nobody says that it is known.
pub(super) fn unknown(
    found: &[Dependent],
    (shape, known): (&RetireShape, &[String]),
) -> Vec<String> {
    let then = match shape {
        RetireShape::Table { take_name: true, .. } => {
            "it would use the new table from then on, by this name"
        }
        RetireShape::Table { .. } => "it would not find it any more",
        RetireShape::Columns(_) => "it would find another column or none",
    };
    let left = found.iter().filter(|it| !it.is_certain() && !is_known(it, known));
    left.map(|it| {
        let name = it.shown().split_once('(').map_or(it.shown(), |(name, _)| name);
        format!("{}: {then}; change it, or list {name} under known if that is right", it.said())
    })
    .collect()
}
