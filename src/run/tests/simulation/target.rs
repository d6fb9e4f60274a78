//! A database as steps find it: its ledger, the marks of statements outside transactions, what goes on at the server, and what steps have
//! done there.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::*;

/// One of the things that a step does: a statement outside a transaction, or all of it.
pub(super) type Part = (StepId, usize);

#[derive(Default)]
pub(super) struct Target {
    /// The newest token that has entered.
    pub token: u64,
    /// Steps that are committed.
    pub ledger: BTreeSet<StepId>,
    /// How often what a step does is there: once, or never.
    pub effects: BTreeMap<Part, u32>,
    /// Statements that have failed and left something.
    pub halves: BTreeSet<Part>,
    pub marks: BTreeMap<Part, Mark>,
    pub sessions: Vec<Session>,
    /// Whether somebody else has changed the schema.
    pub is_strange: bool,
    /// Whether our objects are gone.
    pub is_cleared: bool,
}

/// What the ledger has of a statement outside a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It was sent when the journal had this version. Whether an attempt before it has left something.
    Begun {
        version: u64,
        is_again: bool,
    },
    /// It failed, and has left something.
    InPart,
    Done,
}

/// A statement that goes on at the server, whoever sent it.
pub(super) struct Session {
    pub part: Part,
    pub token: u64,
}

impl Target {
    /// Whether nothing of the run's work is there.
    pub fn is_untouched(&self) -> bool {
        self.ledger.is_empty() && self.effects.is_empty() && self.halves.is_empty()
    }

    pub fn marks_of(&self, step: &StepId) -> impl Iterator<Item = (&Part, &Mark)> {
        self.marks.iter().filter(move |((of, _), _)| of == step)
    }

    pub fn is_under_way(&self, step: &StepId) -> bool {
        self.sessions.iter().any(|session| session.part.0 == *step)
    }

    /// How much of a step the ledger has.
    pub fn traced(&self, step: &StepId) -> Traced {
        if self.ledger.contains(step) {
            return Traced::Whole;
        }
        let left: Vec<bool> = self.marks_of(step).map(|(_, mark)| mark.has_left()).collect();
        match left.as_slice() {
            [] => Traced::Nothing,
            some if some.contains(&true) => Traced::Parts,
            _ => Traced::InDoubt,
        }
    }

    pub fn forget(&mut self, step: &StepId) {
        self.marks.retain(|(of, _), _| of != step);
    }

    /// All of a step goes, and its row in the ledger.
    pub fn undo(&mut self, step: &StepId) {
        self.forget(step);
        self.ledger.remove(step);
        self.effects.retain(|(of, _), _| of != step);
        self.halves.retain(|(of, _)| of != step);
    }

    /// Whether anything of a step is there.
    pub fn has_some(&self, step: &StepId) -> bool {
        self.effects.keys().chain(&self.halves).any(|(of, _)| of == step)
    }

    /// What an operator said came of what was begun before it.
    pub fn settle(&mut self, step: &StepId, told: Resolved) {
        let begun: Vec<(Part, bool)> = self
            .marks_of(step)
            .filter_map(|(part, mark)| match mark {
                Mark::Begun { version, is_again } if *version < told.version => {
                    Some((part.clone(), *is_again))
                }
                _ => None,
            })
            .collect();
        for (part, is_again) in begun {
            match (told.outcome, is_again) {
                (Resolution::Applied, _) => drop(self.marks.insert(part, Mark::Done)),
                (Resolution::NotApplied, true) => drop(self.marks.insert(part, Mark::InPart)),
                (Resolution::NotApplied, false) => drop(self.marks.remove(&part)),
            }
        }
    }
}

impl Mark {
    pub const fn has_left(self) -> bool {
        !matches!(self, Self::Begun { is_again: false, .. })
    }
}

/// How many things a step does one after the other, each by itself.
pub(super) fn parts(step: &Step) -> usize {
    match &step.action {
        Action::Sql(script) if script.commits_in_parts() => script.statements.len(),
        _ => 1,
    }
}
