//! The pure core: what a run is, what it may do next, and what its records add up to.
//!
//! Architecture invariants:
//! - Nothing here does I/O, reads a clock or draws a random number. Time and chance come in as arguments.
//! - State is made by [`apply`] only, from records only; live execution and recovery are the same.
//! - A [`Permit`] is made by gate logic (or, for undoing, by the checks of a rollback) only; without one no destructive
//!   effect can be built.

mod action;
mod adopt;
mod apply;
mod command;
mod decide;
mod difference;
mod digest;
mod expect;
mod gate;
mod lineage;
mod mapping;
mod marked;
mod name;
mod operator;
mod parked;
mod parting;
mod people;
mod permit;
mod planted;
mod private;
mod program;
mod ready;
mod record;
mod resolve;
mod retry;
mod schedule;
mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests;
mod throttle;
mod time;
mod tuning;
mod usage;
mod window;
mod words;

pub use action::{
    Action, Approvals, Backfill, ChunkRows, CreatedTable, Direction, DualWrite, Expect, Gate,
    GateQuery, Hazard, Language, Method, OutboxLimits, Probe, QueryCheck, Question, Retire,
    RetireShape, RetiredColumn, RetryPolicy, Script, Soak, Statement, Transaction, Undo, UnusedFor,
    UsedBy, Value, Verify, Within, Writer,
};
pub use adopt::{Adoption, LostHead, StepTrace, Traces};
pub use apply::{ApplyError, apply, begin, replay};
pub use command::{Command, Refusal, RefusalKind};
pub use decide::{Decided, Input, Observation, decide};
pub use difference::{
    ColumnValues, Difference, DifferenceKind, HIDDEN, Redact, ShownValue, keys_said,
};
pub use digest::Digest;
pub use expect::{check, is_within};
pub use gate::{
    Asked, Behind, Condition, ConditionKind, ConditionVerdict, GateReport, Judged, Observations,
    SyncSeen, TargetFacts, asks, is_guarded, judged, report,
};
pub use lineage::{Looked, in_doubt};
pub use mapping::{
    CopyColumns, End, Ends, Mapping, OnDelete, OnExisting, Parking, Relation, RowKind, Winner,
};
pub use marked::{InLedger, Marked, Traced};
pub use name::{EnvironmentName, GroupName, MappingName, RunId, StepId, TargetName};
pub use operator::{beyond_return, changed, to_undo};
pub use parked::{Parked, ParkedRow};
pub use people::{Unfillable, lacking, unfillable};
pub use permit::{Permit, PermitError, Runnable};
pub use private::{Private, hide};
pub use program::{
    Added, Engine, Identity, Phase, Policy, Program, ProgramError, ProgramParts, Step, Target,
};
pub use ready::{Effect, Goal, Stop, ready, stop};
pub use record::{
    Actor, Ending, Event, Evidence, Failure, FailureClass, GateFingerprint, Outcome, PermitRecord,
    Pin, Proof, Record, Resolution, Tuning, Verdict, Way,
};
pub use resolve::{ambiguous, is_told_undone};
pub use retry::{back_off_ms, is_transient};
pub use state::{
    Decision, DecisionVerdict, GateState, Pause, Progress, Resolved, Standing, State, StepState,
};
pub use throttle::{Bound, Gauge, Limit, Moved, Signal, Throttle, Throttled, Unit};
pub use time::Timestamp;
pub use usage::{Baseline, Unused, Usage};
pub use window::{Date, Freeze, Hours, LocalTime, Weekday, Window, WindowSeen};
pub use words::{duration, plural};
