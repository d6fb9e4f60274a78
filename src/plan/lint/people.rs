//! The people that gates wait for exist, and are enough.

use crate::diagnostic::known as codes;
use crate::run::Identity;

use super::super::project::check_group;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let policy = &view.surroundings.policy;
    let is_claimed = policy.identity.is_none_or(|identity| identity.value == Identity::Claimed);
    for (_, gate) in view.gates() {
        for (position, (group, count)) in gate.approvals.iter().enumerate() {
            if gate.approvals[..position].iter().any(|(other, _)| other.value == group.value) {
                let message = format!("`{}` is asked twice", group.value);
                reports
                    .error(codes::SAME_GROUP_TWICE, group.span, message)
                    .help("write one entry with the count that is meant");
            }
            if let Some(groups) = view.surroundings.groups {
                check_group(group, count.value, groups, reports);
            }
            if view.surroundings.production && is_claimed && count.value > 1 {
                let message = format!(
                    "{} approvals can't be made up of claimed names in production",
                    count.value
                );
                reports.error(codes::CLAIMED_COUNT, count.span, message).help(
                    "set `identity: os` in the environment's policy, or ask for one approval",
                );
            }
        }
    }
}
