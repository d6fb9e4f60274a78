//! How long transactions wait for locks.
//!
//! Invariants: whatever locks clients' rows waits for less than it takes the server to look for deadlocks, so that we yield and
//! not a client.
//!
//! Absent on purpose: the transactions, which are `connection`'s.

use crate::bounds::postgres::{CHUNK_LOCK_MS, ONCE_LOCK_MS};
use crate::driver::TxKind;

/// How long to wait for a lock, in milliseconds: as a step says, and where clients' rows are locked always less than it
/// takes the server to look for deadlocks. A server takes 0 for ever, so it is no wait of ours.
pub(super) fn lock_ms(kind: TxKind, asked: Option<u64>, deadlock_ms: u64) -> u64 {
    let ms = match kind {
        TxKind::Chunk
        | TxKind::Plan
        | TxKind::Settle
        | TxKind::Claim
        | TxKind::Relayed
        | TxKind::Park
        | TxKind::Repair => asked.unwrap_or(CHUNK_LOCK_MS).min(deadlock_ms * 3 / 4),
        TxKind::Execute
        | TxKind::Finish
        | TxKind::Enter
        | TxKind::Leave
        | TxKind::Install
        | TxKind::Remove
        | TxKind::Pass
        | TxKind::Land
        | TxKind::Retire
        | TxKind::Unretire
        | TxKind::Validate
        | TxKind::Watch
        | TxKind::Drop => asked.unwrap_or(ONCE_LOCK_MS),
    };
    ms.max(1)
}
