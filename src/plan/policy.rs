//! What an environment's policy adds to the gates of a plan.
//!
//! Policy holds for the gates in front of destructive steps. How old evidence may be holds for the gates in front of a
//! `retire` too: after a forward retire evidence grows no younger, so the later gate could never be satisfied otherwise.

use std::collections::BTreeSet;

use crate::run::{Approvals, Gate, GroupName, Hazard};

use super::document::ActionDef;
use super::resolve::View;

/// Which gates policy adds to.
#[derive(Debug, Default)]
pub struct Guarding {
    /// Gates in front of destructive steps.
    destruction: BTreeSet<usize>,
    /// Gates in front of a retire.
    retire: BTreeSet<usize>,
}

impl Guarding {
    /// The gates of a plan that policy adds to.
    pub fn of(view: &View<'_>) -> Self {
        let mut guarding = Self::default();
        if view.surroundings.policy.destructive.is_none() {
            return guarding;
        }
        for (at, step) in view.all() {
            let is_destructive = match view.hazard(at) {
                Hazard::None => false,
                Hazard::Destructive(_) => true,
                // What can't be told may destroy, unless somebody vouches that it doesn't.
                Hazard::Unknown(_) => step.reviewed.is_none(),
            };
            if is_destructive {
                guarding.destruction.extend(view.graph.releasing_gates(at));
            }
            if matches!(view.action(at), Some(ActionDef::Retire(_))) {
                guarding.retire.extend(view.graph.releasing_gates(at));
            }
        }
        guarding
    }

    /// Adds what policy asks to a gate, marking what the plan didn't ask for.
    pub fn add_to(&self, view: &View<'_>, at: usize, gate: &mut Gate) {
        let Some(policy) = &view.surroundings.policy.destructive else { return };
        let is_destruction = self.destruction.contains(&at);
        if let Some(asked) = policy.verified_within_ms
            && (is_destruction || self.retire.contains(&at))
            && gate.verified_within_ms.is_none_or(|own| own > asked)
        {
            gate.verified_within_ms = Some(asked);
            gate.from_policy.push("verified_within".to_owned());
        }
        if !is_destruction {
            return;
        }
        for (group, count) in &policy.approvals {
            let group = GroupName::new(group.value.as_str());
            let own = gate.approvals.iter_mut().find(|approvals| approvals.group == group);
            match own {
                Some(own) if own.count >= *count => continue,
                Some(own) => own.count = *count,
                None => gate.approvals.push(Approvals { group: group.clone(), count: *count }),
            }
            gate.from_policy.push(format!("approvals:{group}"));
        }
    }
}
