//! The functions and triggers that keep columns of one table in step.

use super::shape::Shape;
use super::trigger_sql::SyncSql;
use crate::run::Direction;

/// What keeps columns of one table in step. `schema` is our own, quoted.
pub(super) fn in_place_sync(_shape: &Shape, _direction: Direction, _schema: &str) -> SyncSql {
    SyncSql::default()
}
