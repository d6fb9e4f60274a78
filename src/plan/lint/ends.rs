//! A mapping's sync begins once and ends once.

use crate::diagnostic::known as codes;

use super::super::reports::Reports;
use super::super::resolve::{Life, View};

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (mapping, life) in view.mappings() {
        let mapping = &mapping.name.value;
        let syncs: Vec<usize> = life.dual_writes.iter().map(|(at, _)| *at).collect();
        for (what, steps) in [
            ("mirrored", &syncs),
            ("retired", &life.retires),
            ("dropped", &life.drops),
            ("released", &life.stops),
        ] {
            for at in steps.iter().skip(1) {
                let message = format!("`{mapping}` is {what} twice");
                reports
                    .error(codes::TWICE, view.step(*at).id.span, message)
                    .related(view.step(steps[0]).id.span, "the first time")
                    .help("remove one of the two steps");
            }
        }
        without_beginning(view, mapping, life, reports);
        without_end(view, mapping, life, reports);
    }
}

fn without_beginning(view: &View<'_>, mapping: &str, life: &Life, reports: &mut Reports) {
    for at in life.retires.iter().chain(&life.stops) {
        let begins = life.dual_writes.iter().any(|(sync, _)| view.graph.is_before(*sync, *at));
        if !begins {
            let step = view.step(*at);
            let message = format!("no dual-write of `{mapping}` comes before `{}`", step.id.value);
            reports
                .error(codes::NOTHING_TO_END, step.id.span, message)
                .help("add a `dual_write` step for the mapping, or remove this step");
        }
    }
    for at in &life.stops {
        let Some(other) = life.retires.first().or(life.drops.first()) else { continue };
        let step = view.step(*at);
        let message = format!("`{mapping}` is retired or dropped, which ends its dual-write");
        reports
            .error(codes::NOTHING_TO_END, step.id.span, message)
            .related(view.step(*other).id.span, "by this step")
            .help("remove the `stop_dual_write`");
    }
}

fn without_end(view: &View<'_>, mapping: &str, life: &Life, reports: &mut Reports) {
    let Some((sync, _)) = life.dual_writes.first() else { return };
    let is_ended = !life.stops.is_empty()
        || !life.drops.is_empty()
        || (!life.retires.is_empty() && !life.is_both_ways());
    if !is_ended {
        let message = format!(
            "the plan never ends the dual-write of `{mapping}`: it is removed with the end of the run"
        );
        reports
            .warning(codes::SYNC_NEVER_ENDS, view.step(*sync).id.span, message)
            .help("end it with `retire` and `drop`, or with `stop_dual_write`");
    }
}
