//! A client that writes leads all the while, and the same to a copy that nothing of ours touches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use crate::examples::Example;
use crate::examples::database::{block_on, connect};
use crate::oracle::Random;

/// A client at work in a thread of its own.
pub struct Writer {
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Writer {
    pub fn at_work(example: &Example) -> Self {
        let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let url = example.database.url.clone();
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&commits));
        let thread = std::thread::spawn(move || {
            block_on(async {
                let mut conn = connect(&url).await.map_err(|error| error.to_string())?;
                let mut random = Random(std::process::id().into());
                while !told.load(Ordering::SeqCst) {
                    transaction(&mut conn, &mut random).await?;
                    counted.fetch_add(1, Ordering::SeqCst);
                    // Applications do something else as well.
                    tokio::time::sleep(Duration::from_millis(random.below(6))).await;
                }
                Ok(())
            })
        });
        Self { stop, commits, thread: Some(thread) }
    }

    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// Stops it. It has written, and no statement of it was refused.
    #[track_caller]
    pub fn ends_well(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().unwrap().join().unwrap();
        assert_eq!(ended, Ok(()), "the client was refused something");
        assert!(self.commits() > 0, "the client wrote nothing");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It failed, which the test says already; or the test has.
            let _ = thread.join();
        }
    }
}

async fn transaction(conn: &mut PgConnection, random: &mut Random) -> Result<(), String> {
    // Holding this no switch can come between what is found out here and what is written.
    say(conn, "BEGIN ISOLATION LEVEL READ COMMITTED; LOCK TABLE leads IN ROW EXCLUSIVE MODE")
        .await?;
    let found = "SELECT count(*) > 0 FROM pg_attribute
        WHERE attrelid = 'leads'::regclass AND attname = 'status_code'";
    let row = sqlx::query(found).fetch_one(&mut *conn).await.map_err(|error| error.to_string())?;
    let is_newer: bool = row.get(0);
    for _ in 0..=random.below(2) {
        let id = 1 + random.below(2_400);
        let seed = random.next();
        for table in ["leads", "kept.leads"] {
            let newer = (table == "kept.leads").then_some(is_newer);
            say(conn, &statement(table, id, newer, &mut Random(seed))).await?;
        }
    }
    say(conn, if random.below(8) == 0 { "ROLLBACK" } else { "COMMIT" }).await
}

/// One statement on one lead, which both tables take alike. `newer` is told to the copy only.
fn statement(table: &str, id: u64, newer: Option<bool>, random: &mut Random) -> String {
    let status =
        ["NEW", " Active", "Won ", "LOST", "Contacted"][usize::try_from(random.below(5)).unwrap()];
    let score = random.below(1_000);
    let (column, value, set) = match newer {
        None => ("", String::new(), String::new()),
        Some(newer) => (", is_newer", format!(", {newer}"), format!(", is_newer = {newer}")),
    };
    let at = "timestamptz '2025-05-05 05:05:05+00'";
    let insert = format!(
        "INSERT INTO {table} (id, name, status, score, created_at{column})
         VALUES ({id}, 'Client {score}', '{status}', NULL, {at}{value})"
    );
    match random.below(6) {
        0 => format!("DELETE FROM {table} WHERE id = {id}"),
        1 => format!("{insert} ON CONFLICT (id) DO NOTHING"),
        2 => format!("{insert} ON CONFLICT (id) DO UPDATE SET status = excluded.status{set}"),
        3 => format!(
            "UPDATE {table} SET status = '{status}', score = {score} / 10.0{set} WHERE id = {id}"
        ),
        4 => format!("UPDATE {table} SET email = NULL, name = name || '!'{set} WHERE id = {id}"),
        _ => format!(
            "UPDATE {table} SET id = id + 5000{set} WHERE id = {id}
               AND NOT EXISTS (SELECT FROM {table} AS t WHERE t.id = {id} + 5000)"
        ),
    }
}

async fn say(conn: &mut PgConnection, sql: &str) -> Result<(), String> {
    let said = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await;
    said.map(|_| ()).map_err(|error| format!("{sql}: {error}"))
}
