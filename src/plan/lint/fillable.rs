//! The people of all groups that a gate asks, those that policy adds included, are enough together.

use std::collections::BTreeSet;

use crate::diagnostic::known as codes;
use crate::run::{Approvals, Gate, GroupName, lacking};

use super::super::document::GateDef;
use super::super::policy::Guarding;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let Some(groups) = view.surroundings.groups else { return };
    let guarding = Guarding::of(view);
    let policy = view.surroundings.policy.destructive.as_ref();
    let bars_author = policy.is_some_and(|policy| policy.author_may_approve == Some(false));
    for (at, def) in view.gates() {
        let mut gate = Gate { approvals: approvals(def), ..Gate::default() };
        guarding.add_to(view, at, &mut gate);
        let members = |asked: &Approvals| groups.get(&asked.group).map_or(0, BTreeSet::len);
        if gate.approvals.iter().any(|asked| members(asked) < asked.count as usize) {
            // Said of the group itself, by another rule or of the project file.
            continue;
        }
        let step = view.step(at);
        if let Some(group) = lacking(&gate.approvals, groups, None) {
            let message = format!(
                "`{}` asks for more people than there are: whoever approves for another group is missing in `{group}`",
                step.id.value
            );
            reports
                .error(codes::GROUP_TOO_SMALL, step.id.span, message)
                .help("approvals come from distinct people: name more of them in phasegate.yaml, or ask for fewer");
            continue;
        }
        if !bars_author {
            continue;
        }
        // Nobody is needed in a group of more people than the gate asks for in all.
        let asked_in_all: u32 = gate.approvals.iter().map(|asked| asked.count).sum();
        let small = gate.approvals.iter().filter_map(|asked| groups.get(&asked.group));
        let small = small.filter(|members| members.len() <= asked_in_all as usize);
        let people: BTreeSet<&str> = small.flatten().map(String::as_str).collect();
        let needed: Vec<&str> = people
            .into_iter()
            .filter(|person| lacking(&gate.approvals, groups, Some(*person)).is_some())
            .collect();
        if !needed.is_empty() {
            let message = format!(
                "`{}` can't open in a run that {} started or amended, since authors may not approve",
                step.id.value,
                needed.join(" or ")
            );
            reports
                .warning(codes::GROUP_TOO_SMALL, step.id.span, message)
                .help("let somebody else start the run, or name more people in phasegate.yaml");
        }
    }
}

fn approvals(gate: &GateDef) -> Vec<Approvals> {
    let asked = gate.approvals.iter();
    asked
        .map(|(group, count)| Approvals {
            group: GroupName::new(group.value.as_str()),
            count: count.value,
        })
        .collect()
}
