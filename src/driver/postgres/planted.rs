//! Faults that tests plant, to see that the oracle finds them.
//!
//! Each is a fail point `postgres::planted::<fault>`, armed with the action `return`, and asked for in the one place that it
//! spoils. In a build without the feature `failpoints` there is nothing to arm, and none is ever there.
//!
//! Absent on purpose: faults that are times of dying or failing; those are fail points of their own, around commits.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A chunk doesn't lock the rows that it reads.
    NoRowLock,
    /// What a trigger is not certain of is not noted.
    NoTouchedKeys,
    /// A trigger takes the row from `NEW`, which may be older than the row.
    NewInsteadOfReread,
    /// A chunk's mark in the ledger commits by itself, before its rows.
    NoLedgerTransaction,
    /// Triggers that are missing are taken for active.
    SyncUnproven,
    /// A comparison doesn't look for rows that only the new side has.
    VerifyOneWay,
    /// Noted keys are put right by a single statement.
    SweepInOneStatement,
    /// Names change without a wait for clients whose views are older than the last rows.
    NamesChangeAtOnce,
}

impl Fault {
    /// Whether it was planted.
    #[cfg(feature = "failpoints")]
    pub(super) fn is_planted(self) -> bool {
        let name = match self {
            Self::NoRowLock => "postgres::planted::no-row-lock",
            Self::NoTouchedKeys => "postgres::planted::no-touched-keys",
            Self::NewInsteadOfReread => "postgres::planted::new-instead-of-reread",
            Self::NoLedgerTransaction => "postgres::planted::no-ledger-transaction",
            Self::SyncUnproven => "postgres::planted::sync-unproven",
            Self::VerifyOneWay => "postgres::planted::verify-one-way",
            Self::SweepInOneStatement => "postgres::planted::sweep-in-one-statement",
            Self::NamesChangeAtOnce => "postgres::planted::names-change-at-once",
        };
        fail::fail_point!(name, |_| true);
        false
    }

    /// Whether it was planted: never.
    #[cfg(not(feature = "failpoints"))]
    pub(super) const fn is_planted(self) -> bool {
        false
    }
}
