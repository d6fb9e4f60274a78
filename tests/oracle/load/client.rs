//! An application that writes to a table under load, and writes the same to the twin.
//!
//! Most transactions are of one row at a time, in the order of keys, so that clients meet in the same rows without ever
//! waiting for each other in a circle. The twin hears what the table did: a row that the table's statement wrote has to be
//! there for the twin's, too. Whoever has written a row of the table first has it for itself until the end, and so the
//! twin's. Other transactions are of statements that write whatever they like, in rows that no other client writes
//! meanwhile (an advisory lock for each group of keys); those go to both as they are, and must end alike.
//!
//! Of the engine a client may see nothing but that a transaction that asked for a steady snapshot is told to try again, and
//! where it says so beforehand a deadlock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgDatabaseError};
use sqlx::{AssertSqlSafe, Row as _};

use super::Load;
use super::scene::{Era, GROUPS, Names, Shape};
use super::statement::{Act, Place, Wild};
use crate::examples::database::{block_on, connect};
use crate::oracle::Random;

/// What clients and the test tell each other.
#[derive(Default)]
pub struct Shared {
    pub stop: AtomicBool,
    /// A client has something to tell, and has stopped.
    pub failed: AtomicBool,
    /// What clients of the new shape may do: 0 nothing, 1 make whole rows (others may not be copied yet), 2 everything.
    pub new_shape: AtomicU8,
    /// With both ways: no view may be fixed now. What a trigger could only note under an older view is put right by the comparison
    /// behind the copy, and until then clients of the new shape miss it: they begin when none is left.
    pub settles: AtomicBool,
    /// The key where the copy is now; 0 while nobody knows.
    pub aim: AtomicU64,
    pub commits: AtomicU64,
    /// Of these, by clients of the new shape, and after `retire`.
    pub of_new_shape: AtomicU64,
    pub retired: AtomicU64,
    pub truncated: AtomicU64,
    /// Transactions that came to their table under new names with a view from before these.
    pub straddled: AtomicU64,
    /// The errors that clients saw and may see, by SQLSTATE.
    pub told: Mutex<BTreeMap<String, u64>>,
}

impl Shared {
    pub fn has(&self, count: &AtomicU64, enough: u64) -> bool {
        count.load(Ordering::SeqCst) >= enough || self.failed.load(Ordering::SeqCst)
    }
}

pub struct Client {
    load: Load,
    shape: Shape,
    /// The first one empties the table now and then, where that is asked for.
    is_first: bool,
    random: Random,
    shared: Arc<Shared>,
}

/// What became of a transaction or a statement.
enum Trouble {
    /// It has to be tried again: the catalogue is another one now, or an error said so that a client may see.
    Again,
    /// What no client should see.
    Refused(String),
}

/// How steady the view of a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isolation {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    const fn begin(self) -> &'static str {
        match self {
            Self::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Self::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Self::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        }
    }
}

/// How a transaction begins.
#[derive(Clone, Copy, Debug)]
struct Start {
    isolation: Isolation,
    /// How the table is locked.
    mode: &'static str,
    /// For how long, in milliseconds, the transaction has a view of the database before it comes to the table: the sync, or new
    /// names, may come in between.
    looks_elsewhere: Option<u64>,
}

/// What a transaction is about.
#[derive(Clone, Copy, Debug)]
struct Turn {
    era: Era,
    isolation: Isolation,
    /// Rows are made and nothing else: those that aren't there may only not be copied yet.
    makes_only: bool,
}

impl Client {
    pub fn new(load: Load, number: usize, random: Random, shared: Arc<Shared>) -> Self {
        let shape = if load.kind.is_both() && number % 2 == 1 { Shape::New } else { Shape::Old };
        Self { load, shape, is_first: number == 0, random, shared }
    }

    /// Writes until told to stop. The error is what no client should see.
    pub fn write(mut self, url: &str) -> Result<(), String> {
        let written = block_on(async {
            let mut conn = connect(url).await.unwrap();
            say(&mut conn, "SET application_name = 'client'").await.unwrap();
            while !self.shared.stop.load(Ordering::SeqCst) {
                if let Err(trouble) = self.turn(&mut conn).await {
                    drop(say(&mut conn, "ROLLBACK").await);
                    if let Trouble::Refused(what) = trouble {
                        return Err(what);
                    }
                }
                drop(say(&mut conn, "SELECT pg_advisory_unlock_all()").await);
                // Applications do something else as well.
                tokio::time::sleep(Duration::from_millis(self.random.below(6))).await;
            }
            Ok(())
        });
        self.shared.failed.fetch_or(written.is_err(), Ordering::SeqCst);
        written
    }

    async fn turn(&mut self, conn: &mut PgConnection) -> Result<(), Trouble> {
        let may = self.shared.new_shape.load(Ordering::SeqCst);
        if self.shape == Shape::New && may == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Ok(());
        }
        let kind = self.load.kind;
        let makes_only = self.shape == Shape::New && may == 1 && !kind.is_in_place();
        if self.load.truncates && self.is_first && self.random.below(60) == 0 {
            return self.empty(conn).await;
        }
        let is_wild = kind.has_mail() && !makes_only && self.random.below(4) == 0;
        let mut keys: Vec<u64> = (0..=self.random.below(4)).map(|_| self.key()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut groups: Vec<u64> = keys.iter().map(|key| key % GROUPS).collect();
        groups.sort_unstable();
        groups.dedup();
        let lock = if is_wild { "pg_advisory_lock" } else { "pg_advisory_lock_shared" };
        for group in &groups {
            say(conn, &format!("SELECT {lock}({group})")).await.map_err(|e| refused(lock, &e))?;
        }
        let settles = kind.is_both() && self.shared.settles.load(Ordering::SeqCst);
        let isolation = match self.random.below(5) {
            0 if !settles => Isolation::RepeatableRead,
            1 if !settles => Isolation::Serializable,
            _ => Isolation::ReadCommitted,
        };
        // What is emptied is empty in older views too, as far as the server is concerned.
        let is_early = isolation != Isolation::ReadCommitted && !self.load.truncates;
        let looks_elsewhere =
            (is_early && self.random.below(2) == 0).then(|| self.random.below(100));
        let start = Start { isolation, mode: "ROW EXCLUSIVE", looks_elsewhere };
        let era = self.begin(conn, start).await?;
        let turn = Turn { era, isolation, makes_only };
        if isolation != Isolation::ReadCommitted {
            // The view is fixed from here on; what the engine commits in the meantime isn't in it.
            self.said(conn, "SELECT 1 FROM twin LIMIT 1", turn).await?;
            let longest = if self.load.snapshots && self.random.below(2) == 0 { 700 } else { 15 };
            tokio::time::sleep(Duration::from_millis(self.random.below(longest))).await;
        }
        let done = if is_wild {
            self.wild(conn, turn, &groups).await
        } else {
            self.one_by_one(conn, turn, keys).await
        };
        done?;
        if self.random.below(8) == 0 {
            return self.said(conn, "ROLLBACK", turn).await;
        }
        self.said(conn, "COMMIT", turn).await?;
        self.count(era);
        Ok(())
    }

    fn count(&self, era: Era) {
        self.shared.commits.fetch_add(1, Ordering::SeqCst);
        if self.shape == Shape::New {
            self.shared.of_new_shape.fetch_add(1, Ordering::SeqCst);
        }
        if era != Era::Before {
            self.shared.retired.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Begins a transaction that no switch of names can overtake once it has come to its table: whoever holds it is waited for.
    async fn begin(&self, conn: &mut PgConnection, start: Start) -> Result<Era, Trouble> {
        let before = self.era(conn).await?;
        let (isolation, mode) = (start.isolation, start.mode);
        let turn = Turn { era: before, isolation, makes_only: false };
        self.said(conn, isolation.begin(), turn).await?;
        let mut era = before;
        if let Some(ms) = start.looks_elsewhere {
            self.said(conn, "SELECT 1 FROM twin LIMIT 1", turn).await?;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            era = self.era(conn).await?;
        }
        let table = self.names(era).table;
        match say(conn, &format!("LOCK TABLE {table} IN {mode} MODE")).await {
            Err(error) if code(&error) == "42P01" => return Err(Trouble::Again),
            said => said.map_err(|error| self.trouble("lock the table", turn, &error))?,
        }
        let now = self.era(conn).await?;
        if start.looks_elsewhere.is_some() && (before, now) == (Era::Before, Era::Retired) {
            self.sees_all(conn, turn).await?;
        }
        if now == era { Ok(era) } else { Err(Trouble::Again) }
    }

    /// That under new names a view from before them has all the rows, and no others.
    async fn sees_all(&self, conn: &mut PgConnection, turn: Turn) -> Result<(), Trouble> {
        let (ours, twin) = self.load.kind.left();
        for (one, other) in [(&ours, &twin), (&twin, &ours)] {
            let sql = format!("SELECT count(*) FROM (({one}) EXCEPT ALL ({other})) AS d");
            let row = sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_one(&mut *conn).await;
            let row = row.map_err(|error| self.trouble(&sql, turn, &error))?;
            let rows: String = row.get_unchecked(0);
            if rows != "0" {
                let what = format!("{turn:?}: a view from before the new names: {sql}: {rows}");
                return Err(Trouble::Refused(what));
            }
        }
        self.shared.straddled.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn names(&self, era: Era) -> Names {
        self.load.kind.names(self.shape, era)
    }

    /// How this client spells values.
    fn spells(&self, era: Era) -> Shape {
        match (self.load.kind.is_both(), era) {
            (true, Era::Dropped) => Shape::New,
            _ => self.shape,
        }
    }

    async fn era(&self, conn: &mut PgConnection) -> Result<Era, Trouble> {
        let row = sqlx::raw_sql(self.load.kind.era_query()).fetch_one(&mut *conn).await;
        let row = row.map_err(|error| match code(&error).as_str() {
            "40001" => Trouble::Again,
            _ => refused("look at the schema", &error),
        })?;
        let is = |column: usize| row.get_unchecked::<String, _>(column) == "t";
        Ok(match (is(0), is(1)) {
            (true, _) => Era::Retired,
            (false, true) => Era::Before,
            (false, false) => Era::Dropped,
        })
    }

    /// A key: one of a few that everybody wants, or any, or one near to where the copy is now.
    fn key(&mut self) -> u64 {
        let (keys, aim) = (self.load.keys * 6 / 5, self.shared.aim.load(Ordering::SeqCst));
        let near = u64::from(self.load.chunk_rows) * 12;
        match self.random.below(4) {
            0 => 1 + keys / 31 * (1 + self.random.below(30)),
            1 => 1 + self.random.below(keys),
            _ if aim == 0 => 1 + self.random.below(keys),
            _ => (aim + self.random.below(near)).saturating_sub(near / 2).max(1),
        }
    }

    /// Rows one after another, each in the table and, as the table did, in the twin.
    async fn one_by_one(
        &mut self,
        conn: &mut PgConnection,
        turn: Turn,
        keys: Vec<u64>,
    ) -> Result<(), Trouble> {
        let last = keys.len() - 1;
        for (at, key) in keys.into_iter().enumerate() {
            let undone = self.random.below(10) == 0;
            if undone {
                self.said(conn, "SAVEPOINT part", turn).await?;
            }
            let acts = self.acts(turn, at == last);
            for act in acts {
                self.act(conn, turn, (key, act)).await?;
            }
            if undone {
                self.said(conn, "ROLLBACK TO part", turn).await?;
            }
        }
        Ok(())
    }

    fn acts(&mut self, turn: Turn, is_last: bool) -> Vec<Act> {
        let names = self.names(turn.era);
        if !names.whole {
            return vec![if self.random.below(3) == 0 { Act::Null } else { Act::Value }];
        }
        if turn.makes_only {
            return vec![if self.random.below(3) == 0 { Act::Offer } else { Act::Upsert }];
        }
        match self.random.below(12) {
            0 => vec![Act::Insert],
            1 => vec![Act::Offer],
            2 => vec![Act::Upsert],
            3 | 4 => vec![Act::Value],
            5 => vec![Act::Null],
            6 => vec![Act::Name],
            7 | 8 => vec![Act::Delete],
            9 => vec![Act::Delete, Act::Insert],
            10 => vec![Act::Value, Act::Null],
            _ if is_last => vec![Act::Move(GROUPS * (1 + self.random.below(9)))],
            _ => vec![Act::Value],
        }
    }

    /// One statement on one row, and on the twin's where the table had it.
    async fn act(
        &mut self,
        conn: &mut PgConnection,
        turn: Turn,
        (key, act): (u64, Act),
    ) -> Result<(), Trouble> {
        let (kind, names, seed) = (self.load.kind, self.names(turn.era), self.random.next());
        let answers = kind.answers() && turn.era == Era::Before;
        let ours = Place { kind, names, key, shape: self.spells(turn.era), answers };
        let twins = Place { names: kind.twin(), shape: Shape::Old, ..ours };
        let ours = act.write(ours, Random(seed));
        let rows = match self.attempt(conn, &ours, turn).await? {
            Ok(rows) => rows,
            Err(Told { what, table }) if table.as_deref().is_some_and(|t| t != names.table) => {
                return Err(Trouble::Refused(format!("{turn:?}: {ours}: {what}")));
            }
            Err(_) => return Ok(()),
        };
        if rows == 0 {
            return Ok(());
        }
        // What is made on the new side may stand on the old one, not copied yet.
        let act = if turn.makes_only { Act::Upsert } else { act };
        let twins = act.write(twins, Random(seed));
        match self.attempt(conn, &twins, turn).await? {
            Ok(1) => Ok(()),
            Ok(rows) => {
                Err(Trouble::Refused(format!("{turn:?}: {ours} had a row, {twins} had {rows}")))
            }
            Err(told) => {
                Err(Trouble::Refused(format!("{turn:?}: {ours} went, {twins}: {}", told.what)))
            }
        }
    }

    /// Some statements that write what they like in groups that are this client's alone.
    async fn wild(
        &mut self,
        conn: &mut PgConnection,
        turn: Turn,
        groups: &[u64],
    ) -> Result<(), Trouble> {
        for _ in 0..=self.random.below(3) {
            let group = groups[usize::try_from(self.random.below(groups.len() as u64)).unwrap()];
            let near = self.key();
            let seed = self.random.next();
            let kind = self.load.kind;
            let wild = Wild { kind, group, near, keys: self.load.keys };
            let ours = wild.write((self.names(turn.era), self.spells(turn.era)), Random(seed));
            let twins = wild.write((kind.twin(), Shape::Old), Random(seed));
            let told = self.attempt(conn, &ours, turn).await?;
            let twin_told = self.attempt(conn, &twins, turn).await?;
            match (told, twin_told) {
                (Err(_), Err(_)) => {}
                (told, twin_told) if told.as_ref().ok() == twin_told.as_ref().ok() => {}
                (told, twin_told) => {
                    let said = |told: Result<u64, Told>| match told {
                        Ok(rows) => format!("{rows} rows"),
                        Err(told) => told.what,
                    };
                    let (one, other) = (said(told), said(twin_told));
                    return Err(Trouble::Refused(format!(
                        "{turn:?}: {ours}: {one}; {twins}: {other}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Empties the table, and fills it again.
    async fn empty(&mut self, conn: &mut PgConnection) -> Result<(), Trouble> {
        let isolation = match self.random.below(4) {
            0 => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        };
        let start = Start { isolation, mode: "ACCESS EXCLUSIVE", looks_elsewhere: None };
        let era = self.begin(conn, start).await?;
        let turn = Turn { era, isolation, makes_only: false };
        let (kind, table) = (self.load.kind, self.names(era).table);
        for table in [table, "twin"] {
            self.said(conn, &format!("TRUNCATE {table}"), turn).await?;
            self.said(conn, &kind.refill(table, self.load.keys), turn).await?;
        }
        let end = if self.random.below(4) == 0 { "ROLLBACK" } else { "COMMIT" };
        self.said(conn, end, turn).await?;
        self.shared.truncated.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// What PostgreSQL says to a statement, in a transaction that goes on.
    async fn attempt(
        &self,
        conn: &mut PgConnection,
        sql: &str,
        turn: Turn,
    ) -> Result<Result<u64, Told>, Trouble> {
        self.said(conn, "SAVEPOINT attempt", turn).await?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *conn).await;
        match done {
            Ok(done) => {
                self.said(conn, "RELEASE attempt", turn).await?;
                Ok(Ok(done.rows_affected()))
            }
            // What a constraint says to one it says to the other.
            Err(error) if code(&error).starts_with("23") => {
                self.said(conn, "ROLLBACK TO attempt", turn).await?;
                let table = error
                    .as_database_error()
                    .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
                    .and_then(|error| error.table().map(ToOwned::to_owned));
                Ok(Err(Told { what: error.to_string(), table }))
            }
            Err(error) => Err(self.trouble(sql, turn, &error)),
        }
    }

    async fn said(&self, conn: &mut PgConnection, sql: &str, turn: Turn) -> Result<(), Trouble> {
        say(conn, sql).await.map_err(|error| self.trouble(sql, turn, &error))
    }

    /// A client that asked for a steady view may have to try again; where the table is written from both sides, or emptied,
    /// two may wait for each other. Nothing else is any client's trouble.
    fn trouble(&self, doing: &str, turn: Turn, error: &sqlx::Error) -> Trouble {
        let code = code(error);
        let is_told = match code.as_str() {
            "40001" => turn.isolation != Isolation::ReadCommitted,
            "40P01" => self.load.kind.is_both() || self.load.truncates,
            _ => false,
        };
        if !is_told {
            return Trouble::Refused(format!("{turn:?}: {doing}: {}", whole(error)));
        }
        *self.shared.told.lock().unwrap().entry(code).or_default() += 1;
        Trouble::Again
    }
}

/// A constraint's refusal, and whose it is.
struct Told {
    what: String,
    table: Option<String>,
}

async fn say(conn: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.map(|_| ())
}

fn code(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.unwrap_or_default().into_owned()
}

fn refused(doing: &str, error: &sqlx::Error) -> Trouble {
    Trouble::Refused(format!("{doing}: {}", whole(error)))
}

/// An error with what the server adds to it.
fn whole(error: &sqlx::Error) -> String {
    let of_server = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .map(|error| (error.detail(), error.hint(), error.r#where()));
    format!("{} {error} {of_server:?}", code(error))
}
