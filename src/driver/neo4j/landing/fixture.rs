//! What the tests of this folder share: mappings of each shape, their rows and changes, and a database with a run and a relay in it.
#![allow(clippy::unwrap_used)]

use super::super::Neo4j;
use super::super::fixture::{Database, entered, work};
use crate::copy::chunk::{Cell, Chunk, Key, Planned};
use crate::copy::row::{Datum, Row};
use crate::driver::crossing::{Change, ChangeSink as _, Crossed, Held, What};
use crate::driver::ledger::Copy;
use crate::driver::{Copied, Error, Fence, Work, fixture};
use crate::run::{End, Ends, Mapping, Relation, RowKind, Way};

pub(super) fn int(value: i64) -> Datum {
    Datum::Integer(value)
}

pub(super) fn text(value: &str) -> Datum {
    Datum::Text(value.to_owned())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn crossed(name: &str, key: &[&str], (into, kind): ((&str, &[&str]), RowKind)) -> Crossed {
    let relation = |target: &str, table: &str, key: &[&str], kind| Relation {
        target: target.into(),
        table: table.into(),
        key: names(key),
        kind,
    };
    let mapping = Mapping {
        name: name.into(),
        from: relation("app", name, key, RowKind::Table),
        into: relation("graph", into.0, into.1, kind),
        ..fixture::mapping(("", &[]), ("", &[]))
    };
    Crossed { mapping, names: Vec::new() }
}

/// Nodes of a label, whose key is called otherwise.
pub(super) fn people() -> Crossed {
    let people = crossed("people", &["id"], (("Person", &["uid"]), RowKind::Node));
    Crossed { names: names(&["name", "n"]), ..people }
}

fn end(node: &str, key: &[(&str, &str)]) -> End {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    End { node: node.into(), key: key.iter().map(pair).collect() }
}

fn ends(start: End, end: End) -> RowKind {
    RowKind::Relationship(Box::new(Ends { start, end }))
}

/// Relationships that are known by their ends, in the other order than the table's key has.
pub(super) fn follows() -> Crossed {
    let person = |column| end("Person", &[("uid", column)]);
    let kind = ends(person("follower"), person("followed"));
    let follows = crossed("follows", &["followed", "follower"], (("FOLLOWS", &[]), kind));
    Crossed { names: names(&["since"]), ..follows }
}

/// Relationships with a key of their own.
pub(super) fn orders() -> Crossed {
    let kind = ends(end("Person", &[("uid", "person")]), end("Item", &[("sku", "item")]));
    let orders = crossed("orders", &["id"], (("ORDERED", &["no"]), kind));
    Crossed { names: names(&["count", "start.uid", "end.sku"]), ..orders }
}

pub(super) fn row(key: &[Datum], values: &[(&str, Datum)]) -> Row {
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    Row { key: key.to_vec(), values: values.collect() }
}

pub(super) fn person(id: i64, name: &str) -> Row {
    row(&[int(id)], &[("name", text(name))])
}

/// That one follows another.
pub(super) fn follow(one: i64, other: i64, since: i64) -> Row {
    row(&[int(other), int(one)], &[("since", int(since))])
}

pub(super) fn order(id: i64, (person, item): (i64, &str), count: i64) -> Row {
    let ends = [("start.uid", int(person)), ("end.sku", text(item))];
    row(&[int(id)], &[("count", int(count)), ends[0].clone(), ends[1].clone()])
}

pub(super) fn is(of: &Crossed, version: u64, row: Row) -> Change {
    Change { version, mapping: of.mapping.name.clone(), what: What::Is(row), tries: 0 }
}

pub(super) fn gone(of: &Crossed, version: u64, key: &[Datum]) -> Change {
    let what = What::Gone(key.to_vec());
    Change { version, mapping: of.mapping.name.clone(), what, tries: 0 }
}

pub(super) const RELAY: &str = "r1/relay/app/graph";

/// A database in which a run and its relay are.
pub(super) struct Bed {
    pub database: Database,
    pub neo4j: Neo4j,
    pub fences: Vec<Fence>,
    pub relay: Fence,
}

impl Bed {
    pub(super) async fn made() -> Option<Self> {
        let database = Database::empty().await?;
        let neo4j = database.open().await;
        let fences = entered(&neo4j, 1).await;
        let relay = neo4j.enter_relay(&RELAY.into(), 1).await.unwrap();
        Some(Self { database, neo4j, fences, relay })
    }

    /// The same with mappings that are open.
    pub(super) async fn open(of: &[&Crossed]) -> Option<Self> {
        let bed = Self::made().await?;
        for crossed in of {
            bed.opened(crossed).await;
        }
        Some(bed)
    }

    pub(super) async fn opened(&self, crossed: &Crossed) {
        let step = step(crossed, Way::Forward);
        self.neo4j.open(&self.fences[0], &step, crossed).await.unwrap();
    }

    pub(super) async fn land(&self, of: &[&Crossed], changes: &[Change]) {
        self.try_land(of, changes).await.unwrap();
    }

    pub(super) async fn try_land(&self, of: &[&Crossed], changes: &[Change]) -> Result<(), Error> {
        let of: Vec<Crossed> = of.iter().map(|one| (*one).clone()).collect();
        self.neo4j.land(&self.relay, &of, changes).await
    }

    /// Enters the next chunk of a mapping's copy.
    pub(super) async fn plan(&self, crossed: &Crossed) -> Planned {
        let (work, mapping) = (copy(crossed), &crossed.mapping);
        let before = self.neo4j.copy_row(self.fences[0].run(), &work.step).await.unwrap();
        let seq = before.as_ref().map_or(0, |copy| copy.seq) + 1;
        let key = |seq: u64| Key(vec![Cell::Integer(i64::try_from(seq).unwrap())]);
        let lo = before.as_ref().and_then(|copy| copy.hi.clone());
        let planned = Planned { seq, chunk: Chunk { lo, hi: Some(key(seq)) } };
        let hi = planned.chunk.hi.clone();
        let after = Copy { seq, hi, ..before.clone().unwrap_or_default() };
        let chunks = [planned.clone()];
        let entered = (before.as_ref(), &after, &chunks[..]);
        self.neo4j.enter_chunks(&self.fences[0], &work, mapping, entered).await.unwrap();
        planned
    }

    pub(super) async fn page(&self, crossed: &Crossed, rows: Vec<Row>) -> Copied {
        self.try_page(crossed, rows, 1).await.unwrap()
    }

    /// Writes a page by the worker that has a slot.
    pub(super) async fn try_page(
        &self,
        crossed: &Crossed,
        rows: Vec<Row>,
        slot: usize,
    ) -> Result<Copied, Error> {
        let chunk = self.plan(crossed).await;
        let work = copy(crossed);
        self.neo4j.land_page(&self.fences[slot], &work, crossed, (&chunk, rows)).await
    }

    pub(super) async fn held(&self, crossed: &Crossed, keys: &[&[Datum]]) -> Held {
        let keys: Vec<Vec<Datum>> = keys.iter().map(|key| key.to_vec()).collect();
        let mut held = self.neo4j.held(crossed, &keys, false).await.unwrap();
        held.rows.sort();
        held
    }

    /// How many nodes of a label there are.
    pub(super) async fn neo4j_count(&self, label: &str) -> i64 {
        self.database.number(&format!("MATCH (n:{label}) RETURN count(n) AS it")).await
    }

    /// The rows of some keys.
    pub(super) async fn rows(&self, crossed: &Crossed, keys: &[&[Datum]]) -> Vec<Row> {
        self.held(crossed, keys).await.rows
    }
}

pub(super) fn step(crossed: &Crossed, way: Way) -> Work {
    work(&format!("sync-{}", crossed.mapping.name), way)
}

pub(super) fn copy(crossed: &Crossed) -> Work {
    work(&format!("copy-{}", crossed.mapping.name), Way::Forward)
}

/// A row that stands for one that has not come.
pub(super) fn stub(key: &[Datum]) -> Row {
    row(key, &[(crate::driver::crossing::STUB, Datum::Boolean(true))])
}
