//! Permission to destroy, as values that can't be made up.
//!
//! A [`Permit`] has private fields and no public constructor: `gate` makes one when every condition of the releasing gates
//! holds, and `ready` makes one for undoing while a run goes back. It is neither `Clone` nor readable from outside, so it is
//! used for the one attempt it was made for.

use super::action::Script;
use super::name::StepId;
use super::record::Way;

/// Permission for one attempt at one destructive step.
#[derive(Debug)]
pub struct Permit {
    step: StepId,
    attempt: u32,
    way: Way,
}

/// Why a script may not be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// It may destroy, and nobody permitted it.
    #[error("the statements of {step} may destroy data and no gate has permitted them")]
    Missing {
        /// The step.
        step: StepId,
    },
    /// The permit is for something else.
    #[error("the permit is for {permitted}, not for {step}")]
    Mismatch {
        /// The step.
        step: StepId,
        /// What the permit is for.
        permitted: StepId,
    },
}

impl Permit {
    /// Only for the rooms' own logic.
    pub(super) const fn new(step: StepId, attempt: u32, way: Way) -> Self {
        Self { step, attempt, way }
    }

    /// A permit for tests of drivers, which have no run to earn one in.
    #[cfg(test)]
    pub(crate) fn for_test(step: &str) -> Self {
        Self { step: step.into(), attempt: 1, way: Way::Forward }
    }

    /// The step it is for.
    #[must_use]
    pub const fn step(&self) -> &StepId {
        &self.step
    }

    /// The attempt it is for.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether it is for doing or for undoing.
    #[must_use]
    pub const fn way(&self) -> Way {
        self.way
    }
}

/// A script that may be run: it destroys nothing, or it comes with a permit.
#[derive(Debug)]
pub struct Runnable<'a> {
    script: &'a Script,
}

impl<'a> Runnable<'a> {
    /// Lets a script run, if it destroys nothing or `permit` is for this step.
    pub fn new(
        step: &StepId,
        script: &'a Script,
        permit: Option<Permit>,
    ) -> Result<Self, PermitError> {
        match permit {
            Some(permit) if permit.step != *step => {
                Err(PermitError::Mismatch { step: step.clone(), permitted: permit.step })
            }
            None if script.hazard.needs_permit() => {
                Err(PermitError::Missing { step: step.clone() })
            }
            _ => Ok(Self { script }),
        }
    }

    /// The same, for another try within the attempt that it was made for: one of which the database has said that nothing
    /// was done.
    #[must_use]
    pub const fn again(&self) -> Self {
        Self { script: self.script }
    }

    /// The script.
    #[must_use]
    pub const fn script(&self) -> &'a Script {
        self.script
    }
}
