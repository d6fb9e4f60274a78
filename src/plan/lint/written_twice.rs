//! A column is written by one mapping.
//!
//! Absent on purpose: columns that `copy: all` brings along, which depend on the tables; a driver that looks finds those.

use crate::diagnostic::known as codes;
use crate::run::CopyColumns;
use crate::sql;

use super::super::document::MappingDef;
use super::super::node::At;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let mappings = &view.document.mappings;
    for (at, later) in mappings.iter().enumerate() {
        for earlier in &mappings[..at] {
            pair(view, (earlier, later), reports);
        }
    }
}

fn pair(view: &View<'_>, (earlier, later): (&MappingDef, &MappingDef), reports: &mut Reports) {
    let (Some((.., one, one_table)), Some((.., two, two_table))) =
        (earlier.tables(), later.tables())
    else {
        return;
    };
    let Some(dialect) = view.dialect_of(Some(two)) else { return };
    if one.target.value != two.target.value || !sql::same_name(dialect, one_table, two_table) {
        return;
    }
    let is_key = |column: &At<String>| {
        let key = two.key.as_ref().or(later.from.as_ref().and_then(|from| from.key.as_ref()));
        key.is_some_and(|key| {
            key.iter().any(|it| sql::same_name(dialect, &it.value, &column.value))
        })
    };
    for (column, _) in later.columns.iter().filter(|(column, _)| !is_key(column)) {
        let first = earlier
            .columns
            .iter()
            .find(|(other, _)| sql::same_name(dialect, &other.value, &column.value));
        if let Some((first, _)) = first {
            let message = format!(
                "`{}` and `{}` both write `{}` of `{two_table}`",
                earlier.name.value, later.name.value, column.value
            );
            reports
                .error(codes::WRITTEN_TWICE, column.span, message)
                .related(first.span, "the first")
                .help("let one mapping write it: whichever wrote last would win");
        }
    }
    if earlier.copies() == CopyColumns::All && later.copies() == CopyColumns::All {
        let message = format!(
            "`{}` and `{}` both copy whole rows into `{two_table}`",
            earlier.name.value, later.name.value
        );
        reports
            .error(codes::WRITTEN_TWICE, later.name.span, message)
            .related(earlier.name.span, "the first")
            .help("let one of them say `copy: listed`, and list other columns");
    }
}
