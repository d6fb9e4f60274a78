//! What a statement may destroy, makes, drops and touches.

use super::facts::Facts;
use super::{Dialect, cypher, postgres, sqlite};

/// What one statement does, as far as its text tells. Never fails: what can't be read is *unknown*.
#[must_use]
pub fn classify(dialect: Dialect, statement: &str) -> Facts {
    match dialect {
        Dialect::Sqlite => sqlite::classify(statement),
        Dialect::Postgres => postgres::classify(statement),
        Dialect::Cypher => cypher::classify(statement),
        Dialect::Mysql | Dialect::Sqlserver => {
            Facts::unknown(format!("statements of {} can't be read yet", dialect.name()))
        }
    }
}
