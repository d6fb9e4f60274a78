//! SQLite.
//!
//! One connection writes, a few read. Every change happens in a transaction of `connection`, which checks the fence; what is
//! done is entered in `ledger` and `chunks`. The other files are the traits of the driver.

use std::path::PathBuf;
use std::str::FromStr as _;

use sqlx::sqlite::SqliteConnectOptions;

use crate::driver::{Access, Error};
use crate::run::FailureClass;

mod catalogue;
mod cells;
mod chunks;
mod claim;
mod connection;
mod counterpart;
mod dual_write;
mod error;
mod expression;
#[cfg(test)]
mod fixture;
mod foreign_keys;
mod identity;
mod introspect;
mod ledger;
mod park;
#[cfg(test)]
mod park_tests;
mod passes;
mod prepared;
mod probe;
mod rename;
mod retire;
mod script;
mod session;
mod shape;
mod shape_sql;
mod signals;
mod sink;
mod source;
mod survey;
#[cfg(test)]
mod survey_tests;
mod trigger_filter;
mod trigger_in_place;
mod trigger_sql;
mod turns;
mod verify;
#[cfg(test)]
mod verify_tests;
#[cfg(test)]
mod whole_run_tests;

#[cfg(test)]
mod retire_tests;
#[cfg(test)]
mod sync_both_tests;
#[cfg(test)]
mod sync_in_place_tests;
#[cfg(test)]
mod sync_properties;
#[cfg(test)]
mod sync_tests;

use connection::{Connections, MissingFile};

/// A SQLite database file.
#[derive(Debug)]
pub struct Sqlite {
    connections: Connections,
    shapes: prepared::Shapes,
}

impl Sqlite {
    /// Opens the database of a URL: `sqlite:path` or `sqlite://path`, with `?mode=ro`, `rw` or `rwc`.
    ///
    /// Looks at the file and changes nothing. A file that isn't there is an error, but for `mode=rwc`, where the first
    /// write makes it.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::open_for(url, Access::Full).await
    }

    /// As [`open`](Self::open). For [`Access::ReadOnly`] the file is opened for reading whatever the URL says, so that SQLite
    /// itself refuses to write, and a killed process's journal is left to whoever may write.
    pub async fn open_for(url: &str, access: Access) -> Result<Self, Error> {
        let (options, missing) = read_url(url)?;
        let (options, missing) = match (access, missing) {
            (Access::Full, missing) => (options, missing),
            (Access::ReadOnly, MissingFile::Made) => (options.read_only(true), MissingFile::Empty),
            (Access::ReadOnly, missing) => (options.read_only(true), missing),
        };
        let file = options.get_filename().to_owned();
        let is_there = tokio::fs::try_exists(&file).await.unwrap_or(false);
        if !is_there && missing == MissingFile::Refused {
            let message = format!("there is no database file {}", shown(&file));
            return Err(Error::failed(FailureClass::Unreachable, message)
                .with_help("check the path, or add ?mode=rwc to the URL to make the file"));
        }
        let sqlite = Self {
            connections: Connections::new(options, missing),
            shapes: prepared::Shapes::default(),
        };
        match sqlite.look().await {
            // It is there; whoever uses it first waits, or says who has it.
            Err(error) if error.class() == Some(FailureClass::Contention) => {}
            looked => looked?,
        }
        Ok(sqlite)
    }

    /// Reads something, so that a file that is no database is found out.
    async fn look(&self) -> Result<(), Error> {
        let mut reader = self.connections.read().await?;
        sqlx::query("SELECT count(*) FROM sqlite_schema")
            .fetch_one(reader.conn())
            .await
            .map_err(error::failed("read the database"))?;
        reader.release().await;
        Ok(())
    }
}

/// What a URL asks for. Its text never gets into an error.
fn read_url(url: &str) -> Result<(SqliteConnectOptions, MissingFile), Error> {
    let refused = |message: &str| {
        Error::failed(FailureClass::Refused, message)
            .with_help("write it as sqlite:path/to/file.db, with ?mode=ro, rw or rwc if need be")
    };
    if !url.starts_with("sqlite:") {
        return Err(refused("the URL of a SQLite database begins with sqlite:"));
    }
    let options = SqliteConnectOptions::from_str(url).map_err(|_| {
        refused("the URL names no SQLite database, or has a parameter that is unknown")
    })?;
    let params = url.split_once('?').map_or("", |(_, params)| params);
    let mode = url::form_urlencoded::parse(params.as_bytes())
        .filter(|(key, _)| key == "mode")
        .last()
        .map(|(_, mode)| mode.into_owned());
    let path = options.get_filename().as_os_str();
    if mode.as_deref() == Some("memory") || url.contains(":memory:") {
        return Err(refused(
            "a database in memory ends with the process, so no run can work on it",
        ));
    }
    if path.is_empty() {
        return Err(refused("the URL names no file"));
    }
    let missing =
        if mode.as_deref() == Some("rwc") { MissingFile::Made } else { MissingFile::Refused };
    Ok((options, missing))
}

/// A path as errors show it: without what looks like a name and password of another database's URL.
fn shown(path: &std::path::Path) -> String {
    let path = path.display().to_string();
    match path.rsplit_once('@') {
        Some((before, after)) if before.contains(':') => format!("…@{after}"),
        _ => path,
    }
}

/// The file as an absolute path without links, as far as it exists.
fn canonical(file: &std::path::Path) -> PathBuf {
    if let Ok(path) = file.canonicalize() {
        return path;
    }
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let parent = absolute.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, absolute.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => absolute,
    }
}
