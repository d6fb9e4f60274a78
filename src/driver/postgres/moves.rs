//! Copies that follow the changed keys of their rows, where triggers could only note that.
//!
//! A row whose key changed is the same row: what only the new side has of it, and what refers to its copy there, stays with it.
//! So the copy gets the new key before anything else is put right; to take it out and make another one would lose the one, and
//! by ON DELETE CASCADE the other.
//!
//! Invariants:
//! - Changes of keys are made up for in the order in which they happened: notes are counted. One whose copy has not come to its key
//!   yet, or whose new key is still taken, waits for the others.
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
    ACTING, can_move, double, follow, has_copy, is_noted_still, is_referred_to, note_again,
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

/// A change of a key that isn't made up for yet: the place of its note, the new key and the one before.
struct Move {
    place: usize,
    key: Vec<String>,
    origin: Vec<String>,
}

/// What came of trying to give a copy its new key.
enum Tried {
    Done,
    /// There is no such copy, or another one has the key.
    NotNow,
    Refused(Failure),
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
    let mut open = Vec::new();
    for (place, note) in notes.iter().enumerate() {
        let Some(origin) = note.origin.clone().filter(|_| note.is_lasting(&notes[place + 1..]))
        else {
            continue;
        };
        if is_still(tx, shape, (note, '>', ENDED)).await? {
            continue;
        }
        if !note.is(DOUBLED) {
            open.push(Move { place, key: note.key.clone(), origin });
        } else if let Some(failure) = referring(tx.conn()?, shape, &origin).await? {
            stuck.push(Stuck { key: origin, failure });
        }
    }
    let [follow, make_way] = follow(shape);
    while !open.is_empty() {
        let before = open.len();
        // In the order in which they happened, but for what a trigger did before the row that it fired for was followed.
        let mut at = 0;
        while at < open.len() {
            match one(tx.conn()?, &follow, &open[at]).await? {
                Tried::Done => drop(open.remove(at)),
                Tried::NotNow => at += 1,
                Tried::Refused(failure) => {
                    let refused = open.remove(at);
                    refuse(tx, shape, (notes, refused, failure), &mut stuck).await?;
                }
            }
        }
        if open.len() < before {
            continue;
        }
        let Some(at) = blocked(tx, shape, &open).await? else { break };
        let first = open.remove(at);
        let is_held = |it: &&Stuck| it.key == first.key || it.key == first.origin;
        let held = stuck.iter().find(is_held).map(|it| it.failure.clone());
        let failure = match held {
            None if is_still(tx, shape, (&notes[first.place], '<', LEFT)).await? => {
                Some(not_free())
            }
            held => held,
        };
        if let Some(failure) = failure {
            let keys = [first.key, first.origin];
            stuck.extend(keys.map(|key| Stuck { key, failure: failure.clone() }));
            continue;
        }
        // In the way is the copy of a row that is gone, or one that was made meanwhile of the row that comes.
        match one(tx.conn()?, &make_way, &first).await? {
            Tried::Done => open.insert(at, first),
            Tried::NotNow => {}
            Tried::Refused(failure) => {
                refuse(tx, shape, (notes, first, failure), &mut stuck).await?;
            }
        }
    }
    Ok(stuck)
}

/// The place of the first one whose copy is there, and can't go further because another one has the key. Where that has to go
/// further itself, it is the one.
async fn blocked(tx: &mut Tx<'_>, shape: &Shape, open: &[Move]) -> Result<Option<usize>, Error> {
    let mut first = None;
    for (at, it) in open.iter().enumerate() {
        if is_there(tx, shape, &it.origin).await? {
            first = Some(at);
            break;
        }
    }
    let Some(mut at) = first else { return Ok(None) };
    // No more steps than there are moves: keys may go round.
    for _ in 0..open.len() {
        match open.iter().position(|it| it.origin == open[at].key) {
            Some(next) if is_there(tx, shape, &open[next].origin).await? => at = next,
            _ => break,
        }
    }
    Ok(Some(at))
}

/// What refers to a copy may be on its way, too: to the new key, which it can't refer to before it is there.
async fn refuse(
    tx: &mut Tx<'_>,
    shape: &Shape,
    (notes, refused, failure): (&mut [Note], Move, Failure),
    stuck: &mut Vec<Stuck>,
) -> Result<(), Error> {
    let is_doubled = is_tied(&failure)
        && matches!(one(tx.conn()?, &double(shape), &refused).await?, Tried::Done);
    let mut keys = vec![refused.origin];
    if is_doubled {
        notes[refused.place].event = Some(DOUBLED.to_owned());
    } else {
        keys.push(refused.key);
    }
    stuck.extend(keys.into_iter().map(|key| Stuck { key, failure: failure.clone() }));
    Ok(())
}

/// Whether the new side has a copy of a key.
async fn is_there(tx: &mut Tx<'_>, shape: &Shape, key: &[String]) -> Result<bool, Error> {
    let sql = has_copy(shape);
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for text in key {
        query = query.bind(text);
    }
    let row = query.fetch_one(tx.conn()?).await;
    row.and_then(|row| row.try_get(0)).map_err(failed(DOING))
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

/// A statement about a changed key, of which nothing stays where the server refuses it.
async fn one(conn: &mut PgConnection, statement: &str, of: &Move) -> Result<Tried, Error> {
    let say = async |conn: &mut PgConnection, words: &'static str| {
        sqlx::query(words).execute(conn).await.map(|_| ()).map_err(failed(DOING))
    };
    say(conn, "SAVEPOINT phasegate_moved").await?;
    let mut query = sqlx::query(AssertSqlSafe(statement.to_owned())).persistent(false);
    for text in of.key.iter().chain(&of.origin) {
        query = query.bind(text);
    }
    match query.execute(&mut *conn).await {
        Ok(done) => {
            say(conn, "RELEASE SAVEPOINT phasegate_moved").await?;
            Ok(if done.rows_affected() > 0 { Tried::Done } else { Tried::NotNow })
        }
        Err(error) if code(&error).is_some_and(is_of_a_row) => {
            say(conn, "ROLLBACK TO SAVEPOINT phasegate_moved").await?;
            Ok(Tried::Refused(failure(&error)))
        }
        Err(error) => Err(failed(DOING)(error)),
    }
}

/// Puts the notes of keys back at their places: those of `unmoved` as they were, so that their copies follow later; those of
/// `refused`, whose copies have followed, as keys to put right and no more, since what was followed must not be again.
pub(super) async fn put_back(
    tx: &mut Tx<'_>,
    shape: &Shape,
    notes: &[Note],
    (unmoved, refused): (&[Stuck], &[Stuck]),
) -> Result<(), Error> {
    let of = |stuck: &[Stuck]| -> BTreeSet<Vec<String>> {
        stuck.iter().map(|it| it.key.clone()).collect()
    };
    let (unmoved, refused) = (of(unmoved), of(refused));
    let sql = note_again(shape, &tx.ours(&shape.touched_name()));
    let mut again: Vec<Note> = Vec::new();
    for note in notes {
        let stays = note.keys().any(|key| unmoved.contains(key));
        let is_of_a_move = note.is(MOVED) || note.is(LEFT);
        if stays || !is_of_a_move && refused.contains(&note.key) {
            again.push(note.clone());
        } else {
            let keys = note.keys().filter(|key| refused.contains(*key));
            again.extend(keys.map(|key| Note {
                at: note.at,
                event: None,
                key: key.clone(),
                origin: None,
            }));
        }
    }
    for note in &again {
        let mut query = sqlx::query(AssertSqlSafe(sql.clone())).bind(note.at).bind(&note.event);
        for text in &note.key {
            query = query.bind(text);
        }
        for place in 0..note.key.len() {
            query = query.bind(note.origin.as_ref().map(|origin| &origin[place]));
        }
        query.execute(tx.conn()?).await.map_err(failed(DOING))?;
    }
    Ok(())
}
