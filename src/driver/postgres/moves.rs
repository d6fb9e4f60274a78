//! Copies that follow the changed keys of their rows, where triggers could only note that.
//!
//! A row whose key changed is the same row: what only the new side has of it, and what refers to its copy there, stays with it.
//! So the copy gets the new key before anything else is put right; to take it out and make another one would lose the one, and
//! by ON DELETE CASCADE the other.
//!
//! Invariants:
//! - Notes that belong together are taken together: all those of the keys that rows came from or went to, however many these are.
//!   [`replay`](super::replay) works out from them what is to become of each copy, and only that is done: keys that a row had for
//!   a while are passed by, unless keys go round.
//! - A copy that ends goes first, so that whoever comes to its key later has nothing of it. One that is to go to another key is never
//!   deleted.
//! - What the server refuses is left as it was, and noted as what is still to be done. Where foreign keys refuse it, the copy stands
//!   under both keys until nothing refers to the one that its row had: it never goes before, since what refers to it might go with it.
//!
//! Absent on purpose: changes that only some notes of which can be seen yet. Those that belong together are noted by one
//! transaction, or by ones that wait for each other.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::connection::Tx;
use super::error::{code, failed, failure};
use super::marks::{DOUBLED, ENDED, LEFT, MOVED};
use super::moves_sql::{
    ACTING, FOLLOWING, can_move, double, end, follow, follow_at_once, is_referred_to, refer, reset,
};
use super::noted::{Note, Reading, Undone, since};
use super::replay::{Hop, by_way_of, in_order};
use super::settle::{DOING, bound, columns_of, is_tied};
use super::shape::Shape;
use super::sink::is_of_a_row;
use super::stuck::Stuck;
use crate::bounds::postgres::MOVED_AT_ONCE;
use crate::driver::Error;
use crate::run::{Failure, FailureClass};

/// What came of having copies follow.
#[derive(Default)]
pub(super) struct Followed {
    /// Keys that can't be put right as long as copies stand where they do.
    pub stuck: Vec<Stuck>,
    /// The same in whatever way notes spell them: equal keys need not be the same text.
    pub held: BTreeSet<Vec<String>>,
    pub undone: Vec<Undone>,
}

/// What came of trying to give a copy its new key.
enum Tried {
    Done,
    /// There is no such copy, or another one has the key.
    NotNow,
    Refused(Failure),
}

/// Has the copies of rows follow their changed keys, and those of rows that are gone go. `notes` are all that there are of their
/// keys, whose rows and copies are locked, in order.
pub(super) async fn follow_moves(
    tx: &mut Tx<'_>,
    shape: &Shape,
    notes: &[Note],
) -> Result<Followed, Error> {
    if notes.iter().all(|note| note.event.is_none()) {
        return Ok(Followed::default());
    }
    let reading = Reading::of(tx.conn()?, shape, notes).await?;
    let Reading { numbers, keys, there, alive, fates } = reading;
    let (held, stuck, done) = (BTreeMap::new(), BTreeSet::new(), Followed::default());
    let ground = Ground { keys, there, held, stuck, done };
    let mut mover = Mover { conn: tx.conn()?, shape, ground };
    let ended = mover.spare(fates.ended, (&alive, &fates.moves), &since(notes, &numbers)).await?;
    mover.end_all(&ended).await?;
    mover.end_doubled(&fates.doubled).await?;
    let (rows, rounds) = in_order(&fates.moves);
    mover.follow_rows(&rows).await?;
    for round in rounds {
        mover.go_round(&round).await?;
    }
    let Ground { stuck, mut done, .. } = mover.ground;
    let held = numbers.iter().filter(|(_, number)| stuck.contains(number));
    done.held = held.map(|(text, _)| (*text).clone()).collect();
    Ok(done)
}

/// Which copies stand where, and what is done about it.
struct Ground {
    /// Keys by their numbers.
    keys: BTreeMap<usize, Vec<String>>,
    there: BTreeSet<usize>,
    /// Keys that aren't free, though they are to be, and why.
    held: BTreeMap<usize, Failure>,
    /// Keys that can't be put right.
    stuck: BTreeSet<usize>,
    done: Followed,
}

impl Ground {
    fn key(&self, number: usize) -> Vec<String> {
        self.keys.get(&number).cloned().unwrap_or_default()
    }

    fn stuck(&mut self, number: usize, failure: &Failure) {
        if self.stuck.insert(number) {
            let stuck = Stuck { key: self.key(number), failure: failure.clone(), is_moving: true };
            self.done.stuck.push(stuck);
        }
    }

    fn undone(&mut self, event: &'static str, (depth, from, to): (i32, Option<usize>, usize)) {
        if let Some(from) = from {
            self.done.undone.push(Undone {
                event: Some(LEFT),
                depth,
                key: self.key(from),
                origin: None,
            });
        }
        let origin = from.map(|from| self.key(from));
        self.done.undone.push(Undone { event: Some(event), depth, key: self.key(to), origin });
    }

    /// A copy that stays where it is, for now.
    fn stays(&mut self, (from, to): Hop, failure: &Failure) {
        self.undone(MOVED, (0, Some(from), to));
        self.stuck(from, failure);
        self.stuck(to, failure);
        self.held.insert(from, failure.clone());
    }

    fn went(&mut self, (from, to): Hop) {
        self.there.remove(&from);
        self.there.insert(to);
    }
}

struct Mover<'a> {
    conn: &'a mut PgConnection,
    shape: &'a Shape,
    ground: Ground,
}

impl Mover<'_> {
    /// Leaves copies out of those that are to end whose keys other rows have by now, and that something refers to which was written since
    /// and would go with them: that may be theirs. Such a copy becomes the other row's, which has nothing of the one that is gone; where it has to
    /// make room for another copy of that row, nobody can tell what is whose, and it is left for people.
    async fn spare(
        &mut self,
        mut ended: BTreeSet<usize>,
        (alive, moves): (&BTreeSet<usize>, &BTreeMap<usize, usize>),
        since: &BTreeMap<usize, i64>,
    ) -> Result<BTreeSet<usize>, Error> {
        for key in ended.clone().intersection(alive) {
            let since = Some(since.get(key).copied().unwrap_or_default());
            let Some(failure) = self.referring(*key, since).await? else { continue };
            ended.remove(key);
            if moves.values().any(|to| to == key) {
                self.ground.undone(ENDED, (0, None, *key));
                self.ground.stuck(*key, &failure);
                self.ground.held.insert(*key, failure);
            } else if let Some(sql) = reset(self.shape) {
                let key = self.ground.key(*key);
                let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
                for text in &key {
                    query = query.bind(text);
                }
                query.execute(&mut *self.conn).await.map_err(failed(DOING))?;
            }
        }
        Ok(ended)
    }

    /// Takes copies of rows away that are gone.
    async fn end_all(&mut self, ended: &BTreeSet<usize>) -> Result<(), Error> {
        let all: Vec<usize> = ended.iter().copied().collect();
        if all.is_empty() || matches!(self.end(&all).await?, Tried::Done | Tried::NotNow) {
            self.ground.there.retain(|key| !ended.contains(key));
            return Ok(());
        }
        for key in all {
            match self.end(&[key]).await? {
                Tried::Refused(failure) => {
                    self.ground.undone(ENDED, (0, None, key));
                    self.ground.stuck(key, &failure);
                    self.ground.held.insert(key, failure);
                }
                _ => drop(self.ground.there.remove(&key)),
            }
        }
        Ok(())
    }

    /// Takes copies away that have another one of their row elsewhere, where nothing refers to them any more.
    async fn end_doubled(&mut self, doubled: &BTreeMap<usize, usize>) -> Result<(), Error> {
        for (&from, &to) in doubled {
            let failure = match self.referring(from, None).await? {
                Some(failure) => failure,
                None => match self.end(&[from]).await? {
                    Tried::Refused(failure) => failure,
                    _ => {
                        self.ground.there.remove(&from);
                        continue;
                    }
                },
            };
            self.stays_doubled((from, to), failure);
        }
        Ok(())
    }

    fn stays_doubled(&mut self, (from, to): Hop, failure: Failure) {
        self.ground.undone(DOUBLED, (0, Some(from), to));
        self.ground.stuck(from, &failure);
        self.ground.held.insert(from, failure);
    }

    /// Gives copies their keys, each row of them from the end that is free: all at once, or where that is refused, one by one.
    async fn follow_rows(&mut self, rows: &[Vec<Hop>]) -> Result<(), Error> {
        let is_free =
            |row: &&Vec<Hop>| row.first().is_some_and(|it| !self.ground.there.contains(&it.1));
        let (free, others): (Vec<_>, Vec<_>) = rows.iter().partition(is_free);
        let hops: Vec<Hop> = free.iter().flat_map(|row| row.iter().copied()).collect();
        if can_move(self.shape) && self.at_once(&hops).await? {
            for hop in hops {
                self.ground.went(hop);
            }
        } else {
            for hop in hops {
                self.hop(hop).await?;
            }
        }
        for hop in others.into_iter().flatten() {
            self.hop(*hop).await?;
        }
        Ok(())
    }

    async fn at_once(&mut self, hops: &[Hop]) -> Result<bool, Error> {
        if hops.is_empty() {
            return Ok(true);
        }
        self.say("SAVEPOINT phasegate_moved").await?;
        for some in hops.chunks(MOVED_AT_ONCE) {
            let keys =
                |hop: &Hop| Some((self.ground.keys.get(&hop.0)?, self.ground.keys.get(&hop.1)?));
            let moves: Vec<_> = some.iter().filter_map(keys).collect();
            let script = follow_at_once(self.shape, &moves);
            match sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *self.conn).await {
                Ok(_) => {}
                Err(error) if code(&error).is_some_and(is_of_a_row) => {
                    self.say("ROLLBACK TO SAVEPOINT phasegate_moved").await?;
                    return Ok(false);
                }
                Err(error) => return Err(failed(DOING)(error)),
            }
        }
        self.say("RELEASE SAVEPOINT phasegate_moved").await?;
        Ok(true)
    }

    /// Gives a copy its key, if that is free and nothing holds it to the one that it has.
    async fn hop(&mut self, hop: Hop) -> Result<(), Error> {
        let (from, to) = hop;
        if self.ground.there.contains(&to) {
            let failure = self.ground.held.get(&to).cloned().unwrap_or_else(not_free);
            self.ground.stays(hop, &failure);
            return Ok(());
        }
        let statement = follow(self.shape);
        let failure = match self.referring_to_drawn(from).await? {
            Some(failure) => failure,
            None => match self.one(&statement, hop).await? {
                Tried::Done => {
                    self.ground.went(hop);
                    return Ok(());
                }
                Tried::NotNow => {
                    self.ground.stays(hop, &not_free());
                    return Ok(());
                }
                Tried::Refused(failure) => failure,
            },
        };
        // What refers to a copy may be on its way, too: to the new key, which it can't refer to before it is there.
        let statement = double(self.shape);
        if !is_tied(&failure) || !matches!(self.one(&statement, hop).await?, Tried::Done) {
            self.ground.stays(hop, &failure);
            return Ok(());
        }
        self.ground.there.insert(to);
        if !can_move(self.shape) {
            self.take_along(hop).await?;
            return self.end_doubled(&BTreeMap::from([hop])).await;
        }
        self.stays_doubled(hop, failure);
        Ok(())
    }

    /// Gives copies each other's keys, or leaves all of them where they are.
    async fn go_round(&mut self, round: &[Hop]) -> Result<(), Error> {
        let ground = &self.ground;
        let is_target = |key: &usize| round.iter().any(|hop| hop.1 == *key);
        let spare = ground.keys.keys().copied().find(|key| !ground.there.contains(key));
        // A copy that can't go isn't one that goes for good.
        let later = ground.held.keys().copied().find(|key| !is_target(key));
        let failure = match spare {
            None => not_free(),
            Some(spare) => {
                self.say("SAVEPOINT phasegate_round").await?;
                let mut refused = None;
                for hop in by_way_of(spare, round) {
                    let statement = follow(self.shape);
                    refused = match self.referring_to_drawn(hop.0).await? {
                        Some(failure) => Some(failure),
                        None => match self.one(&statement, hop).await? {
                            Tried::Done => None,
                            Tried::NotNow => Some(not_free()),
                            Tried::Refused(failure) => Some(failure),
                        },
                    };
                    if refused.is_some() {
                        break;
                    }
                }
                let Some(failure) = refused else {
                    return self.say("RELEASE SAVEPOINT phasegate_round").await;
                };
                self.say("ROLLBACK TO SAVEPOINT phasegate_round").await?;
                failure
            }
        };
        // By another key it is noted again, which is taken with these then.
        let hops = match spare.or(later) {
            Some(spare) => by_way_of(spare, round),
            None => round.to_vec(),
        };
        let mut depth = i32::try_from(hops.len()).unwrap_or(i32::MAX);
        for (from, to) in hops {
            self.ground.undone(MOVED, (depth, Some(from), to));
            depth = if spare.or(later).is_some() { 0 } else { depth - 1 };
        }
        for (from, _) in round {
            self.ground.stuck(*from, &failure);
            self.ground.held.insert(*from, failure.clone());
        }
        Ok(())
    }

    async fn say(&mut self, words: &'static str) -> Result<(), Error> {
        sqlx::query(words).execute(&mut *self.conn).await.map(|_| ()).map_err(failed(DOING))
    }

    async fn end(&mut self, keys: &[usize]) -> Result<Tried, Error> {
        let keys: Vec<Vec<String>> = keys.iter().map(|key| self.ground.key(*key)).collect();
        let statement = end(self.shape);
        self.say("SAVEPOINT phasegate_moved").await?;
        let columns = columns_of(&keys);
        let done = bound(statement, &columns).execute(&mut *self.conn).await;
        self.tried(done.map(|done| done.rows_affected())).await
    }

    /// A statement about a changed key, of which nothing stays where the server refuses it.
    async fn one(&mut self, statement: &str, (from, to): Hop) -> Result<Tried, Error> {
        let keys = [self.ground.key(to), self.ground.key(from)].concat();
        self.say("SAVEPOINT phasegate_moved").await?;
        let mut query = sqlx::query(AssertSqlSafe(statement.to_owned())).persistent(false);
        for text in &keys {
            query = query.bind(text);
        }
        let done = query.execute(&mut *self.conn).await;
        self.tried(done.map(|done| done.rows_affected())).await
    }

    async fn tried(&mut self, done: Result<u64, sqlx::Error>) -> Result<Tried, Error> {
        match done {
            Ok(rows) => {
                self.say("RELEASE SAVEPOINT phasegate_moved").await?;
                Ok(if rows > 0 { Tried::Done } else { Tried::NotNow })
            }
            Err(error) if code(&error).is_some_and(is_of_a_row) => {
                self.say("ROLLBACK TO SAVEPOINT phasegate_moved").await?;
                Ok(Tried::Refused(failure(&error)))
            }
            Err(error) => Err(failed(DOING)(error)),
        }
    }

    /// Where the server draws keys itself a copy is taken out and put in again, which nothing that refers to it may notice.
    async fn referring_to_drawn(&mut self, key: usize) -> Result<Option<Failure>, Error> {
        if can_move(self.shape) { Ok(None) } else { self.referring(key, None).await }
    }

    /// Why the copy of a key that its row no longer has can't go: what refers to it would go with it, or lose that.
    async fn referring(
        &mut self,
        key: usize,
        since: Option<i64>,
    ) -> Result<Option<Failure>, Error> {
        let key = self.ground.key(key);
        for (table, from, to) in self.foreign_keys(ACTING).await? {
            let sql = is_referred_to(self.shape, &table, (&from, &to), since);
            let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
            for text in &key {
                query = query.bind(text);
            }
            let asked = query.fetch_one(&mut *self.conn).await;
            if asked.and_then(|row| row.try_get(0)).map_err(failed(DOING))? {
                let message = format!("rows of {table} still refer to the key that it had");
                return Ok(Some(refused(message)));
            }
        }
        Ok(None)
    }

    /// Has what follows a key by itself refer to the copy under the new one.
    async fn take_along(&mut self, hop: Hop) -> Result<(), Error> {
        for (table, from, to) in self.foreign_keys(FOLLOWING).await? {
            let sql = refer(self.shape, &table, (&from, &to));
            // What is refused refers to the other one still, and is named.
            self.one(&sql, hop).await?;
        }
        Ok(())
    }

    async fn foreign_keys(
        &mut self,
        which: &'static str,
    ) -> Result<Vec<(String, Vec<String>, Vec<String>)>, Error> {
        let oid = i64::from(self.shape.new.oid);
        let rows = sqlx::query(which).bind(oid).fetch_all(&mut *self.conn).await;
        let rows = rows.map_err(failed(DOING))?;
        let told = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        rows.iter().map(told).collect::<Result<_, sqlx::Error>>().map_err(failed(DOING))
    }
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
