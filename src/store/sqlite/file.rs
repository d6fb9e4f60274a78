//! The file of a SQLite store: made whole or not at all, and looked at before it is trusted.
//!
//! Invariants:
//! - A new store is built under another name and linked into place when it is complete and on disk. So a file that is
//!   empty, or has no tables, was not left by a crash of ours: it is damaged, and is never quietly begun anew.
//! - An existing file is changed only after it has been recognised as a state store of ours.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::super::schema::{self, Standing};
use super::super::{Create, Error};
use super::error::{damaged, explain};
use crate::bounds::store::{
    SQLITE_BUSY_WAIT, SQLITE_QUICK_CHECK_BYTES_MAX, SQLITE_WAL_REST, SQLITE_WAL_TRIES,
};

/// The `application_id` that the first migration writes.
const APPLICATION_ID: i64 = 1_349_011_315;

/// This program's migrations, under a table of our own.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("migrations/sqlite");
    migrator.dangerous_set_table_name("phasegate_migrations");
    migrator
}

/// How every connection to a store is opened.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(SQLITE_BUSY_WAIT)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .disable_statement_logging()
}

/// Makes the file when it is missing and may be made, looks at it, brings its schema up to date, and gives its identity.
pub(super) async fn prepare(path: &Path, create: Create) -> Result<String, Error> {
    let bytes = match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(Error::Unreachable {
                message: format!(
                    "the state store {} is a folder; give the path of a file",
                    path.display()
                ),
            });
        }
        Ok(found) => found.len(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            if create == Create::Never {
                return Err(Error::Unreachable {
                    message: format!("there is no state store at {}", path.display()),
                });
            }
            make(path).await?;
            fs::metadata(path).map_err(|error| not_writable(path, &error))?.len()
        }
        Err(error) => {
            return Err(Error::Unreachable {
                message: format!("the state store {} can't be opened: {error}", path.display()),
            });
        }
    };
    if bytes == 0 {
        return Err(damaged(path, "the file is empty"));
    }
    let mut connection = options(path).connect().await.map_err(|error| explain(path, &error))?;
    let identity = inspect(path, &mut connection, bytes).await?;
    connection.close().await.map_err(|error| explain(path, &error))?;
    Ok(identity)
}

/// Opens a file for reading only, after looking whether it is a store that this program knows.
pub(super) async fn look_at(path: &Path) -> Result<SqliteConnection, Error> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(Error::Unreachable {
                message: format!(
                    "the state store {} is a folder; give the path of a file",
                    path.display()
                ),
            });
        }
        Ok(found) if found.len() == 0 => return Err(damaged(path, "the file is empty")),
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            left_over(path)?;
            return Err(Error::Unreachable {
                message: format!("there is no state store at {}", path.display()),
            });
        }
        Err(error) => {
            return Err(Error::Unreachable {
                message: format!("the state store {} can't be opened: {error}", path.display()),
            });
        }
    }
    let options = options(path).read_only(true);
    let mut db = options.connect().await.map_err(|error| explain(path, &error))?;
    is_ours(path, &mut db).await?;
    standing(path, &mut db).await?;
    Ok(db)
}

async fn is_ours(path: &Path, db: &mut SqliteConnection) -> Result<(), Error> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(db)
        .await
        .map_err(|error| explain(path, &error))?;
    if application == APPLICATION_ID {
        return Ok(());
    }
    Err(Error::Damaged {
        message: format!(
            "{} is a SQLite database, but not a state store; a state store wants a file of its own",
            path.display()
        ),
    })
}

/// Checks that the file is ours and whole, migrates it, sets WAL, and reads the identity.
async fn inspect(path: &Path, db: &mut SqliteConnection, bytes: u64) -> Result<String, Error> {
    let failed = |error: sqlx::Error| explain(path, &error);
    is_ours(path, db).await?;
    if bytes <= SQLITE_QUICK_CHECK_BYTES_MAX {
        let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&mut *db)
            .await
            .map_err(failed)?;
        if found != "ok" {
            return Err(damaged(path, &found));
        }
    }
    if standing(path, db).await? == Standing::Behind {
        migrate(path, db).await?;
    }
    use_wal(path, db).await?;
    let identity: Option<String> = sqlx::query_scalar("SELECT identity FROM store")
        .fetch_optional(&mut *db)
        .await
        .map_err(failed)?;
    identity.ok_or_else(|| damaged(path, "its identity is missing"))
}

/// Where the schema stands; newer and altered ones are errors.
async fn standing(path: &Path, db: &mut SqliteConnection) -> Result<Standing, Error> {
    let applied: Vec<schema::Applied> = sqlx::query_as(
        "SELECT version, success, checksum FROM phasegate_migrations ORDER BY version",
    )
    .fetch_all(db)
    .await
    .map_err(|error| explain(path, &error))?;
    match schema::standing(&migrator(), &applied) {
        Standing::Newer { found, known } => Err(Error::Newer {
            message: format!(
                "the state store {} was written by a newer version of this program: its schema has version {found}, \
                 this program knows {known}; use that version",
                path.display()
            ),
        }),
        Standing::Altered(version) => Err(damaged(
            path,
            &format!("its schema's version {version} is not the one of that number"),
        )),
        standing => Ok(standing),
    }
}

/// Applies what is missing of the schema in one transaction, so that two processes can't both do it.
async fn migrate(path: &Path, db: &mut SqliteConnection) -> Result<(), Error> {
    let failed = |error: sqlx::Error| explain(path, &error);
    let mut tx = db.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    migrator().run_direct(None, &mut *tx, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            explain(path, &error)
        }
        error => damaged(path, &error.to_string()),
    })?;
    tx.commit().await.map_err(failed)
}

/// Puts the file into write-ahead mode, where it stays.
async fn use_wal(path: &Path, db: &mut SqliteConnection) -> Result<(), Error> {
    let failed = |error: sqlx::Error| explain(path, &error);
    let mode: String =
        sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *db).await.map_err(failed)?;
    if mode == "wal" {
        return Ok(());
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let set: Result<String, _> =
            sqlx::query_scalar("PRAGMA journal_mode = WAL").fetch_one(&mut *db).await;
        match set.map_err(failed) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(Error::NotWritable {
                    message: format!(
                        "the state store {} can't be put into write-ahead mode (it stays in \"{mode}\"): keep it on a \
                         local disk, or in PostgreSQL",
                        path.display()
                    ),
                });
            }
            Err(Error::Busy { .. }) if tries < SQLITE_WAL_TRIES => {
                tokio::time::sleep(SQLITE_WAL_REST).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Makes a new store: builds it beside its place, and links it there when it is whole and on disk.
async fn make(path: &Path) -> Result<(), Error> {
    left_over(path)?;
    let folder = path.parent().unwrap_or(path);
    make_folder(folder).map_err(|error| not_writable(path, &error))?;
    let draft = with_suffix(path, &format!(".{}.new", uuid::Uuid::now_v7()));
    let made = build(&draft).await.map_err(|error| renamed(error, path, &draft));
    let placed =
        made.and_then(|()| place(&draft, path).map_err(|error| not_writable(path, &error)));
    // Whatever came of it, the draft goes; one left over by a crash is in nobody's way.
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(with_suffix(&draft, suffix));
    }
    placed
}

/// Refuses where the log of a file is there without it.
fn left_over(path: &Path) -> Result<(), Error> {
    for suffix in ["-wal", "-journal"] {
        let left_over = with_suffix(path, suffix);
        if fs::metadata(&left_over).is_ok_and(|found| found.len() > 0) {
            return Err(damaged(
                path,
                &format!(
                    "the file is missing, but {} is there and holds part of it",
                    left_over.display()
                ),
            ));
        }
    }
    Ok(())
}

async fn build(draft: &Path) -> Result<(), Error> {
    let failed = |error: sqlx::Error| explain(draft, &error);
    let mut db = options(draft).create_if_missing(true).connect().await.map_err(|error| {
        // A file that can't be made is a folder that can't be written.
        match explain(draft, &error) {
            Error::Unreachable { message } => Error::NotWritable { message },
            other => other,
        }
    })?;
    migrate(draft, &mut db).await?;
    use_wal(draft, &mut db).await?;
    db.close().await.map_err(failed)
}

/// Gives the draft its name, unless somebody else's store has taken it meanwhile, which is as good.
fn place(draft: &Path, path: &Path) -> std::io::Result<()> {
    fs::File::open(draft)?.sync_all()?;
    match fs::hard_link(draft, path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        // Not every file system has hard links. A rename would replace a store made in this very moment, so look first.
        Err(_) if !path.exists() => fs::rename(draft, path)?,
        Err(error) => return Err(error),
    }
    sync_folder(path.parent().unwrap_or(path))
}

/// Makes a folder and those above it; in one that we made, git is told to keep off.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    match fs::File::create_new(folder.join(".gitignore")) {
        Ok(mut file) => file.write_all(b"*\n")?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    folder.parent().map_or(Ok(()), sync_folder)
}

/// Makes the names in a folder durable, where folders can be opened.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn not_writable(path: &Path, error: &std::io::Error) -> Error {
    Error::NotWritable {
        message: format!("the state store {} can't be made: {error}", path.display()),
    }
}

/// The error about a draft as one about the store that it was to be.
fn renamed(error: Error, path: &Path, draft: &Path) -> Error {
    let rename = |message: String| {
        message.replace(&draft.display().to_string(), &path.display().to_string())
    };
    match error {
        Error::Unreachable { message } => Error::Unreachable { message: rename(message) },
        Error::Busy { message } => Error::Busy { message: rename(message) },
        Error::NotWritable { message } => Error::NotWritable { message: rename(message) },
        Error::Damaged { message } => Error::Damaged { message: rename(message) },
        other => other,
    }
}
