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
//! The triggers are not ENABLE ALWAYS: what logical replication's workers and sessions with `session_replication_role = replica`
//! write is not captured, and only a comparison finds it. So is what comes and goes with a partition that is attached or detached.
//! An expression that fails for a row fails the client's write of it; `findings` warns of those that may.
//!
//! Absent on purpose: the relay and the new side, and when which of all this is done.

use std::sync::Arc;

use sqlx::postgres::PgConnection;

use super::Postgres;
use super::catalogue::{self, Table};
use super::shape::{KeyPair, Shape, Write, is_exact};
use crate::driver::Error;
use crate::run::{FailureClass, MappingName, OnDelete, OnExisting, Winner};

mod capture;
mod capture_sql;
mod capture_state;
#[cfg(test)]
mod capture_tests;
mod claims;
#[cfg(test)]
mod claims_tests;
mod enqueue;
mod findings;
#[cfg(test)]
mod fixture;
mod form;
#[cfg(test)]
mod form_tests;
mod lag;
#[cfg(test)]
mod load_tests;
mod moments;
mod pages;
#[cfg(test)]
mod pages_tests;
mod tables;

pub(super) use tables::{TABLE, drop_if_unused, forget_but};

use form::{Form, Kind, Scalar};

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
    /// Names on the new side, and each one's value over a row of the table. The names may be any text, and never get into SQL.
    pub columns: Vec<(String, String)>,
    /// Which rows are copied.
    pub filter: Option<String>,
}

/// The same held against its table: good as long as `capture_state` says so.
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
    /// Holds a mapping against its table. Refused with the first thing that stands in the way, in the words of
    /// [`findings`](Postgres::capture_findings).
    pub(super) async fn resolve(&self, captured: &Captured) -> Result<Resolved, Error> {
        let mut reader = self.connections.read().await?;
        let resolved = Resolved::of(reader.conn()?, captured).await?;
        reader.release().await;
        Ok(resolved)
    }
}

impl Resolved {
    async fn of(conn: &mut PgConnection, captured: &Captured) -> Result<Self, Error> {
        let table = catalogue::table(conn, &captured.table).await?.ok_or_else(|| {
            let message = format!("there is no table {}", captured.table);
            Error::failed(FailureClass::Stale, message)
        })?;
        let (kinds, found) = findings::errors(conn, captured, &table).await?;
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
        Ok(Self { shape: shape(captured, table), captured: captured.clone(), keys, forms })
    }

    /// The mapping.
    pub(super) const fn captured(&self) -> &Captured {
        &self.captured
    }

    /// What its pages are found by.
    pub(super) const fn shape(&self) -> &Shape {
        &self.shape
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

/// An expression ready to stand in a list, whatever it ends with.
fn enclosed(expression: &str) -> String {
    format!("({}\n)", expression.trim())
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
