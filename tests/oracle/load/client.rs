//! An application that writes to a table under load, and writes the same to the twin.
//!
//! Most transactions are of one row at a time, in the order of keys, so that clients meet in the same rows without ever
//! waiting for each other in a circle. The twin hears what the table did: a row that the table's statement wrote has to be
//! there for the twin's, too. Whoever has written a row of the table first has it for itself until the end, and so the
//! twin's. Other transactions are of statements that write whatever they like, in rows that no other client writes
//! meanwhile (an advisory lock for each group of keys); those go to both as they are, and must end alike. Those of `large`
//! write the table as a whole.
//!
//! A constraint's refusal is the application's own as long as the twin refuses the same (`judge`).
//!
//! Some clients are not the tables' owner but a role that may do nothing but write them; some have functions of the names that ours
//! call first in their search path. Some transactions are prepared before they commit, some hold what they have for a while.
//!
//! Of the engine a client may see nothing but that a transaction that asked for a steady snapshot is told to try again, and
//! where it says so beforehand a deadlock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sqlx::postgres::PgConnection;

use super::Load;
use super::scene::{Era, GROUPS, Kind, Names, Shape};
use super::statement::{Act, Wild};
use crate::oracle::Random;
use crate::oracle::talk::{
    Isolation, Talks, Trouble, code, is, is_being_changed, is_not_copied_yet, read, rest, say,
    talk, whole,
};

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
    /// The copy has ended.
    pub copied: AtomicBool,
    /// `retire` has begun, and is over.
    pub retires: AtomicBool,
    pub is_retired: AtomicBool,
    /// How long, beside the usual, older views are kept for names to change.
    pub patience_ms: AtomicU64,
    /// Transactions that were committed.
    pub commits: AtomicU64,
    /// Of these, by clients of the new shape, and after `retire`.
    pub of_new_shape: AtomicU64,
    pub retired: AtomicU64,
    /// Those that emptied the table.
    pub truncated: AtomicU64,
    /// Those of two phases, and those of the whole table.
    pub prepared: AtomicU64,
    pub large: AtomicU64,
    /// Those under a view that is older than the sync.
    pub looked_back: AtomicU64,
    /// Those under a view that was open when `retire` began, and rows that they wrote then.
    pub straddled: AtomicU64,
    pub wrote_astride: AtomicU64,
    /// How often tables were looked at by their names and were as the twin.
    pub looked: AtomicU64,
    /// Transactions that clients rolled back.
    pub rolled_back: AtomicU64,
    /// The errors that clients saw and may see, by SQLSTATE.
    pub told: Mutex<BTreeMap<String, u64>>,
    /// What constraints refused to the table and to the twin alike, by SQLSTATE and constraint.
    pub refused: Mutex<BTreeMap<String, u64>>,
    /// What clients chose, by client and turn.
    pub chosen: Mutex<BTreeMap<(usize, u64), String>>,
}

impl Shared {
    pub fn has(&self, count: &AtomicU64, enough: u64) -> bool {
        count.load(Ordering::SeqCst) >= enough || self.failed.load(Ordering::SeqCst)
    }
}

pub struct Client {
    pub(super) load: Load,
    pub(super) shape: Shape,
    number: usize,
    part: Part,
    /// Gives every turn random numbers of its own: what a turn chooses depends on no turn before it.
    turns: Random,
    turn: u64,
    pub(super) random: Random,
    pub(super) shared: Arc<Shared>,
}

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Writes,
    /// Looks at the tables by their names, at first under a view that is open when `retire` begins.
    Looks,
    /// Writes rows of its own under such a view.
    WritesAstride,
}

/// What a transaction is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub era: Era,
    pub isolation: Isolation,
    /// Rows are made and nothing else: those that aren't there may only not be copied yet.
    pub makes_only: bool,
}

/// What a transaction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    OneByOne,
    Wild,
    Large,
}

impl Turn {
    pub fn is_before(self) -> bool {
        self.era == Era::Before
    }

    /// Whether what a statement finds is the same in the table and in the twin, whatever others commit meanwhile.
    pub fn sees_alike(self, act: Act) -> bool {
        self.isolation.is_steady() && !self.makes_only && act.is_by_key()
    }
}

impl Client {
    pub fn new(load: Load, number: usize, turns: Random, shared: Arc<Shared>) -> Self {
        let shape = if load.kind.is_both() && number % 2 == 1 { Shape::New } else { Shape::Old };
        let (part, random) = (Part::Writes, turns.clone());
        Self { load, shape, number, part, turns, turn: 0, random, shared }
    }

    /// The same there for something else than to write, which those of the old shape are.
    pub fn who(self, part: Part) -> Self {
        let shape = if part == Part::Writes { self.shape } else { Shape::Old };
        Self { shape, part, ..self }
    }

    /// Whether a client is a role of its own, which owns nothing.
    pub const fn owns_nothing(number: usize) -> bool {
        number % 4 >= 2
    }

    /// Writes until told to stop. The error is what no client should see.
    pub fn write(mut self, url: &str) -> Result<(), String> {
        let written = talk(&mut self, url);
        self.shared.failed.fetch_or(written.is_err(), Ordering::SeqCst);
        written
    }

    /// Whether this client is one of those that empty the table now and then: the first of each shape that has all rows.
    fn empties(&mut self, may: u8) -> bool {
        let is_one = match self.shape {
            Shape::Old => self.number == 0,
            Shape::New => self.number == 1 && (may == 2 || self.load.kind.is_in_place()),
        };
        // Where two sides are written it may take several tries.
        let often = if self.shared.truncated.load(Ordering::SeqCst) == 0 { 10 } else { 60 };
        self.load.truncates && is_one && self.random.below(often) == 0
    }

    fn manner(&mut self, makes_only: bool) -> Manner {
        match self.random.below(400) {
            _ if makes_only || !self.load.kind.has_mail() => Manner::OneByOne,
            // It would wait for every view that is kept, and all others for it.
            0..3 if !self.load.snapshots => Manner::Large,
            3..100 => Manner::Wild,
            _ => Manner::OneByOne,
        }
    }

    fn isolation(&mut self) -> Isolation {
        let settles = self.load.kind.is_both() && self.shared.settles.load(Ordering::SeqCst);
        match self.random.below(5) {
            0 if !settles => Isolation::RepeatableRead,
            1 if !settles => Isolation::Serializable,
            _ => Isolation::ReadCommitted,
        }
    }

    /// How long a view is kept before anything is done under it, in milliseconds.
    fn keeps_for_ms(&mut self) -> u64 {
        let longest = match self.random.below(24) {
            0 if self.load.snapshots => 2_000,
            1..9 if self.load.snapshots => 500,
            _ => 15,
        };
        self.random.below(longest)
    }

    /// Takes the groups of rows, in one order, so that clients don't wait for each other in a circle.
    pub(super) async fn take(
        &self,
        conn: &mut PgConnection,
        (keys, manner): (&[u64], Manner),
    ) -> Result<(), Trouble> {
        let lock = match manner {
            Manner::OneByOne => "pg_advisory_lock_shared",
            Manner::Wild | Manner::Large => "pg_advisory_lock",
        };
        for group in groups_of(keys, manner) {
            let taken = say(conn, &format!("SELECT {lock}({group})")).await;
            taken.map_err(|error| refused(lock, &error))?;
        }
        Ok(())
    }

    /// Ends a transaction, one way or the other. What it was counts if it was committed.
    async fn end(
        &mut self,
        conn: &mut PgConnection,
        (turn, manner): (Turn, Manner),
    ) -> Result<(), Trouble> {
        // What a view that is none any more has noted is not waited for where a play settles.
        let prepares = turn.isolation == Isolation::ReadCommitted || !self.load.kind.is_both();
        match self.random.below(24) {
            0..3 => return self.roll_back(conn, turn).await,
            3 if prepares => {
                if !self.two_phases(conn, turn).await? {
                    return Ok(());
                }
            }
            _ => self.said(conn, "COMMIT", turn).await?,
        }
        self.count(turn.era);
        if manner == Manner::Large {
            self.shared.large.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    pub(super) async fn roll_back(
        &self,
        conn: &mut PgConnection,
        turn: Turn,
    ) -> Result<(), Trouble> {
        self.said(conn, "ROLLBACK", turn).await?;
        self.shared.rolled_back.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Ends a transaction as one that spans other databases ends. Whether it was committed.
    async fn two_phases(&mut self, conn: &mut PgConnection, turn: Turn) -> Result<bool, Trouble> {
        // The name is the whole server's.
        let name = uuid::Uuid::now_v7().simple();
        self.said(conn, &format!("PREPARE TRANSACTION '{name}'"), turn).await?;
        rest(self.random.below(60)).await;
        let commits = self.random.below(4) > 0;
        let end = if commits { "COMMIT" } else { "ROLLBACK" };
        let ended = say(conn, &format!("{end} PREPARED '{name}'")).await;
        ended.map_err(|error| refused("end a prepared transaction", &error))?;
        let count = if commits { &self.shared.prepared } else { &self.shared.rolled_back };
        count.fetch_add(1, Ordering::SeqCst);
        Ok(commits)
    }

    pub(super) fn count(&self, era: Era) {
        self.shared.commits.fetch_add(1, Ordering::SeqCst);
        if self.shape == Shape::New {
            self.shared.of_new_shape.fetch_add(1, Ordering::SeqCst);
        }
        if era != Era::Before {
            self.shared.retired.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Begins a transaction that no switch of names can overtake: whoever holds its table is waited for.
    pub(super) async fn begin(
        &self,
        conn: &mut PgConnection,
        isolation: Isolation,
        mode: &str,
    ) -> Result<Era, Trouble> {
        let era = self.era(conn).await?;
        let turn = Turn { era, isolation, makes_only: false };
        self.said(conn, isolation.begin(), turn).await?;
        let table = self.names(era).table;
        match say(conn, &format!("LOCK TABLE {table} IN {mode} MODE")).await {
            Err(error) if code(&error) == "42P01" => return Err(Trouble::Again),
            said => said.map_err(|error| self.trouble("lock the table", turn, &error))?,
        }
        if self.era(conn).await? != era {
            return Err(Trouble::Again);
        }
        match self.load.kind.conversion() {
            Some(conversion) if era != Era::Before => self.convert(conn, conversion).await?,
            _ => {}
        }
        Ok(era)
    }

    /// The first who sees the new names makes the twin what the new side is. Nobody who knew the old ones is still writing, and
    /// whoever sees the new ones waits here.
    async fn convert(&self, conn: &mut PgConnection, conversion: &str) -> Result<(), Trouble> {
        let rows = read(conn, "SELECT converted FROM twin_era").await;
        if is(&rows.map_err(|error| refused("read the era", &error))?[0], 0) {
            return Ok(());
        }
        let all = format!(
            "ROLLBACK; BEGIN; LOCK TABLE twin_era IN ACCESS EXCLUSIVE MODE;
             {conversion} AND NOT (SELECT converted FROM twin_era); UPDATE twin_era SET converted = true; COMMIT"
        );
        say(conn, &all).await.map_err(|error| refused("convert the twin", &error))?;
        Err(Trouble::Again)
    }

    pub(super) fn names(&self, era: Era) -> Names {
        self.load.kind.names(self.shape, era)
    }

    /// How this client spells values.
    pub(super) fn spells(&self, era: Era) -> Shape {
        match (self.load.kind.is_both(), era) {
            (true, Era::Dropped) => Shape::New,
            _ => self.shape,
        }
    }

    async fn era(&self, conn: &mut PgConnection) -> Result<Era, Trouble> {
        let rows = read(conn, self.load.kind.era_query()).await;
        let rows = rows.map_err(|error| match code(&error).as_str() {
            "40001" => Trouble::Again,
            _ => refused("look at the schema", &error),
        })?;
        Ok(match (is(&rows[0], 0), is(&rows[0], 1)) {
            (true, _) => Era::Retired,
            (false, true) => Era::Before,
            (false, false) => Era::Dropped,
        })
    }

    /// Keeps what this turn has chosen so far, and with it what it will draw.
    fn chose(&self, what: &str) {
        let next = self.random.clone().next();
        let chosen = format!("{what}, then {next}");
        self.shared.chosen.lock().unwrap().insert((self.number, self.turn), chosen);
    }

    /// A key: one of a few that everybody wants, or any, or one near to where the copy is now.
    pub(super) fn key(&mut self) -> u64 {
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
            self.one_row(conn, turn, (key, at == last)).await?;
        }
        Ok(())
    }

    pub(super) async fn one_row(
        &mut self,
        conn: &mut PgConnection,
        turn: Turn,
        (key, is_last): (u64, bool),
    ) -> Result<(), Trouble> {
        let undone = self.random.below(10) == 0;
        if undone {
            self.said(conn, "SAVEPOINT part", turn).await?;
        }
        for act in self.acts(turn, is_last) {
            self.act(conn, turn, (key, act)).await?;
        }
        if undone {
            self.said(conn, "ROLLBACK TO part", turn).await?;
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
        match self.random.below(15) {
            0 => vec![Act::Insert],
            1 => vec![Act::Offer],
            2 => vec![Act::Upsert],
            4 => vec![Act::Hold, Act::Value],
            5 => vec![Act::Null],
            6 => vec![Act::Name],
            7 | 8 => vec![Act::Delete],
            9 => vec![Act::Delete, Act::Insert],
            10 => vec![Act::Value, Act::Null],
            11 | 12 => vec![Act::Guarded],
            // Only the last row of a transaction may be one that comes before others in the order of keys.
            13 if is_last => vec![Act::Claim],
            14 if is_last => vec![Act::Move(GROUPS * (1 + self.random.below(9)))],
            _ => vec![Act::Value],
        }
    }

    /// Some statements that write what they like in groups that are this client's alone.
    async fn wild(
        &mut self,
        conn: &mut PgConnection,
        turn: Turn,
        keys: &[u64],
    ) -> Result<(), Trouble> {
        for _ in 0..=self.random.below(3) {
            let key = keys[usize::try_from(self.random.below(keys.len() as u64)).unwrap()];
            let group = key % GROUPS;
            let near = self.key();
            let seed = self.random.next();
            let kind = self.load.kind;
            let wild = Wild { kind, group, near, keys: self.load.keys };
            let ours = wild.write((self.names(turn.era), self.spells(turn.era)), Random(seed));
            let twins = wild.write((kind.twin(), Shape::Old), Random(seed));
            self.both(conn, turn, (&ours, &twins)).await?;
        }
        Ok(())
    }

    pub(super) async fn said(
        &self,
        conn: &mut PgConnection,
        sql: &str,
        turn: Turn,
    ) -> Result<(), Trouble> {
        say(conn, sql).await.map_err(|error| self.trouble(sql, turn, &error))
    }

    /// A client that asked for a steady view may have to try again, and so may one that comes to a row which is just moving to
    /// another partition; where the table is written from both sides, or emptied, two may wait for each other. Who makes a row on the
    /// new side that the old one has comes again when it is copied, and who comes there to a key that is noted when that is put right.
    /// Nothing else is any client's trouble.
    pub(super) fn trouble(&self, doing: &str, turn: Turn, error: &sqlx::Error) -> Trouble {
        let (mut code, kind) = (code(error), self.load.kind);
        if code == "40001" && turn.makes_only && is_not_copied_yet(error) {
            code.push_str(" before its copy");
        } else if code == "40001" && is_being_changed(error) {
            code.push_str(" while noted");
        }
        let is_told = match code.as_str() {
            "40001 before its copy" | "40001 while noted" => kind.is_both(),
            "40001" => turn.isolation.is_steady() || kind == Kind::Partitioned,
            "40P01" => kind.is_both() || self.load.truncates,
            _ => false,
        };
        if !is_told {
            return Trouble::Refused(format!("{turn:?}: {doing}: {}", whole(error)));
        }
        *self.shared.told.lock().unwrap().entry(code).or_default() += 1;
        Trouble::Again
    }
}

impl Talks for Client {
    fn settings(&self) -> String {
        let path = match self.number % 4 {
            1 | 2 if self.part == Part::Writes => "; SET search_path = decoy, pg_catalog, public",
            _ => "",
        };
        // Of those who look on no end is waited for.
        let name = if self.part == Part::Writes { "client" } else { "astride" };
        format!("SET application_name = '{name}'{path}")
    }

    fn stops(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    fn rests_for_ms(&mut self) -> u64 {
        self.random.below(6)
    }

    async fn turn(&mut self, conn: &mut PgConnection) -> Result<(), Trouble> {
        self.random = Random(self.turns.next());
        self.turn += 1;
        if self.part != Part::Writes {
            return self.look_on(conn, self.part).await;
        }
        let may = self.shared.new_shape.load(Ordering::SeqCst);
        if self.shape == Shape::New && may == 0 {
            rest(20).await;
            return Ok(());
        }
        if self.empties(may) {
            return self.empty(conn).await;
        }
        if self.load.snapshots && self.number == 6 && !self.shared.copied.load(Ordering::SeqCst) {
            return self.look_back(conn).await;
        }
        let makes_only = self.shape == Shape::New && may == 1 && !self.load.kind.is_in_place();
        let manner = self.manner(makes_only);
        let isolation = self.isolation();
        let mut keys: Vec<u64> = (0..=self.random.below(4)).map(|_| self.key()).collect();
        self.chose(&format!("{manner:?} {isolation:?} {}", keys.len()));
        keys.sort_unstable();
        keys.dedup();
        self.take(conn, (&keys, manner)).await?;
        let era = self.begin(conn, isolation, "ROW EXCLUSIVE").await?;
        let turn = Turn { era, isolation, makes_only };
        if isolation.is_steady() {
            // The view is fixed from here on; what the engine commits in the meantime isn't in it.
            self.said(conn, "SELECT 1 FROM twin LIMIT 1", turn).await?;
            rest(self.keeps_for_ms()).await;
        }
        match manner {
            Manner::OneByOne => self.one_by_one(conn, turn, keys).await?,
            Manner::Wild => self.wild(conn, turn, &keys).await?,
            Manner::Large => self.large(conn, turn).await?,
        }
        if self.random.below(60) == 0 {
            // Idle in its transaction, with all that it has locked.
            rest(self.random.below(400)).await;
        }
        self.end(conn, (turn, manner)).await
    }
}

/// The groups that keys are of, each once and in order.
fn groups_of(keys: &[u64], manner: Manner) -> BTreeSet<u64> {
    match manner {
        Manner::Large => (0..GROUPS).collect(),
        Manner::OneByOne | Manner::Wild => keys.iter().map(|key| key % GROUPS).collect(),
    }
}

fn refused(doing: &str, error: &sqlx::Error) -> Trouble {
    Trouble::Refused(format!("{doing}: {}", whole(error)))
}
