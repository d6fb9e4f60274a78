//! What the ledgers of all databases have in common: what a copy's row says, how directions, endings, counts and the journal's head
//! are written down, and what a slot's token says of a fence.

use crate::copy::chunk::{Chunk, Key, Planned};
use crate::run::{Digest, Ending, FailureClass, RunId, StepId, Way, plural};

use super::{Error, Fence, Head};

/// A direction as ledgers write it.
pub(super) const fn way_name(way: Way) -> &'static str {
    match way {
        Way::Forward => "forward",
        Way::Back => "back",
    }
}

/// An ending as runs have it.
pub(super) const fn ending_name(ending: Ending) -> &'static str {
    match ending {
        Ending::Completed => "completed",
        Ending::RolledBack => "rolled_back",
        Ending::Aborted => "aborted",
    }
}

/// How an open run's row stands: of one that has entered again after it had left, with the ending that it had left with.
pub(super) const OPEN: &str = "active";

/// What a run's row says: whether it is open, and with which ending it has left.
pub(super) fn standing(state: &str) -> (bool, Option<Ending>) {
    let endings = [Ending::Completed, Ending::RolledBack, Ending::Aborted];
    let open = state.strip_prefix(OPEN);
    let left = open.unwrap_or(state).trim_start();
    (open.is_some(), endings.into_iter().find(|ending| ending_name(*ending) == left))
}

/// Where a run has no slots any more.
pub(super) fn no_claim(run: &RunId) -> Error {
    let message = format!("run {run} has no claim on this database any more");
    Error::failed(FailureClass::Stale, message)
}

/// Holds a fence's token against its slot's. A lower one than ours was never written: `damaged` makes an error of that.
pub(super) fn hold(
    fence: &Fence,
    newest: u64,
    damaged: impl FnOnce(String) -> Error,
) -> Result<(), Error> {
    let ours = fence.token();
    match newest.cmp(&ours) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Error::Fenced { ours, newest }),
        std::cmp::Ordering::Less => {
            Err(damaged(format!("the slot's token is {newest}, below ours, which is {ours}")))
        }
    }
}

/// A count as databases hold it. Counts of rows don't come near the limit.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count that a database gave; otherwise what is wrong with it.
pub(super) fn unsigned(count: i64) -> Result<u64, String> {
    u64::try_from(count).map_err(|_| format!("the ledger holds a count of {count}"))
}

/// The journal's head as it was kept; otherwise what is wrong with it.
pub(super) fn head(version: i64, hash: String) -> Result<Head, String> {
    let hash: Digest = serde_json::from_value(hash.into())
        .map_err(|_| "the head of the journal is no digest".to_owned())?;
    Ok(Head { version: unsigned(version)?, hash })
}

/// A copy's one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Copy {
    /// The last number given.
    pub seq: u64,
    /// The upper bound of that chunk.
    pub hi: Option<Key>,
    /// The largest key when the copy began: nothing beyond it is copied.
    pub frozen: Option<Key>,
    /// Everything is planned.
    pub ended: bool,
    /// Every chunk up to here is committed and folded.
    pub watermark: u64,
    /// Rows read by folded chunks.
    pub rows_read: u64,
    /// Rows written by folded chunks.
    pub rows_written: u64,
}

impl Copy {
    /// A copy up to a key, which is over at once where there is none.
    pub(super) fn up_to(frozen: Option<Key>) -> Self {
        Self { ended: frozen.is_none(), frozen, ..Self::default() }
    }

    /// What is left to plan; `None` where nothing is.
    pub(super) fn rest(&self) -> Option<Chunk> {
        let end = self.frozen.clone().filter(|_| !self.ended)?;
        Some(Chunk { lo: self.hi.clone(), hi: Some(end) })
    }

    /// The next chunk of the rest, up to the key that was found there. Where it has fewer rows than asked for, or just as many, it is
    /// the last one, and ends where the copy does.
    pub(super) fn next(&mut self, rest: Chunk, found: Option<Key>) -> Planned {
        self.ended = found.is_none() || found == rest.hi;
        let hi = found.or(rest.hi);
        self.seq += 1;
        Planned {
            seq: self.seq,
            chunk: Chunk { lo: std::mem::replace(&mut self.hi, hi.clone()), hi },
        }
    }

    /// What is said of a copy that is whole: everything is planned and committed. Rows done are rows looked at, as they are counted while
    /// the copy runs: the count never falls. How many of them had to be written says something only where clients, or somebody
    /// before, had written the others.
    pub(super) fn whole(&self, step: &StepId) -> Result<String, Error> {
        if !self.ended || self.watermark != self.seq {
            let message = format!(
                "the copy of {step} is not complete: {} of {} chunks",
                self.watermark, self.seq
            );
            return Err(Error::failed(FailureClass::Stale, message));
        }
        let chunks = plural(self.seq, "chunk");
        Ok(if self.rows_read == self.rows_written {
            format!("in {chunks}")
        } else {
            format!("{} of them written, in {chunks}", self.rows_written)
        })
    }
}

/// The rows of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// Of the source.
    pub(super) read: u64,
    /// Of the target.
    pub(super) written: u64,
}
