//! That two sides do not part while they are compared, and are not compared while they may be parting.
//!
//! Which steps part the sides of a mapping, and since when they have parted, the state says.

use super::action::{Action, Verify};
use super::name::MappingName;
use super::operator::has_changed;
use super::program::Step;
use super::record::Way;
use super::state::{Progress, State};

/// Whether a step has parted the sides of a mapping, may have, or may be about to.
pub(super) fn may_be_parted(state: &State, mapping: &MappingName) -> bool {
    let steps = state.program().steps().iter();
    steps.filter(|step| state.parts_sides(step, mapping)).any(|step| has_changed(state, step))
}

/// Whether a step would part two sides that are being compared.
pub(super) fn would_part_compared(state: &State, step: &Step) -> bool {
    let Some(mapping) = step.action.mapping() else { return false };
    state.parts_sides(step, mapping) && state.program().steps().iter().any(|other| {
        matches!(&other.action, Action::Verify(Verify::Mapping { mapping: of, .. }) if of == mapping)
            && state.step(&other.id).progress == (Progress::Running { way: Way::Forward })
    })
}
