//! The bad luck of a file.

use std::fs;
use std::path::{Path, PathBuf};

use phasegate::run::{Event, RunId};
use phasegate::store::{self, Create, Error};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use super::child::{self, Task};
use super::sample::{ana, begin, begin_with};

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A closed store with a run of so many records, in a file alone in its folder.
async fn filled(records: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = store::open(text(&path), Create::IfMissing).await.unwrap();
    begin_with(&store, records).await;
    store.close().await;
    (folder, path)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

async fn open_error(path: &Path) -> Error {
    store::open(text(path), Create::IfMissing).await.unwrap_err()
}

/// The error is `Damaged`, names the file, says what to do, and left the bytes alone.
async fn assert_refused_untouched(path: &Path) {
    let before = fs::read(path).unwrap();
    for create in [Create::IfMissing, Create::Never] {
        let error = store::open(text(path), create).await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains(text(path)), "{error}");
    }
    assert_eq!(fs::read(path).unwrap(), before);
}

#[tokio::test]
async fn a_folder_that_we_make_is_hidden_from_git_and_any_other_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("project").join(".phasegate");
    let store = store::open(text(&made.join("state.db")), Create::IfMissing).await.unwrap();
    begin(&store).await;
    store.close().await;
    assert_eq!(names(&made), [".gitignore", "state.db"]);
    assert_eq!(fs::read_to_string(made.join(".gitignore")).unwrap(), "*\n");
    assert_eq!(names(&folder.path().join("project")), [".phasegate"]);

    store::open(text(&folder.path().join("state.db")), Create::IfMissing)
        .await
        .unwrap()
        .close()
        .await;
    assert_eq!(names(folder.path()), ["project", "state.db"]);
    let missing = folder.path().join("elsewhere").join("state.db");
    let error = store::open(text(&missing), Create::Never).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(!missing.parent().unwrap().exists());
}

#[tokio::test]
async fn locations_are_paths_or_urls_of_a_known_kind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let url = format!("sqlite://{}", text(&path));
    let store = store::open(&url, Create::IfMissing).await.unwrap();
    assert_eq!(store.location(), text(&path));
    store.close().await;
    for wrong in ["", ":memory:", "sqlite://", &format!("{url}?mode=rwc"), text(folder.path())] {
        let error = store::open(wrong, Create::IfMissing).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{wrong}: {error:?}");
    }
    for wrong in
        ["mysql://ana:s3cret@host/db", "postgres://ana:s3cret@host:port/db", "redis://:s3cret@h"]
    {
        let error = store::open(wrong, Create::IfMissing).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
    assert_eq!(names(folder.path()), ["state.db"]);
}

#[tokio::test]
async fn a_path_where_nothing_can_be_made_is_not_writable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [
        file.join("state.db"),
        file.join("deep").join("state.db"),
        "/proc/phasegate/state.db".into(),
    ] {
        let error = open_error(&path).await;
        assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
        assert!(error.to_string().contains(text(&path)), "{error}");
        let error = store::open(text(&path), Create::Never).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_no_database_is_damaged_and_left_alone() {
    let (_folder, path) = filled(3).await;
    let good = fs::read(&path).unwrap();
    let mut header = good.clone();
    header[..16].copy_from_slice(b"not SQLite, sir\0");
    let mut middle = good.clone();
    let page = 4096..8192;
    middle[page].fill(0xa5);
    for (what, bytes) in [
        ("empty", vec![]),
        ("text", b"hello\n".to_vec()),
        ("zeroes", vec![0; 8192]),
        ("header", header),
        ("a page", middle),
        ("cut short", good[..good.len() - 5000].to_vec()),
        ("cut to one page", good[..4096].to_vec()),
        ("cut inside the header", good[..50].to_vec()),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = open_error(&path).await;
        assert!(matches!(error, Error::Damaged { .. }), "{what}: {error:?}");
        assert_refused_untouched(&path).await;
    }
    fs::write(&path, &good).unwrap();
    store::open(text(&path), Create::Never).await.unwrap().close().await;
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let mut db = raw(&path).await;
    db.execute("CREATE TABLE runs (id INTEGER)").await.unwrap();
    db.close().await.unwrap();
    assert_refused_untouched(&path).await;
    let error = open_error(&path).await;
    assert!(error.to_string().contains("not a state store"), "{error}");
}

#[tokio::test]
async fn a_missing_table_is_damage() {
    for table in ["records", "store", "phasegate_migrations"] {
        let (_folder, path) = filled(2).await;
        let mut db = raw(&path).await;
        db.execute(AssertSqlSafe(format!("DROP TABLE {table}"))).await.unwrap();
        db.close().await.unwrap();
        let error = match store::open(text(&path), Create::IfMissing).await {
            Ok(store) => {
                let run = store.runs().await.unwrap()[0].run.clone();
                store.read(&run, 0, 10).await.unwrap_err()
            }
            Err(error) => error,
        };
        assert!(matches!(error, Error::Damaged { .. }), "{table}: {error:?}");
    }
}

#[tokio::test]
async fn a_log_without_its_file_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = store::open(text(&path), Create::IfMissing).await.unwrap();
    begin(&store).await;
    // While the store is open its newest records are in the log only; then the file is lost.
    assert!(fs::metadata(folder.path().join("state.db-wal")).unwrap().len() > 0);
    fs::rename(&path, folder.path().join("lost")).unwrap();
    let error = open_error(&path).await;
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("state.db-wal"), "{error}");
    assert!(!path.exists());
    fs::rename(folder.path().join("lost"), &path).unwrap();
    store.close().await;
}

#[tokio::test]
async fn locked_by_another_program_is_busy_after_a_bounded_wait() {
    let (_folder, path) = filled(2).await;
    let mut db = raw(&path).await;
    // Exclusive locking mode keeps readers out as well, which ordinary write transactions don't.
    db.execute("PRAGMA locking_mode = EXCLUSIVE").await.unwrap();
    db.execute("BEGIN EXCLUSIVE").await.unwrap();
    let error = open_error(&path).await;
    assert!(matches!(error, Error::Busy { .. }), "{error:?}");
    db.close().await.unwrap();
    store::open(text(&path), Create::Never).await.unwrap().close().await;
}

#[tokio::test]
async fn a_writer_elsewhere_delays_writes_and_neither_opening_nor_reading() {
    let (_folder, path) = filled(2).await;
    let mut db = raw(&path).await;
    db.execute("BEGIN IMMEDIATE").await.unwrap();
    let store = store::open(text(&path), Create::IfMissing).await.unwrap();
    let run = store.runs().await.unwrap()[0].run.clone();
    assert_eq!(store.read(&run, 0, 10).await.unwrap().len(), 2);
    let error = store.append(&run, 2, None, &ana(), vec![Event::Resumed]).await.unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error:?}");
    // It is let in as soon as the other is done, without being asked again.
    let by = ana();
    let waiting = store.append(&run, 2, None, &by, vec![Event::Resumed]);
    let (appended, ended) = tokio::join!(waiting, db.execute("ROLLBACK"));
    ended.unwrap();
    assert_eq!(appended.unwrap()[0].record.version, 3);
    store.close().await;
}

#[tokio::test]
async fn a_file_that_can_not_be_written_can_still_be_read() {
    let (folder, path) = filled(2).await;
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    // Root may write to anything, so the child gives that right up.
    let mut child = child::start(WITHOUT_ROOTS_RIGHTS, Task::Try, text(&path));
    let said: Vec<String> = child::lines(&mut child).collect();
    child.wait().unwrap();
    assert_eq!(said[..2], ["opened", "read"], "{said:?}");
    assert!(said[2].starts_with("append 2 NotWritable"), "{said:?}");
    assert_eq!(said[3], "kept 2");

    // In a folder that can't be written nothing can be made.
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    let mut permissions = fs::metadata(&closed).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&closed, permissions).unwrap();
    let mut child = child::start(WITHOUT_ROOTS_RIGHTS, Task::Try, text(&closed.join("state.db")));
    let said: Vec<String> = child::lines(&mut child).collect();
    child.wait().unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("open NotWritable"), "{said:?}");
}

const WITHOUT_ROOTS_RIGHTS: &str = "if [ \"$(id -u)\" -eq 0 ]; then exec setpriv --bounding-set=-dac_override,-dac_read_search -- \"$@\"; fi; exec \"$@\"";

/// Files of at most 1 MiB, and an error instead of the signal that would end the process.
const LITTLE_ROOM: &str = "trap '' XFSZ; ulimit -f 2048; exec \"$@\"";

#[tokio::test]
async fn no_room_is_an_error_that_keeps_what_was_acknowledged() {
    let (_folder, path) = filled(2).await;
    let mut child = child::start(LITTLE_ROOM, Task::Try, text(&path));
    let said: Vec<String> = child::lines(&mut child).collect();
    child.wait().unwrap();
    assert_eq!(said[..2], ["opened", "read"], "{said:?}");
    let failed = said[2].strip_prefix("append ").unwrap_or_else(|| panic!("{said:?}"));
    let (version, error) = failed.split_once(' ').unwrap();
    assert!(error.starts_with("NotWritable"), "{said:?}");
    assert_eq!(said[3], format!("kept {version}"));

    // With room again it goes on where it stood.
    let store = store::open(text(&path), Create::Never).await.unwrap();
    let run = store.runs().await.unwrap()[0].run.clone();
    let version = version.parse().unwrap();
    assert_eq!(store.version(&run).await.unwrap(), version);
    store.append(&run, version, None, &ana(), vec![Event::Resumed]).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    for after in [1, 7, 23] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".phasegate").join("state.db");
        let mut child = child::start("exec \"$@\"", Task::Append, text(&path));
        let mut said = child::lines(&mut child);
        let run = RunId::new(said.next().unwrap());
        let mut acknowledged: u64 = 1;
        for line in said.by_ref().take(after) {
            acknowledged = line.parse().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged = said.last().map_or(acknowledged, |line| line.parse().unwrap());

        let store = store::open(text(&path), Create::Never).await.unwrap();
        let version = store.version(&run).await.unwrap();
        assert!(version == acknowledged || version == acknowledged + 1, "{version} {acknowledged}");
        let read = store.read(&run, 0, u32::MAX).await.unwrap();
        assert_eq!(u64::try_from(read.len()).unwrap(), version);
        store.append(&run, version, None, &ana(), vec![Event::Resumed]).await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_store_whose_making_was_killed_is_made_anew() {
    for _ in 0..8 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let mut child = child::start("exec \"$@\"", Task::Append, text(&path));
        while names(folder.path()).is_empty() {
            assert!(child.try_wait().unwrap().is_none(), "the child ended before it made anything");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = store::open(text(&path), Create::IfMissing).await.unwrap();
        begin(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_copy_by_vacuum_is_a_whole_store() {
    let (folder, path) = filled(5).await;
    let store = store::open(text(&path), Create::Never).await.unwrap();
    let run = store.runs().await.unwrap()[0].run.clone();
    let copy = folder.path().join("copy.db");
    let mut db = raw(&path).await;
    sqlx::query("VACUUM INTO $1").bind(text(&copy)).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
    let copied = store::open(text(&copy), Create::Never).await.unwrap();
    assert_eq!(copied.read(&run, 0, 10).await.unwrap(), store.read(&run, 0, 10).await.unwrap());
    copied.append(&run, 5, None, &ana(), vec![Event::Resumed]).await.unwrap();
    let mut db = raw(&copy).await;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut db).await.unwrap();
    assert_eq!(mode, "wal");
    copied.close().await;
    store.close().await;
}
