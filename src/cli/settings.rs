//! What was typed, and what stands around it, means: project file, environment, state store, person.

use std::env;
use std::path::{Path, PathBuf};

use crate::report::CommandLine;
use crate::report::advice::quoted;
use crate::run::{Actor, EnvironmentName, Redact};

use super::answer::Failure;
use super::args::Global;
use super::people::{self, Identity};
use super::suggest;
use super::wiring::{self, Project};

/// Where the state store is unless something else is said: beside the working directory.
const DEFAULT_STATE: &str = ".phasegate/state.db";

/// The environment where no project file defines any.
const DEFAULT_ENVIRONMENT: &str = "default";

/// What holds for a command.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The project file, if there is one.
    pub project: Option<Project>,
    /// The environment; none only for a command on a run in a state store that was named, where none is needed.
    pub environment: Option<EnvironmentName>,
    /// Where the state store is, or why that isn't known: a command that needs none goes on without. May hold a secret:
    /// never shown; the store itself says what may be.
    pub state: Result<String, Failure>,
    /// Who acts.
    pub actor: Actor,
    /// The program and the options that suggestions repeat.
    pub program: String,
}

/// Whether a command can do without an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It compiles a plan.
    Environment,
    /// It works on a run, which knows its environment; one is only needed to find the state store.
    StateStore,
}

impl Settings {
    /// The settings of a command. `start` is where the search for a project file begins.
    pub fn resolve(global: &Global, start: &Path, need: Need) -> Result<Self, Failure> {
        let project = wiring::find_project(start, global.config.as_deref())?;
        let given_state = global.state.clone().filter(|state| !state.is_empty());
        let environment = environment(project.as_ref(), global.environment.as_deref());
        let environment = match (environment, need) {
            (Err(_), Need::StateStore) if given_state.is_some() && global.environment.is_none() => {
                None
            }
            (environment, _) => Some(environment?),
        };
        let of_project = match (&project, &environment) {
            _ if given_state.is_some() => Ok(None),
            (Some(project), Some(environment)) => project.state_of(environment),
            _ => Ok(None),
        };
        let identity = match (&project, &environment) {
            (Some(project), Some(environment)) => project.identity_of(environment),
            _ => Identity::default(),
        };
        Ok(Self {
            state: of_project
                .map(|state| given_state.or(state).unwrap_or_else(|| DEFAULT_STATE.to_owned())),
            actor: people::actor(global.actor.as_deref(), identity)?,
            program: program(global, env::args_os().next().map(PathBuf::from)),
            project,
            environment,
        })
    }

    /// The environment that a plan is compiled for.
    #[must_use]
    pub fn environment_of_plan(&self) -> EnvironmentName {
        self.environment.clone().unwrap_or_else(|| DEFAULT_ENVIRONMENT.into())
    }

    /// How this program is called about a run.
    #[must_use]
    pub fn line(&self, run: impl Into<String>) -> CommandLine {
        CommandLine { program: self.program.clone(), run: run.into() }
    }
}

fn environment(project: Option<&Project>, typed: Option<&str>) -> Result<EnvironmentName, Failure> {
    let names: Vec<&str> = project
        .iter()
        .flat_map(|one| one.environment_names())
        .map(EnvironmentName::as_str)
        .collect();
    match typed {
        None if names.is_empty() => Ok(DEFAULT_ENVIRONMENT.into()),
        None => Err(Failure::usage("the project file defines environments: say which one with --env")
            .help(format!("--env {}", names.join(", or --env ")))),
        Some(typed) if names.contains(&typed) => Ok(typed.into()),
        Some(DEFAULT_ENVIRONMENT) if names.is_empty() => Ok(DEFAULT_ENVIRONMENT.into()),
        Some(typed) if names.is_empty() => {
            Err(Failure::usage(format!("there is no environment {typed}: no project file defines any"))
                .help("environments stand in phasegate.yaml, beside the plan or above it; --config names another"))
        }
        Some(typed) => Err(Failure::usage(format!("the project file defines no environment {typed}"))
            .help(suggest::help(typed, &names))),
    }
}

/// The program as it was called, with the options that a suggested command needs as well. A state store that came through
/// the environment, or whose URL may hold a password, is left out.
fn program(global: &Global, called: Option<PathBuf>) -> String {
    let called = called.filter(|path| path.components().count() > 1);
    let shown = called.map_or_else(
        || "phasegate".to_owned(),
        |path| {
            let here = env::current_dir().unwrap_or_default();
            let path = path.strip_prefix(&here).map(Path::to_path_buf).unwrap_or(path);
            quoted(&path.display().to_string())
        },
    );
    let mut words = vec![shown];
    if let Some(environment) = &global.environment {
        words.push(format!("--env {}", quoted(environment)));
    }
    if let Some(config) = &global.config {
        words.push(format!("--config {}", quoted(&config.display().to_string())));
    }
    let by_environment = env::var("PHASEGATE_STATE").ok();
    if let Some(state) = &global.state
        && by_environment.as_ref() != Some(state)
        && !state.contains("://")
    {
        words.push(format!("--state {}", quoted(state)));
    }
    match global.redact() {
        Redact::Nothing => {}
        Redact::Values => words.push("--redact".to_owned()),
        Redact::Keys => words.push("--redact=keys".to_owned()),
    }
    words.join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::Typed;

    fn global(words: &[&str]) -> Global {
        let line = ["phasegate"].iter().chain(words).chain(&["version"]);
        Typed::try_parse_from(line).unwrap().global
    }

    #[test]
    fn suggestions_repeat_what_was_given_but_no_url() {
        let given = global(&["--env", "staging", "--config", "my project.yaml", "--state", "s.db"]);
        assert_eq!(
            program(&given, Some("phasegate".into())),
            "phasegate --env staging --config 'my project.yaml' --state s.db"
        );
        let url = global(&["--state", "postgres://me:secret@db/x"]);
        assert_eq!(program(&url, Some("target/debug/phasegate".into())), "target/debug/phasegate");
    }

    #[test]
    fn without_a_project_file_there_is_one_environment() {
        assert_eq!(environment(None, None).unwrap().as_str(), "default");
        assert_eq!(environment(None, Some("default")).unwrap().as_str(), "default");
        assert_eq!(environment(None, Some("staging")).unwrap_err().exit.code(), 64);
    }
}
