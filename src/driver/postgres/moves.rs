//! Copies that follow the changed keys of their rows, where triggers could only note that.
//!
//! A row whose key changed is the same row: what only the new side has of it, and what refers to its copy there, stays with it.
//! So the copy gets the new key before anything else is put right; to take it out and make another one would lose the one, and
//! by ON DELETE CASCADE the other.
//!
//! Invariants:
//! - Changes of keys are made up for in the order in which they happened: notes are counted.
//! - Who came to a key from nowhere, or went, ends what came there before: see [`Noted`](super::marks::Noted).
//! - What the server refuses is left as it was, noted, with both its keys. Where foreign keys refuse it, the copy stands under both
//!   keys until nothing refers to the one that its row had: it never goes before, since what refers to it might go with it.
//!
//! Absent on purpose: changes that only some notes of which can be seen yet. Those that belong together are noted by one
//! transaction, or by ones that wait for each other.

use std::collections::BTreeSet;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::connection::Tx;
use super::error::{code, failed, failure};
use super::marks::{DOUBLED, ENDED, LEFT, MOVED};
use super::settle::{DOING, Stuck, is_tied};
use super::settle_sql::{
    ACTING, can_move, double, follow, is_noted_still, is_referred_to, note_again,
};
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

    /// Whether a row came to its key from another one, and is still the one there.
    fn is_lasting(&self, later: &[Self]) -> bool {
        (self.is(MOVED) || self.is(DOUBLED))
            && !later.iter().any(|it| it.key == self.key && it.is(ENDED))
    }
}

/// Has the copies of rows follow their changed keys; gives those that may not, each under both its keys, or under the one that its
/// row had.
pub(super) async fn follow_moves(
    tx: &mut Tx<'_>,
    shape: &Shape,
    notes: &mut [Note],
) -> Result<Vec<Stuck>, Error> {
    let mut stuck: Vec<Stuck> = Vec::new();
    if !can_move(shape) {
        return Ok(stuck);
    }
    for place in 0..notes.len() {
        let note = &notes[place];
        let Some(origin) = note.origin.clone().filter(|_| note.is_lasting(&notes[place + 1..]))
        else {
            continue;
        };
        let key = note.key.clone();
        // What the one before couldn't do would be done to another row.
        let before = stuck.iter().find(|it| it.key == key || it.key == origin);
        let (failure, keys) = if let Some(it) = before {
            (it.failure.clone(), vec![key, origin])
        } else if is_still(tx, shape, (note, '>', ENDED)).await? {
            continue;
        } else if note.is(DOUBLED) {
            match referring(tx.conn()?, shape, &origin).await? {
                Some(failure) => (failure, vec![origin]),
                None => continue,
            }
        } else if is_still(tx, shape, (note, '<', LEFT)).await? {
            (not_free(), vec![key, origin])
        } else {
            let Some(failure) = one(tx.conn()?, &follow(shape), (&key, &origin)).await? else {
                continue;
            };
            // What refers to it may be on its way, too: to the new key, which it can't refer to before it is there.
            if is_tied(&failure)
                && one(tx.conn()?, &[double(shape)], (&key, &origin)).await?.is_none()
            {
                notes[place].event = Some(DOUBLED.to_owned());
                (failure, vec![origin])
            } else {
                (failure, vec![key, origin])
            }
        };
        stuck.extend(keys.into_iter().map(|key| Stuck { key, failure: failure.clone() }));
    }
    Ok(stuck)
}

/// Why the copy of a key that its row no longer has can't go: what refers to it would go with it, or lose that.
async fn referring(
    conn: &mut PgConnection,
    shape: &Shape,
    key: &[String],
) -> Result<Option<Failure>, Error> {
    let rows = sqlx::query(ACTING).bind(i64::from(shape.new.oid)).fetch_all(&mut *conn).await;
    for row in rows.map_err(failed(DOING))? {
        let told = |at| row.try_get::<Vec<String>, _>(at).map_err(failed(DOING));
        let table: String = row.try_get(0).map_err(failed(DOING))?;
        let sql = is_referred_to(shape, &table, (&told(1)?, &told(2)?));
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        for text in key {
            query = query.bind(text);
        }
        let asked = query.fetch_one(&mut *conn).await;
        if asked.and_then(|row| row.try_get(0)).map_err(failed(DOING))? {
            let message = format!("rows of {table} still refer to the key that it had");
            return Ok(Some(refused(message)));
        }
    }
    Ok(None)
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
    refused("the copy that has its new key could not be given another one".to_owned())
}

fn refused(message: String) -> Failure {
    Failure {
        class: FailureClass::Refused,
        code: Some("23503".to_owned()),
        message,
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
