//! With `direction: both` every column has a way back; without, nobody writes one.

use std::collections::BTreeSet;

use crate::diagnostic::known as codes;
use crate::sql;

use super::super::document::MappingDef;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (mapping, life) in view.mappings() {
        if life.is_both_ways() {
            missing(view, mapping, reports);
        } else if let Some(span) = mapping.reverse_span
            && !life.dual_writes.is_empty()
        {
            let message = format!("no step mirrors `{}` both ways", mapping.name.value);
            reports
                .warning(codes::REVERSE_UNUSED, span, message)
                .help("remove `reverse`, or write `direction: both` in the dual_write");
        }
    }
}

fn missing(view: &View<'_>, mapping: &MappingDef, reports: &mut Reports) {
    let Some(dialect) = view.dialect_of(mapping.from.as_ref()) else { return };
    let key = mapping.from.iter().flat_map(|from| from.key.iter().flatten());
    let own_name = mapping
        .columns
        .iter()
        .filter(|(column, expression)| expression.value.trim().eq_ignore_ascii_case(&column.value));
    let returned: BTreeSet<String> = mapping
        .reverse
        .iter()
        .map(|(column, _)| column)
        .chain(key)
        .chain(own_name.map(|(column, _)| column))
        .map(|column| column.value.to_ascii_lowercase())
        .collect();
    for (column, expression) in &mapping.columns {
        let Ok(read) = sql::column_refs(dialect, &expression.value) else { continue };
        let lost: Vec<String> = read
            .into_iter()
            .filter(|source| !returned.contains(&source.to_ascii_lowercase()))
            .collect();
        if let Some(source) = lost.first() {
            let message = format!(
                "writes to `{}` can't reach `{}`: there is no way back",
                column.value,
                lost.join("`, `")
            );
            let help = format!(
                "add to the mapping:\n  reverse:\n    {source}: <expression over the new row>"
            );
            reports.error(codes::NO_WAY_BACK, column.span, message).help(help);
        }
    }
}
