//! Looking at a database for a dry run: sizes, dependents, triggers, how the key is used, how long a read takes.
//!
//! Everything is read in one snapshot, so that the parts fit each other, and within [`SQLITE_LOOK_WITHIN`]. A connection that
//! takes longer is interrupted. Absent on purpose: rights, roles, replicas and sessions, which SQLite doesn't know, and
//! the free space of the disk, which it doesn't tell.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{self, Table, TableKind, quote, same_name};
use super::error::failed;
use super::retire;
use super::source;
use super::{Sqlite, survey};
use crate::bounds::message::PLAN_LINES_MAX;
use crate::bounds::probe::{SAMPLE_ROWS, SQLITE_COUNTED_BYTES_MAX, SQLITE_LOOK_WITHIN};
use crate::clock::Stopwatch;
use crate::driver::probed::{
    Estimate, KeyAccess, MappingFacts, ObjectFacts, Probed, Sample, Seen, TableFacts,
};
use crate::driver::{Error, Survey};
use crate::run::{FailureClass, Mapping, Relation, RetireShape};

/// Everything that a dry run wants to know of the database.
pub(super) async fn look(sqlite: &Sqlite, survey: &Survey) -> Result<Probed, Error> {
    let look = async {
        let mut reader = sqlite.connections.snapshot().await?;
        let probed = probe(reader.conn(), survey).await?;
        reader.release().await;
        Ok(probed)
    };
    tokio::time::timeout(SQLITE_LOOK_WITHIN, look).await.unwrap_or_else(|_| {
        let message = format!("looking took longer than {} s", SQLITE_LOOK_WITHIN.as_secs());
        Err(Error::failed(FailureClass::TimedOut, message))
    })
}

async fn probe(conn: &mut SqliteConnection, survey: &Survey) -> Result<Probed, Error> {
    let findings = survey::look(conn, survey).await?;
    let file = file(conn).await?;
    Ok(Probed {
        server: format!("SQLite {}", file.version),
        findings,
        tables: tables(conn, survey, &file).await?,
        beside: Vec::new(),
        mappings: mappings(conn, survey).await?,
        rights: Vec::new(),
        sessions: Seen::hidden("SQLite doesn't tell who else has the file open"),
        disk_free_bytes: Seen::hidden("SQLite doesn't tell how much room the disk has"),
        connections: Seen::hidden("a file has no limit of connections"),
        replicas: Seen::hidden("SQLite knows no replicas"),
        notes: file.notes(),
        unseen: None,
    })
}

/// The file as a whole.
struct File {
    version: String,
    journal_mode: String,
    bytes: u64,
    free_bytes: u64,
}

impl File {
    fn notes(&self) -> Vec<String> {
        if self.bytes == 0 {
            return vec!["there is no database yet, or it is empty".to_owned()];
        }
        let mut notes = vec![format!(
            "the file holds {}, {} of them unused",
            bytes(self.bytes),
            bytes(self.free_bytes)
        )];
        if !self.journal_mode.eq_ignore_ascii_case("wal") {
            notes.push(format!(
                "journal_mode is {}: while a chunk commits nobody reads, and while somebody reads none commits",
                self.journal_mode
            ));
        }
        notes
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / (1024 * 1024)),
    }
}

async fn file(conn: &mut SqliteConnection) -> Result<File, Error> {
    let row = sqlx::query(
        "SELECT sqlite_version(), (SELECT journal_mode FROM pragma_journal_mode),
                (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size),
                (SELECT freelist_count FROM pragma_freelist_count) * (SELECT page_size FROM pragma_page_size)",
    )
    .fetch_one(conn)
    .await
    .map_err(failed("read what the file is"))?;
    let unsigned = |at: usize| -> Result<u64, Error> {
        let value: i64 = row.try_get(at).map_err(failed("read what the file is"))?;
        Ok(u64::try_from(value).unwrap_or(0))
    };
    let text = |at: usize| row.try_get(at).map_err(failed("read what the file is"));
    Ok(File {
        version: text(0)?,
        journal_mode: text(1)?,
        bytes: unsigned(2)?,
        free_bytes: unsigned(3)?,
    })
}

async fn tables(
    conn: &mut SqliteConnection,
    survey: &Survey,
    file: &File,
) -> Result<Vec<TableFacts>, Error> {
    let mut found: Vec<TableFacts> = Vec::new();
    for used in &survey.uses {
        if found.iter().any(|facts| same_name(&facts.table, &used.table)) {
            continue;
        }
        let Some(table) = catalogue::table(conn, &used.table).await? else { continue };
        found.push(facts(conn, &used.table, &table, file).await?);
    }
    Ok(found)
}

async fn facts(
    conn: &mut SqliteConnection,
    written: &str,
    table: &Table,
    file: &File,
) -> Result<TableFacts, Error> {
    let kind = match table.kind {
        TableKind::Table => None,
        TableKind::View => Some("a view"),
        TableKind::Virtual => Some("a virtual table"),
        TableKind::Shadow => Some("the storage of a virtual table"),
    };
    let mut facts = TableFacts {
        table: written.to_owned(),
        kind: kind.map(str::to_owned),
        ..TableFacts::default()
    };
    if table.kind != TableKind::Table {
        return Ok(facts);
    }
    let (rows, is_counted) = source::rows_of(conn, &table.name).await?;
    let basis = if is_counted { "counted" } else { "by statistics, or the largest rowid" };
    facts.rows = Some(Estimate { rows, basis: basis.to_owned() });
    if file.bytes <= SQLITE_COUNTED_BYTES_MAX {
        facts.table_bytes = pages(conn, &[&table.name]).await?;
        let indexes: Vec<&str> = table.indexes.iter().map(|index| index.name.as_str()).collect();
        facts.index_bytes = pages(conn, &indexes).await?;
    }
    let whole = RetireShape::Table { old_name: String::new(), take_name: false };
    facts.dependents = retire::dependents(conn, table, &whole)
        .await?
        .into_iter()
        .map(|found| match found.rsplit_once(' ') {
            Some((kind, name)) => object(kind.trim_end_matches(" of"), name),
            None => object("object", &found),
        })
        .collect();
    facts.triggers = table.user_triggers().map(|it| object("trigger", &it.name)).collect();
    Ok(facts)
}

fn object(kind: &str, name: &str) -> ObjectFacts {
    ObjectFacts { kind: kind.to_owned(), name: name.to_owned(), detail: None }
}

/// Bytes of the pages of tables or indexes. `None` where this SQLite can't count them.
async fn pages(conn: &mut SqliteConnection, names: &[&str]) -> Result<Option<u64>, Error> {
    let mut sum = 0;
    for name in names {
        let row = sqlx::query(
            "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name = ?1 AND aggregate = 1",
        )
        .bind(*name)
        .fetch_one(&mut *conn)
        .await;
        let Ok(row) = row else { return Ok(None) };
        let counted: i64 = row.try_get(0).map_err(failed("count pages"))?;
        sum += u64::try_from(counted).unwrap_or(0);
    }
    Ok(Some(sum))
}

async fn mappings(
    conn: &mut SqliteConnection,
    survey: &Survey,
) -> Result<Vec<MappingFacts>, Error> {
    let mut found = Vec::new();
    for surveyed in &survey.mappings {
        let mapping = &surveyed.mapping;
        let Some(table) = catalogue::table(conn, &mapping.from.table).await? else { continue };
        let is_there = mapping.from.key.iter().all(|name| table.column(name).is_some());
        if table.kind == TableKind::Table && is_there {
            found.push(copying(conn, mapping).await?);
        }
    }
    Ok(found)
}

async fn copying(conn: &mut SqliteConnection, mapping: &Mapping) -> Result<MappingFacts, Error> {
    let key = key_access(conn, &mapping.from).await?;
    let sample = match &key.index {
        Some(_) => sample(conn, &mapping.from).await?,
        None => None,
    };
    Ok(MappingFacts { mapping: mapping.name.clone(), key, sample })
}

fn key_list(relation: &Relation) -> String {
    relation.key.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

/// How SQLite would find the end of the next chunk.
async fn key_access(conn: &mut SqliteConnection, from: &Relation) -> Result<KeyAccess, Error> {
    let (table, key) = (quote(&from.table), key_list(from));
    let places = vec!["?"; from.key.len()].join(", ");
    let sql = format!(
        "EXPLAIN QUERY PLAN SELECT {key} FROM {table} WHERE ({key}) > ({places}) ORDER BY {key} LIMIT 1 OFFSET 999"
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for _ in &from.key {
        query = query.bind(0_i64);
    }
    let rows = query.fetch_all(conn).await.map_err(failed("see how the key is used"))?;
    let plan: Result<Vec<String>, Error> = rows
        .iter()
        .take(PLAN_LINES_MAX)
        .map(|row| row.try_get("detail").map_err(failed("see how the key is used")))
        .collect();
    let plan = plan?;
    Ok(KeyAccess { index: serving(&plan), plan })
}

/// The index that a plan searches; none if it sorts or goes through the table.
fn serving(plan: &[String]) -> Option<String> {
    if plan.iter().any(|line| line.contains("TEMP B-TREE")) {
        return None;
    }
    let line = plan.iter().find(|line| line.starts_with("SEARCH"))?;
    let (_, using) = line.split_once(" USING ")?;
    let name = using.split_once(" (").map_or(using, |(name, _)| name);
    let name = name.trim_start_matches("COVERING ").trim_start_matches("INDEX ");
    Some(if name == "INTEGER PRIMARY KEY" { "the rowid".to_owned() } else { name.to_owned() })
}

/// Reads some whole rows in key order, and sees how long it takes.
async fn sample(conn: &mut SqliteConnection, from: &Relation) -> Result<Option<Sample>, Error> {
    // Every column is read, and nothing of it leaves the database: length() of a row's text would cost more than reading it.
    let (table, key) = (quote(&from.table), key_list(from));
    let columns = sqlx::query("SELECT name FROM pragma_table_info(?1)")
        .bind(&from.table)
        .fetch_all(&mut *conn)
        .await
        .map_err(failed("read the catalogue"))?;
    let names: Result<Vec<String>, Error> = columns
        .iter()
        .map(|row| row.try_get::<String, _>(0).map_err(failed("read the catalogue")))
        .collect();
    let read: Vec<String> = names?.iter().map(|name| format!("max({})", quote(name))).collect();
    let sql = format!(
        "SELECT count(*), {} FROM (SELECT * FROM {table} ORDER BY {key} LIMIT {SAMPLE_ROWS})",
        read.join(", ")
    );
    let watch = Stopwatch::start();
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(conn).await;
    let row = row.map_err(failed("read some rows"))?;
    let took_us = watch.elapsed_us();
    let rows: i64 = row.try_get(0).map_err(failed("read some rows"))?;
    let rows = u32::try_from(rows).unwrap_or(SAMPLE_ROWS);
    Ok((rows > 0).then_some(Sample { rows, took_us }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::fixture::{Database, claim, mapping};
    use super::*;
    use crate::driver::{
        Access, CreatedObject, Introspect as _, Purpose, Session as _, SurveyedMapping, TableUse,
    };
    use crate::run::Direction;

    const SCHEMA: &str = "
        CREATE TABLE leads (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, status TEXT);
        CREATE TABLE notes (id INTEGER PRIMARY KEY, lead_id INT REFERENCES leads (id));
        CREATE VIEW hot AS SELECT * FROM leads WHERE status = 'hot';
        CREATE TRIGGER theirs AFTER INSERT ON leads BEGIN SELECT 1; END;
        CREATE TRIGGER phasegate_1 AFTER INSERT ON leads BEGIN SELECT 1; END;
        INSERT INTO leads WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 7000)
            SELECT x, 'e' || x, 'hot' FROM c;";

    fn survey() -> Survey {
        let mapping = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
        let direction = Some(Direction::Forward);
        let uses = [("leads", Purpose::Sync), ("LEADS", Purpose::Retire), ("gone", Purpose::Read)];
        Survey {
            mappings: vec![SurveyedMapping { step: "sync".into(), mapping, direction }],
            created: vec![CreatedObject { table: "leads_v2".into(), column: None }],
            queries: vec![("ask".into(), "SELECT count(*) FROM leeds".to_owned())],
            uses: uses
                .into_iter()
                .map(|(table, purpose)| TableUse {
                    step: "sync".into(),
                    table: table.to_owned(),
                    purpose,
                })
                .collect(),
            ..Survey::default()
        }
    }

    async fn read_only(database: &Database) -> Sqlite {
        Sqlite::open_for(&database.url(""), Access::ReadOnly).await.unwrap()
    }

    #[tokio::test]
    async fn everything_that_sqlite_tells_is_told() {
        let database = Database::with(SCHEMA).await;
        let probed = read_only(&database).await.probe(&survey()).await.unwrap();
        assert!(probed.server.starts_with("SQLite 3."), "{}", probed.server);
        assert_eq!(probed.findings.len(), 1, "{:?}", probed.findings);
        assert_eq!(probed.findings[0].code, "D210");
        let [leads] = probed.tables.as_slice() else { panic!("{:?}", probed.tables) };
        let rows = leads.rows.as_ref().unwrap();
        assert_eq!(
            (leads.table.as_str(), rows.rows, rows.basis.as_str()),
            ("leads", 7000, "counted")
        );
        assert!(leads.table_bytes.unwrap() > 7000 * 8, "{leads:?}");
        assert!(leads.index_bytes.unwrap() > 7000 * 4);
        let said = |objects: &[ObjectFacts]| -> Vec<String> {
            objects.iter().map(|it| format!("{} {}", it.kind, it.name)).collect()
        };
        assert_eq!(said(&leads.dependents), ["view hot", "foreign key notes"]);
        assert_eq!(said(&leads.triggers), ["trigger theirs"]);
        let [copy] = probed.mappings.as_slice() else { panic!("{:?}", probed.mappings) };
        assert_eq!(copy.key.index.as_deref(), Some("the rowid"));
        assert_eq!(copy.sample.unwrap().rows, SAMPLE_ROWS);
        assert!(matches!(probed.sessions, Seen::Hidden(_)) && probed.rights.is_empty());
        assert!(
            probed.notes.iter().any(|note| note.contains("journal_mode")),
            "{:?}",
            probed.notes
        );
    }

    #[tokio::test]
    async fn a_key_that_no_index_serves_is_told_as_such() {
        let database = Database::with(
            "CREATE TABLE t (a INT, b TEXT, c TEXT NOT NULL); CREATE UNIQUE INDEX t_c ON t (c)",
        )
        .await;
        let mut conn = database.client().await;
        for (key, expected) in [("a", None), ("c", Some("t_c"))] {
            let relation = mapping(("t", &[key]), ("t", &[key])).from;
            let access = key_access(&mut conn, &relation).await.unwrap();
            assert_eq!(access.index.as_deref(), expected, "{:?}", access.plan);
            assert!(!access.plan.is_empty());
        }
    }

    #[tokio::test]
    async fn a_database_opened_for_looking_refuses_every_write_by_itself() {
        let database = Database::with(SCHEMA).await;
        let before = std::fs::read(database.file()).unwrap();
        let sqlite = read_only(&database).await;
        let refused = sqlite.enter(&claim("r1"), 1).await.unwrap_err();
        assert_eq!(refused.class(), Some(FailureClass::NotPermitted), "{refused}");
        // Not our own guards, which a mistake could take away: the file itself is open for reading only.
        let mut reader = sqlite.connections.read().await.unwrap();
        for write in ["INSERT INTO notes (id) VALUES (1)", "CREATE TABLE t (x)", "DROP TABLE notes"]
        {
            let set = "PRAGMA query_only = OFF";
            sqlx::query(set).execute(reader.conn()).await.unwrap();
            let error = sqlx::query(write).execute(reader.conn()).await.unwrap_err();
            assert!(error.to_string().contains("readonly database"), "{write}: {error}");
        }
        drop(reader);
        sqlite.probe(&survey()).await.unwrap();
        sqlite.close().await;
        assert_eq!(std::fs::read(database.file()).unwrap(), before);
        let beside: Vec<_> = std::fs::read_dir(database.folder.path()).unwrap().collect();
        assert_eq!(beside.len(), 1, "{beside:?}");
    }

    #[tokio::test]
    async fn a_database_with_a_write_ahead_log_is_read_beside_its_writers() {
        let database = Database::with(&format!("PRAGMA journal_mode = WAL; {SCHEMA}")).await;
        let probed = read_only(&database).await.probe(&survey()).await.unwrap();
        assert_eq!(probed.tables[0].rows.as_ref().unwrap().rows, 7000);
        assert!(
            probed.notes.iter().all(|note| !note.contains("journal_mode")),
            "{:?}",
            probed.notes
        );
        let mut writer = database.client().await;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut writer).await.unwrap();
        sqlx::query("DELETE FROM notes").execute(&mut writer).await.unwrap();
        read_only(&database).await.probe(&survey()).await.unwrap();
        sqlx::query("COMMIT").execute(&mut writer).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_killed_writer_left_is_not_put_right_by_looking() {
        let database = Database::with(SCHEMA).await;
        let file = database.file();
        let mut writer = database.client().await;
        sqlx::raw_sql(
            "PRAGMA cache_size = 1; BEGIN; UPDATE leads SET status = hex(randomblob(50))",
        )
        .execute(&mut writer)
        .await
        .unwrap();
        // As a crash would leave it: half-written pages, and the journal that takes them back.
        let journal = file.with_file_name("app.db-journal");
        let crashed = Database { folder: tempfile::tempdir().unwrap() };
        std::fs::copy(&file, crashed.file()).unwrap();
        std::fs::copy(&journal, crashed.file().with_file_name("app.db-journal")).unwrap();
        let error = Sqlite::open_for(&crashed.url(""), Access::ReadOnly).await.unwrap_err();
        let Error::Failed(failure) = &error else { panic!("{error:?}") };
        assert!(failure.help.as_ref().unwrap().contains("left a journal"), "{failure:?}");
        assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(crashed.file()).unwrap());
    }

    #[tokio::test]
    async fn a_missing_file_is_not_made() {
        let database = Database { folder: tempfile::tempdir().unwrap() };
        let error = Sqlite::open_for(&database.url(""), Access::ReadOnly).await.unwrap_err();
        assert_eq!(error.class(), Some(FailureClass::Unreachable));
        let made = Sqlite::open_for(&database.url("?mode=rwc"), Access::ReadOnly).await.unwrap();
        let probed = made.probe(&survey()).await.unwrap();
        assert!(probed.tables.is_empty() && probed.findings.iter().any(|it| it.code == "D201"));
        assert!(probed.notes[0].contains("no database yet"), "{:?}", probed.notes);
        assert!(!database.file().exists());
    }
}
