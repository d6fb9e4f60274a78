//! What is said of PostgreSQL's statements, and whether a server agrees.
//!
//! The table of statements is `tests/statements/postgres.txt`. The first test holds it against the classification; the
//! second runs each statement on a server, in a transaction that is rolled back, and looks which locks it took, whether it
//! went through the rows, and whether it wrote them anew.

mod table;

use std::collections::BTreeMap;

use phasegate::sql::{Dialect, Facts, LockMode, RowWork, classify};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use self::table::{Entry, FILE, Part};
use crate::services;

fn parts() -> Vec<Part> {
    table::read(&std::fs::read_to_string(FILE).unwrap())
}

fn entries() -> Vec<Entry> {
    let entries = parts().into_iter().filter_map(|part| match part {
        Part::Entry(entry) => Some(entry),
        Part::Line(_) => None,
    });
    entries.collect()
}

#[test]
fn every_statement_is_what_the_table_says() {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(FILE, table::write(&parts())).unwrap();
    }
    let entries = entries();
    assert!(entries.len() >= 200, "only {} statements", entries.len());
    let mut wrong = Vec::new();
    for entry in &entries {
        let told = table::told(&entry.statement);
        if told != entry.expected {
            wrong.push(format!("{}\nis\n{told}and not\n{}", entry.statement, entry.expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A database of its own, with the scene in it.
struct Scene {
    name: String,
    server: PgConnection,
    client: PgConnection,
}

impl Scene {
    async fn new(url: &str) -> Self {
        let mut server = PgConnection::connect(url).await.unwrap();
        let name = format!("statements_{}", uuid::Uuid::now_v7().simple());
        server.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let mut own = url::Url::parse(url).unwrap();
        own.set_path(&name);
        let mut client = PgConnection::connect(own.as_str()).await.unwrap();
        client.execute(sqlx::raw_sql(include_str!("statements/scene.sql"))).await.unwrap();
        Self { name, server, client }
    }

    async fn end(mut self) {
        self.client.close().await.unwrap();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        self.server.execute(AssertSqlSafe(drop)).await.unwrap();
    }
}

/// What a server knows of a table.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    /// The file that its rows are in.
    file: i64,
    /// The files of its indexes.
    indexes: Vec<i64>,
    /// How often this transaction went through all of its rows.
    scans: i64,
    /// The strongest lock that this transaction holds.
    lock: Option<LockMode>,
}

fn mode(name: &str) -> LockMode {
    match name {
        "AccessShareLock" => LockMode::AccessShare,
        "RowShareLock" => LockMode::RowShare,
        "RowExclusiveLock" => LockMode::RowExclusive,
        "ShareUpdateExclusiveLock" => LockMode::ShareUpdateExclusive,
        "ShareLock" => LockMode::Share,
        "ShareRowExclusiveLock" => LockMode::ShareRowExclusive,
        "ExclusiveLock" => LockMode::Exclusive,
        "AccessExclusiveLock" => LockMode::AccessExclusive,
        other => panic!("{other} is no lock of a table"),
    }
}

/// The tables of the scene by their object ids, as the facts name them.
async fn tables(client: &mut PgConnection) -> BTreeMap<i64, String> {
    let rows = client
        .fetch_all(
            "SELECT c.oid::bigint, CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname IN ('public', 'crm') AND c.relkind IN ('r', 'p', 'v', 'm')",
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The catalogue is only read, which locks nothing but the catalogue.
async fn look(client: &mut PgConnection) -> BTreeMap<i64, Seen> {
    let mut seen: BTreeMap<i64, Seen> = BTreeMap::new();
    let rows = client
        .fetch_all(
            "SELECT c.oid::bigint, c.relfilenode::bigint, coalesce(pg_stat_get_xact_numscans(c.oid), 0),
                ARRAY(SELECT i.relfilenode::bigint FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
                      WHERE x.indrelid = c.oid ORDER BY 1)
             FROM pg_class c WHERE c.oid >= 16384",
        )
        .await
        .unwrap();
    for row in rows {
        let table = Seen { file: row.get(1), scans: row.get(2), indexes: row.get(3), lock: None };
        seen.insert(row.get(0), table);
    }
    let rows = client
        .fetch_all(
            "SELECT relation::bigint, mode FROM pg_locks
             WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted AND relation >= 16384",
        )
        .await
        .unwrap();
    for row in rows {
        let table = seen.entry(row.get(0)).or_default();
        table.lock = table.lock.max(Some(mode(row.get(1))));
    }
    seen
}

/// What is wrong with what is said of a statement that the server took in a transaction.
fn judge(
    statement: &str,
    facts: &Facts,
    tables: &BTreeMap<i64, String>,
    (before, after): (&BTreeMap<i64, Seen>, &BTreeMap<i64, Seen>),
) -> Vec<String> {
    let mut wrong = Vec::new();
    let nothing = Seen::default();
    for (id, table) in tables {
        let was = before.get(id).unwrap_or(&nothing);
        let is = after.get(id).unwrap_or(&nothing);
        let Some(said) = facts.locks.iter().find(|lock| lock.table == *table) else {
            // What CASCADE reaches, and whose index it is, only the catalogue knows.
            let tells_all = !facts.locks.is_empty() && !statement.contains("CASCADE");
            if tells_all && is.lock > Some(LockMode::RowShare) {
                wrong.push(format!(
                    "{statement}\n  locks {table} {:?}, and nothing is said of it",
                    is.lock
                ));
            }
            continue;
        };
        if is.lock != Some(said.mode) {
            wrong.push(format!("{statement}\n  locks {table} {:?}, not {:?}", is.lock, said.mode));
        }
        // Of reads and writes of rows the text tells how many there may be, and the server how many there were.
        if said.mode < LockMode::ShareUpdateExclusive {
            continue;
        }
        let is_gone = is.file == 0 && was.file != 0 && statement.starts_with("DROP");
        let is_emptied = statement.starts_with("TRUNCATE");
        let is_rewritten = is.file != was.file && !is_gone && !is_emptied;
        let is_built = is.indexes != was.indexes && !is_gone && !is_emptied;
        let is_scanned = is.scans > was.scans && !is_emptied;
        let fits = match said.work {
            RowWork::None => !is_rewritten && !is_scanned && !is_built || is_named_only(statement),
            RowWork::Scan => !is_rewritten && is_scanned && !is_built,
            RowWork::IndexBuild => !is_rewritten && is_built,
            RowWork::Rewrite => is_rewritten,
            RowWork::Unknown => true,
        };
        if !fits {
            wrong.push(format!(
                "{statement}\n  {:?} is said of {table}, but: rewritten {is_rewritten}, scanned {is_scanned}, index built {is_built}",
                said.work
            ));
        }
    }
    wrong
}

/// Dropping a column takes its indexes along without building any.
fn is_named_only(statement: &str) -> bool {
    statement.contains("DROP COLUMN")
}

#[tokio::test]
async fn a_server_agrees_with_what_is_said_of_locks_and_work() {
    let test = "statements::a_server_agrees_with_what_is_said_of_locks_and_work";
    let Some(url) = services::postgres(test) else { return };
    let mut scene = Scene::new(&url).await;
    let tables = tables(&mut scene.client).await;
    let mut wrong = Vec::new();
    let mut asked = 0;
    for entry in entries().iter().filter(|entry| entry.not_asked.is_none()) {
        let facts = classify(Dialect::Postgres, &entry.statement);
        if facts.complaint.is_some() || entry.expected.contains("can't be read") {
            continue;
        }
        let statement = entry.statement.clone();
        scene.client.execute("BEGIN").await.unwrap();
        let before = look(&mut scene.client).await;
        let done = scene.client.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await;
        let refused = done.as_ref().err().and_then(|error| error.as_database_error()?.code());
        let is_refused = refused.as_deref() == Some("25001");
        match (&facts.outside_transaction, &done) {
            (Some(_), _) if is_refused => asked += 1,
            (Some(_), _) => {
                wrong.push(format!("{}\n  can be run in a transaction", entry.statement));
            }
            (None, Err(error)) => wrong.push(format!("{}\n  {error}", entry.statement)),
            (None, Ok(_)) => {
                asked += 1;
                let after = look(&mut scene.client).await;
                wrong.extend(judge(&entry.statement, &facts, &tables, (&before, &after)));
            }
        }
        scene.client.execute("ROLLBACK").await.unwrap();
    }
    scene.end().await;
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked >= 150, "only {asked} statements were asked about");
}
