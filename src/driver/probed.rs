//! What a dry run learns of a database by looking: plain values, which each driver fills as far as its database tells.
//!
//! Invariants:
//! - A [`Probed`] comes of reads alone: on a connection that the database itself holds read-only, under a time limit of the
//!   driver's own for each query and for each lock, with no lock stronger than a SELECT's.
//! - What the database doesn't show, or doesn't show to this role, is [`Seen::Hidden`] with the reason. It is never a zero
//!   and never left out.
//! - Everything comes in few queries, whatever the number of tables and columns: a look at ten steps takes less than two
//!   seconds on a server near by.
//!
//! All but the findings is serialised as it is into the JSON of a dry run (`docs/ci.md`): a field that changes its meaning
//! raises the `schema_version` there.
//!
//! Absent on purpose: judging (but for the findings) and wording, which are the report's; anything that must be counted by
//! reading a whole large table.

use serde::Serialize;

use crate::run::{MappingName, StepId};

use super::{Error, Finding};

/// What a look at one database found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Probed {
    /// The product and its version, as people write it: `PostgreSQL 15.7`, `SQLite 3.50.2`.
    pub server: String,
    /// The findings of [`survey`](super::Introspect::survey), in its order, and behind them what the survey
    /// didn't say: D212, a right that the role lacks (severity error; the help is the GRANT or ALTER … OWNER statement, ready
    /// to be run); D213, row security that hides rows of a mapped table from the role (error); what the new table lacks that
    /// the old one has. Each message names the object. (A driver may well find D212 and D213 in its survey: then a run finds them before its first change, too.)
    #[serde(skip)]
    pub findings: Vec<Finding>,
    /// Every existing table of [`Survey::uses`](super::Survey::uses), once, in that order. One that isn't there is a finding or is
    /// created by the plan; the database's own catalogues are left out.
    pub tables: Vec<TableFacts>,
    /// What is locked with each of [`Survey::retired`](super::Survey::retired) beside its two tables, where that is there already;
    /// empty where a database locks no single tables. (In the JSON it is among the locks of its step.)
    #[serde(skip)]
    pub beside: Vec<LockedBeside>,
    /// Every mapping of [`Survey::mappings`](super::Survey::mappings) whose source is there, in that order.
    pub mappings: Vec<MappingFacts>,
    /// What the role may do, one entry for each step and table of [`Survey::uses`](super::Survey::uses), in that order. Empty
    /// where the database knows no rights (SQLite).
    pub rights: Vec<Right>,
    /// Sessions and transactions of others that a change would wait for now, or that hold up clean-up: those that hold a lock
    /// on a table of [`tables`](Self::tables), whatever its strength; those that wait for one; and every transaction
    /// open for a minute or longer. The oldest first, 50 at most. Our own are left out. `Hidden` when the role
    /// can't see the sessions of others.
    pub sessions: Seen<Vec<SessionFacts>>,
    /// Bytes free where the database keeps its tables. `Hidden` where the database doesn't tell.
    pub disk_free_bytes: Seen<u64>,
    /// Connections in use and how many there may be.
    pub connections: Seen<Connections>,
    /// Replicas and how far behind they are; empty when there are none. `Hidden` when the role can't see them, or the
    /// database has none by its nature.
    pub replicas: Seen<Vec<ReplicaFacts>>,
    /// Anything else worth a line, as full sentences without a full stop: settings that matter here
    /// (`synchronous_commit is off`), statistics never gathered, a server in recovery.
    pub notes: Vec<String>,
    /// What kept the plan's needs from being looked at. Then [`findings`](Self::findings) being empty says nothing.
    #[serde(skip)]
    pub unseen: Option<Error>,
}

/// What putting a mapping's old side aside locks beside its two tables, against everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedBeside {
    /// The mapping.
    pub mapping: MappingName,
    /// The relations, as people write them, and why; in the order of their names.
    pub locked: Vec<(String, Beside)>,
}

/// Why a relation is locked with what is put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// It is a view that is made again from its definition.
    View,
    /// A policy on it is made again.
    Policy,
    /// Its foreign key refers to what is put aside, and goes over.
    RefersToIt,
    /// A foreign key of what is put aside refers to it, and goes.
    IsReferredTo,
}

/// A value that a database shows, or why it doesn't.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen<T> {
    /// It shows it.
    Known(T),
    /// It doesn't; says why, as what follows "not visible: ".
    Hidden(String),
}

impl<T> Seen<T> {
    /// What isn't shown, and why.
    pub fn hidden(why: impl Into<String>) -> Self {
        Self::Hidden(why.into())
    }
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self::Hidden("nobody looked".to_owned())
    }
}

/// What a plan does with a table that is there before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableUse {
    /// The step.
    pub step: StepId,
    /// The table, as the plan writes it: may be qualified by a schema where the database has them.
    pub table: String,
    /// What is done with it.
    pub purpose: Purpose,
}

/// What a step does with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Statements name it, and what they do with it can't be told from their text: no right is asked for.
    Named,
    /// Its rows are read: SELECT.
    Read,
    /// Statements add rows: INSERT.
    Insert,
    /// Statements change rows: UPDATE.
    Update,
    /// Statements delete rows: DELETE.
    Delete,
    /// The engine reads, adds, changes and deletes rows: SELECT, INSERT, UPDATE, DELETE.
    Write,
    /// Its shape is changed by statements (ALTER, CREATE INDEX, COMMENT): its owner's right.
    Change,
    /// Triggers of ours are put on it, and functions act in its owner's name: its owner's right.
    Sync,
    /// It is put aside under another name, or some of its columns are: its owner's right, and dependents matter.
    Retire,
    /// It goes, or some of its columns do: its owner's right, and dependents matter.
    Drop,
}

/// A table that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableFacts {
    /// Its name as the plan writes it, so that it is found again by [`TableUse::table`].
    pub table: String,
    /// What it is, where it isn't an ordinary table: `a view`, `a partitioned table with 12 partitions`.
    pub kind: Option<String>,
    /// Who owns it, where the database knows owners.
    pub owner: Option<String>,
    /// About how many rows it has, partitions included.
    pub rows: Option<Estimate>,
    /// Bytes of its rows, with what is stored out of line, partitions included.
    pub table_bytes: Option<u64>,
    /// Bytes of its indexes.
    pub index_bytes: Option<u64>,
    /// What would be in the way of, or break by, renaming or dropping it: views, materialised views, rules, foreign keys of
    /// other tables, functions and policies that name it, as far as the catalogue knows; publications it is in.
    pub dependents: Vec<ObjectFacts>,
    /// What a table made by `LIKE … INCLUDING ALL` (or the database's nearest) would not have: foreign keys from and to
    /// it, triggers, grants, policies, another owner, where an identity or sequence stands. Empty where the database has
    /// no such statement.
    pub not_copied: Vec<ObjectFacts>,
    /// Its triggers that are not ours and not the database's own, whether enabled or not.
    pub triggers: Vec<ObjectFacts>,
    /// Row level security on it; `None` when there is none.
    pub row_security: Option<RowSecurity>,
}

/// A count and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// The count.
    pub rows: u64,
    /// Where it comes from, as what follows "rows, ": `counted`, `by the statistics of 2026-05-04 10:11 UTC`,
    /// `by the largest rowid`.
    pub basis: String,
}

/// Something of the catalogue that has to do with a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ObjectFacts {
    /// What it is, in lower case: `view`, `foreign key`, `trigger`, `policy`, `grant`, `owner`, `identity`, `publication`.
    pub kind: String,
    /// Its name; of a grant the role, of an identity the column.
    pub name: String,
    /// More about it in a few words: `disabled`, `from orders (lead_id)`, `SELECT, INSERT`, `stands at 4711, the copy's at 1`.
    pub detail: Option<String>,
}

/// Row level security on a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowSecurity {
    /// Whether it holds for the table's owner too (FORCE ROW LEVEL SECURITY).
    pub is_forced: bool,
    /// Whether it holds for the role that looks: some rows may be hidden from it. That is a finding too.
    pub binds_us: bool,
    /// Its policies.
    pub policies: Vec<String>,
}

/// What copying a mapping would find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MappingFacts {
    /// The mapping.
    pub mapping: MappingName,
    /// How the next bound of a chunk is found by the source's key, as the database plans it.
    pub key: KeyAccess,
    /// One bounded read of the source in key order, of [`SAMPLE_ROWS`](crate::bounds::probe::SAMPLE_ROWS) rows at most, by which the time of a copy is guessed.
    /// `None` when the source is empty or the key isn't usable.
    pub sample: Option<Sample>,
}

/// How the source's key is used, by EXPLAIN of the query that finds a chunk's bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyAccess {
    /// The index that serves it; `None` when the database would sort or scan the table. (On a table of few rows that is
    /// what a database rightly does: the driver then asks again with scans made dear, `enable_seqscan = off`,
    /// `enable_sort = off` in that transaction.)
    pub index: Option<String>,
    /// The plan's top lines, as the database words them, 10 at most.
    pub plan: Vec<String>,
}

/// A bounded read that was timed: the time of `SELECT count(s.*) FROM (SELECT * FROM source ORDER BY key LIMIT 5000) s` or what
/// comes nearest, which reads whole rows and sends none. The figures that turn it into the time of a copy were measured with
/// that (`docs/performance.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Rows it read.
    pub rows: u32,
    /// Time it took, in microseconds, seen from here.
    pub took_us: u64,
}

/// What the role may do with a table that a step uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Right {
    /// The step.
    pub step: StepId,
    /// The table as the plan writes it, or what else is needed: `schema phasegate`, `database app`.
    pub object: String,
    /// What the step needs: `SELECT`, `INSERT`, `owner`, `CREATE`.
    pub needed: Vec<String>,
    /// What of it the role lacks. Each is among the findings, too.
    pub lacking: Vec<String>,
}

/// A session of somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionFacts {
    /// Its process or session id, as the database's own commands take it.
    pub id: String,
    /// Its role.
    pub role: Option<String>,
    /// Its `application_name`, where it gave one.
    pub application: Option<String>,
    /// Its state: `active`, `idle in transaction`.
    pub state: String,
    /// How long its transaction has been open, in milliseconds.
    pub age_ms: u64,
    /// What it runs, or ran last: at most 200 characters, in one line. The literals in it are shown as they are only to roles
    /// that may see them in the database anyway.
    pub query: String,
    /// The tables of the plan on which it holds a lock, each with the mode: `leads (RowExclusiveLock)`.
    pub locks: Vec<String>,
    /// The sessions that it waits for.
    pub waits_for: Vec<String>,
}

/// Connections to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// In use now, ours included.
    pub used: u32,
    /// How many there may be for this role: without those kept for superusers.
    pub limit: u32,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaFacts {
    /// Its `application_name`, or its address.
    pub name: String,
    /// Its state: `streaming`.
    pub state: String,
    /// How far behind it is, in milliseconds. `None`: the server doesn't know. (One that replayed everything is at 0.)
    pub lag_ms: Option<u64>,
}

/// How large a table is, as far as that can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSize {
    /// About how many rows it has.
    pub rows: Option<u64>,
    /// How much disk it takes with its indexes, in bytes.
    pub bytes: Option<u64>,
}
