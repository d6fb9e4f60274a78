//! Where journals are kept.
//!
//! Contract of every store:
//! - [`Store::append`] returns `Ok` only when the records are durable: they survive the loss of power.
//! - Records of a run are numbered from 1 without gaps. An append at any other version is [`Error::Conflict`], and nothing
//!   of it is kept.
//! - An append that carries a lease is refused with [`Error::LeaseLost`] when that lease is no longer the newest.
//! - Each record carries the hash of the chain up to it; reading checks it and answers [`Error::Damaged`].
//! - Time is the store's clock.
//! - Every call ends, also where nothing is answered any more (see `limited`).
//!
//! When an append fails with anything but [`Error::Conflict`], [`Error::NoRun`], [`Error::LeaseLost`] or [`Error::Busy`], the
//! caller does not know whether its records were kept, and must read the journal again before it acts.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use crate::run::{
    Actor, Digest, EnvironmentName, Event, Record, RunId, StepId, Throttled, Timestamp,
};

pub mod archive;
mod chain;
pub mod check;
pub mod export;
mod history;
mod lease;
mod limited;
pub mod postgres;
mod rows;
mod schema;
pub mod sqlite;
pub mod wire;
mod write;

pub use archive::{Archive, open_archive};
pub use chain::{Flaw, FlawKind, Head, Stored};
pub use history::{Fit, History, Kept};

/// A shared store.
pub type SharedStore = Arc<dyn Store>;

/// Whether a store that isn't there is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// It is made, with the folder it stands in.
    IfMissing,
    /// It is [`Error::Unreachable`].
    Never,
}

/// Opens the store at a location: `postgres://…`, `postgresql://…`, `sqlite://path`, or a path as it is. No call of it takes much longer
/// than [`ANSWER_WITHIN`](crate::bounds::store::ANSWER_WITHIN), but for an import.
pub async fn open(location: &str, create: Create) -> Result<SharedStore, Error> {
    let scheme =
        location.split_once("://").map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
    let inner: SharedStore = match scheme {
        None => Arc::new(sqlite::SqliteStore::open(Path::new(location), create).await?),
        Some((scheme, rest)) => match scheme.as_str() {
            "sqlite" => Arc::new(sqlite::SqliteStore::open(sqlite_path(rest)?, create).await?),
            "postgres" | "postgresql" => {
                Arc::new(postgres::PostgresStore::open(location, create).await?)
            }
            _ => return Err(no_store_at(&scheme)),
        },
    };
    Ok(Arc::new(limited::Limited { inner }))
}

/// The rest of such a location may hold a password, so it is not repeated.
fn no_store_at(scheme: &str) -> Error {
    Error::Unreachable {
        message: format!(
            "a state store can't be kept at {scheme}://: give a path (SQLite) or a postgres:// URL"
        ),
    }
}

/// The path of a `sqlite://` location, which is taken as it is written and takes no parameters.
fn sqlite_path(rest: &str) -> Result<&Path, Error> {
    if rest.contains('?') {
        return Err(Error::Unreachable {
            message: "the URL of a SQLite state store takes no parameters: give the path alone"
                .into(),
        });
    }
    Ok(Path::new(rest))
}

/// A run as the store lists it, without reading its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// The run.
    pub run: RunId,
    /// Its plan's name.
    pub plan: String,
    /// Its environment.
    pub environment: EnvironmentName,
    /// When it began.
    pub started_at: Timestamp,
    /// Whether its last record ended it.
    pub ended: bool,
}

/// A record with its place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// The hash of the chain up to and including it.
    pub hash: Digest,
}

/// Who asks for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// A value unique to this process's life: two processes never share it.
    pub id: String,
    /// Who drives.
    pub name: String,
    /// The machine.
    pub host: String,
    /// The machine's boot, so that a process id from before a restart isn't taken for a living one; empty if unknown.
    pub boot: String,
    /// The process.
    pub pid: u32,
    /// When the process started, in the operating system's own units; 0 if unknown.
    pub pid_started: u64,
}

/// A lease that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// Who holds it.
    pub holder: Claimant,
    /// Rises with every new holder of a run, and never falls.
    pub token: u64,
    /// Since when.
    pub since: Timestamp,
    /// The last renewal.
    pub renewed_at: Timestamp,
    /// When it lapses unless renewed.
    pub expires_at: Timestamp,
    /// Whether its holder's session was gone for sure when it was read, as far as the store itself can see that.
    pub is_left_alone: bool,
}

/// Rows done by a step, for people who look from another terminal. Not part of the journal: the ledger is the truth.
#[derive(Clone, Debug, PartialEq)]
pub struct StepProgress {
    /// The step.
    pub step: StepId,
    /// Rows done, from the ledger.
    pub rows_done: u64,
    /// Rows to do, about.
    pub rows_total: Option<u64>,
    /// When this was written.
    pub at: Timestamp,
    /// What held it back then; empty while nothing does.
    pub throttled: Vec<Throttled>,
}

/// A run that comes from another state store.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its journal, checked.
    pub history: History,
    /// The identity of the store that it comes from.
    pub store: String,
    /// The newest token that store had given for the run, and for each of its relays; 0 where there was none.
    pub tokens: Vec<(RunId, u64)>,
}

impl Arrival {
    /// The newest token for driving it.
    #[must_use]
    pub fn token(&self) -> u64 {
        let own = self.tokens.iter().find(|(of, _)| of == self.history.run());
        own.map_or(0, |(_, token)| *token)
    }
}

/// A place for journals. See the room's contract.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// What names this store in a target's claims: survives restarts, differs between stores.
    fn identity(&self) -> &str;

    /// What people call it: a path, or a URL without secrets.
    fn location(&self) -> String;

    /// The same for whoever reads it in another folder.
    fn place(&self) -> String {
        self.location()
    }

    /// What time it is, by this store's clock.
    async fn now(&self) -> Result<Timestamp, Error>;

    /// Begins a journal: its first record is `started`, an [`Event::RunStarted`].
    async fn create(&self, header: &RunHeader, by: &Actor, started: Event) -> Result<Entry, Error>;

    /// Appends to a journal behind `expected_version`. With `lease`, only while that lease is the newest and unexpired.
    async fn append(
        &self,
        run: &RunId,
        expected_version: u64,
        lease: Option<&Lease>,
        by: &Actor,
        events: Vec<Event>,
    ) -> Result<Vec<Entry>, Error>;

    /// The records behind a version, in order, at most `limit`; checked against the chain. [`Error::Conflict`] when the
    /// journal hasn't come to that version: then the store was put back to an older copy of itself.
    async fn read(&self, run: &RunId, after_version: u64, limit: u32) -> Result<Vec<Entry>, Error>;

    /// The newest version of a run's journal. Cheap: a driver asks twice a second.
    async fn version(&self, run: &RunId) -> Result<u64, Error>;

    /// All runs, newest first.
    async fn runs(&self) -> Result<Vec<RunHeader>, Error>;

    /// Takes the lease of a run for `ttl_ms`, when it is free, lapsed, or its holder is dead by `is_dead`.
    /// [`Error::Held`] otherwise.
    async fn acquire(
        &self,
        run: &RunId,
        claimant: &Claimant,
        ttl_ms: u64,
        is_dead: &(dyn for<'a> Fn(&'a Claimant) -> bool + Send + Sync),
    ) -> Result<Lease, Error>;

    /// Renews a lease; [`Error::LeaseLost`] when it is no longer the newest or has lapsed.
    async fn renew(&self, lease: &Lease, ttl_ms: u64) -> Result<Lease, Error>;

    /// Gives a lease back. Nothing happens when it was lost.
    async fn release(&self, lease: &Lease) -> Result<(), Error>;

    /// The lease of a run, also a lapsed one; none when it was given back.
    async fn lease(&self, run: &RunId) -> Result<Option<Lease>, Error>;

    /// Writes down how far steps have come.
    async fn put_progress(&self, run: &RunId, progress: &[StepProgress]) -> Result<(), Error>;

    /// How far steps had come when it was last written down.
    async fn progress(&self, run: &RunId) -> Result<Vec<StepProgress>, Error>;

    /// Writes a run that comes from another store, or what it has more than ours, in one transaction. [`Error::Diverged`] when
    /// ours has other records, or more; [`Error::Held`] while somebody drives it here.
    ///
    /// From then on this store's tokens for the run are above those of the other, and [`Store::taken_up_to`] is the other's.
    async fn import(
        &self,
        arrival: &Arrival,
        is_dead: &(dyn for<'a> Fn(&'a Claimant) -> bool + Send + Sync),
    ) -> Result<Fit, Error>;

    /// The newest token that another store had given for a run when the run came from there: a claim on a target under a
    /// token up to this one was made before, and is this store's to take over. None for a run that began here.
    async fn taken_up_to(&self, run: &RunId) -> Result<Option<u64>, Error>;

    /// Closes every connection.
    async fn close(&self);
}

/// What can go wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Somebody else appended first.
    #[error("the journal is at version {found}, not {expected}")]
    Conflict {
        /// What the caller had.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// An import and this store have different journals of one run.
    #[error(
        "run {run} is here with another journal: record {} ({}) is its last, and record {} ({}) is that of the import",
        .here.version, .here.hash, .there.version, .there.hash
    )]
    Diverged {
        /// The run.
        run: RunId,
        /// The end of this store's journal.
        here: Head,
        /// The end of the import's.
        there: Head,
    },
    /// No such run.
    #[error("no run {0} in this state store")]
    NoRun(RunId),
    /// The lease is somebody else's.
    #[error("run {} is driven by {} (pid {} on {})", .0.run, .0.holder.name, .0.holder.pid, .0.holder.host)]
    Held(Box<Lease>),
    /// The lease was lost: it lapsed, or somebody took over.
    #[error("the lease on run {0} was lost")]
    LeaseLost(RunId),
    /// The store can't be opened or reached.
    #[error("{message}")]
    Unreachable {
        /// What happened, without secrets.
        message: String,
    },
    /// It was busy for longer than we wait.
    #[error("{message}")]
    Busy {
        /// What happened.
        message: String,
    },
    /// There is no room left, or it can't be written.
    #[error("{message}")]
    NotWritable {
        /// What happened.
        message: String,
    },
    /// What is stored is not what was written.
    #[error("{message}")]
    Damaged {
        /// Where and how.
        message: String,
    },
    /// It was written by a newer version of this program.
    #[error("{message}")]
    Newer {
        /// Which format was found and which are known.
        message: String,
    },
}
