//! Writes from the new side to an old side of which the mapping sees a part only.
//!
//! Invariant: a row that a client of the new shape wrote neither vanishes behind the filter, nor is written over one that is there.

use super::shape_sql::{Which, literal};
use super::trigger_sql::{Flow, TOUCHED, note, noted_for};

impl Flow<'_> {
    /// What comes before and after a write back to the old side where the mapping has a filter: a row that a client of
    /// the new shape wrote must not vanish because the filter no longer lets its old row pass.
    pub(super) fn watch_filter(&self, key: &[String]) -> (Vec<String>, Vec<String>) {
        let (shape, tag) = (self.shape, "here-new");
        if self.from == Which::Old || shape.filter.is_none() {
            return (Vec::new(), Vec::new());
        }
        let found = shape.key(Which::New);
        let table = shape.table(Which::New);
        let what = format!("{table} WHERE {}", shape.key_is(Which::New, key));
        let mine = noted_for(shape, tag, key);
        let message = format!(
            "phasegate: the row would fall outside the mapping's filter (mapping {})",
            shape.mapping
        );
        let after = vec![
            format!(
                "SELECT RAISE(ABORT, {}) WHERE EXISTS (SELECT 1 FROM {TOUCHED} WHERE {mine}) AND NOT {}",
                literal(&message),
                shape.has(Which::New, key),
            ),
            format!("DELETE FROM {TOUCHED} WHERE {mine}"),
        ];
        (vec![note(shape, tag, key, &found, &what)], after)
    }

    /// Refuses a write back over a row of the old side that the filter hides: it is another one, and nobody's copy.
    pub(super) fn was_in_filter(&self, key: &[String], condition: Option<&str>) -> Option<String> {
        let shape = self.shape;
        let filter = shape.filter.as_ref().filter(|_| self.from == Which::New)?;
        let condition = condition.map_or_else(String::new, |condition| format!("{condition} AND "));
        let message = format!(
            "phasegate: {} has another row of this key, outside the mapping's filter (mapping {})",
            shape.old.table, shape.mapping
        );
        Some(format!(
            "SELECT RAISE(ABORT, {}) WHERE {condition}EXISTS (SELECT 1 FROM {} WHERE {} AND {filter} IS NOT TRUE)",
            literal(&message),
            shape.table(Which::Old),
            shape.key_is(Which::Old, key),
        ))
    }
}
