//! Rows are copied behind the dual-write of their mapping, and compared behind the copy.

use crate::diagnostic::known as codes;

use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (mapping, life) in view.mappings() {
        let mapping = &mapping.name.value;
        for at in &life.backfills {
            let is_behind =
                life.dual_writes.iter().any(|(sync, _)| view.graph.is_before(*sync, *at));
            if is_behind {
                continue;
            }
            let step = view.step(*at);
            let message =
                format!("`{}` is not behind the dual-write of `{mapping}`", step.id.value);
            let added = reports.error(codes::BACKFILL_BEFORE_SYNC, step.id.span, message);
            match life.dual_writes.first() {
                Some((sync, _)) => {
                    let sync = view.step(*sync);
                    added
                        .related(sync.id.span, "the dual-write")
                        .help(format!("let it need `{}`", sync.id.value))
                }
                None => added.help(format!("add a step in phase dual-write: `dual_write: {{ mapping: {mapping}, direction: forward }}`")),
            };
        }
        for (at, _) in &life.verifies {
            let missing = life.backfills.iter().find(|copy| !view.graph.is_before(**copy, *at));
            let Some(copy) = missing.map(|copy| view.step(*copy)) else { continue };
            let step = view.step(*at);
            let message = format!("`{}` is not behind the backfill of `{mapping}`", step.id.value);
            reports
                .error(codes::VERIFY_BEFORE_BACKFILL, step.id.span, message)
                .related(copy.id.span, "the backfill")
                .help(format!("let it need `{}`", copy.id.value));
        }
    }
}
