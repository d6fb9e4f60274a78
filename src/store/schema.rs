//! Where a store's own schema stands against the migrations of this program.
//!
//! Both stores look before they migrate: reading takes no lock and needs no right to create anything, so a store that is
//! up to date opens while somebody else writes to it.

use sqlx::migrate::Migrator;

/// A migration as the store's own table of them has it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Applied {
    pub version: i64,
    pub success: bool,
    pub checksum: Vec<u8>,
}

/// Where a schema stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// All of this program's migrations are there, and no other.
    Current,
    /// Some are still to come.
    Behind,
    /// A newer version of this program was here.
    Newer {
        /// Its newest migration.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A migration is not the one that this program has under that number.
    Altered(i64),
}

/// Compares what was applied with what this program has.
pub(super) fn standing(migrator: &Migrator, applied: &[Applied]) -> Standing {
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or(0);
    let found = applied.iter().map(|one| one.version).max().unwrap_or(0);
    if found > known {
        return Standing::Newer { found, known };
    }
    for one in applied {
        let same = migrator
            .iter()
            .any(|ours| ours.version == one.version && *ours.checksum == one.checksum[..]);
        if !same || !one.success {
            return Standing::Altered(one.version);
        }
    }
    if applied.len() == migrator.iter().count() { Standing::Current } else { Standing::Behind }
}
