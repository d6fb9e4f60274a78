//! The table that was likely meant by a name that nothing has.

use sqlx::Row as _;

use super::catalogue::same_table;
use super::error::failed;
use super::survey::Look;
use crate::bounds::probe::NAMES_MAX;
use crate::driver::Error;
use crate::driver::suggest::nearest;

impl Look<'_> {
    /// The table that was likely meant.
    pub(super) async fn meant_table(&mut self, typed: &str) -> Result<Option<String>, Error> {
        let rows = sqlx::query(
            "SELECT CASE WHEN pg_table_is_visible(c.oid) THEN c.relname ELSE n.nspname || '.' || c.relname END
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
             ORDER BY 1 LIMIT $1",
        )
        .bind(NAMES_MAX)
        .fetch_all(&mut *self.conn)
        .await
        .map_err(failed("read the catalogue"))?;
        let names: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let names = names.map_err(failed("read the catalogue"))?;
        // The plan may well make what a query or a mapping's other side means, but never a mapping's own source.
        let copies = |table: &str| {
            self.survey.mappings.iter().any(|it| {
                it.mapping.from.table == typed && same_table(&it.mapping.into.table, table)
            })
        };
        // A table that only gets a column is not made by that.
        let made = self.survey.created.iter().filter(|object| object.column.is_none());
        let created = made.map(|object| object.table.as_str()).filter(|table| !copies(table));
        let meant = nearest(typed, names.iter().map(String::as_str).chain(created));
        Ok(meant.map(|name| format!("did you mean {name}?")))
    }
}
