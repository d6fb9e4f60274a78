//! An application that writes to PostgreSQL, and writes the same to the twin.
//!
//! Clients write at the same time. Each takes some groups of rows for itself by advisory locks, before its transaction
//! begins: what it finds in the table and in the twin is the same then, at any isolation level, as long as the engine does
//! right. Of the engine it sees nothing but that a transaction that asked for a steady snapshot may be told to try again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sqlx::postgres::PgConnection;

use super::Random;
use super::client::{Old, Shared};
use super::scene::{Era, GROUPS, Names, Scene, TWIN, Way};
use super::talk::{
    Isolation, Talks, Trouble, code, is, is_being_changed, is_not_copied_yet, is_refusal, read,
    rest, rule, say, talk, text, whole,
};

pub struct Client {
    scene: Scene,
    side: Old,
    random: Random,
    shared: Arc<Shared>,
}

impl Client {
    pub fn new(scene: Scene, side: Old, random: Random, shared: Arc<Shared>) -> Self {
        Self { scene, side, random, shared }
    }

    /// Writes until told to stop. The error is what no client should see.
    pub fn write(mut self, url: &str) -> Result<(), String> {
        let written = talk(&mut self, url);
        self.shared.failed.fetch_or(written.is_err(), Ordering::SeqCst);
        written
    }

    fn names(&self, era: Era) -> Names {
        match self.side {
            Old::Shape => self.scene.old(era),
            Old::Gone => self.scene.new_names(era),
        }
    }

    /// How far the plan has come.
    async fn era(&self, conn: &mut PgConnection) -> Result<Era, Trouble> {
        let rows = read(conn, self.scene.postgres_era_query()).await;
        let rows = rows.map_err(|error| aside("look at the schema", &error))?;
        let (is_aside, is_beside): (bool, bool) = (is(&rows[0], 0), is(&rows[0], 1));
        let rows = read(conn, "SELECT converted FROM twin_era").await;
        let converted = is(&rows.map_err(|error| aside("read the era", &error))?[0], 0);
        if is_aside && !converted {
            // The first who sees the new names makes the twin what the new table is. Nobody who knew the old ones is
            // still writing, and whoever sees the new ones waits here.
            drop(say(conn, "ROLLBACK").await);
            let conversion = self.scene.conversion().map_or(String::new(), |conversion| {
                format!("{conversion} WHERE NOT (SELECT converted FROM twin_era);")
            });
            let all = format!(
                "BEGIN; LOCK TABLE twin_era IN ACCESS EXCLUSIVE MODE; {conversion}
                 UPDATE twin_era SET converted = true; COMMIT"
            );
            expect(conn, &all).await?;
            return Err(Trouble::Again);
        }
        Ok(match (is_aside, is_beside) {
            (true, _) => Era::Retired,
            (false, false) if converted && !self.shared.goes_back.load(Ordering::SeqCst) => {
                Era::Dropped
            }
            (false, _) => Era::Before,
        })
    }

    /// One statement to both, which must go alike.
    async fn statement(
        &mut self,
        conn: &mut PgConnection,
        (era, isolation): (Era, Isolation),
        (group, whole_rows): (u64, bool),
    ) -> Result<(), Trouble> {
        let names = self.names(era);
        let seed = self.random.next();
        let drawn = 20_000_000 + self.random.below(1 << 40);
        let ours = Text { names, cased: self.cased(era), group, whole_rows, drawn: None };
        let ours = ours.write(Random(seed));
        let told = attempt(conn, &ours, isolation).await?;
        // A key that the database has drawn is the twin's key, too.
        let drawn = match &told {
            Ok(Some(id)) => *id,
            _ => i64::try_from(drawn).unwrap(),
        };
        let cased = self.scene.cased_in_twin();
        let twins = Text { names: TWIN, cased, group, whole_rows, drawn: Some(drawn) };
        let twins = twins.write(Random(seed));
        let twin_told = attempt(conn, &twins, isolation).await?;
        match (told, twin_told) {
            (Ok(_), Ok(_)) => Ok(()),
            (Err(told), Err(twin_told)) if told.why == twin_told.why => Ok(()),
            (Err(told), Err(twin_told)) => Err(Trouble::Refused(format!(
                "{era:?} {isolation:?}: {ours}: {}, but {twins}: {}",
                told.what, twin_told.what
            ))),
            (Err(told), Ok(_)) => {
                Err(Trouble::Refused(format!("{era:?} {isolation:?}: {ours}: {}", told.what)))
            }
            (Ok(_), Err(told)) => Err(Trouble::Refused(format!(
                "{era:?} {isolation:?}: {ours} went, but {twins}: {}",
                told.what
            ))),
        }
    }

    /// How the words are written: with `both` each shape has its own way, so that each is made of the other.
    fn cased(&self, era: Era) -> fn(&str) -> String {
        match self.scene.direction {
            Way::Both if self.side == Old::Gone || era == Era::Dropped => str::to_lowercase,
            _ => self.scene.cased_in_twin(),
        }
    }
}

impl Talks for Client {
    fn settings(&self) -> String {
        "SET application_name = 'client'".to_owned()
    }

    fn stops(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    fn rests_for_ms(&mut self) -> u64 {
        self.random.below(8)
    }

    async fn turn(&mut self, conn: &mut PgConnection) -> Result<(), Trouble> {
        let mut groups = vec![self.random.below(GROUPS)];
        if self.random.below(3) == 0 {
            groups.push(self.random.below(GROUPS));
            // In one order, so that clients don't wait for each other in a circle.
            groups.sort_unstable();
            groups.dedup();
        }
        for group in &groups {
            expect(conn, &format!("SELECT pg_advisory_lock({group})")).await?;
        }
        let era = self.era(conn).await?;
        let may = self.shared.new_shape.load(Ordering::SeqCst);
        if self.side == Old::Gone && may == 0 && era != Era::Dropped {
            return Ok(());
        }
        let isolation = match self.random.below(5) {
            0 => Isolation::RepeatableRead,
            1 => Isolation::Serializable,
            _ => Isolation::ReadCommitted,
        };
        expect(conn, isolation.begin()).await?;
        // Holding its table no transaction can be overtaken by a switch of names; whether one came before is looked at.
        let table = self.names(era).table;
        match say(conn, &format!("LOCK TABLE {table} IN ROW EXCLUSIVE MODE")).await {
            Err(error) if code(&error) == "42P01" => return Err(Trouble::Again),
            said => said.map_err(|error| trouble("lock the table", isolation, &error))?,
        }
        if self.era(conn).await? != era {
            return Err(Trouble::Again);
        }
        if isolation.is_steady() {
            // The view is fixed from here on; what the engine commits in the meantime isn't in it.
            expect(conn, "SELECT 1 FROM twin_era").await?;
            rest(self.random.below(12)).await;
        }
        let whole_rows = self.side == Old::Gone && may == 1 && !self.scene.in_place;
        for _ in 0..=self.random.below(3) {
            let group = groups[usize::try_from(self.random.below(groups.len() as u64)).unwrap()];
            let undone = self.random.below(8) == 0;
            if undone {
                expect(conn, "SAVEPOINT part").await?;
            }
            self.statement(conn, (era, isolation), (group, whole_rows)).await?;
            if undone {
                expect(conn, "ROLLBACK TO part").await?;
            }
        }
        if self.random.below(6) == 0 {
            return expect(conn, "ROLLBACK").await;
        }
        say(conn, "COMMIT").await.map_err(|error| trouble("commit", isolation, &error))?;
        self.shared.commits.fetch_add(1, Ordering::SeqCst);
        if era != Era::Before {
            self.shared.retired.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// How a statement is to be written for one of the two tables.
struct Text {
    names: Names,
    cased: fn(&str) -> String,
    group: u64,
    whole_rows: bool,
    /// The key to take where the other table's was drawn.
    drawn: Option<i64>,
}

impl Text {
    /// A statement as this seed would have it, on rows of one group.
    fn write(&self, mut random: Random) -> String {
        let (Names { table, status }, group) = (self.names, self.group);
        let kind = if self.whole_rows { 9 } else { random.below(19) };
        let mut key = || group + GROUPS * random.below(105) + if group == 0 { GROUPS } else { 0 };
        let (id, other) = (key(), key());
        let name = format!("name {}", random.below(1_000));
        let mail = match (random.below(6), self.whole_rows) {
            (0, _) => "NULL".to_owned(),
            (_, false) => format!("'mail{group}-{}'", group + GROUPS * random.below(105)),
            // A row that isn't copied yet can't be in the way.
            (_, true) => format!("'fresh{}'", random.next()),
        };
        let word = ["New", "Active", "Closed", "Paused"][usize::try_from(random.below(4)).unwrap()];
        let value = match random.below(5) {
            0 => "NULL".to_owned(),
            _ => format!("'{}'", (self.cased)(word)),
        };
        let columns = format!("(id, name, email, {status})");
        let row = format!("({id}, '{name}', {mail}, {value})");
        let some = format!("id BETWEEN {id} AND {} AND id % {GROUPS} = {group}", id + 400);
        let insert = format!("INSERT INTO {table} {columns} VALUES {row}");
        match kind {
            0 => insert,
            1 => match self.drawn {
                None => format!(
                    "INSERT INTO {table} (name, email, {status}) VALUES ('{name}', {mail}, {value}) RETURNING id"
                ),
                Some(drawn) => {
                    format!(
                        "INSERT INTO {table} {columns} VALUES ({drawn}, '{name}', {mail}, {value})"
                    )
                }
            },
            2 => format!("UPDATE {table} SET {status} = {value} WHERE id = {id}"),
            3 => format!("UPDATE {table} SET name = '{name}', email = {mail} WHERE id = {id}"),
            4 => format!("UPDATE {table} SET {status} = NULL WHERE {some}"),
            5 => format!("DELETE FROM {table} WHERE id = {id}"),
            6 => format!("DELETE FROM {table} WHERE {some} AND id % 3 = 0"),
            7 => format!("UPDATE {table} SET id = {other} WHERE id = {id}"),
            8 => format!("UPDATE {table} SET id = {other}, {status} = {value} WHERE id = {id}"),
            9 => format!(
                "{insert} ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email, {status} = excluded.{status}"
            ),
            10 => format!(
                "{insert} ON CONFLICT (email) DO UPDATE SET name = excluded.name, id = excluded.id"
            ),
            11 => format!("{insert} ON CONFLICT DO NOTHING"),
            12 => format!("UPDATE {table} SET {status} = {value}, name = name || '!' WHERE {some}"),
            // Gone and back again, in one transaction.
            13 => format!("DELETE FROM {table} WHERE id = {id}; {insert}"),
            14 => format!(
                "UPDATE {table} SET id = id + 100000 * {GROUPS} WHERE {some} AND id % 7 = 0"
            ),
            15 => format!(
                "WITH gone AS (DELETE FROM {table} WHERE id = {id} RETURNING name)
                 INSERT INTO {table} {columns} SELECT {other}, name, NULL, {value} FROM gone"
            ),
            16 => format!(
                "MERGE INTO {table} AS t USING (VALUES {row}) AS n {columns} ON t.id = n.id
                 WHEN MATCHED AND t.name LIKE '%!' THEN DELETE
                 WHEN MATCHED THEN UPDATE SET name = t.name || '!', {status} = n.{status}
                 WHEN NOT MATCHED THEN INSERT {columns} VALUES (n.id, n.name, n.email, n.{status})"
            ),
            17 => format!(
                "UPDATE {table} SET {status} = {value} WHERE id = {id}; UPDATE {table} SET {status} = NULL WHERE id = {id}"
            ),
            _ => format!(
                "SELECT FROM {table} WHERE {some} FOR UPDATE; UPDATE {table} SET name = '{name}' WHERE id = {id}"
            ),
        }
    }
}

/// A constraint's refusal: the SQLSTATE and the constraint as both tables call it, and all that was said.
struct Told {
    why: String,
    what: String,
}

/// What PostgreSQL says to a statement, in a transaction that goes on; and the key that it drew.
async fn attempt(
    conn: &mut PgConnection,
    sql: &str,
    isolation: Isolation,
) -> Result<Result<Option<i64>, Told>, Trouble> {
    expect(conn, "SAVEPOINT attempt").await?;
    let rows = read(conn, sql).await;
    match rows {
        Ok(rows) => {
            expect(conn, "RELEASE attempt").await?;
            let drawn = if sql.ends_with("RETURNING id") {
                rows.first().map(|row| text(row, 0).parse().unwrap())
            } else {
                None
            };
            Ok(Ok(drawn))
        }
        Err(error) => match trouble(sql, isolation, &error) {
            // What a constraint says to one it says to the other.
            Trouble::Refused(what) if is_refusal(&error) => {
                expect(conn, "ROLLBACK TO attempt").await?;
                Ok(Err(Told { why: format!("{} {}", code(&error), rule(&error)), what }))
            }
            trouble => Err(trouble),
        },
    }
}

/// Says something that touches no row of anybody's.
async fn expect(conn: &mut PgConnection, sql: &str) -> Result<(), Trouble> {
    say(conn, sql).await.map_err(|error| aside(sql, &error))
}

/// A client that asked for a steady view may have to try again, and so may one that makes a row on the new side which the old one has,
/// until that is copied, or comes there to a key that is noted, until that is put right; nothing else is any client's trouble, a deadlock least.
fn trouble(doing: &str, isolation: Isolation, error: &sqlx::Error) -> Trouble {
    match (code(error).as_str(), isolation) {
        ("40001", Isolation::RepeatableRead | Isolation::Serializable) => Trouble::Again,
        ("40001", _) if is_not_copied_yet(error) || is_being_changed(error) => Trouble::Again,
        _ => Trouble::Refused(format!("{doing}: {}", whole(error))),
    }
}

/// A transaction that is given up by the server hears of it at any statement.
fn aside(doing: &str, error: &sqlx::Error) -> Trouble {
    trouble(doing, Isolation::Serializable, error)
}
