//! The plan as written: every value with its place, nothing resolved, nothing left out.
//!
//! Invariants: what is in a document was read without a finding about *itself*; parts that could not be read are `None`, and
//! a finding says why. Whether the parts fit together is for [`super::lint`].

use crate::run::{
    Bound, CopyColumns, Direction, Engine, Expect, Gauge, Method, OnDelete, OnExisting, Phase,
    Window, Winner,
};

use super::node::{At, Span};

/// A plan.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Its name.
    pub name: Option<At<String>>,
    /// The databases.
    pub targets: Vec<TargetDef>,
    /// The mappings.
    pub mappings: Vec<MappingDef>,
    /// The steps.
    pub steps: Vec<StepDef>,
    /// Whether a step could not be read at all, so that it isn't among them.
    pub lacks_steps: bool,
}

/// A database.
#[derive(Clone, Debug)]
pub struct TargetDef {
    /// Its logical name.
    pub name: At<String>,
    /// Which product.
    pub engine: Option<At<Engine>>,
    /// How to reach it.
    pub url: Option<At<String>>,
    /// The schema for our own objects.
    pub schema: Option<At<String>>,
}

/// A mapping.
#[derive(Clone, Debug)]
pub struct MappingDef {
    /// Its name.
    pub name: At<String>,
    /// Where rows come from.
    pub from: Option<SideDef>,
    /// Where rows go.
    pub into: Option<SideDef>,
    /// Target columns and their expressions.
    pub columns: Vec<(At<String>, At<String>)>,
    /// Which columns beside those.
    pub copy: Option<At<CopyColumns>>,
    /// The rows it is about.
    pub filter: Option<At<String>>,
    /// Source columns and their expressions over the target row.
    pub reverse: Vec<(At<String>, At<String>)>,
    /// Where `reverse` stands.
    pub reverse_span: Option<Span>,
    /// Which side wins.
    pub winner: Option<At<Winner>>,
    /// What becomes of rows that were there.
    pub on_existing: Option<At<OnExisting>>,
    /// What becomes of copies of deleted rows.
    pub on_delete: Option<At<OnDelete>>,
}

/// One side of a mapping.
#[derive(Clone, Debug)]
pub struct SideDef {
    /// The database.
    pub target: At<String>,
    /// What kind of thing rows are there.
    pub relation: RelationDef,
    /// The key columns, if given as a list.
    pub key: Option<Vec<At<String>>>,
    /// The key properties, if given each with where its value comes from.
    pub given: Option<Vec<(At<String>, At<String>)>>,
    /// The ends of a relationship.
    pub ends: Option<[EndDef; 2]>,
    /// Properties and their expressions; only of a side that is written.
    pub properties: Vec<(At<String>, At<String>)>,
    /// Where it stands.
    pub span: Span,
}

/// An end of a relationship.
#[derive(Clone, Debug)]
pub struct EndDef {
    /// The label of the node.
    pub node: At<String>,
    /// The properties that it is known by, each with where its value comes from, if that is said.
    pub key: Vec<(At<String>, Option<At<String>>)>,
}

/// What rows are in a database.
#[derive(Clone, Debug)]
pub enum RelationDef {
    /// Rows of a table.
    Table(At<String>),
    /// Nodes of a label.
    Node(At<String>),
    /// Relationships of a type.
    Relationship(At<String>),
    /// Keys of a pattern.
    Keys(At<String>),
}

impl SideDef {
    /// The table, if rows are there in one.
    pub fn table(&self) -> Option<&str> {
        match &self.relation {
            RelationDef::Table(name) => Some(&name.value),
            _ => None,
        }
    }
}

impl MappingDef {
    /// The tables of both sides, if both are tables.
    pub fn tables(&self) -> Option<(&SideDef, &str, &SideDef, &str)> {
        match (self.from.as_ref()?, self.into.as_ref()?) {
            (
                from @ SideDef { relation: RelationDef::Table(a), .. },
                into @ SideDef { relation: RelationDef::Table(b), .. },
            ) => Some((from, &a.value, into, &b.value)),
            _ => None,
        }
    }

    /// Whether a side is nodes or relationships.
    pub fn is_of_graph(&self) -> bool {
        let is_graph = |side: &SideDef| {
            matches!(side.relation, RelationDef::Node(_) | RelationDef::Relationship(_))
        };
        self.from.iter().chain(&self.into).any(is_graph)
    }

    /// Whether its sides are in two databases.
    pub fn is_across(&self) -> bool {
        let sides = self.from.as_ref().zip(self.into.as_ref());
        sides.is_some_and(|(from, into)| from.target.value != into.target.value)
    }

    /// Whether rows of a table become nodes or relationships.
    pub fn is_into_graph(&self) -> bool {
        let is_table = |side: &SideDef| matches!(side.relation, RelationDef::Table(_));
        self.is_of_graph() && self.from.as_ref().is_some_and(is_table)
    }

    /// Target columns or properties with their expressions over the source row.
    pub fn written(&self) -> &[(At<String>, At<String>)] {
        match &self.into {
            Some(into) if self.is_of_graph() => &into.properties,
            _ => &self.columns,
        }
    }

    /// Whether both sides are one table.
    pub fn is_in_place(&self) -> bool {
        self.tables().is_some_and(|(from, a, into, b)| {
            from.target.value == into.target.value && a.eq_ignore_ascii_case(b)
        })
    }

    /// Which columns are copied beside those listed.
    pub fn copies(&self) -> CopyColumns {
        match self.copy {
            Some(copy) if !self.is_in_place() => copy.value,
            _ if self.is_in_place() => CopyColumns::Listed,
            _ => CopyColumns::All,
        }
    }
}

/// A step.
#[derive(Clone, Debug)]
pub struct StepDef {
    /// Its id.
    pub id: At<String>,
    /// Its phase.
    pub phase: Option<At<Phase>>,
    /// The database it works on.
    pub target: Option<At<String>>,
    /// What it needs, if it says so.
    pub needs: Option<At<Vec<At<String>>>>,
    /// What it is for.
    pub description: Option<At<String>>,
    /// How long an attempt may take, in milliseconds.
    pub timeout_ms: Option<At<u64>>,
    /// How long it may wait for a lock, in milliseconds.
    pub lock_timeout_ms: Option<At<u64>>,
    /// `transaction: none`.
    pub without_transaction: Option<Span>,
    /// When it is tried again.
    pub retry: Option<RetryDef>,
    /// How it is undone.
    pub undo: Option<At<UndoDef>>,
    /// Why it can't be.
    pub irreversible: Option<At<String>>,
    /// Why an unknown statement is all right.
    pub reviewed: Option<At<String>>,
    /// What it does; the place is that of the action's key.
    pub action: Option<At<ActionDef>>,
}

/// When a step is tried again.
#[derive(Clone, Copy, Debug)]
pub struct RetryDef {
    /// Attempts in all.
    pub attempts: Option<u32>,
    /// The first wait, in milliseconds.
    pub wait_ms: Option<u64>,
    /// The longest wait, in milliseconds.
    pub longest_wait_ms: Option<u64>,
}

/// How a step is undone.
#[derive(Clone, Debug)]
pub enum UndoDef {
    /// By statements.
    Sql(ScriptDef),
    /// By Cypher.
    Cypher(ScriptDef),
    /// By the statements of a file, in the language of the target.
    File(ScriptDef),
    /// Nothing to undo, because.
    None(String),
}

/// Statements, or where they are.
#[derive(Clone, Debug)]
pub enum ScriptDef {
    /// In the plan.
    Inline {
        /// The statements.
        text: At<String>,
        /// The line of the plan that their first line stands on.
        first_line: u32,
    },
    /// In a file, relative to the plan.
    File(At<String>),
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum ActionDef {
    /// SQL statements.
    Sql(ScriptDef),
    /// Cypher statements.
    Cypher(ScriptDef),
    /// Redis commands.
    Redis,
    /// Mirrors writes.
    DualWrite(DualWriteDef),
    /// Copies rows.
    Backfill(BackfillDef),
    /// Compares.
    Verify(VerifyDef),
    /// Waits for conditions.
    Gate(GateDef),
    /// Puts the old shape aside.
    Retire(RetireDef),
    /// Removes the old shape.
    Drop {
        /// Whose.
        mapping: At<String>,
    },
    /// Ends the mirroring.
    StopDualWrite {
        /// Whose.
        mapping: At<String>,
    },
    /// Backs up.
    Backup,
    /// Runs a program.
    Command,
}

impl ActionDef {
    /// Its statements, where it has any.
    pub const fn script(&self) -> Option<&ScriptDef> {
        match self {
            Self::Sql(script) | Self::Cypher(script) => Some(script),
            _ => None,
        }
    }

    /// Its key in plans.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sql(_) => "sql",
            Self::Cypher(_) => "cypher",
            Self::Redis => "redis",
            Self::DualWrite(_) => "dual_write",
            Self::Backfill(_) => "backfill",
            Self::Verify(_) => "verify",
            Self::Gate(_) => "gate",
            Self::Retire(_) => "retire",
            Self::Drop { .. } => "drop",
            Self::StopDualWrite { .. } => "stop_dual_write",
            Self::Backup => "backup",
            Self::Command => "command",
        }
    }

    /// The mapping it names.
    pub fn mapping(&self) -> Option<&At<String>> {
        match self {
            Self::DualWrite(DualWriteDef { mapping, .. })
            | Self::Backfill(BackfillDef { mapping, .. })
            | Self::Verify(VerifyDef { check: CheckDef::Mapping { mapping, .. }, .. })
            | Self::Retire(RetireDef { mapping, .. })
            | Self::Drop { mapping }
            | Self::StopDualWrite { mapping } => Some(mapping),
            _ => None,
        }
    }
}

/// Who mirrors writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The engine, by triggers.
    Engine,
    /// The application.
    Application,
    /// Nobody writes.
    Nobody,
}

/// What becomes of a row that can't be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The write, or the step, fails.
    Fail,
    /// It is put aside.
    Park,
}

/// `dual_write`.
#[derive(Clone, Debug)]
pub struct DualWriteDef {
    /// Whose rows.
    pub mapping: At<String>,
    /// Which way.
    pub direction: At<Direction>,
    /// By whom.
    pub by: Option<At<Writer>>,
    /// What a failure does.
    pub on_error: Option<At<OnError>>,
    /// How it is seen that the application does it.
    pub probe: Option<ProbeDef>,
    /// How far the outbox may grow.
    pub outbox: Option<At<OutboxDef>>,
}

/// `outbox` of a dual-write into another database.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutboxDef {
    /// Changes in it.
    pub rows: Option<u64>,
    /// The age of the oldest, in milliseconds.
    pub age_ms: Option<u64>,
    /// What they take, in bytes.
    pub bytes: Option<u64>,
}

/// A probe.
#[derive(Clone, Debug)]
pub struct ProbeDef {
    /// Where it stands.
    pub span: Span,
    /// What is asked: a query or a URL.
    pub asked: Option<At<String>>,
    /// Under which key.
    pub kind: &'static str,
    /// On which database, where it is a query; the mapping's source, if it isn't said.
    pub target: Option<At<String>>,
    /// What the answer must be.
    pub expect: Option<Expect>,
    /// How long it must hold, in milliseconds.
    pub for_ms: Option<At<u64>>,
}

/// `backfill`.
#[derive(Clone, Debug)]
pub struct BackfillDef {
    /// Whose rows.
    pub mapping: At<String>,
    /// Rows of a chunk; `None` follows the time.
    pub chunk_rows: Option<u32>,
    /// Time of a chunk, in milliseconds.
    pub chunk_time_ms: Option<u64>,
    /// Chunks at once.
    pub workers: Option<u32>,
    /// Rest between chunks, in milliseconds.
    pub pause_between_ms: Option<u64>,
    /// What holds it back.
    pub throttle: Vec<ThrottleDef>,
    /// How long it may be held back at a stretch, in milliseconds.
    pub max_throttled_for_ms: Option<At<u64>>,
    /// What a row that can't be written does.
    pub on_row_error: Option<At<OnError>>,
    /// How many such rows may be parked.
    pub park_max: Option<At<u32>>,
}

/// A throttle.
#[derive(Clone, Debug)]
pub struct ThrottleDef {
    /// Its name.
    pub name: At<String>,
    /// The database asked; the step's, if not given.
    pub target: Option<At<String>>,
    /// What is looked at.
    pub signal: SignalDef,
    /// From where on it holds.
    pub bound: Option<At<Bound>>,
    /// How often it is looked at, in milliseconds.
    pub every_ms: Option<u64>,
}

/// What a throttle looks at.
#[derive(Clone, Debug)]
pub enum SignalDef {
    /// What a database knows of itself.
    Gauge(At<Gauge>),
    /// A query's value.
    Query { query: At<String>, is_cypher: bool },
    /// What answers at a URL.
    Http(At<String>),
    /// A file that is there.
    File(At<String>),
    /// Local times.
    Window(Window),
}

impl SignalDef {
    /// Why it can't have such a limit.
    pub fn complaint(&self, bound: Bound) -> Option<&'static str> {
        let of = match self {
            Self::Gauge(gauge) => Some(gauge.value),
            _ => None,
        };
        bound.complaint(of)
    }
}

/// `verify`.
#[derive(Clone, Debug)]
pub struct VerifyDef {
    /// What is looked at.
    pub check: CheckDef,
}

/// What a verify looks at.
#[derive(Clone, Debug)]
pub enum CheckDef {
    /// Both sides of a mapping.
    Mapping {
        /// Which.
        mapping: At<String>,
        /// How thoroughly.
        method: At<Method>,
        /// Whether differences are put right.
        repair: bool,
        /// How many chunks are compared at once.
        workers: Option<u32>,
    },
    /// A query's value.
    Query(QueryDef),
    /// Something that comes later: `http`.
    Later(At<&'static str>),
}

/// A query with what is expected of it.
#[derive(Clone, Debug)]
pub struct QueryDef {
    /// The query.
    pub query: At<String>,
    /// Whether it is in Cypher.
    pub is_cypher: bool,
    /// What its value must be.
    pub expect: Option<Expect>,
    /// The name its value is kept under.
    pub capture: Option<At<String>>,
    /// How near to a captured value.
    pub within: Option<(At<String>, f64)>,
}

/// `gate`.
#[derive(Clone, Debug, Default)]
pub struct GateDef {
    /// Whose approval.
    pub approvals: Vec<(At<String>, At<u32>)>,
    /// The greatest age of evidence, in milliseconds.
    pub verified_within_ms: Option<At<u64>>,
    /// What must have been well, and for how long in milliseconds.
    pub soak: Option<(At<String>, At<u64>)>,
    /// Queries.
    pub queries: Vec<GateQueryDef>,
    /// The times at which it may open.
    pub window: Option<Window>,
    /// What must have been unused.
    pub unused_for: Vec<UnusedDef>,
    /// How long the oldest change that another database lacks may have waited, in milliseconds.
    pub relay_lag_max_ms: Option<At<u64>>,
    /// How many changes other databases may lack.
    pub relay_rows_max: Option<At<u32>>,
    /// How long approvals count, in milliseconds.
    pub expires_ms: Option<At<u64>>,
    /// Conditions that come later.
    pub later: Vec<At<&'static str>>,
}

/// Something that must have been unused.
#[derive(Clone, Debug)]
pub struct UnusedDef {
    /// How its uses are seen.
    pub by: UsedByDef,
    /// For how long, in milliseconds.
    pub for_ms: At<u64>,
}

/// How uses are seen.
#[derive(Clone, Debug)]
pub enum UsedByDef {
    /// By the counters of what a retire of this mapping put aside.
    Counters(At<String>),
    /// By a query.
    Query {
        /// The database asked; the step's, if not given.
        target: Option<At<String>>,
        /// The query: seconds since the last use.
        query: At<String>,
    },
}

/// A query condition.
#[derive(Clone, Debug)]
pub struct GateQueryDef {
    /// The database asked; the step's, if not given.
    pub target: Option<At<String>>,
    /// The query.
    pub query: At<String>,
    /// What its value must be.
    pub expect: Expect,
}

/// `retire`.
#[derive(Clone, Debug)]
pub struct RetireDef {
    /// Whose old side.
    pub mapping: At<String>,
    /// What the old table is called afterwards.
    pub old_name: Option<At<String>>,
    /// Whether the new table takes the old one's name.
    pub take_name: Option<At<bool>>,
    /// The columns, where no whole table is put aside.
    pub columns: Option<At<Vec<RetiredColumnDef>>>,
    /// Functions that name the old shape in their text and were looked at.
    pub known: Vec<At<String>>,
}

/// A column put aside.
#[derive(Clone, Debug)]
pub struct RetiredColumnDef {
    /// The column.
    pub column: At<String>,
    /// Its new name.
    pub old_name: At<String>,
    /// Who takes its name.
    pub take_name: Option<At<String>>,
}
