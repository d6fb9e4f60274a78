//! A client that writes to every table of a plan, and the same to its twin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::cases::Case;
use super::{Bed, ROWS};
use crate::examples::database::{block_on, connect};
use crate::oracle::Random;
use crate::sandbox::Ran;

/// A client at work in a thread of its own.
pub struct Client {
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Client {
    pub fn at_work(bed: &Bed) -> Self {
        let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&commits));
        let (url, cases) = (bed.database.url.clone(), bed.cases);
        let thread = std::thread::spawn(move || {
            block_on(async {
                let mut conn = connect(&url).await.map_err(|error| error.to_string())?;
                let mut random = Random(0x5eed);
                let mut born = Vec::new();
                for case in cases {
                    born.push(oid(&mut conn, case).await?);
                }
                while !told.load(Ordering::SeqCst) {
                    let at = usize::try_from(random.below(cases.len() as u64)).unwrap();
                    transaction(&mut conn, (&cases[at], &born[at]), &mut random).await?;
                    counted.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(random.below(4))).await;
                }
                Ok(())
            })
        });
        Self { stop, commits, thread: Some(thread) }
    }

    /// Stops it. It has written, and was refused nothing that its twin was not.
    #[track_caller]
    pub fn ends_well(mut self, ran: &Ran) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().unwrap().join().unwrap();
        assert_eq!(ended, Ok(()), "the client was refused something; {ran}");
        assert!(self.commits.load(Ordering::SeqCst) > 0, "the client wrote nothing");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // The test has failed already.
            let _ = thread.join();
        }
    }
}

/// Which table has the name now, and of which type `n` is there: both change where one is moved.
async fn oid(conn: &mut PgConnection, case: &Case) -> Result<String, String> {
    let name = case.table().replace('\'', "''");
    let query = format!(
        "SELECT attrelid || '/' || atttypid FROM pg_attribute WHERE attrelid = '{name}'::regclass AND attname = 'n'"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(query)).fetch_one(conn).await;
    row.map(|row| row.get::<String, _>(0)).map_err(|error| format!("{}: {error}", case.id))
}

async fn transaction(
    conn: &mut PgConnection,
    (case, born): (&Case, &str),
    random: &mut Random,
) -> Result<(), String> {
    // Holding its table no switch of names can come between what is found out here and what is written.
    let begin = format!("BEGIN; LOCK TABLE {} IN ROW EXCLUSIVE MODE", case.table());
    say(conn, &begin).await.map_err(|error| format!("{begin}: {error}"))?;
    let is_moved = oid(conn, case).await? != born;
    let before = (case.key, case.list, case.values);
    let shape = if is_moved { case.after.unwrap_or(before) } else { before };
    if shape.2.is_empty() {
        return say(conn, "ROLLBACK").await;
    }
    for _ in 0..=random.below(2) {
        let seed = random.next();
        let mut told = Vec::new();
        for (table, shape) in [(case.table(), shape), (case.twin(), before)] {
            let sql = statement(&table, shape, case.is_free, &mut Random(seed));
            say(conn, "SAVEPOINT one").await?;
            let done = say(conn, &sql).await;
            if done.is_err() {
                say(conn, "ROLLBACK TO one").await?;
            }
            told.push((sql, done));
        }
        // A key that is taken is refused to both.
        if told[0].1.is_err() != told[1].1.is_err() {
            return Err(format!("{}: {told:#?}", case.id));
        }
    }
    say(conn, if random.below(8) == 0 { "ROLLBACK" } else { "COMMIT" }).await
}

/// One statement on a few rows, which both tables take alike.
fn statement(
    table: &str,
    (key, list, values): (&[&str], &str, &str),
    is_free: bool,
    random: &mut Random,
) -> String {
    let x = 1 + random.below(u64::from(ROWS) * 2);
    let other = 1 + random.below(u64::from(ROWS) * 4);
    let quoted: Vec<String> =
        key.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    let quoted = quoted.join(", ");
    let insert = format!(
        "INSERT INTO {table} ({list}, v, n) OVERRIDING SYSTEM VALUE SELECT {values}, 'W' || x, x
         FROM generate_series({x}, {}) AS x ON CONFLICT",
        x + random.below(3)
    );
    match random.below(if is_free { 6 } else { 5 }) {
        0 => format!("DELETE FROM {table} WHERE n % 37 = {}", x % 37),
        1 => format!("{insert} DO NOTHING"),
        2 => format!("{insert} ({quoted}) DO UPDATE SET v = excluded.v || '!', n = excluded.n"),
        3 => format!("UPDATE {table} SET n = n + 10000 WHERE n % 31 = {}", x % 31),
        4 => format!("UPDATE {table} SET v = NULL WHERE n % 29 = {}", x % 29),
        _ => format!(
            "UPDATE {table} SET ({list}) = (SELECT {values} FROM (SELECT {other}::int AS x) AS q), n = {other} WHERE n = {x}"
        ),
    }
}

async fn say(conn: &mut PgConnection, sql: &str) -> Result<(), String> {
    let said = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await;
    said.map(|_| ()).map_err(|error| error.to_string())
}
