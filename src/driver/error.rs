//! What can go wrong on a database, in fields and without secrets.

use crate::run::{Failure, FailureClass, Private, Redact};

use super::Holder;

/// What stands for the role that acts on a target, in advice that is given where nobody knows it.
pub const ROLE: &str = "the target's role";

/// A driver's error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something failed, and it is known that nothing of the attempt was committed.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The connection ended after COMMIT was sent: it may or may not have happened. Ask the ledger.
    #[error("{}", .0.message)]
    Unknown(Failure),
    /// Neither the ledger nor the catalogue can tell whether it was done, and no further attempt will find out: an operator
    /// has to. Says what was tried and what to look at.
    #[error("{0}")]
    Ambiguous(String),
    /// Another run holds an overlapping claim on the target.
    #[error("run {} of plan {} holds this database", .0.run, .0.plan)]
    Held(Box<Holder>),
    /// The token is no longer the highest: another runner took over.
    #[error("another runner took over with token {newest}, ours was {ours}")]
    Fenced {
        /// The token of this runner.
        ours: u64,
        /// The token found.
        newest: u64,
    },
}

impl Error {
    /// A failure with a class and a sentence, and nothing else known.
    pub fn failed(class: FailureClass, message: impl Into<String>) -> Self {
        Self::Failed(Failure {
            class,
            code: None,
            message: message.into(),
            detail: None,
            help: None,
            line: None,
            private: Vec::new(),
        })
    }

    /// The class of the failure, where it is one.
    #[must_use]
    pub const fn class(&self) -> Option<FailureClass> {
        match self {
            Self::Failed(failure) | Self::Unknown(failure) => Some(failure.class),
            Self::Ambiguous(_) | Self::Held(_) | Self::Fenced { .. } => None,
        }
    }

    /// The same error without what of its sentences is to be hidden.
    #[must_use]
    pub fn redacted(mut self, redact: Redact) -> Self {
        if let Self::Failed(failure) | Self::Unknown(failure) = &mut self {
            failure.redact(redact);
        }
        self
    }

    /// The same error, whose advice names the role that acts, as SQL has it, where it could only say that there is one.
    #[must_use]
    pub fn naming(mut self, role: &str) -> Self {
        if let Self::Failed(failure) | Self::Unknown(failure) = &mut self {
            failure.help = failure.help.take().map(|help| help.replace(ROLE, role));
        }
        self
    }

    /// The same error, of whose sentences this part is data.
    #[must_use]
    pub fn with_private(mut self, part: Private) -> Self {
        if let Self::Failed(failure) | Self::Unknown(failure) = &mut self {
            failure.private.push(part);
        }
        self
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        if let Self::Failed(failure) | Self::Unknown(failure) = &mut self {
            failure.help = Some(help.into());
        }
        self
    }
}
