//! What the tests of this folder share: a captured table, and what its outbox comes down to.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue;
use super::findings::{Found, all};
use super::mapped::Captured;
use crate::copy::row::{Datum, Row};
use crate::driver::crossing::{Change, ChangeSource as _, Page, What};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::fixture::{Database, entered, mapping, work};
use crate::driver::{Applied, Error, Fence, SyncState};
use crate::run::{CopyColumns, Mapping, RowKind, Way};

/// What stands for the mapping of [`crossing`] in the names of our objects.
pub(super) const ID: &str = "c9022680f888";

/// People, of whom those with a status are copied.
pub(super) const PEOPLE: &str = "
    CREATE TABLE people (id bigint PRIMARY KEY, email text, status text, other int);
    INSERT INTO people SELECT n, 'e' || n, 'Open' FROM generate_series(9, 1, -1) AS n;";

pub(super) fn people() -> Mapping {
    crossing("people", &["id"], &[("mail", "email"), ("state.code", "lower(status)")])
}

/// A mapping of a table into nodes of another database.
pub(super) fn crossing(table: &str, key: &[&str], columns: &[(&str, &str)]) -> Mapping {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut mapping = mapping((table, key), ("Person", key));
    mapping.name = "people".into();
    mapping.copy = CopyColumns::Listed;
    mapping.columns = columns.iter().map(owned).collect();
    mapping.into.target = "graph".into();
    mapping.into.kind = RowKind::Node;
    mapping
}

/// What is found of a mapping beside what every survey finds.
pub(super) async fn found(postgres: &Postgres, mapping: &Mapping) -> Vec<Found> {
    let mut reader = postgres.connections.read().await.unwrap();
    let table = catalogue::table(reader.conn().unwrap(), &mapping.from.table).await;
    let table = table.unwrap().unwrap();
    let captured = Captured::of(mapping, &table);
    let found = all(reader.conn().unwrap(), &captured, &table).await.unwrap();
    reader.release().await;
    found
}

/// A database whose table is captured.
pub(super) struct Bed {
    pub database: Database,
    pub postgres: Postgres,
    pub fences: Vec<Fence>,
    pub of: Mapping,
}

impl Bed {
    pub(super) async fn with(setup: &str, of: Mapping) -> Option<Self> {
        let database = Database::with(setup).await?;
        let postgres = database.open().await;
        let fences = entered(&postgres, 1).await;
        let bed = Self { database, postgres, fences, of };
        bed.capture().await.unwrap();
        assert_eq!(bed.state().await, SyncState::Active);
        Some(bed)
    }

    pub(super) const fn mappings(&self) -> &[Mapping] {
        std::slice::from_ref(&self.of)
    }

    pub(super) fn fence(&self) -> &Fence {
        &self.fences[0]
    }

    pub(super) async fn capture(&self) -> Result<Applied, Error> {
        let work = work("capture", Way::Forward);
        self.postgres.capture(self.fence(), &work, &self.of).await
    }

    pub(super) async fn state(&self) -> SyncState {
        self.postgres.capture_state(&self.of).await.unwrap()
    }

    pub(super) async fn run(&self, script: &str) {
        self.database.run(script).await;
    }

    pub(super) async fn number(&self, query: &str) -> i64 {
        self.database.number(query).await
    }

    pub(super) async fn client(&self) -> PgConnection {
        self.database.client().await
    }

    pub(super) async fn changes(&self) -> i64 {
        self.number("SELECT count(*) FROM phasegate.outbox").await
    }

    pub(super) async fn claim(&self) -> Vec<Change> {
        self.postgres.claim(self.fence(), self.mappings(), (1_000_000, &[])).await.unwrap()
    }

    pub(super) async fn applied(&self, changes: &[Change]) -> u64 {
        let versions: Vec<u64> = changes.iter().map(|change| change.version).collect();
        self.postgres.applied(self.fence(), &versions).await.unwrap()
    }

    /// The table as its rows are now, by a statement of the test's own.
    pub(super) async fn table(&self, query: &str) -> Table {
        let mut client = self.client().await;
        let rows =
            sqlx::query(AssertSqlSafe(query.to_owned())).fetch_all(&mut client).await.unwrap();
        rows.iter()
            .map(|row| (row.get::<Vec<String>, _>(0), row.get::<Vec<Option<String>>, _>(1)))
            .collect()
    }

    /// What a table becomes by the changes in the outbox, in the order of their versions; the outbox is empty afterwards.
    pub(super) async fn followed(&self, mut table: Table) -> Table {
        let mut client = self.client().await;
        let sql = "DELETE FROM phasegate.outbox RETURNING version, key, image";
        let mut rows = sqlx::query(sql).fetch_all(&mut client).await.unwrap();
        rows.sort_by_key(|row| row.get::<i64, _>(0));
        for row in rows {
            let key: Vec<String> = row.get(1);
            match row.get::<Option<Vec<Option<String>>>, _>(2) {
                Some(image) => drop(table.insert(key, image)),
                None if key.is_empty() => table.clear(),
                None => drop(table.remove(&key)),
            }
        }
        table
    }
}

/// Images by key.
pub(super) type Table = BTreeMap<Vec<String>, Vec<Option<String>>>;

pub(super) async fn say(client: &mut PgConnection, script: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(script.to_owned())).execute(client).await.map(|_| ())
}

/// The new side, in memory, with the one rule that the whole scheme rests on: what comes is written where its version is higher.
#[derive(Debug, Default)]
pub(super) struct Sink {
    rows: BTreeMap<Vec<Datum>, (u64, Option<Row>)>,
    /// Below this version nothing is taken.
    emptied: u64,
}

impl Sink {
    pub(super) fn write(&mut self, version: u64, key: Vec<Datum>, row: Option<Row>) {
        if version < self.emptied {
            return;
        }
        if self.rows.get(&key).is_none_or(|(stored, _)| version > *stored) {
            self.rows.insert(key, (version, row));
        }
    }

    pub(super) fn page(&mut self, page: Page) {
        assert_eq!(page.unfit, []);
        for row in page.rows {
            self.write(0, row.key.clone(), Some(row));
        }
    }

    pub(super) fn change(&mut self, change: &Change) {
        match &change.what {
            What::Is(row) => self.write(change.version, row.key.clone(), Some(row.clone())),
            What::Gone(key) => self.write(change.version, key.clone(), None),
            What::Emptied if change.version > self.emptied => {
                self.emptied = change.version;
                self.rows.retain(|_, (version, _)| *version > change.version);
            }
            What::Emptied => {}
            What::Unfit(unfit) => panic!("{unfit:?}"),
        }
    }

    /// The rows that are there.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.rows.values().filter_map(|(_, row)| row.clone()).collect();
        rows.sort();
        rows
    }
}
