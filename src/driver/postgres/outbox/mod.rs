//! Copying into another database: rows in the shape of the new side, and every change of them, in an outbox.
//!
//! A mapping between two databases is followed by triggers on the old side. They write to one table of ours, the outbox, from which
//! a relay claims changes and applies them to the new side. The whole proof that nothing is lost or comes back:
//! - A change has a version, drawn from one sequence in an AFTER ROW trigger: while the row is locked, and after whoever had its key
//!   before has ended. So of one key, versions are in the order of commits. Between keys they are not.
//! - A change holds the whole row in the shape of the new side, as it is when the version is drawn. So of one key, only the highest
//!   version counts.
//! - The new side keeps the version of every row, also of one that is gone, and writes what comes only where its version is higher.
//!   Pages of the copy have version 0. So neither order nor repetition matters.
//! - Whoever takes changes takes rows that are there (`claims`), and never "those behind the last": versions are committed in any order.
//! - Of a whole table that is emptied there is one change, [`What::Emptied`](crate::driver::crossing::What): no row of a lower version is there
//!   any more, and the new side must take none of them, pages under way included.
//!
//! Everything of ours is in our schema: the table `outbox`, the sequence `outbox_version`, and three functions and up to three
//! triggers for each mapping, called by its id.
//!
//! The triggers are ENABLE ALWAYS: they fire for what logical replication's workers write, too, and sessions with
//! `session_replication_role = replica`. What comes and goes with a partition that is attached or detached is not captured, and only
//! a comparison finds it.
//! An expression that fails for a row fails the client's write of it; `findings` warns of those that may.
//!
//! Absent on purpose: the relay and the new side, and when which of all this is done.

use std::sync::Arc;

use sqlx::postgres::PgConnection;

use super::catalogue::{self, Table};
use super::shape::{KeyPair, Shape, Write, enclosed, is_exact};
use super::{Postgres, prepared};
use crate::driver::Error;
use crate::run::{FailureClass, Mapping, OnDelete, OnExisting, Winner};

mod capture;
mod capture_sql;
mod capture_state;
#[cfg(test)]
mod capture_tests;
mod claims;
#[cfg(test)]
mod claims_tests;
mod dropped;
#[cfg(test)]
mod dropped_tests;
mod enqueue;
mod findings;
#[cfg(test)]
mod fixture;
mod form;
#[cfg(test)]
mod form_tests;
#[cfg(test)]
mod kill_tests;
mod lag;
#[cfg(test)]
mod load_tests;
mod look;
#[cfg(test)]
mod look_tests;
mod mapped;
mod moments;
mod pages;
#[cfg(test)]
mod pages_tests;
mod parked;
mod relay;
mod settled;
mod source;
#[cfg(test)]
mod source_tests;
mod tables;
mod unfit;

pub(super) use dropped::drop_old;
pub(super) use lag::waiting;
pub(super) use relay::{called, slots_of};
pub(super) use tables::{TABLE, drop_if_unused, forget_but};

use form::{Form, Kind, Scalar};
use mapped::Captured;

/// A mapping held against its table: good as long as the catalogue's version of the table stays the same.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    captured: Captured,
    /// The table as both sides, since that is what bounds and keys are found by. What is "written" are the columns' values.
    shape: Shape,
    /// How the key's columns are read.
    keys: Vec<Scalar>,
    /// How the others are, in their order.
    forms: Vec<Form>,
}

impl Postgres {
    /// A mapping on its table as it is now, and as it was captured where it is. Not in a transaction that has changed the table itself.
    /// Refused with the first thing that stands in the way, in the words of `findings`.
    async fn resolved(
        &self,
        conn: &mut PgConnection,
        mapping: &Mapping,
    ) -> Result<Arc<Resolved>, Error> {
        let version = prepared::version(conn, mapping).await?;
        if let Some(resolved) = self.captured.find(&version, mapping) {
            return Ok(resolved);
        }
        let resolved = Resolved::since_capture(conn, mapping, self.connections.schema()).await?;
        Ok(self.captured.keep(version, mapping, resolved))
    }
}

impl Resolved {
    /// On the table as it is, whatever was captured of it before.
    async fn of(conn: &mut PgConnection, mapping: &Mapping) -> Result<Self, Error> {
        let table = there(conn, mapping).await?;
        Self::held(conn, Captured::of(mapping, &table), table).await
    }

    /// As it was captured, where it is. `schema` is our own, quoted.
    async fn since_capture(
        conn: &mut PgConnection,
        mapping: &Mapping,
        schema: &str,
    ) -> Result<Self, Error> {
        let table = there(conn, mapping).await?;
        let captured = Captured::of(mapping, &table).since_capture(conn, schema).await?;
        Self::held(conn, captured, table).await
    }

    async fn held(
        conn: &mut PgConnection,
        captured: Captured,
        table: Table,
    ) -> Result<Self, Error> {
        let (kinds, found) = findings::errors(conn, &captured, &table).await?;
        if let Some(found) = found.into_iter().next() {
            let refused = Error::failed(FailureClass::Refused, found.message);
            return Err(match found.help {
                Some(help) => refused.with_help(help),
                None => refused,
            });
        }
        let forms = kinds.iter().filter_map(Kind::form).collect();
        let keys = captured.key.iter().filter_map(|name| findings::key_form(table.column(name)?));
        let keys = keys.collect();
        Ok(Self { shape: shape(&captured, table), captured, keys, forms })
    }

    /// What its pages are found by.
    const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What its images hold, each with its form.
    fn carries(&self) -> Vec<String> {
        let keys = self.captured.key.iter().zip(&self.keys);
        let keys = keys.map(|(name, scalar)| format!("key {name} {scalar:?}"));
        let values = self.captured.columns.iter().zip(&self.forms);
        keys.chain(values.map(|((name, _), form)| format!("{name} {form:?}"))).collect()
    }

    /// The columns' values as texts, in a list.
    fn texts(&self) -> Vec<String> {
        self.shape.writes.iter().map(|write| format!("{}::text", write.value)).collect()
    }

    /// A row's image, as SQL.
    fn image(&self) -> String {
        format!("ARRAY[{}]::text[]", self.texts().join(", "))
    }

    /// Whether equal keys may differ as texts in a column.
    fn is_loose(&self, at: usize) -> bool {
        self.shape.keys.get(at).is_none_or(|pair| !pair.is_exact || pair.type_sql == "name")
    }
}

/// The table of a mapping, which must be there.
async fn there(conn: &mut PgConnection, mapping: &Mapping) -> Result<Table, Error> {
    let name = &mapping.from.table;
    catalogue::table(conn, name)
        .await?
        .ok_or_else(|| Error::failed(FailureClass::Stale, format!("there is no table {name}")))
}

/// What the columns of a mapping are.
async fn kinds(
    conn: &mut PgConnection,
    captured: &Captured,
    table: &Table,
) -> Result<Vec<Kind>, Error> {
    let values: Vec<String> =
        captured.columns.iter().map(|(_, expression)| enclosed(expression)).collect();
    let filter =
        captured.filter.as_ref().map_or_else(|| "true".to_owned(), |filter| enclosed(filter));
    form::kinds(conn, &values, &filter, &table.sql()).await
}

fn shape(captured: &Captured, table: Table) -> Shape {
    let key = captured.key.iter().filter_map(|name| table.column(name));
    let keys = key.map(|column| KeyPair {
        old: column.name.clone(),
        new: column.name.clone(),
        type_sql: column.type_sql.clone(),
        is_exact: is_exact(column),
    });
    let writes = captured.columns.iter().map(|(name, expression)| Write {
        column: name.clone(),
        value: enclosed(expression),
        type_sql: "text".to_owned(),
        is_plain: false,
        is_same: false,
    });
    let (keys, writes) = (keys.collect(), writes.collect());
    let table = Arc::new(table);
    Shape {
        mapping: captured.table.clone(),
        id: captured.id.clone(),
        in_place: true,
        old: Arc::clone(&table),
        new: table,
        keys,
        writes,
        reverse: Vec::new(),
        parts: Vec::new(),
        filter: captured.filter.as_ref().map(|filter| enclosed(filter)),
        on_existing: OnExisting::Keep,
        on_delete: OnDelete::Delete,
        winner: Winner::Old,
        park_max: None,
        parks_writes: false,
    }
}
