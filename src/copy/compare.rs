//! What a comparison of chunks adds up to.

use crate::run::Difference;

/// How many differences are kept to be shown; all are counted.
pub const SAMPLES_MAX: usize = 20;

/// The result of comparing some rows both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Rows looked at: the larger of both sides' counts.
    pub rows: u64,
    /// Rows that only the old side has.
    pub missing: u64,
    /// Rows that only the new side has.
    pub extra: u64,
    /// Rows whose columns differ.
    pub different: u64,
    /// Rows that aren't as they should be, of keys that the sync has noted and that are still to be put right: neither
    /// differences nor right. They are put right and compared again.
    pub pending: u64,
    /// A few of the differences.
    pub samples: Vec<Difference>,
    /// Time spent in the database, in microseconds.
    pub took_us: u64,
}

impl Compared {
    /// Whether nothing differs in what was looked at, and nothing is undecided.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.missing == 0 && self.extra == 0 && self.different == 0 && self.pending == 0
    }

    /// Adds another chunk's result to this one.
    pub fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.missing += other.missing;
        self.extra += other.extra;
        self.different += other.different;
        self.pending += other.pending;
        self.took_us += other.took_us;
        let room = SAMPLES_MAX.saturating_sub(self.samples.len());
        self.samples.extend(other.samples.into_iter().take(room));
    }
}
