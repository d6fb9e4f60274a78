//! What an environment's policy adds to the gates of a plan.
//!
//! Policy holds for the gates in front of destructive steps. How old evidence may be holds for the gates in front of a
//! `retire` too: after a forward retire evidence grows no younger, so the later gate could never be satisfied otherwise.

use std::collections::BTreeSet;

use crate::run::{Added, Approvals, EnvironmentName, Gate, GroupName, Hazard, Identity, Policy};

use super::document::ActionDef;
use super::project::{DEFAULT_ENVIRONMENT, DestructivePolicy, Project};
use super::resolve::{Surroundings, View};

/// The groups that gates ask for approvals.
pub fn asked_groups<'a>(gates: impl IntoIterator<Item = &'a Gate>) -> BTreeSet<GroupName> {
    let asked = gates.into_iter().flat_map(|gate| &gate.approvals);
    asked.map(|approvals| approvals.group.clone()).collect()
}

/// What a run pins of a policy, so that it is held to it wherever it goes on and a later change is seen. Of the groups only
/// those that the plan asks: who else is in the project is no concern of its approvals.
pub fn pinned(surroundings: &Surroundings<'_>, asked: &BTreeSet<GroupName>) -> Policy {
    let own = &surroundings.policy;
    let members = surroundings.groups.map(|groups| {
        let asked = groups.iter().filter(|(group, _)| asked.contains(*group));
        asked.map(|(group, members)| (group.clone(), members.clone())).collect()
    });
    Policy {
        production: surroundings.production,
        groups: members,
        author_may_approve: own.destructive.as_ref().and_then(|policy| policy.author_may_approve),
        longest_wait_ms: own.longest_wait_ms,
        allow_partial_verify: own.allow_partial_verify,
        identity: own.identity.map_or(Identity::Claimed, |identity| identity.value),
        destructive: own.destructive.as_ref().map(added),
        allow_reviewed: own.allow_reviewed,
        allow_commands: own.allow_commands,
        redact: own.redact,
    }
}

fn added(policy: &DestructivePolicy) -> Added {
    let approvals = policy.approvals.iter().map(|(group, count)| Approvals {
        group: GroupName::new(group.value.as_str()),
        count: *count,
    });
    Added { approvals: approvals.collect(), verified_within_ms: policy.verified_within_ms }
}

/// What an environment asks now of a run whose gates ask these groups; none where the environment isn't defined (any more).
#[must_use]
pub fn policy_now(
    project: Option<&Project>,
    environment: &EnvironmentName,
    asked: &BTreeSet<GroupName>,
) -> Option<Policy> {
    let known = match project {
        Some(project) => project.require(environment).ok()?,
        None if environment.as_str() == DEFAULT_ENVIRONMENT => None,
        None => return None,
    };
    Some(pinned(&Surroundings::of(project, known, environment), asked))
}

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
