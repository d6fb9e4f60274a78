//! What transactions on a target are for: what tests call them by, and what drivers decide by how long they wait.
//!
//! Absent on purpose: how long that is, which each driver says of its server.

/// What a transaction is for. Names the fail points around its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxKind {
    Execute,
    Chunk,
    Plan,
    Finish,
    Enter,
    Leave,
    Install,
    Remove,
    Settle,
    Claim,
    Relayed,
    Park,
    Repair,
    Pass,
    Land,
    Retire,
    Unretire,
    Validate,
    Watch,
    Drop,
}

impl TxKind {
    /// The kind as fail points name it.
    pub const fn as_str(self) -> &'static str {
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
            Self::Claim => "claim",
            Self::Relayed => "relayed",
            Self::Park => "park",
            Self::Repair => "repair",
            Self::Pass => "pass",
            Self::Land => "land",
            Self::Retire => "retire",
            Self::Unretire => "unretire",
            Self::Validate => "validate",
            Self::Watch => "watch",
            Self::Drop => "drop",
        }
    }
}
