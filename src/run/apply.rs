//! From records to state: one total function for live runs and recovery.

use super::record::Record;
use super::state::State;

/// Why records make no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A journal must begin with the run's start.
    #[error("the journal does not begin with the start of a run")]
    NoStart,
    /// A record is missing or out of place.
    #[error("record {found} stands where {expected} must be")]
    OutOfPlace {
        /// The version needed.
        expected: u64,
        /// The version found.
        found: u64,
    },
}

/// The state after the first record.
pub fn begin(_first: &Record) -> Result<State, ApplyError> {
    Err(ApplyError::NoStart)
}

/// The state after another record.
pub fn apply(_state: &mut State, _record: &Record) -> Result<(), ApplyError> {
    Ok(())
}

/// The state after all of a journal.
pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<State, ApplyError> {
    let mut records = records.into_iter();
    let mut state = begin(records.next().ok_or(ApplyError::NoStart)?)?;
    for record in records {
        apply(&mut state, record)?;
    }
    Ok(state)
}
