//! Whether the people of the groups are enough for what gates ask.
//!
//! Approvals come from distinct people: somebody in two groups counts for one of them. So who approves for whom is a
//! matching, and a gate that has none could never open.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Approvals};
use super::name::{GroupName, StepId};
use super::program::Program;

/// The members of each group.
type Groups = BTreeMap<GroupName, BTreeSet<String>>;

/// The group for which too few people are left, if `barred` may not approve and everybody else approves where they are
/// needed most.
#[must_use]
pub fn lacking<'a>(
    approvals: &'a [Approvals],
    groups: &Groups,
    barred: Option<&str>,
) -> Option<&'a GroupName> {
    let mut seats: BTreeMap<&str, usize> = BTreeMap::new();
    let wanted: Vec<&GroupName> = approvals
        .iter()
        .flat_map(|asked| std::iter::repeat_n(&asked.group, asked.count as usize))
        .collect();
    let able = |seat: usize| {
        let members = groups.get(wanted[seat]).into_iter().flatten().map(String::as_str);
        members.filter(move |person| barred != Some(*person))
    };
    for (seat, group) in wanted.iter().enumerate() {
        // A chain of people, each of whom takes the seat of the next, until somebody is found who has none.
        let mut came_from: BTreeMap<&str, (usize, Option<&str>)> = BTreeMap::new();
        let mut open: Vec<(usize, Option<&str>)> = vec![(seat, None)];
        let mut free = None;
        while let Some((seat, taker)) = open.pop() {
            for person in able(seat) {
                if came_from.contains_key(person) {
                    continue;
                }
                came_from.insert(person, (seat, taker));
                match seats.get(person) {
                    Some(taken) => open.push((*taken, Some(person))),
                    None => free = free.or(Some(person)),
                }
            }
            if free.is_some() {
                break;
            }
        }
        let Some(mut person) = free else { return Some(group) };
        while let Some((seat, taker)) = came_from.get(person).copied() {
            seats.insert(person, seat);
            match taker {
                Some(taker) => person = taker,
                None => break,
            }
        }
    }
    None
}

/// A gate that can never open, since too few people of a group may approve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfillable {
    /// The gate.
    pub gate: StepId,
    /// The group.
    pub group: GroupName,
}

/// The gates that can never open when this person is the run's author.
#[must_use]
pub fn unfillable(program: &Program, author: &str) -> Vec<Unfillable> {
    let policy = program.policy();
    let Some(groups) = &policy.groups else { return Vec::new() };
    let barred = (policy.author_may_approve == Some(false)).then_some(author);
    let gates = program.steps().iter().filter_map(|step| match &step.action {
        Action::Gate(gate) => Some((step, gate)),
        _ => None,
    });
    gates
        .filter_map(|(step, gate)| {
            let group = lacking(&gate.approvals, groups, barred)?.clone();
            Some(Unfillable { gate: step.id.clone(), group })
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn groups(of: &[(&str, &[&str])]) -> Groups {
        of.iter()
            .map(|(group, people)| {
                ((*group).into(), people.iter().map(|person| (*person).to_owned()).collect())
            })
            .collect()
    }

    fn asked(of: &[(&str, u32)]) -> Vec<Approvals> {
        of.iter()
            .map(|(group, count)| Approvals { group: (*group).into(), count: *count })
            .collect()
    }

    #[test]
    fn somebody_in_two_groups_counts_once_and_where_they_are_needed() {
        let groups = groups(&[
            ("dba", &["dee"]),
            ("release", &["ben", "dee"]),
            ("ops", &["ben", "dee", "flo"]),
            ("empty", &[]),
        ]);
        for (asks, barred, lacks) in [
            (vec![("dba", 1)], None, None),
            (vec![("dba", 1)], Some("dee"), Some("dba")),
            (vec![("release", 1), ("dba", 1)], None, None),
            (vec![("dba", 1), ("release", 1)], None, None),
            (vec![("release", 2), ("dba", 1)], None, Some("dba")),
            (vec![("ops", 1), ("release", 1), ("dba", 1)], None, None),
            (vec![("ops", 2), ("release", 1)], None, None),
            (vec![("ops", 2), ("release", 1)], Some("flo"), Some("release")),
            (vec![("empty", 1)], None, Some("empty")),
            (vec![("unknown", 1)], None, Some("unknown")),
        ] {
            let approvals = asked(&asks);
            let lacking = lacking(&approvals, &groups, barred);
            assert_eq!(lacking.map(GroupName::as_str), lacks, "{asks:?} without {barred:?}");
        }
    }
}
