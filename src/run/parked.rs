//! Rows that could not be copied, as the database that keeps them tells of them.

use super::difference::{HIDDEN, Redact};

/// Rows of a mapping that are parked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parked {
    /// How many there are. Those behind the ones that are listed are counted without a look whether they are right by now.
    pub total: u64,
    /// The first of them, in an order that stays.
    pub rows: Vec<ParkedRow>,
}

impl Parked {
    /// Takes away what is to be hidden.
    pub fn redact(&mut self, redact: Redact) {
        for row in &mut self.rows {
            if redact >= Redact::Values {
                HIDDEN.clone_into(&mut row.reason);
            }
            if redact >= Redact::Keys {
                row.key.iter_mut().for_each(|(_, value)| HIDDEN.clone_into(value));
            }
        }
    }
}

/// A row that could not be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRow {
    /// Its key: names of columns, and their values as text.
    pub key: Vec<(String, String)>,
    /// The database's code for what was wrong when it was last tried.
    pub code: Option<String>,
    /// The same in words. It may hold values of the row.
    pub reason: String,
    /// Since when it is parked, by the database's clock (RFC 3339, UTC).
    pub since: String,
}
