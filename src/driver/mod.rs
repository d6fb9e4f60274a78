//! What the engine asks of a database, and the databases that answer.
//!
//! Invariants:
//! - Everything that changes a target takes a [`Fence`] and checks it in the same transaction, so that a runner that lost its
//!   lease can't commit.
//! - Everything that a step changes in a transaction commits together with its row in the ledger, and finds that row when
//!   asked again: the answer is then [`Applied::before`], and nothing is done twice.
//! - What may destroy takes a [`Runnable`] or a [`Permit`], which only gate logic makes.
//! - Keys are compared by the database only. Here they are opaque.
//! - A future that is dropped ends what it had under way on the server, and nothing else. If it was committing, the ledger
//!   says whether it did.
//!
//! Absent on purpose: retries, timeouts and decisions. A driver does one thing once and says how it went.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};

use crate::copy::chunk::{Chunk, Key, Planned, Walk};
use crate::copy::compare::Compared;
use crate::copy::throttle::Part;
use crate::run::{
    Digest, Direction, Ending, Engine, FailureClass, Gauge, Mapping, Marked, Method, Permit,
    Retire, RetireShape, RunId, Runnable, Script, StepId, Traced, Usage, Value, Way,
};

mod claim;
pub mod crossing;
pub mod error;
mod fail_point;
#[cfg(test)]
mod fixture;
mod ledger;
mod lost;
pub mod neo4j;
pub mod parking;
pub mod postgres;
pub mod probed;
mod redacted;
mod shape;
pub mod sqlite;
mod suggest;
mod survey;
mod tx_kind;
mod work;

pub use claim::{Adoption, Claim, Fence, Holder, Remnant, Shared, store_identity};
use crossing::{ChangeSink, ChangeSource};
pub use error::Error;
pub use parking::Parker;
pub use probed::{Probed, Purpose, TableSize, TableUse};
pub use redacted::redacted;
pub use survey::{CreatedObject, Finding, Severity, Survey, SurveyedMapping};
use tx_kind::TxKind;
pub use work::{Applied, Copied, Head, Work, emptying, given_up, gives_up};

/// A database, as the engine uses it. One value per target; cheap to clone as an [`Arc`].
pub trait Driver:
    Session + Introspect + Signals + DualWriter + Source + Sink + Parker + Verifier + Retirer
{
}
impl<T: Session + Introspect + Signals + DualWriter + Source + Sink + Parker + Verifier + Retirer>
    Driver for T
{
}

/// A shared driver.
pub type SharedDriver = Arc<dyn Driver>;

/// What may be done through an opened database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Full,
    /// Looking only: the database itself refuses every write, whoever asks for it.
    ReadOnly,
}

/// Opens the database of a target. `url` is resolved: its secrets are in it, and no error shows it. `schema` is where our
/// own objects go in databases that have schemas.
///
/// Nothing is changed or made by opening; [`Error::Failed`] when the database can't be reached or isn't one.
pub async fn open(
    engine: Engine,
    url: &SecretString,
    schema: Option<&str>,
    access: Access,
) -> Result<SharedDriver, Error> {
    match (engine, schema) {
        (Engine::Sqlite, None) => {
            Ok(Arc::new(sqlite::Sqlite::open_for(url.expose_secret(), access).await?))
        }
        (Engine::Sqlite, Some(_)) => {
            Err(Error::failed(FailureClass::Refused, "SQLite has no schemas to put our objects in")
                .with_help("remove schema from the target"))
        }
        (Engine::Postgres, schema) => {
            let url = url.expose_secret();
            let postgres = postgres::Postgres::open(url, schema, access).await?;
            let role = postgres.role().await?;
            Ok(redacted::acting_as(Arc::new(postgres), role))
        }
        (Engine::Neo4j, None) => Ok(Arc::new(Box::pin(neo4j::Neo4j::open(url, access)).await?)),
        (Engine::Neo4j, Some(_)) => {
            Err(Error::failed(FailureClass::Refused, "Neo4j has no schemas to put our objects in")
                .with_help("remove schema from the target"))
        }
        (Engine::Redis | Engine::Sqlserver | Engine::Mysql, _) => Err(Error::failed(
            FailureClass::Refused,
            "targets on Redis, SQL Server and MySQL can't be opened yet",
        )),
    }
}

/// What a database can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How many workers a copy may have.
    pub copy_workers: u32,
    /// The longest time a chunk should take, in milliseconds, whatever the plan says: where one writer locks out all others,
    /// that is how long clients wait.
    pub chunk_time_max_ms: u64,
}

/// A database's own identity: where approvals and claims hold. Never the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The system: a cluster's system id, a file's canonical path.
    pub system: String,
    /// The database in it.
    pub database: String,
    /// The role that acts.
    pub role: String,
}

/// Whether both sides of a mapping are being kept in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// Everything is in place, by the catalogue.
    Active,
    /// Something is missing or changed; says what.
    Broken(String),
}

/// What somebody took away of the tables of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Both are there.
    Nothing,
    /// The new side, and with it whatever going back might lose. In place: the table.
    New,
    /// The old side alone.
    Old {
        /// Whether the new side has rows, which are nowhere else now.
        has_rows: bool,
    },
}

/// What is known of a copy from the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyState {
    /// Where the walker is.
    pub walk: Walk,
    /// Chunks entered and not committed, in order.
    pub open: Vec<Planned>,
    /// The largest number up to which every chunk is committed; 0 when none is.
    pub watermark: u64,
    /// Rows read by committed chunks.
    pub rows_read: u64,
    /// Rows written by committed chunks.
    pub rows_written: u64,
}

/// The connection: identity, claims, fences, statements.
#[async_trait]
pub trait Session: Send + Sync + fmt::Debug {
    /// What the database can do.
    fn capabilities(&self) -> Capabilities;

    /// Who it is.
    async fn identity(&self) -> Result<Identity, Error>;

    /// Comes back where it answers, whatever is under way.
    async fn answers(&self) -> Result<(), Error> {
        self.identity().await.map(|_| ())
    }

    /// What stands for the database's history: another text where it may lack transactions that were committed there before, because
    /// another server took its place or it was made anew. Nothing where no database of this kind tells such a thing.
    async fn lineage(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// An unfinished claim of another run that overlaps with this one, or this run's own where another state store has it now
    /// ([`Shared::Run`], but for what [`Claim::adopts`] allows), if there is any. Changes nothing.
    async fn holder(&self, claim: &Claim) -> Result<Option<Holder>, Error>;

    /// Makes our objects where they are missing, checks for overlap and enters the claim in the same transaction, ends the
    /// sessions of an earlier runner, and writes the token to every slot. From here on fences of a lower token can't
    /// commit. [`Error::Held`] when another run has it, or another state store the run.
    ///
    /// Returns a fence for each slot: [`Claim::parallel`] blocks of `1 + copy_workers`, of which the first is a step's own
    /// and the others are for its workers. Steps that run at the same time have blocks of their own, so that none waits for
    /// what another does in its transaction.
    async fn enter(&self, claim: &Claim, token: u64) -> Result<Vec<Fence>, Error>;

    /// Writes down that the run has another plan now, on the same objects.
    async fn keep_plan(&self, fence: &Fence, plan: &Digest) -> Result<(), Error>;

    /// Removes everything of ours that no other run needs, and closes the run's one row: ending, totals, head of the
    /// history. Doing it again changes nothing.
    async fn leave(&self, fence: &Fence, ending: Ending, head: &Head) -> Result<(), Error>;

    /// The machine and the process that entered last for a run, where nobody but that process can end a transaction of it.
    async fn entered_by(&self, run: &RunId) -> Result<Option<(String, u32)>, Error> {
        let _ = run;
        Ok(None)
    }

    /// What there is of the runs of a plan, open ones first, and then the newest first.
    async fn remnants(&self, plan: &str) -> Result<Vec<Remnant>, Error>;

    /// The head of the history that the target keeps for a run.
    async fn head(&self, run: &RunId) -> Result<Option<Head>, Error>;

    /// The value of a query: one row, one column; on a connection that can't write.
    async fn value(&self, query: &str) -> Result<Value, Error>;

    /// Runs a script and enters it in the ledger, in one transaction. Going back, it does nothing when the ledger has no
    /// entry of the way forward.
    async fn execute(
        &self,
        fence: &Fence,
        work: &Work,
        script: Runnable<'_>,
    ) -> Result<Applied, Error>;

    /// What the ledger has of this work.
    async fn entry(&self, run: &RunId, step: &StepId, way: Way) -> Result<Option<Applied>, Error>;

    /// Whether the ledger has this work.
    async fn is_applied(&self, run: &RunId, step: &StepId, way: Way) -> Result<bool, Error> {
        Ok(self.entry(run, step, way).await?.is_some())
    }

    /// Comes back when whatever an attempt before has sent about this work has ended: its answer may have been lost while it is still under
    /// way. Where entering ends all of that, there is nothing to wait for.
    async fn ended(&self, fence: &Fence, step: &StepId, way: Way) -> Result<(), Error> {
        let _ = (fence, step, way);
        Ok(())
    }

    /// What the ledger has of the parts of a step that doesn't run in one transaction, in their order, and what the catalogue says of
    /// those of which nobody knows whether they ended. `script` is what was being run that way, where it was one. Changes nothing.
    async fn marks(
        &self,
        run: &RunId,
        step: &StepId,
        script: Option<(Way, &Script)>,
    ) -> Result<Vec<Marked>, Error> {
        let _ = (run, step, script);
        Ok(Vec::new())
    }

    /// How much of this work the ledger has. Changes nothing.
    async fn traced(&self, run: &RunId, step: &StepId, way: Way) -> Result<Traced, Error> {
        if self.is_applied(run, step, way).await? {
            return Ok(Traced::Whole);
        }
        let marks = self.marks(run, step, None).await?;
        let of_it: Vec<bool> =
            marks.iter().filter(|mark| mark.way == way).map(|mark| mark.has_left).collect();
        Ok(if of_it.is_empty() {
            Traced::Nothing
        } else if of_it.contains(&true) {
            Traced::Parts
        } else {
            Traced::InDoubt
        })
    }

    /// Stops whatever is being executed now, as soon as the database allows.
    async fn cancel(&self);

    /// Closes every connection.
    async fn close(&self);

    /// This database as the old side of mappings into others, where it can be one.
    fn change_source(&self) -> Option<&dyn ChangeSource> {
        None
    }

    /// This database as the new side of mappings out of others, where it can be one.
    fn change_sink(&self) -> Option<&dyn ChangeSink> {
        None
    }

    /// An error of this database as it may be told.
    fn told(&self, error: Error) -> Error {
        error
    }
}

/// Looking at the catalogue.
#[async_trait]
pub trait Introspect: Send + Sync {
    /// Holds what a plan needs against what is there. Changes nothing.
    async fn survey(&self, survey: &Survey) -> Result<Vec<Finding>, Error>;

    /// Looks at everything that a release manager wants to know before the first change, findings of the survey included:
    /// [`Probed`] says what, and under which limits. For dry runs, on a driver opened with [`Access::ReadOnly`]. Fails only when
    /// the database can't be read at all; what this role may not see is [`Seen::Hidden`](probed::Seen::Hidden).
    async fn probe(&self, survey: &Survey) -> Result<Probed, Error>;

    /// The fingerprint of tables (columns, types, constraints, indexes, triggers that are not ours). A table that isn't
    /// there counts as such.
    async fn fingerprint(&self, tables: &[String]) -> Result<Digest, Error>;

    /// The database's own counters of a table's reads and writes, those of its partitions included. A database that keeps
    /// none refuses, and so does one that was told not to count.
    async fn usage(&self, table: &str) -> Result<Usage, Error> {
        let message = format!("this database keeps no counters of the uses of {table}");
        Err(Error::failed(FailureClass::Refused, message)
            .with_help("ask with a query: unused_for: { target, query, for }"))
    }

    /// How large a table is, about, without reading all of it.
    async fn size(&self, table: &str) -> Result<TableSize, Error> {
        let _ = table;
        Ok(TableSize::default())
    }
}

/// What a database knows of its own state, for throttles.
#[async_trait]
pub trait Signals: Send + Sync {
    /// Reads one of them: a part for each replica, slot or table; none where there is none. What can't be told is an error
    /// or a part without value, never a good value. `tables` are those that count for a gauge of tables.
    async fn gauge(&self, gauge: Gauge, tables: &[String]) -> Result<Vec<Part>, Error>;
}

/// Keeping both sides of a mapping in step.
#[async_trait]
pub trait DualWriter: Send + Sync {
    /// Has what clients write to the new side noted from now on, but for what the sync brings there; whoever was writing has
    /// ended. Where both sides are compared behind this and `work.compared_under` says so, [`install`](Self::install) and
    /// [`remove`](Self::remove) that go back are refused with [`FailureClass::Contention`] if something was noted since. Both end it.
    async fn watch(&self, fence: &Fence, work: &Work, mapping: &Mapping) -> Result<(), Error> {
        let _ = (fence, work, mapping);
        Ok(())
    }

    /// Installs the sync and enters it in the ledger, in one transaction.
    async fn install(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<Applied, Error>;

    /// Removes it, likewise. Where the new side was found empty when the sync began, it is emptied again when
    /// `work.way` is back; that takes several transactions, the first of which enters [`emptying`] in the ledger.
    /// Where a table of the mapping is gone, everything else of the sync goes all the same, and nothing is emptied.
    async fn remove(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<Applied, Error>;

    /// Whether it is in place, by the catalogue.
    async fn sync_state(&self, mapping: &Mapping, direction: Direction)
    -> Result<SyncState, Error>;

    /// What of the mapping's tables is gone.
    async fn gone(&self, mapping: &Mapping) -> Result<Gone, Error>;

    /// Puts right the keys that the sync could only note. Returns how many are still noted.
    async fn settle(&self, fence: &Fence, mapping: &Mapping) -> Result<u64, Error>;

    /// As [`settle`](Self::settle), where rows of the mapping refer to rows of others that are kept in step, or those to these:
    /// what has to wait for keys that others have noted is put right with them.
    async fn settle_among(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        beside: &[Mapping],
    ) -> Result<u64, Error> {
        let _ = beside;
        self.settle(fence, mapping).await
    }
}

/// The reading side of a copy: where chunks begin and end.
#[async_trait]
pub trait Source: Send + Sync {
    /// How many rows a mapping has to copy, about.
    async fn estimate(&self, mapping: &Mapping) -> Result<u64, Error>;

    /// Finds the bounds of the next `count` chunks of `rows` rows behind `walk`, enters them in the ledger, and folds
    /// chunks below the watermark into one row. The copy's upper bound is found and frozen at the first call.
    async fn plan_chunks(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        size: Window,
    ) -> Result<CopyState, Error>;

    /// Takes back chunks that are planned, numbered higher than `after` and than every committed one, so that the next plan
    /// finds other bounds for them. None of them may have been given to a worker. A driver may take back nothing.
    async fn forget_chunks(&self, fence: &Fence, work: &Work, after: u64) -> Result<(), Error> {
        let _ = (fence, work, after);
        Ok(())
    }
}

/// How much to plan ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows in each chunk.
    pub rows: u32,
    /// How many chunks.
    pub count: u32,
    /// Whether somebody says how many rows. Else they were found by how long chunks take, and may be more where fewer take as long.
    pub is_fixed: bool,
}

/// The writing side of a copy.
#[async_trait]
pub trait Sink: Send + Sync {
    /// What the ledger knows of a copy; the beginning of one when it knows nothing.
    async fn copy_state(&self, run: &RunId, step: &StepId) -> Result<CopyState, Error>;

    /// Copies one chunk and marks it committed, in one transaction.
    async fn copy_chunk(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Planned,
    ) -> Result<Copied, Error>;

    /// Ends a copy: checks that every chunk is committed, enters the step in the ledger with its totals, and forgets the
    /// chunks, in one transaction. [`Applied::rows`] are the rows read, which is what was counted on the way.
    async fn finish_copy(&self, fence: &Fence, work: &Work) -> Result<Applied, Error>;
}

/// What a comparison depends on beside rows, as text. Whoever changes any of these, or changes it and back, makes it another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// The definitions of both tables and the triggers on them.
    pub tables: String,
    /// What keeps both sides equal from then on: the triggers of the sync and what they call. May be another where nothing
    /// of this was changed, which costs another comparison.
    pub sync: String,
}

impl Basis {
    /// Stands for the sync, in the evidence of a comparison.
    #[must_use]
    pub fn of_sync(&self) -> Digest {
        Digest::of("sync", &self.sync.as_str().into())
    }
}

/// Comparing both sides of a mapping.
#[async_trait]
pub trait Verifier: Send + Sync {
    /// The end of the next chunk of about `rows` keys of either side behind `after`; `None` when the rest is one chunk.
    async fn verify_bound(
        &self,
        mapping: &Mapping,
        after: Option<&Key>,
        rows: u32,
    ) -> Result<Option<Key>, Error>;

    /// Compares one chunk both ways, in one snapshot.
    async fn compare_chunk(
        &self,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Chunk,
    ) -> Result<Compared, Error>;

    /// Compares one chunk as [`compare_chunk`](Self::compare_chunk) does, to tell what of the new side going back would lose. A row
    /// whose values can't be worked out is no error: where the new side has its key it counts as different, and else not at
    /// all. Rows of the new side whose keys are parked may be left out. The differences that it gives are of rows that the new side
    /// has.
    async fn compare_losing(
        &self,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Chunk,
    ) -> Result<Compared, Error>;

    /// Compares less than everything: how many rows there are, or so many of them.
    async fn compare_partly(
        &self,
        mapping: &Mapping,
        direction: Direction,
        method: Method,
    ) -> Result<Compared, Error>;

    /// What a full comparison depends on beside rows and the mapping, as it is now.
    async fn basis(&self, mapping: &Mapping) -> Result<Basis, Error>;

    /// What was kept of a step's unfinished pass; none where nothing was, or the pass is over.
    async fn kept_pass(&self, run: &RunId, step: &StepId) -> Result<Option<String>, Error>;

    /// Keeps how far a step's pass has come in the place of what was kept of it, under the fence; `None` forgets it.
    async fn keep_pass(
        &self,
        fence: &Fence,
        step: &StepId,
        pass: Option<&str>,
    ) -> Result<(), Error>;

    /// Makes the new side of one chunk as the old side says, through the same guarded path as the copy. Returns the
    /// rows changed. With `both` it does so only where `winner: old` says so, or where it is proven that no write of the new
    /// side was missed; else it changes nothing, since what it would take away may be what a client wrote.
    async fn repair_chunk(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Chunk,
    ) -> Result<u64, Error>;
}

/// Putting the old shape aside, and removing it.
#[async_trait]
pub trait Retirer: Send + Sync {
    /// Renames as `retire` says, in one transaction with the ledger; `mapping` has the names from before. With `both` the
    /// sync lives on under the new names; with `forward` it ends, and a guard refuses writes to a table put aside. Refused with
    /// [`FailureClass::Stale`] where the sync is another than the sides were compared under.
    async fn retire(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        retire: &Retire,
    ) -> Result<Applied, Error>;

    /// Undoes that; `mapping` has the names from before `retire`. With `forward` it is refused with
    /// [`FailureClass::Unsafe`] when the sides are no longer equal, unless `losses` accepts it.
    async fn unretire(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        shape: &RetireShape,
        losses: Losses,
    ) -> Result<Applied, Error>;

    /// Removes the sync or the guard, then what `shape` put aside, in one transaction with the ledger. `mapping` has the
    /// names from before `retire`. Refused when something else depends on it.
    async fn drop_retired(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        shape: &RetireShape,
        permit: Permit,
    ) -> Result<Applied, Error>;

    /// Removes the old side where nothing was put aside before, in bounded transactions that each count what they removed: there is no
    /// way back once it has begun. `others` are all mappings of the plan in this database. Refused with
    /// [`FailureClass::Unsafe`] where more would go than mappings are about.
    async fn drop_old(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        others: &[Mapping],
        permit: Permit,
    ) -> Result<Applied, Error> {
        let _ = (fence, work, others, permit);
        let message = format!("the old side of {} is removed behind a `retire` only", mapping.name);
        Err(Error::failed(FailureClass::Refused, message))
    }
}

/// Whether writes that reached the new side alone may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Losses {
    /// No: prove that there are none, or refuse.
    Refused,
    /// An operator accepted them by the mapping's name.
    Accepted,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_target_is_opened_by_its_engine_and_its_url_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/app.db?mode=rwc", folder.path().display());
        let driver = open(Engine::Sqlite, &url.into(), None, Access::Full).await.unwrap();
        assert_eq!(driver.identity().await.unwrap().database, "main");
        assert!(!format!("{driver:?}").contains("app.db"));
        for (engine, url, schema) in [
            (Engine::Sqlite, "sqlite://ann:hunter2@host/none.db", None),
            (Engine::Sqlite, "sqlite:x.db?key=hunter2", None),
            (Engine::Sqlite, "sqlite:hunter2", Some("mine")),
            (Engine::Postgres, "postgres://ann:hunter2@127.0.0.1:1/app", None),
            (Engine::Mysql, "mysql://ann:hunter2@host/app", None),
            (Engine::Neo4j, "bolt://ann:hunter2@127.0.0.1:1", None),
        ] {
            let url = url.to_owned().into();
            let error = open(engine, &url, schema, Access::Full).await.unwrap_err();
            assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
        }
    }
}
