//! What of a table a mapping into another database carries.
//!
//! Invariants:
//! - Names of the new side may be any text, and never get into SQL.
//! - With `copy: all` a mapping carries what its table had when the capture began, as the function of its trigger says, for as long as
//!   that is there: a column that comes later has a value in no image, and rows of the same mapping all carry the same. The function
//!   is there as long as there are images.
//!
//! Absent on purpose: whether any of it can cross, which is `findings`'.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use crate::driver::Error;
use crate::driver::crossing::end_name;
use crate::driver::postgres::catalogue::{Table, quote};
use crate::driver::postgres::error::failed;
use crate::driver::postgres::shape::{id_of, only_column};
use crate::driver::postgres::sync_sql::FUNCTION_PREFIX;
use crate::run::{CopyColumns, Ends, Mapping, MappingName, RowKind};

/// A mapping whose new side is in another database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Captured {
    /// The mapping's name.
    pub name: MappingName,
    /// Stands for the mapping in the names of our objects and in the outbox: short, of hexadecimal digits.
    pub id: String,
    /// The table, as mappings write it.
    pub table: String,
    /// Its key.
    pub key: Vec<String>,
    /// Names on the new side, and each one's value over a row of the table.
    pub columns: Vec<(String, String)>,
    /// How many of these, the last ones, are columns that nobody named: `copy: all` takes them along.
    pub along: usize,
    /// Which rows are copied.
    pub filter: Option<String>,
}

/// What introduces the list of what a trigger's images hold, in the text of its function.
const CARRIES: &str = "-- carries ";

impl Captured {
    /// What a mapping carries of its table as it is.
    pub(super) fn of(mapping: &Mapping, table: &Table) -> Self {
        let mut columns = mapping.columns.clone();
        let mut taken = mapping.from.key.clone();
        taken.extend(mapping.columns.iter().map(|(name, _)| name.clone()));
        if let RowKind::Relationship(ends) = &mapping.into.kind {
            for (name, expression) in of_ends(ends) {
                taken.extend(only_column(table, expression).map(|column| column.name.clone()));
                // One without a key of its own is known by its ends, which are its key then.
                if !mapping.into.key.is_empty() {
                    columns.push((name, expression.clone()));
                }
            }
        }
        let listed = columns.len();
        if mapping.copy == CopyColumns::All {
            let names = table.columns.iter().map(|column| &column.name);
            let along = names.filter(|name| !taken.contains(name));
            columns.extend(along.map(|name| (name.clone(), quote(name))));
        }
        Self {
            name: mapping.name.clone(),
            id: id_of(mapping),
            table: mapping.from.table.clone(),
            key: mapping.from.key.clone(),
            along: columns.len() - listed,
            columns,
            filter: mapping.filter.clone(),
        }
    }

    /// The same without columns that came along later than the capture. `schema` is our own, quoted.
    pub(super) async fn since_capture(
        mut self,
        conn: &mut PgConnection,
        schema: &str,
    ) -> Result<Self, Error> {
        if self.along == 0 {
            return Ok(self);
        }
        let sql =
            "SELECT prosrc FROM pg_proc WHERE pronamespace = to_regnamespace($1) AND proname = $2";
        let row = sqlx::query(sql)
            .bind(schema)
            .bind(format!("{FUNCTION_PREFIX}{}_o", self.id))
            .fetch_optional(conn)
            .await;
        let body: Option<String> = row
            .and_then(|row| row.map(|row| row.try_get(0)).transpose())
            .map_err(failed("read what is captured"))?;
        let Some(mut carried) = body.as_deref().and_then(carried) else { return Ok(self) };
        // The key stands before the values.
        let carried = carried.split_off(self.key.len().min(carried.len()));
        let listed = self.columns.len() - self.along;
        let along = self.columns.split_off(listed);
        let is_captured = |(name, _): &(String, String)| {
            carried.iter().any(|one| one.rsplit_once(' ').is_some_and(|(it, _)| it == name))
        };
        self.columns.extend(along.into_iter().filter(is_captured));
        self.along = self.columns.len() - listed;
        Ok(self)
    }

    /// The columns that come along because nobody named them.
    pub(super) fn is_along(&self, at: usize) -> bool {
        at >= self.columns.len() - self.along
    }
}

/// The properties that the ends of a relationship are known by, as its rows call them.
pub(super) fn of_ends(ends: &Ends) -> impl Iterator<Item = (String, &String)> {
    let start = ends.start.key.iter().map(|(property, value)| (end_name("start", property), value));
    start.chain(ends.end.key.iter().map(|(property, value)| (end_name("end", property), value)))
}

/// The list as a line in a function's text, which nothing in a name can end.
pub(super) fn carries(list: &[String]) -> String {
    format!("{CARRIES}{}\n", serde_json::Value::from(list.to_vec()))
}

/// The list in a function's text.
pub(super) fn carried(body: &str) -> Option<Vec<String>> {
    let line = body.lines().find_map(|line| line.strip_prefix(CARRIES))?;
    serde_json::from_str(line).ok()
}
