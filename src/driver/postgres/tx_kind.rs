//! What transactions are for: how long they wait for locks, and the fail points around their commits.
//!
//! Invariants: whatever locks clients' rows waits for less than it takes the server to look for deadlocks, so that we yield and
//! not a client.
//!
//! Absent on purpose: the transactions, which are `connection`'s.

use crate::driver::Error;
#[cfg(feature = "failpoints")]
use crate::run::FailureClass;

/// How long chunks wait for a lock, in milliseconds. Always less than the server's `deadlock_timeout`, so that we yield and
/// not a client.
const CHUNK_LOCK_MS: u64 = 300;

/// How long everything else that writes waits, in milliseconds: what waits for a strong lock holds up everybody behind it.
const ONCE_LOCK_MS: u64 = 2_000;

/// What a transaction is for. Names the fail points around its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TxKind {
    Execute,
    Chunk,
    Plan,
    Finish,
    Enter,
    Leave,
    Install,
    Remove,
    Settle,
    Park,
    Repair,
    Pass,
    Retire,
    Unretire,
    Validate,
    Watch,
    Drop,
}

impl TxKind {
    /// How long to wait for a lock, in milliseconds: as a step says, and where clients' rows are locked always less than it
    /// takes the server to look for deadlocks. A server takes 0 for ever, so it is no wait of ours.
    pub(super) fn lock_ms(self, asked: Option<u64>, deadlock_ms: u64) -> u64 {
        let ms = match self {
            Self::Chunk | Self::Plan | Self::Settle | Self::Park | Self::Repair => {
                asked.unwrap_or(CHUNK_LOCK_MS).min(deadlock_ms * 3 / 4)
            }
            Self::Execute
            | Self::Finish
            | Self::Enter
            | Self::Leave
            | Self::Install
            | Self::Remove
            | Self::Pass
            | Self::Retire
            | Self::Unretire
            | Self::Validate
            | Self::Watch
            | Self::Drop => asked.unwrap_or(ONCE_LOCK_MS),
        };
        ms.max(1)
    }

    /// The kind as fail points name it.
    #[cfg(feature = "failpoints")]
    const fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Chunk => "chunk",
            Self::Plan => "plan",
            Self::Finish => "finish",
            Self::Enter => "enter",
            Self::Leave => "leave",
            Self::Install => "install",
            Self::Remove => "remove",
            Self::Settle => "settle",
            Self::Park => "park",
            Self::Repair => "repair",
            Self::Pass => "pass",
            Self::Retire => "retire",
            Self::Unretire => "unretire",
            Self::Validate => "validate",
            Self::Watch => "watch",
            Self::Drop => "drop",
        }
    }
}

/// Where a test makes the process die, or a commit seem to fail: `postgres::before-commit::<kind>` and
/// `postgres::after-commit::<kind>`, with the action `return` (the process aborts), `return(unknown)` (the outcome is
/// reported as unknown) or `return(contention)`.
#[cfg(feature = "failpoints")]
pub(super) fn fail_point(place: &str, kind: TxKind) -> Result<(), Error> {
    let name = format!("postgres::{place}-commit::{}", kind.as_str());
    fail::fail_point!(&name, |told: Option<String>| match told.as_deref() {
        Some("unknown") => Err(Error::Unknown(crate::run::Failure {
            class: FailureClass::Unreachable,
            code: None,
            message: format!("fail point {name}"),
            detail: None,
            help: None,
            line: None,
            private: Vec::new(),
        })),
        Some("contention") => Err(Error::failed(FailureClass::Contention, "fail point")),
        _ => std::process::abort(),
    });
    Ok(())
}

#[cfg(not(feature = "failpoints"))]
#[allow(clippy::unnecessary_wraps)] // so that both forms are called alike
pub(super) const fn fail_point(_place: &str, _kind: TxKind) -> Result<(), Error> {
    Ok(())
}
