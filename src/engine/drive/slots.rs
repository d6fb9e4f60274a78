//! The slots of one target, shared out among the steps that work there.
//!
//! A step keeps its slot's row locked for as long as its transaction takes, so two steps never have one in common: a statement
//! that runs for an hour would otherwise hold up the copy beside it. Whoever takes the run over writes all slots, and so fences
//! off every one of these steps.

use crate::driver::Fence;

/// The fences of a target in blocks: a step's own first, then those of its workers.
#[derive(Debug, Default)]
pub(super) struct Slots {
    blocks: Vec<Vec<Fence>>,
}

impl Slots {
    /// Shares out what entering a target gave, for steps of so many workers.
    pub(super) fn share(fences: &[Fence], copy_workers: u32) -> Self {
        let each = copy_workers as usize + 1;
        Self { blocks: fences.chunks(each).map(<[Fence]>::to_vec).collect() }
    }

    /// The first fence, for what no step does.
    pub(super) fn first(&self) -> Option<&Fence> {
        self.blocks.first()?.first()
    }

    /// The number and the fences of a block that nobody has; `taken` are the numbers of those that somebody has.
    pub(super) fn free(&self, taken: &[usize]) -> Option<(usize, Vec<Fence>)> {
        let (at, block) = self.blocks.iter().enumerate().find(|(at, _)| !taken.contains(at))?;
        Some((at, block.clone()))
    }
}
