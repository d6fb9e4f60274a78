//! Faults that tests plant in this room, to see that the promises which they break are watched. No program has them: outside tests
//! [`is_planted`] is always false.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A permit counts for ever, whatever is decided after it was made.
    PermitReused,
    /// An approval of other work counts.
    ApprovalKept,
    /// A rejection keeps no gate shut.
    RejectionForgotten,
    /// Evidence never grows too old.
    EvidenceAgeless,
    /// Evidence counts on, though a database may have lost what it is about.
    LineageForgotten,
    /// A step begins though something that it needs has not succeeded.
    NeedForgotten,
    /// A step is undone before those that needed it.
    UndoneTooEarly,
    /// A step of which something is committed passes for one that has done nothing, once it has failed.
    TracesForgotten,
    /// The end of an attempt counts for any attempt at the step.
    AttemptUnchecked,
    /// What was read for a step counts for any attempt at it.
    ReadingUnchecked,
    /// Nobody asks the ledger for what may have been done behind a gate that has shut since.
    LedgerUnasked,
    /// Sides are compared, though the run itself has parted them.
    PartedCompared,
    /// A comparison of a part is as good as a whole one.
    PartialOpens,
    /// Evidence counts under whatever sync it was made.
    SyncForgotten,
    /// Nothing has to have been well for any time.
    SoakForgotten,
    /// An amendment changes what has begun.
    AmendedBlindly,
}

/// Whether a fault is planted.
#[cfg(not(test))]
pub(super) const fn is_planted(_: Fault) -> bool {
    false
}

#[cfg(test)]
pub(super) use planting::{is_planted, plant};

#[cfg(test)]
mod planting {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Whether a fault is planted in this thread.
    pub(in crate::run) fn is_planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }

    /// Plants a fault in this thread, or takes it out.
    pub(in crate::run) fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }
}
