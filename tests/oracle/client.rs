//! An application that writes, and writes the same to the twin.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};

use super::Random;
use super::scene::{Era, Names, Scene, TWIN, Way};

/// What clients and the test tell each other.
#[derive(Default)]
pub struct Shared {
    pub stop: AtomicBool,
    /// A client has something to tell, and has stopped.
    pub failed: AtomicBool,
    /// What clients of the new shape may do: 0 nothing, 1 write whole rows (others may not be copied yet), 2 everything.
    pub new_shape: AtomicU8,
    /// The run is being rolled back.
    pub goes_back: AtomicBool,
    pub commits: AtomicU64,
    /// Of these, after `retire`.
    pub retired: AtomicU64,
}

/// Whether a client knows the old shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    Shape,
    Gone,
}

pub struct Client {
    scene: Scene,
    side: Old,
    random: Random,
    shared: Arc<Shared>,
}

/// Somebody had the lock for too long: the one trouble that a client may have.
struct Busy;

enum Trouble {
    Busy(Busy),
    Refused(String),
}

impl Client {
    pub fn new(scene: Scene, side: Old, random: Random, shared: Arc<Shared>) -> Self {
        Self { scene, side, random, shared }
    }

    /// Writes until told to stop. The error is what no client should see.
    pub fn write(mut self, file: &Path) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let written = runtime.block_on(async {
            let options = SqliteConnectOptions::new().filename(file);
            let mut conn = options.busy_timeout(Duration::from_secs(10)).connect().await.unwrap();
            while !self.shared.stop.load(Ordering::SeqCst) {
                match self.transaction(&mut conn).await {
                    Ok(()) => {}
                    Err(Trouble::Busy(_)) => drop(say(&mut conn, "ROLLBACK").await),
                    Err(Trouble::Refused(what)) => return Err(what),
                }
                // Applications do something else as well.
                tokio::time::sleep(Duration::from_millis(self.random.below(8))).await;
            }
            Ok(())
        });
        self.shared.failed.fetch_or(written.is_err(), Ordering::SeqCst);
        written
    }

    async fn transaction(&mut self, conn: &mut SqliteConnection) -> Result<(), Trouble> {
        expect(conn, "BEGIN IMMEDIATE").await?;
        let era = self.era(conn).await?;
        let may = self.shared.new_shape.load(Ordering::SeqCst);
        if self.side == Old::Gone && may == 0 && era != Era::Dropped {
            return expect(conn, "ROLLBACK").await;
        }
        let whole_rows = self.side == Old::Gone && may == 1 && !self.scene.in_place;
        for _ in 0..=self.random.below(3) {
            let undone = self.random.below(8) == 0;
            if undone {
                expect(conn, "SAVEPOINT some").await?;
            }
            self.statement(conn, era, whole_rows).await?;
            if undone {
                expect(conn, "ROLLBACK TO some").await?;
            }
        }
        if self.random.below(6) == 0 {
            return expect(conn, "ROLLBACK").await;
        }
        expect(conn, "COMMIT").await?;
        self.shared.commits.fetch_add(1, Ordering::SeqCst);
        if era != Era::Before {
            self.shared.retired.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// How far the plan has come, as this transaction sees it.
    async fn era(&self, conn: &mut SqliteConnection) -> Result<Era, Trouble> {
        let row = sqlx::query(self.scene.era_query()).fetch_one(&mut *conn).await;
        let row = row.map_err(|error| trouble("look at the schema", &error))?;
        let (is_aside, is_beside) = (row.get::<i64, _>(0) == 1, row.get::<i64, _>(1) == 1);
        let row = sqlx::query("SELECT converted FROM twin_era").fetch_one(&mut *conn).await;
        let converted = row.map_err(|error| trouble("read the era", &error))?.get::<i64, _>(0) == 1;
        if is_aside && !converted {
            expect(conn, "UPDATE twin_era SET converted = 1").await?;
            if let Some(conversion) = self.scene.conversion() {
                expect(conn, conversion).await?;
            }
            // What this transaction found stays found if it is rolled back.
            expect(conn, "COMMIT").await?;
            expect(conn, "BEGIN IMMEDIATE").await?;
            return Box::pin(self.era(conn)).await;
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
        conn: &mut SqliteConnection,
        era: Era,
        whole_rows: bool,
    ) -> Result<(), Trouble> {
        let names = match self.side {
            Old::Shape => self.scene.old(era),
            Old::Gone => self.scene.new_names(era),
        };
        let seed = self.random.next();
        let ours = text(Random(seed), names, self.cased(era), whole_rows);
        let twins = text(Random(seed), TWIN, self.scene.cased_in_twin(), whole_rows);
        let told = attempt(conn, &ours).await?;
        let twin_told = attempt(conn, &twins).await?;
        match (told, twin_told) {
            (Ok(_), Ok(_)) => Ok(()),
            (Err(told), Err(twin_told)) if told.why == twin_told.why => Ok(()),
            (Err(told), Err(twin_told)) => {
                let (told, twin_told) = (told.what, twin_told.what);
                Err(Trouble::Refused(format!("{era:?}: {told}, but the twin: {twin_told}")))
            }
            (Err(told), Ok(_)) => Err(Trouble::Refused(format!("{era:?}: {}", told.what))),
            (Ok(_), Err(told)) => {
                Err(Trouble::Refused(format!("{era:?}: {ours} went, but {}", told.what)))
            }
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

/// A statement as this seed would have it. Keys are near each other, so that statements meet.
fn text(mut random: Random, names: Names, cased: fn(&str) -> String, whole_rows: bool) -> String {
    let Names { table, status } = names;
    let kind = if whole_rows { 9 } else { random.below(20) };
    let id = random.below(4_200) + 1;
    let other = random.below(4_200) + 1;
    let name = format!("name {}", random.below(1_000));
    let mail = match (random.below(6), whole_rows) {
        (0, _) => "NULL".to_owned(),
        (_, false) => format!("'mail{}'", random.below(1_500)),
        // A row that isn't copied yet can't be in the way.
        (_, true) => format!("'fresh{}'", random.next()),
    };
    let word = ["New", "Active", "Closed", "Paused"][usize::try_from(random.below(4)).unwrap()];
    let value = if random.below(5) == 0 { "NULL".to_owned() } else { format!("'{}'", cased(word)) };
    let columns = format!("(id, name, email, {status})");
    let row = format!("({id}, '{name}', {mail}, {value})");
    let some = format!("id BETWEEN {id} AND {}", id + 20);
    match kind {
        0 => format!("INSERT INTO {table} {columns} VALUES {row}"),
        1 => format!(
            "INSERT INTO {table} (name, email, {status}) VALUES ('{name}', {mail}, {value})"
        ),
        2 => format!("UPDATE {table} SET {status} = {value} WHERE id = {id}"),
        3 => format!("UPDATE {table} SET name = '{name}', email = {mail} WHERE id = {id}"),
        4 => format!("UPDATE {table} SET {status} = NULL WHERE {some}"),
        5 => format!("DELETE FROM {table} WHERE id = {id}"),
        6 => format!("DELETE FROM {table} WHERE {some} AND id % 3 = 0"),
        7 => format!("UPDATE {table} SET id = {other} WHERE id = {id}"),
        8 => format!(
            "UPDATE OR REPLACE {table} SET id = {other}, {status} = {value} WHERE id = {id}"
        ),
        9 => format!("INSERT OR REPLACE INTO {table} {columns} VALUES {row}"),
        10 => format!(
            "REPLACE INTO {table} (name, email, {status}) VALUES ('{name}', {mail}, {value})"
        ),
        11 => format!("INSERT OR IGNORE INTO {table} {columns} VALUES {row}"),
        12 => format!("UPDATE OR IGNORE {table} SET email = {mail} WHERE {some}"),
        13 => format!(
            "INSERT INTO {table} {columns} VALUES {row} ON CONFLICT (id) DO UPDATE SET {status} = excluded.{status}"
        ),
        14 => format!(
            "INSERT INTO {table} {columns} VALUES {row} ON CONFLICT (email) DO UPDATE SET name = excluded.name, id = excluded.id"
        ),
        15 => format!("INSERT INTO {table} {columns} VALUES {row} ON CONFLICT DO NOTHING"),
        16 => format!("UPDATE {table} SET {status} = {value}, name = name || '!' WHERE {some}"),
        17 => format!("UPDATE OR REPLACE {table} SET email = {mail} WHERE id = {id}"),
        18 => format!("UPDATE {table} SET id = id + 30000 - {id} WHERE {some}"),
        _ => format!("UPDATE OR IGNORE {table} SET id = id + 3 WHERE {some}"),
    }
}

/// A constraint's refusal: which it was, whatever its table is called, and all that was said.
struct Told {
    why: String,
    what: String,
}

/// What SQLite says to a statement, in a transaction that goes on.
async fn attempt(conn: &mut SqliteConnection, sql: &str) -> Result<Result<u64, Told>, Trouble> {
    match say(conn, sql).await {
        Ok(rows) => Ok(Ok(rows)),
        Err(error) => match trouble(sql, &error) {
            Trouble::Refused(what) if code(&error) & 0xff == CONSTRAINT => {
                let said = error.to_string();
                let (rule, columns) = said.split_once(" failed: ").unwrap_or((&said, ""));
                let columns =
                    columns.split(", ").map(|column| column.rsplit('.').next().unwrap_or(column));
                let why = format!("{rule}: {}", columns.collect::<Vec<_>>().join(", "));
                Ok(Err(Told { why, what }))
            }
            trouble => Err(trouble),
        },
    }
}

async fn expect(conn: &mut SqliteConnection, sql: &str) -> Result<(), Trouble> {
    say(conn, sql).await.map(|_| ()).map_err(|error| trouble(sql, &error))
}

async fn say(conn: &mut SqliteConnection, sql: &str) -> Result<u64, sqlx::Error> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await?;
    Ok(done.rows_affected())
}

/// SQLite's code for what a constraint refuses, whichever it is.
const CONSTRAINT: i32 = 19;

/// The error's code, with what SQLite adds to it; 0 where it isn't SQLite's.
fn code(error: &sqlx::Error) -> i32 {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn trouble(doing: &str, error: &sqlx::Error) -> Trouble {
    let is_busy = matches!(code(error) & 0xff, 5 | 6);
    if is_busy { Trouble::Busy(Busy) } else { Trouble::Refused(format!("{doing}: {error}")) }
}
