//! Exit codes, and which outcome has which: the one place that decides.
//!
//! `docs/exit-codes.md` repeats this table, and a test compares both.

use crate::driver;
use crate::engine::{self, Driven, Signal, Urgent};
use crate::run::{Ending, FailureClass, RefusalKind, Stop, Way};
use crate::store;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done, or reached the point asked for.
    Done,
    /// A step failed, or the run did not end as asked.
    Failed,
    /// Only with `--detailed-exitcode`: fine, and work is pending.
    Pending,
    /// Findings in a plan, a project file or the targets.
    Findings,
    /// Stopped at a gate.
    AtGate,
    /// The lease or a claim is held by somebody else.
    Held,
    /// The plan, the targets or an approval no longer match.
    Stale,
    /// A verify found differences.
    Differs,
    /// Paused on purpose.
    Paused,
    /// Nobody can tell whether something was done, or it could not be undone.
    Stuck,
    /// The command makes no sense.
    Usage,
    /// A plan, a project file, a database or the state store is unreadable or damaged.
    Damaged,
    /// A database or the state store can't be reached.
    Unreachable,
    /// Not permitted.
    NotPermitted,
    /// Ctrl-C, after a checkpoint.
    Interrupted,
    /// SIGTERM, after a checkpoint.
    Terminated,
}

impl Exit {
    /// Every exit, in the order of their codes.
    pub const ALL: [Self; 16] = [
        Self::Done,
        Self::Failed,
        Self::Pending,
        Self::Findings,
        Self::AtGate,
        Self::Held,
        Self::Stale,
        Self::Differs,
        Self::Paused,
        Self::Stuck,
        Self::Usage,
        Self::Damaged,
        Self::Unreachable,
        Self::NotPermitted,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The code that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Pending => 2,
            Self::Findings => 3,
            Self::AtGate => 4,
            Self::Held => 5,
            Self::Stale => 6,
            Self::Differs => 7,
            Self::Paused => 8,
            Self::Stuck => 9,
            Self::Usage => 64,
            Self::Damaged => 65,
            Self::Unreachable => 69,
            Self::NotPermitted => 77,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// The reason that documents give: one stable word or two.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Pending => "pending",
            Self::Findings => "findings",
            Self::AtGate => "at-gate",
            Self::Held => "held",
            Self::Stale => "stale",
            Self::Differs => "differs",
            Self::Paused => "paused",
            Self::Stuck => "stuck",
            Self::Usage => "usage",
            Self::Damaged => "damaged",
            Self::Unreachable => "unreachable",
            Self::NotPermitted => "not-permitted",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }

    /// The exit of a signal.
    #[must_use]
    pub const fn of_signal(signal: Signal) -> Self {
        match signal {
            Signal::None => Self::Done,
            Signal::Interrupt | Signal::Now(Urgent::Interrupt) => Self::Interrupted,
            Signal::Terminate | Signal::Now(Urgent::Terminate) => Self::Terminated,
        }
    }

    /// The exit of a store's error.
    #[must_use]
    pub const fn of_store(error: &store::Error) -> Self {
        match error {
            store::Error::NoRun(_) => Self::Usage,
            store::Error::Diverged { .. } => Self::Stale,
            store::Error::Conflict { .. } | store::Error::Held(_) | store::Error::LeaseLost(_) => {
                Self::Held
            }
            store::Error::Unreachable { .. }
            | store::Error::Busy { .. }
            | store::Error::NotWritable { .. } => Self::Unreachable,
            store::Error::Damaged { .. } | store::Error::Newer { .. } => Self::Damaged,
        }
    }

    /// The exit of a failure that no further attempt helps.
    #[must_use]
    pub const fn of_failure(class: FailureClass) -> Self {
        match class {
            FailureClass::Unreachable | FailureClass::Unknown => Self::Unreachable,
            FailureClass::NotPermitted => Self::NotPermitted,
            FailureClass::Damaged => Self::Damaged,
            FailureClass::Stale => Self::Stale,
            FailureClass::Contention
            | FailureClass::TimedOut
            | FailureClass::Refused
            | FailureClass::Full
            | FailureClass::Unsafe
            | FailureClass::Cancelled => Self::Failed,
        }
    }

    /// The exit of a target's error outside a step: being busy for long counts as not being reached.
    #[must_use]
    pub const fn of_driver(error: &driver::Error) -> Self {
        match error {
            driver::Error::Failed(failure) => match failure.class {
                FailureClass::Contention | FailureClass::TimedOut | FailureClass::Full => {
                    Self::Unreachable
                }
                class => Self::of_failure(class),
            },
            driver::Error::Unknown(_) => Self::Unreachable,
            driver::Error::Ambiguous(_) => Self::Stuck,
            driver::Error::Held(_) | driver::Error::Fenced { .. } => Self::Held,
        }
    }

    /// The exit of an engine's error.
    #[must_use]
    pub const fn of_engine(error: &engine::Error) -> Self {
        match error {
            engine::Error::Store(error) => Self::of_store(error),
            engine::Error::Target { source, .. } => Self::of_driver(source),
            engine::Error::Findings(_) => Self::Findings,
            engine::Error::Refused(refusal) => Self::of_refusal(refusal.kind),
            engine::Error::Journal { .. } => Self::Damaged,
            engine::Error::TakenOver(_) | engine::Error::Hangs { .. } => Self::Held,
            // What was durable is durable, and the run can go on: the same as a step that failed.
            engine::Error::Crashed(_) => Self::Failed,
        }
    }

    /// The exit of a refusal.
    #[must_use]
    pub const fn of_refusal(kind: RefusalKind) -> Self {
        match kind {
            RefusalKind::Usage => Self::Usage,
            RefusalKind::NotPermitted => Self::NotPermitted,
            RefusalKind::Stale => Self::Stale,
            RefusalKind::Findings => Self::Findings,
        }
    }

    /// The exit of a drive that wanted the run to end as `wanted`.
    #[must_use]
    pub const fn of_driven(driven: &Driven, wanted: Ending) -> Self {
        match driven {
            Driven::Interrupted(signal) => Self::of_signal(*signal),
            Driven::Stopped(stop) => Self::of_stop(stop, wanted),
        }
    }

    const fn of_stop(stop: &Stop, wanted: Ending) -> Self {
        match stop {
            Stop::Ended(ending) => match (ending, wanted) {
                (Ending::Completed, Ending::Completed)
                | (Ending::RolledBack, Ending::RolledBack)
                | (Ending::Aborted, Ending::Aborted) => Self::Done,
                // Somebody gave the run another direction meanwhile: what was asked for did not come about.
                _ => Self::Failed,
            },
            Stop::ReachedGoal => Self::Done,
            Stop::AtGate(_) => Self::AtGate,
            // What could not be undone is between both sides, whatever the cause: somebody has to see to it.
            Stop::Ambiguous { .. } | Stop::StepFailed { way: Way::Back, .. } => Self::Stuck,
            Stop::StepFailed { failure, .. } => Self::of_failure(failure.class),
            Stop::Differs { .. } => Self::Differs,
            Stop::Paused { .. } => Self::Paused,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::run::{Evidence, Failure, Refusal, RunId, Timestamp, Verdict};

    fn failure(class: FailureClass) -> Failure {
        match driver::Error::failed(class, "no") {
            driver::Error::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    fn message() -> String {
        "no".to_owned()
    }

    #[test]
    fn codes_are_those_of_the_documentation_and_all_differ() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 64, 65, 69, 77, 130, 143]);
        let reasons: std::collections::BTreeSet<&str> =
            Exit::ALL.iter().map(|exit| exit.reason()).collect();
        assert_eq!(reasons.len(), Exit::ALL.len());
    }

    #[test]
    fn stores_errors() {
        let run = RunId::new("r");
        let head = |version| store::Head { version, hash: "h".to_owned() };
        let table = [
            (store::Error::NoRun(run.clone()), 64),
            (store::Error::Conflict { expected: 1, found: 2 }, 5),
            (store::Error::Diverged { run: run.clone(), here: head(2), there: head(1) }, 6),
            (store::Error::LeaseLost(run), 5),
            (store::Error::Unreachable { message: message() }, 69),
            (store::Error::Busy { message: message() }, 69),
            (store::Error::NotWritable { message: message() }, 69),
            (store::Error::Damaged { message: message() }, 65),
            (store::Error::Newer { message: message() }, 65),
        ];
        for (error, code) in table {
            assert_eq!(Exit::of_engine(&error.clone().into()).code(), code, "{error:?}");
        }
    }

    #[test]
    fn targets_errors_outside_a_step() {
        let table = [
            (FailureClass::Contention, 69),
            (FailureClass::Unreachable, 69),
            (FailureClass::Unknown, 69),
            (FailureClass::TimedOut, 69),
            (FailureClass::Full, 69),
            (FailureClass::Refused, 1),
            (FailureClass::NotPermitted, 77),
            (FailureClass::Damaged, 65),
            (FailureClass::Stale, 6),
            (FailureClass::Unsafe, 1),
            (FailureClass::Cancelled, 1),
        ];
        for (class, code) in table {
            let source = driver::Error::failed(class, "no");
            let error = engine::Error::Target { target: "app".into(), source };
            assert_eq!(Exit::of_engine(&error).code(), code, "{class:?}");
        }
        let fenced = driver::Error::Fenced { ours: 1, newest: 2 };
        assert_eq!(Exit::of_driver(&fenced).code(), 5);
        let unknown = driver::Error::Unknown(failure(FailureClass::Unreachable));
        assert_eq!(Exit::of_driver(&unknown).code(), 69);
    }

    #[test]
    fn refusals_and_findings() {
        let table = [
            (RefusalKind::Usage, 64),
            (RefusalKind::NotPermitted, 77),
            (RefusalKind::Stale, 6),
            (RefusalKind::Findings, 3),
        ];
        for (kind, code) in table {
            let refusal = Refusal { kind, message: message(), help: None };
            assert_eq!(Exit::of_engine(&refusal.into()).code(), code, "{kind:?}");
        }
        assert_eq!(Exit::of_engine(&engine::Error::Findings(Vec::new())).code(), 3);
        assert_eq!(Exit::of_engine(&engine::Error::TakenOver(message())).code(), 5);
        assert_eq!(Exit::of_engine(&engine::Error::Crashed(message())).code(), 1);
    }

    #[test]
    fn stops() {
        let step = || "copy".into();
        let evidence = Evidence {
            resumed: false,
            sync: None,
            verdict: Verdict::Fail,
            began_at: Timestamp::default(),
            ended_at: Timestamp::default(),
            rows: 1,
            missing: 1,
            extra: 0,
            different: 0,
            samples: Vec::new(),
        };
        let failed =
            |class| Stop::StepFailed { step: step(), way: Way::Forward, failure: failure(class) };
        let undone =
            |class| Stop::StepFailed { step: step(), way: Way::Back, failure: failure(class) };
        let table = [
            (Stop::Ended(Ending::Completed), 0),
            (Stop::Ended(Ending::RolledBack), 1),
            (Stop::ReachedGoal, 0),
            (Stop::AtGate(Vec::new()), 4),
            (failed(FailureClass::Refused), 1),
            (failed(FailureClass::Contention), 1),
            (failed(FailureClass::Full), 1),
            (failed(FailureClass::Unreachable), 69),
            (failed(FailureClass::Unknown), 69),
            (failed(FailureClass::NotPermitted), 77),
            (failed(FailureClass::Damaged), 65),
            (failed(FailureClass::Stale), 6),
            (Stop::Differs { step: step(), evidence }, 7),
            (Stop::Ambiguous { step: step(), detail: message() }, 9),
            (Stop::Paused { reason: None }, 8),
            (undone(FailureClass::Refused), 9),
            (undone(FailureClass::Unreachable), 9),
        ];
        for (stop, code) in table {
            let driven = Driven::Stopped(stop);
            assert_eq!(Exit::of_driven(&driven, Ending::Completed).code(), code, "{driven:?}");
        }
        let back = Driven::Stopped(Stop::Ended(Ending::RolledBack));
        assert_eq!(Exit::of_driven(&back, Ending::RolledBack).code(), 0);
    }

    #[test]
    fn signals() {
        let table = [
            (Signal::Interrupt, 130),
            (Signal::Terminate, 143),
            (Signal::Now(Urgent::Interrupt), 130),
            (Signal::Now(Urgent::Terminate), 143),
        ];
        for (signal, code) in table {
            let driven = Driven::Interrupted(signal);
            assert_eq!(Exit::of_driven(&driven, Ending::Completed).code(), code);
        }
    }
}
