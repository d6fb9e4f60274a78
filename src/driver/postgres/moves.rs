//! Copies that follow the changed keys of their rows, where triggers could only note that.
//!
//! A row whose key changed is the same row: what only the new side has of it, and what refers to its copy there, stays with it.
//! So the copy gets the new key before anything else is put right; to take it out and make another one would lose the one, and
//! by ON DELETE CASCADE the other.
//!
//! Invariants:
//! - Changes of keys are made up for in the order in which they happened: notes are counted.
//! - Who came to a key from nowhere, or went, ends what came there before: see [`Noted`](super::marks::Noted).
//! - What the server refuses is left as it was, noted, with both its keys.
//!
//! Absent on purpose: changes that only some notes of which can be seen yet. Those that belong together are noted by one
//! transaction, or by ones that wait for each other.

use std::collections::BTreeSet;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::connection::Tx;
use super::error::{code, failed, failure};
use super::marks::{ENDED, LEFT, MOVED};
use super::settle::{DOING, Stuck};
use super::settle_sql::{can_move, follow, is_noted_still, note_again};
use super::shape::Shape;
use super::sink::is_of_a_row;
use crate::driver::Error;
use crate::run::{Failure, FailureClass};

/// A note, with its keys as the server writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub at: i64,
    event: Option<String>,
    pub key: Vec<String>,
    /// The key that the row came from.
    origin: Option<Vec<String>>,
}

impl Note {
    pub(super) fn of_row(row: &PgRow, width: usize) -> Result<Self, sqlx::Error> {
        let texts = |first: usize| -> Result<Option<Vec<String>>, sqlx::Error> {
            (first..first + width).map(|at| row.try_get(at)).collect()
        };
        let key = texts(2)?.unwrap_or_default();
        Ok(Self { at: row.try_get(0)?, event: row.try_get(1)?, key, origin: texts(2 + width)? })
    }

    /// The keys that it is about.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Vec<String>> {
        std::iter::once(&self.key).chain(&self.origin)
    }

    fn is(&self, event: &str) -> bool {
        self.event.as_deref() == Some(event)
    }

    /// Whether a row came to its key that is still the one there.
    fn is_lasting(&self, later: &[Self]) -> bool {
        self.is(MOVED) && !later.iter().any(|it| it.key == self.key && it.is(ENDED))
    }
}

/// Has the copies of rows follow their changed keys; gives those that may not, each under both its keys.
pub(super) async fn follow_moves(
    tx: &mut Tx<'_>,
    shape: &Shape,
    notes: &[Note],
) -> Result<Vec<Stuck>, Error> {
    let mut stuck: Vec<Stuck> = Vec::new();
    if !can_move(shape) || !notes.iter().any(|note| note.is(MOVED)) {
        return Ok(stuck);
    }
    let statements = follow(shape);
    for (place, note) in notes.iter().enumerate() {
        let Some(origin) = note.origin.as_ref().filter(|_| note.is_lasting(&notes[place + 1..]))
        else {
            continue;
        };
        // What the one before couldn't do would be done to another row.
        let before = stuck.iter().find(|it| it.key == note.key || it.key == *origin);
        let refused = match before {
            Some(it) => Some(it.failure.clone()),
            None if is_still(tx, shape, (note, '>', ENDED)).await? => None,
            None if is_still(tx, shape, (note, '<', LEFT)).await? => Some(not_free()),
            None => one(tx.conn()?, &statements, (&note.key, origin)).await?,
        };
        if let Some(failure) = refused {
            let each = [&note.key, origin];
            stuck.extend(each.map(|key| Stuck { key: key.clone(), failure: failure.clone() }));
        }
    }
    Ok(stuck)
}

/// Whether an event of a note's key is noted, before or behind it, that is not among those that were taken.
async fn is_still(
    tx: &mut Tx<'_>,
    shape: &Shape,
    (note, side, event): (&Note, char, &str),
) -> Result<bool, Error> {
    let sql = is_noted_still(shape, &tx.ours(&shape.touched_name()), side);
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(note.at).bind(event);
    for text in &note.key {
        query = query.bind(text);
    }
    let row = query.fetch_one(tx.conn()?).await;
    row.and_then(|row| row.try_get(0)).map_err(failed(DOING))
}

fn not_free() -> Failure {
    Failure {
        class: FailureClass::Refused,
        code: None,
        message: "the copy that has its new key could not be given another one".to_owned(),
        detail: None,
        help: None,
        line: None,
        private: Vec::new(),
    }
}

/// Gives a copy its new key; the reason where the server refuses that.
async fn one(
    conn: &mut PgConnection,
    statements: &[String],
    (key, origin): (&[String], &[String]),
) -> Result<Option<Failure>, Error> {
    let say = async |conn: &mut PgConnection, words: &'static str| {
        sqlx::query(words).execute(conn).await.map(|_| ()).map_err(failed(DOING))
    };
    say(conn, "SAVEPOINT phasegate_moved").await?;
    let tried = async {
        for sql in statements {
            let mut query = sqlx::query(AssertSqlSafe(sql.clone())).persistent(false);
            for text in key.iter().chain(origin) {
                query = query.bind(text);
            }
            query.execute(&mut *conn).await?;
        }
        Ok(())
    }
    .await;
    match tried {
        Ok(()) => say(conn, "RELEASE SAVEPOINT phasegate_moved").await.map(|()| None),
        Err(error) if code(&error).is_some_and(is_of_a_row) => {
            say(conn, "ROLLBACK TO SAVEPOINT phasegate_moved").await?;
            Ok(Some(failure(&error)))
        }
        Err(error) => Err(failed(DOING)(error)),
    }
}

/// Puts the notes of keys back at their places.
pub(super) async fn put_back(
    tx: &mut Tx<'_>,
    shape: &Shape,
    notes: &[Note],
    stuck: &[Stuck],
) -> Result<(), Error> {
    let keys: BTreeSet<&Vec<String>> = stuck.iter().map(|it| &it.key).collect();
    let sql = note_again(shape, &tx.ours(&shape.touched_name()));
    for note in notes.iter().filter(|note| note.keys().any(|key| keys.contains(key))) {
        let mut query = sqlx::query(AssertSqlSafe(sql.clone())).bind(note.at).bind(&note.event);
        for text in &note.key {
            query = query.bind(text);
        }
        for at in 0..note.key.len() {
            query = query.bind(note.origin.as_ref().map(|origin| &origin[at]));
        }
        query.execute(tx.conn()?).await.map_err(failed(DOING))?;
    }
    Ok(())
}
