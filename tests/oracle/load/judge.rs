//! Whether the twin says what the table said.
//!
//! A refusal is the application's own doing only where the twin, which nothing of ours touches, refuses the same statement by the
//! same rule; one that comes of the sync is none that a client may see. Whoever was refused has no hold on the row that was in its
//! way, so that another client may come between the two statements: where they don't agree both are asked again, a few times.
//! And what a steady view doesn't find in the table it doesn't find in the twin.

use sqlx::postgres::PgConnection;

use super::client::{Client, Turn};
use super::scene::{Names, Shape};
use super::statement::{Act, Place};
use crate::oracle::Random;
use crate::oracle::talk::{Trouble, code, is_refusal, read, refused_by, rest, rule, text, write};

/// How often the two are asked until they agree on a refusal.
const TRIES: u64 = 12;

/// What a statement did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// The rows that it wrote, or locked.
    rows: u64,
    /// The key that it gave back.
    key: Option<u64>,
}

/// A constraint's refusal.
#[derive(Debug)]
pub(super) struct Told {
    /// The SQLSTATE, and the constraint as both tables call it.
    why: String,
    what: String,
    /// Whose constraint it is.
    table: Option<String>,
}

fn said(told: &Result<Done, Told>) -> String {
    match told {
        Ok(done) => format!("{} rows", done.rows),
        Err(told) => told.what.clone(),
    }
}

impl Client {
    /// One statement on one row, and on the twin's where the table had it.
    pub(super) async fn act(
        &mut self,
        conn: &mut PgConnection,
        turn: Turn,
        (key, act): (u64, Act),
    ) -> Result<(), Trouble> {
        let (kind, names, seed) = (self.load.kind, self.names(turn.era), self.random.next());
        let answers = kind.answers() && turn.is_before();
        let place = Place { kind, names, key, shape: self.spells(turn.era), answers };
        let ours = act.write(place, Random(seed));
        let twins = |act: Act, key: u64| {
            let place = Place { names: kind.twin(), shape: Shape::Old, key, ..place };
            act.write(place, Random(seed))
        };
        let mut disagreed = String::new();
        for _ in 0..TRIES {
            let told = match self.attempt(conn, &ours, turn).await? {
                Ok(Done { rows: 0, .. }) if turn.sees_alike(act) => {
                    return self.finds_nothing(conn, turn, (&ours, &twins(act, key))).await;
                }
                Ok(Done { rows: 0, .. }) => return Ok(()),
                Ok(done) => {
                    let act = match act {
                        // What is made on the new side may stand on the old one, not copied yet.
                        _ if turn.makes_only => Act::Upsert,
                        Act::Claim | Act::Guarded => Act::Value,
                        act => act,
                    };
                    let twins = twins(act, done.key.unwrap_or(key));
                    return self.follows(conn, turn, (&ours, &twins)).await;
                }
                Err(told) => told,
            };
            self.is_own(turn, &ours, &told)?;
            let twins = twins(if turn.makes_only { Act::Upsert } else { act }, key);
            let twin_told = self.tell(conn, &twins, turn).await?;
            if self.agree(&told, &twin_told) {
                return Ok(());
            }
            disagreed = format!("{ours}: {}; {twins}: {}", told.what, said(&twin_told));
            rest(self.random.below(20)).await;
        }
        Err(Trouble::Refused(format!("{turn:?}, {TRIES} times: {disagreed}")))
    }

    /// The twin's statement where the table's wrote a row.
    async fn follows(
        &self,
        conn: &mut PgConnection,
        turn: Turn,
        (ours, twins): (&str, &str),
    ) -> Result<(), Trouble> {
        match self.attempt(conn, twins, turn).await? {
            Ok(Done { rows: 1, .. }) => Ok(()),
            told => {
                let told = said(&told);
                Err(Trouble::Refused(format!("{turn:?}: {ours} had a row, {twins}: {told}")))
            }
        }
    }

    /// The twin's statement where the table's found no row in a view that shows the same of both.
    async fn finds_nothing(
        &self,
        conn: &mut PgConnection,
        turn: Turn,
        (ours, twins): (&str, &str),
    ) -> Result<(), Trouble> {
        match self.attempt(conn, twins, turn).await? {
            Ok(Done { rows: 0, .. }) => Ok(()),
            told => {
                let told = said(&told);
                Err(Trouble::Refused(format!("{turn:?}: {ours} found no row, {twins}: {told}")))
            }
        }
    }

    /// A statement to each of the two, which must go alike.
    pub(super) async fn both(
        &self,
        conn: &mut PgConnection,
        turn: Turn,
        (ours, twins): (&str, &str),
    ) -> Result<(), Trouble> {
        let told = self.attempt(conn, ours, turn).await?;
        let twin_told = self.attempt(conn, twins, turn).await?;
        let is_alike = match (&told, &twin_told) {
            (Err(told), _) => {
                self.is_own(turn, ours, told)?;
                self.agree(told, &twin_told)
            }
            (Ok(done), Ok(twin_done)) => done.rows == twin_done.rows,
            (Ok(_), Err(_)) => false,
        };
        if is_alike {
            return Ok(());
        }
        let (one, other) = (said(&told), said(&twin_told));
        Err(Trouble::Refused(format!("{turn:?}: {ours}: {one}; {twins}: {other}")))
    }

    /// That a refusal is by a constraint of what the client writes, and not of what the sync writes.
    fn is_own(&self, turn: Turn, ours: &str, told: &Told) -> Result<(), Trouble> {
        let (kind, names): (_, Names) = (self.load.kind, self.names(turn.era));
        if told.table.as_deref().is_some_and(|table| kind.is_part(names, table)) {
            return Ok(());
        }
        Err(Trouble::Refused(format!("{turn:?}: {ours}: {}, of {:?}", told.what, told.table)))
    }

    /// Whether both refuse by the same rule; then it is counted.
    fn agree(&self, told: &Told, twin_told: &Result<Done, Told>) -> bool {
        let is_same = matches!(twin_told, Err(twin) if twin.why == told.why);
        if is_same {
            *self.shared.refused.lock().unwrap().entry(told.why.clone()).or_default() += 1;
        }
        is_same
    }

    /// What PostgreSQL says to a statement, in a transaction that goes on.
    async fn attempt(
        &self,
        conn: &mut PgConnection,
        sql: &str,
        turn: Turn,
    ) -> Result<Result<Done, Told>, Trouble> {
        self.ask(conn, sql, (turn, "RELEASE attempt")).await
    }

    /// The same, and nothing is done.
    async fn tell(
        &self,
        conn: &mut PgConnection,
        sql: &str,
        turn: Turn,
    ) -> Result<Result<Done, Told>, Trouble> {
        self.ask(conn, sql, (turn, "ROLLBACK TO attempt")).await
    }

    /// The same; what was done behind a savepoint ends as is said.
    async fn ask(
        &self,
        conn: &mut PgConnection,
        sql: &str,
        (turn, ending): (Turn, &str),
    ) -> Result<Result<Done, Told>, Trouble> {
        self.said(conn, "SAVEPOINT attempt", turn).await?;
        let done = if sql.contains(" RETURNING ") {
            let rows = read(conn, sql).await;
            rows.map(|rows| Done {
                rows: rows.len() as u64,
                key: rows.first().map(|row| text(row, 0).parse().unwrap()),
            })
        } else {
            write(conn, sql).await.map(|rows| Done { rows, key: None })
        };
        match done {
            Ok(done) => {
                self.said(conn, ending, turn).await?;
                Ok(Ok(done))
            }
            Err(error) if is_refusal(&error) => {
                self.said(conn, "ROLLBACK TO attempt", turn).await?;
                let why = format!("{} {}", code(&error), rule(&error)).trim_end().to_owned();
                Ok(Err(Told { why, what: error.to_string(), table: refused_by(&error) }))
            }
            Err(error) => Err(self.trouble(sql, turn, &error)),
        }
    }
}
