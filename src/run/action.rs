//! What steps do: one type per action, and the conditions, scripts and checks that they carry.

use serde::{Deserialize, Serialize};

use super::mapping::Mapping;
use super::name::{GroupName, MappingName, StepId, TargetName};
use super::throttle::Throttle;
use super::window::Window;
use crate::bounds::defaults;

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Runs statements.
    Sql(Script),
    /// Keeps both sides of a mapping in step.
    DualWrite(DualWrite),
    /// Copies a mapping's rows.
    Backfill(Backfill),
    /// Compares a mapping's sides, or a query's value with what is expected.
    Verify(Verify),
    /// Lets what follows start only while its conditions hold.
    Gate(Gate),
    /// Puts the old shape aside under another name.
    Retire(Retire),
    /// Removes what `retire` put aside.
    Drop {
        /// Whose old side goes.
        mapping: MappingName,
    },
    /// Ends a dual-write where nothing is dropped.
    StopDualWrite {
        /// Whose sync ends.
        mapping: MappingName,
    },
}

impl Action {
    /// The action's key in plans.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sql(Script { language: Language::Sql, .. }) => "sql",
            Self::Sql(Script { language: Language::Cypher, .. }) => "cypher",
            Self::DualWrite(_) => "dual_write",
            Self::Backfill(_) => "backfill",
            Self::Verify(_) => "verify",
            Self::Gate(_) => "gate",
            Self::Retire(_) => "retire",
            Self::Drop { .. } => "drop",
            Self::StopDualWrite { .. } => "stop_dual_write",
        }
    }

    /// The mapping it works on, if any.
    #[must_use]
    pub fn mapping(&self) -> Option<&MappingName> {
        match self {
            Self::DualWrite(DualWrite { mapping, .. })
            | Self::Backfill(Backfill { mapping, .. })
            | Self::Verify(Verify::Mapping { mapping, .. })
            | Self::Retire(Retire { mapping, .. })
            | Self::Drop { mapping }
            | Self::StopDualWrite { mapping } => Some(mapping),
            Self::Sql(_) | Self::Verify(Verify::Query(_)) | Self::Gate(_) => None,
        }
    }

    /// Whether performing it may change a database.
    #[must_use]
    pub const fn changes_data(&self) -> bool {
        !matches!(self, Self::Verify(_) | Self::Gate(_))
    }
}

/// Statements to run in order: in one transaction, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// The statements, split.
    pub statements: Vec<Statement>,
    /// The file they came from, relative to the plan; none when they stand in the plan.
    pub file: Option<String>,
    /// The most severe hazard of its statements.
    pub hazard: Hazard,
    /// The tables that its statements name.
    #[serde(default)]
    pub tables: Vec<String>,
    /// The tables and columns that are there after it, so that they count as present before it ran.
    #[serde(default)]
    pub creates: Vec<CreatedTable>,
    /// What they are written in.
    #[serde(default, skip_serializing_if = "Language::is_sql")]
    pub language: Language,
    /// Whether they run in one transaction.
    #[serde(default)]
    pub transaction: Transaction,
    /// Whether some of it can't be read, so that it may work on more than `tables`.
    #[serde(default)]
    pub is_opaque: bool,
}

impl Script {
    /// Whether some of it may be committed though it failed: it runs outside a transaction.
    #[must_use]
    pub fn commits_in_parts(&self) -> bool {
        self.transaction == Transaction::None
    }
}

/// What statements are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// The target's SQL.
    #[default]
    Sql,
    /// Cypher.
    Cypher,
}

impl Language {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    const fn is_sql(&self) -> bool {
        matches!(self, Self::Sql)
    }
}

/// Whether a script runs in one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transaction {
    /// All of it or nothing, together with the step's row in the ledger.
    #[default]
    Auto,
    /// Each statement by itself, since the database refuses it in a transaction. What became of one whose answer was lost,
    /// the catalogue is asked.
    None,
}

/// A table or column that a script makes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CreatedTable {
    /// The table, as the statement writes it.
    pub table: String,
    /// The column; `None`: the table with all of its columns.
    pub column: Option<String>,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Its text, without the closing semicolon.
    pub text: String,
    /// The line it starts on in the plan (or in its file), counted from 1.
    pub line: u32,
}

/// What a step or statement may destroy, as found by reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hazard {
    /// Nothing that a gate must guard.
    None,
    /// Data or objects; says what.
    Destructive(String),
    /// It can't be told; says why.
    Unknown(String),
}

impl Hazard {
    /// Whether it takes a permit to run.
    #[must_use]
    pub const fn needs_permit(&self) -> bool {
        !matches!(self, Self::None)
    }
}

/// How a step is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Nothing to undo, with the reason where the plan gave one.
    None(Option<String>),
    /// By these statements.
    Script(Script),
    /// By the action's own way back.
    Derived,
    /// Not at all; the step says why in `irreversible`.
    Impossible,
}

/// Keeps both sides of a mapping in step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DualWrite {
    /// Which mapping.
    pub mapping: MappingName,
    /// Which way.
    pub direction: Direction,
    /// By whom.
    #[serde(default, skip_serializing_if = "Writer::is_engine")]
    pub by: Writer,
    /// How far the outbox may grow, where the sides are in two databases.
    #[serde(default, skip_serializing_if = "OutboxLimits::is_usual")]
    pub outbox: OutboxLimits,
}

/// How far an outbox may grow: a source must not be filled up because the other database, or the relay, is away. Near a limit
/// it is warned of, past one the running steps of the mapping fail. Changes are never thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxLimits {
    /// How many changes of the mapping may wait.
    pub rows: u64,
    /// How long the oldest of them may have waited, in milliseconds.
    pub age_ms: u64,
    /// How many bytes their images may take.
    pub bytes: u64,
}

impl Default for OutboxLimits {
    /// A day, and what a day of a busy table may bring.
    fn default() -> Self {
        Self {
            rows: defaults::OUTBOX_ROWS,
            age_ms: defaults::OUTBOX_AGE_MS,
            bytes: defaults::OUTBOX_BYTES,
        }
    }
}

impl OutboxLimits {
    /// Whether the plan says nothing of its own.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Who writes to both sides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writer {
    /// The engine, by what it installs in the database.
    #[default]
    Engine,
    /// The application itself; this proves that it does.
    Application(Box<Probe>),
}

impl Writer {
    /// Whether it is the engine.
    #[must_use]
    pub const fn is_engine(&self) -> bool {
        matches!(self, Self::Engine)
    }
}

/// What proves that an application writes to both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub question: Question,
    /// What the answer must be.
    pub expect: Expect,
    /// How long it must have been so without a break, in milliseconds.
    pub for_ms: u64,
}

/// A question with one value for an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// A query, in the target's own language.
    Query {
        /// Whom it is asked.
        target: TargetName,
        /// One row, one column.
        query: String,
    },
    /// A URL that answers with a number.
    Http {
        /// Where.
        url: String,
    },
}

/// Which way writes are mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the old shape into the new.
    Forward,
    /// And back.
    Both,
}

/// Copies a mapping's rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backfill {
    /// Which mapping.
    pub mapping: MappingName,
    /// How many rows a chunk holds.
    pub chunk_rows: ChunkRows,
    /// How long a chunk should take, in milliseconds of database time.
    pub chunk_time_ms: u64,
    /// How many chunks may be copied at once (the target may allow fewer).
    pub workers: u32,
    /// How long to rest between chunks, in milliseconds.
    pub pause_between_ms: u64,
    /// How many rows that can't be copied may be parked; `None`: the first one fails the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub park_max: Option<u32>,
    /// What holds it back: no chunk begins while one of them holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttle: Vec<Throttle>,
    /// How long it may be held back at a stretch before the step fails, in milliseconds; for ever, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_throttled_for_ms: Option<u64>,
}

/// The size of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkRows {
    /// Follows the time a chunk should take.
    Auto,
    /// This many, always.
    Fixed(u32),
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Both sides of a mapping.
    Mapping {
        /// Which.
        mapping: MappingName,
        /// How thoroughly.
        method: Method,
        /// Whether differences are put right, and everything compared again.
        repair: bool,
        /// How many chunks of a full comparison are compared at once, where the plan says; never more than the database
        /// can do with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workers: Option<u32>,
    },
    /// The value of a query.
    Query(QueryCheck),
}

/// How thoroughly two sides are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Every row, both ways.
    Full,
    /// Only how many rows there are: PARTIAL.
    Counts,
    /// So many rows: PARTIAL.
    Sample(u32),
}

/// A query whose value is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryCheck {
    /// The query: one row, one column.
    pub query: String,
    /// What its value must be.
    pub expect: Option<Expect>,
    /// The name under which the value is kept.
    pub capture: Option<String>,
    /// How near to a captured value it must be.
    pub within: Option<Within>,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Equal to this.
    Value(Value),
    /// In this range, both ends included.
    Range {
        /// At least.
        min: Option<f64>,
        /// At most.
        max: Option<f64>,
    },
}

/// A value that a query gave or a plan expects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// No value.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Real(f64),
    /// Text.
    Text(String),
}

/// A bound relative to a captured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Within {
    /// The name it was captured under.
    pub of: String,
    /// The largest difference, in percent of the captured value.
    pub percent: f64,
}

/// The conditions of a gate, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Whose approval is needed.
    pub approvals: Vec<Approvals>,
    /// The greatest age of the evidence, in milliseconds.
    pub verified_within_ms: Option<u64>,
    /// How long something must have been well.
    pub soak: Option<Soak>,
    /// Values that queries must give.
    pub queries: Vec<GateQuery>,
    /// The times at which it may open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Things that nobody may have used for some time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unused_for: Vec<UnusedFor>,
    /// How long the oldest change that another database lacks may have waited, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_lag_max_ms: Option<u64>,
    /// How many changes other databases may lack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_rows_max: Option<u64>,
    /// How long an approval counts, in milliseconds.
    pub expires_ms: u64,
    /// Conditions that the plan didn't ask for and policy did, by name, so that they can be shown as such.
    pub from_policy: Vec<String>,
}

/// Approvals asked of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvals {
    /// The group.
    pub group: GroupName,
    /// How many distinct people of it.
    pub count: u32,
}

/// A time that something must have been well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Soak {
    /// The step from whose end (or first PASS) it counts.
    pub after: StepId,
    /// How long, in milliseconds, as the plan asks.
    pub for_ms: u64,
}

/// Something that nobody may have used for some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusedFor {
    /// How its uses are seen.
    pub by: UsedBy,
    /// For how long, in milliseconds, as the plan asks.
    pub for_ms: u64,
}

/// How uses of something are seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsedBy {
    /// By the database's own counters of the table that a forward `retire` of this mapping put aside.
    Counters(MappingName),
    /// By a query that gives how many seconds ago the last use was.
    Query {
        /// The database asked.
        target: TargetName,
        /// The query: one row, one column.
        query: String,
    },
}

/// A query condition of a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateQuery {
    /// The database asked.
    pub target: TargetName,
    /// The query: one row, one column.
    pub query: String,
    /// What its value must be.
    pub expect: Expect,
}

/// Puts the old shape aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retire {
    /// Which mapping.
    pub mapping: MappingName,
    /// What is renamed.
    pub shape: RetireShape,
    /// Functions that name it in their text and were looked at, as the plan writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<String>,
}

impl Retire {
    /// What puts a mapping's old shape aside, where no function names it.
    #[must_use]
    pub fn of(mapping: &Mapping, shape: &RetireShape) -> Self {
        Self { mapping: mapping.name.clone(), shape: shape.clone(), known: Vec::new() }
    }
}

/// What `retire` renames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetireShape {
    /// A whole table.
    Table {
        /// The old table's new name.
        old_name: String,
        /// Whether the new table takes the old one's name.
        take_name: bool,
    },
    /// Columns.
    Columns(Vec<RetiredColumn>),
}

/// One column put aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredColumn {
    /// The column.
    pub column: String,
    /// Its new name.
    pub old_name: String,
    /// The column that takes its name, in the same table.
    pub take_name: Option<String>,
}

/// When and how often a failed step is tried again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// The wait before the second attempt, in milliseconds; doubled for each one after.
    pub first_wait_ms: u64,
    /// The longest wait, in milliseconds.
    pub longest_wait_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: defaults::UNPLANNED_ATTEMPTS,
            first_wait_ms: defaults::FIRST_WAIT_MS,
            longest_wait_ms: defaults::LONGEST_WAIT_MS,
        }
    }
}
