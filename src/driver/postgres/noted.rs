//! Notes of keys, as they are taken, read and put back.
//!
//! Absent on purpose: what becomes of which copy, which is worked out in `replay`, and what is done about it, which is `moves`'.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::connection::Tx;
use super::error::failed;
use super::marks::{DOUBLED, ENDED, MADE, MOVED};
use super::replay::{Ends, Event, Fates, Told, replay};
use super::settle::{DOING, bound, columns_of, number};
use super::settle_sql::{note_again, numbered};
use super::shape::Shape;
use super::stuck::Stuck;
use crate::driver::Error;
use crate::run::OnDelete;

/// A note, with its keys as the server writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub at: i64,
    pub event: Option<String>,
    depth: i32,
    pub xact: i64,
    said: i64,
    pub key: Vec<String>,
    /// The key that the row came from.
    origin: Option<Vec<String>>,
}

impl Note {
    /// A note as it is taken.
    pub(super) fn of_row(row: &PgRow, width: usize) -> Result<Self, sqlx::Error> {
        let texts = |first: usize| -> Result<Option<Vec<String>>, sqlx::Error> {
            (first..first + width).map(|at| row.try_get(at)).collect()
        };
        Ok(Self {
            at: row.try_get(0)?,
            event: row.try_get(1)?,
            depth: row.try_get(2)?,
            xact: row.try_get(3)?,
            said: row.try_get(5)?,
            key: texts(6)?.unwrap_or_default(),
            origin: texts(6 + width)?,
        })
    }

    /// The keys that it is about.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Vec<String>> {
        std::iter::once(&self.key).chain(&self.origin)
    }

    /// What it tells, with keys by their numbers. That a row left its key is told by where it went.
    fn told(&self, numbers: &BTreeMap<&Vec<String>, usize>) -> Option<Told> {
        let to = *numbers.get(&self.key)?;
        let from = self.origin.as_ref().and_then(|origin| numbers.get(origin).copied());
        let event = match (self.event.as_deref()?, from) {
            (ENDED, _) => Event::Ended(to),
            (MADE, _) => Event::Made(to),
            (MOVED, Some(from)) => Event::Moved { from, to },
            (DOUBLED, Some(from)) => Event::Doubled { from, to },
            _ => return None,
        };
        Some(Told { event, depth: self.depth, within: (self.xact, self.said) })
    }
}

/// What is still to be done, as it is noted again.
pub(super) struct Undone {
    pub event: Option<&'static str>,
    pub depth: i32,
    pub key: Vec<String>,
    pub origin: Option<Vec<String>>,
}

/// Who stands where by what notes tell, and what is to become of copies. Keys are called by their numbers.
pub(super) struct Reading<'a> {
    pub numbers: BTreeMap<&'a Vec<String>, usize>,
    pub keys: BTreeMap<usize, Vec<String>>,
    /// Keys that there are copies of, and rows.
    pub there: BTreeSet<usize>,
    pub alive: BTreeSet<usize>,
    pub fates: Fates,
}

impl<'a> Reading<'a> {
    /// `notes` are all that there are of their keys, in order.
    pub(super) async fn of(
        conn: &mut PgConnection,
        shape: &Shape,
        notes: &'a [Note],
    ) -> Result<Self, Error> {
        let distinct: BTreeSet<&Vec<String>> = notes.iter().flat_map(Note::keys).collect();
        let texts: Vec<Vec<String>> = distinct.iter().copied().cloned().collect();
        let columns = columns_of(&texts);
        let rows = bound(numbered(shape), &columns).fetch_all(conn).await;
        let rows = rows.map_err(failed(DOING))?;
        let (mut numbers, mut keys) = (BTreeMap::new(), BTreeMap::new());
        let (mut there, mut alive) = (BTreeSet::new(), BTreeSet::new());
        for (row, text) in rows.iter().zip(distinct) {
            let number: i64 = row.try_get(0).map_err(failed(DOING))?;
            let number = usize::try_from(number).unwrap_or_default();
            numbers.insert(text, number);
            keys.insert(number, text.clone());
            if row.try_get(1).map_err(failed(DOING))? {
                there.insert(number);
            }
            if row.try_get(2).map_err(failed(DOING))? {
                alive.insert(number);
            }
        }
        let told: Vec<Told> = notes.iter().filter_map(|note| note.told(&numbers)).collect();
        let ends = if shape.on_delete == OnDelete::Delete { Ends::Goes } else { Ends::Stays };
        let fates = replay(&told, &there, ends);
        Ok(Self { numbers, keys, there, alive, fates })
    }
}

/// Whether any copy is to go to another key, or to end. `notes` are all that there are, in order, and nobody writes meanwhile.
pub(super) async fn is_any_astray(
    conn: &mut PgConnection,
    shape: &Shape,
    notes: &[Note],
) -> Result<bool, Error> {
    if notes.iter().all(|note| note.event.is_none()) {
        return Ok(false);
    }
    Ok(Reading::of(conn, shape, notes).await?.fates != Fates::default())
}

/// The first transactions that noted something of keys.
pub(super) fn since(
    notes: &[Note],
    numbers: &BTreeMap<&Vec<String>, usize>,
) -> BTreeMap<usize, i64> {
    let mut since = BTreeMap::new();
    for note in notes.iter().filter(|note| note.event.is_some()) {
        if let Some(number) = numbers.get(&note.key) {
            let first = since.entry(*number).or_insert(note.xact);
            *first = note.xact.min(*first);
        }
    }
    since
}

/// Notes again what is still to be done, and the keys that can't be put right: before whatever was noted of them meanwhile, which is
/// behind the first note that was taken.
pub(super) async fn put_back(
    tx: &mut Tx<'_>,
    shape: &Shape,
    (first, mut undone): (i64, Vec<Undone>),
    stuck: &[Stuck],
) -> Result<(), Error> {
    let noted: BTreeSet<&Vec<String>> = undone.iter().map(|it| &it.key).collect();
    let others: BTreeSet<&Vec<String>> =
        stuck.iter().map(|it| &it.key).filter(|key| !noted.contains(key)).collect();
    let changed =
        |key: &Vec<String>| Undone { event: None, depth: 0, key: key.clone(), origin: None };
    let others: Vec<Undone> = others.into_iter().map(changed).collect();
    undone.extend(others);
    let sql = note_again(shape, &tx.ours(&shape.touched_name()));
    for (at, it) in (first.saturating_sub_unsigned(number(undone.len()))..).zip(&undone) {
        let mut query =
            sqlx::query(AssertSqlSafe(sql.clone())).bind(at).bind(it.event).bind(it.depth);
        for text in &it.key {
            query = query.bind(text);
        }
        for at in 0..it.key.len() {
            query = query.bind(it.origin.as_ref().map(|origin| &origin[at]));
        }
        query.execute(tx.conn()?).await.map_err(failed(DOING))?;
    }
    Ok(())
}
