//! Two mappings of one plan that write the same column: whichever writes last wins, and neither is ever verified for long.
//!
//! Absent on purpose: columns that both sides only list, which the plan's reader sees without a database.

use std::collections::BTreeSet;

use super::catalogue::same_table;
use super::survey::{Look, Side};
use crate::driver::SurveyedMapping;
use crate::run::{CopyColumns, Mapping};

/// A column that two mappings write.
pub(super) const WRITTEN_TWICE: &str = "D221";

impl Look<'_> {
    /// Holds the mappings of the plan against each other.
    pub(super) fn overlaps(&mut self) {
        // The new side of the others is in another database, which looks at it.
        let here = self.survey.mappings.iter().filter(|one| one.mapping.is_pushdown());
        let mappings: Vec<&SurveyedMapping> = here.collect();
        for (at, later) in mappings.iter().enumerate() {
            for earlier in &mappings[..at] {
                let (one, two) = (&earlier.mapping, &later.mapping);
                if !self.is_one_table(&one.into.table, &two.into.table) {
                    continue;
                }
                let theirs = self.written(one);
                let Some(column) = self.written(two).intersection(&theirs).next().cloned() else {
                    continue;
                };
                let message = format!(
                    "mappings {} and {} both write {column} of {}",
                    one.name, two.name, two.into.table
                );
                let help = "let one mapping write it; with copy: listed a mapping writes what it lists and no more";
                self.step = Some(&later.step);
                self.error(WRITTEN_TWICE, message, Some(help.to_owned()));
            }
        }
    }

    fn side_of(&self, table: &str) -> Option<&Side> {
        self.tables.get(table).and_then(Option::as_ref)
    }

    fn is_one_table(&self, one: &str, two: &str) -> bool {
        match (self.side_of(one), self.side_of(two)) {
            (Some(one), Some(two)) => one.table.oid == two.table.oid,
            _ => same_table(one, two),
        }
    }

    /// The columns that a mapping writes beside its key, as far as the tables that are there tell.
    fn written(&self, mapping: &Mapping) -> BTreeSet<String> {
        let is_key = |name: &String| mapping.into.key.contains(name);
        let mut written: BTreeSet<String> =
            mapping.columns.iter().map(|(name, _)| name.clone()).filter(|it| !is_key(it)).collect();
        if mapping.copy != CopyColumns::All || mapping.is_in_place() {
            return written;
        }
        let into = self.side_of(&mapping.into.table);
        for column in self.side_of(&mapping.from.table).iter().flat_map(|from| &from.table.columns)
        {
            let takes = |into: &Side| {
                into.table.column(&column.name).is_some_and(|column| !column.is_generated)
            };
            if !is_key(&column.name) && into.is_none_or(takes) {
                written.insert(column.name.clone());
            }
        }
        written
    }
}
