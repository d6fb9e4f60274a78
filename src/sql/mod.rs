//! SQL as text: splitting scripts, classifying statements, reading expressions, quoting names.
//!
//! Architecture invariants:
//! - Nothing here touches a database. What is said of a statement is said from its text alone.
//! - What can't be read is [`Hazard::Unknown`](crate::run::Hazard::Unknown) with the reason, or an error; never silently
//!   harmless. Where one of two readings is worse, the worse one is given.
//! - Text is never rebuilt from a syntax tree: what runs is what was written.
//!
//! SQLite and PostgreSQL are read completely, each by a parser of its own, and Cypher as far as it takes to tell what a statement
//! may destroy. For the other databases [`split`] knows their
//! quotes and comments and [`classify`] answers *unknown*: their parsers come with their drivers.
//!
//! Absent on purpose: whether a table or column exists, what a trigger that is already there does when a statement fires
//! it, and whether the plan made an object. The first two only the database knows, the last only the plan.

mod alone;
mod classify;
pub mod cypher;
mod drops;
mod expression;
mod facts;
mod identifier;
mod mention;
mod postgres;
mod reader;
mod split;
mod sqlite;
mod token;

use crate::run::Engine;

pub use alone::{Alone, NewIndex, Reindexed, Shared, alone, index_made, runs_code, shared_object};
pub use classify::classify;
pub use drops::drops_one;
pub use expression::{calls_known_only, column_refs, plain_column};
pub use facts::{Change, Complaint, Facts, LockMode, Object, RowWork, TableLock, worst};
pub use identifier::{
    folded_name, literal, long_names, qualified_name, quote, renamed, same_name, written_name,
};
pub use mention::mentions;
pub use split::{SplitError, split, unwrapped};

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    /// SQL Server.
    Sqlserver,
    /// Cypher, which Neo4j speaks.
    Cypher,
}

impl Dialect {
    /// What an engine speaks, if it is a language of statements.
    #[must_use]
    pub const fn of(engine: Engine) -> Option<Self> {
        match engine {
            Engine::Sqlite => Some(Self::Sqlite),
            Engine::Postgres => Some(Self::Postgres),
            Engine::Mysql => Some(Self::Mysql),
            Engine::Sqlserver => Some(Self::Sqlserver),
            Engine::Neo4j => Some(Self::Cypher),
            Engine::Redis => None,
        }
    }

    /// The product's name, as people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MySQL",
            Self::Sqlserver => "SQL Server",
            Self::Cypher => "Neo4j",
        }
    }
}
