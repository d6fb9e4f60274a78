//! Where the commands meet the other rooms: plans, project files, stores, databases. Thin on purpose: it opens things, and
//! turns what went wrong into a [`Failure`].

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::ExposeSecret as _;

use crate::diagnostic::{Diagnostic, Severity, Source};
use crate::driver::{self, Access, SharedDriver};
use crate::engine;
use crate::plan::{self, SchemaKind};
use crate::report::{CommandLine, words};
use crate::run::{self, EnvironmentName, Pin, Policy, Program, Redact, TargetName};
use crate::store::{self, Archive, Create, SharedStore};

use super::answer::Failure;
use super::args;
use super::exit::Exit;
use super::people::Identity;
use super::trouble;

pub use plan::{Change, difference};

/// The project file, as far as the commands need it.
#[derive(Clone, Debug)]
pub struct Project {
    inner: plan::Project,
}

impl Project {
    /// The environments it defines.
    pub fn environment_names(&self) -> impl Iterator<Item = &EnvironmentName> {
        self.inner.environment_names()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The state store of an environment, with its references resolved. A path is relative to the project file, wherever the
    /// command is given. May hold a secret.
    pub fn state_of(&self, environment: &EnvironmentName) -> Result<Option<String>, Failure> {
        let known = self.inner.environment(environment);
        let Some(state) = known.and_then(|known| known.state.as_ref()) else { return Ok(None) };
        let folder = self.inner.path.parent().unwrap_or_else(|| Path::new(""));
        let resolved = plan::resolve_secrets(state, folder).map_err(|error| {
            Failure::usage(format!("the state store of environment {environment} is not known"))
                .because(error.to_string())
                .help("set it, or name the state store with --state")
        })?;
        let location = resolved.expose_secret();
        if location.contains("://") {
            return Ok(Some(location.to_owned()));
        }
        Ok(Some(folder.join(location).display().to_string()))
    }

    /// How an environment knows people. What isn't said is claimed.
    #[must_use]
    pub fn identity_of(&self, environment: &EnvironmentName) -> Identity {
        let known = self.inner.environment(environment);
        match known.and_then(|known| known.policy.identity.as_ref()).map(|found| found.value) {
            None | Some(run::Identity::Claimed) => Identity::Claimed,
            // Signatures are refused as "not yet" when a plan is checked; until then the account is the nearest to them.
            Some(run::Identity::Os | run::Identity::Ssh) => Identity::Os,
        }
    }
}

/// Finds the project file upwards from `start`, or reads the one given.
pub fn find_project(start: &Path, explicit: Option<&Path>) -> Result<Option<Project>, Failure> {
    let found = plan::Project::find(start, explicit).map_err(refused)?;
    Ok(found.map(|inner| Project { inner }))
}

/// A plan that was read and checked.
#[derive(Debug)]
pub struct LoadedPlan {
    /// As a run pins it.
    pub pin: Pin,
    /// What is worth knowing about it.
    pub warnings: Vec<Diagnostic>,
    /// The files that warnings point into.
    pub sources: Vec<Source>,
}

/// Reads and checks a plan.
pub fn load_plan(
    path: &Path,
    project: Option<&Project>,
    environment: &EnvironmentName,
) -> Result<LoadedPlan, Failure> {
    let project = project.map(|project| &project.inner);
    let loaded = plan::load(path, project, environment).map_err(refused)?;
    let mut sources = loaded.files;
    sources.push(loaded.source);
    Ok(LoadedPlan { pin: loaded.pin, warnings: loaded.warnings, sources })
}

/// What a program's environment asks today; none where that environment isn't defined.
#[must_use]
pub fn policy_now(project: Option<&Project>, program: &Program) -> Option<Policy> {
    let gates = program.steps().iter().filter_map(|step| match &step.action {
        run::Action::Gate(gate) => Some(gate),
        _ => None,
    });
    let project = project.map(|project| &project.inner);
    plan::policy_now(project, program.environment(), &plan::asked_groups(gates))
}

/// Where two policies differ.
#[must_use]
pub fn policy_difference(old: &Policy, new: &Policy) -> Vec<Change> {
    let shown = |policy: &Policy| serde_json::json!({ "policy": policy });
    plan::difference(&shown(old), &shown(new))
}

/// Findings as the failure of a command: files that can't be read apart from those with findings in them.
fn refused(findings: plan::Findings) -> Failure {
    let of = |severity| {
        let alike = findings.diagnostics.iter().filter(|finding| finding.severity == severity);
        (alike.clone().count() as u64, alike.map(|finding| finding.code).next())
    };
    let ((errors, first), (warnings, _)) = (of(Severity::Error), of(Severity::Warning));
    let (exit, message) = match (findings.is_unreadable, warnings) {
        (true, _) => (Exit::Damaged, "a file can't be read".to_owned()),
        (false, 0) => (Exit::Findings, words::plural(errors, "error")),
        (false, warnings) => {
            let (errors, warnings) =
                (words::plural(errors, "error"), words::plural(warnings, "warning"));
            (Exit::Findings, format!("{errors} and {warnings}"))
        }
    };
    let mut failure = Failure::new(exit, message);
    if let Some(code) = first {
        failure = failure.help(format!("`phasegate explain {code}` says more"));
    }
    failure.found.findings = findings.diagnostics;
    failure.found.sources = findings.sources;
    failure
}

/// Opens the state store. Its location may hold a password: only what the store itself says of it is shown.
pub async fn open_store(location: &str, create: Create) -> Result<SharedStore, Failure> {
    let shown = if location.contains("://") { "the URL given" } else { location };
    store::open(location, create).await.map_err(|error| trouble::opening(&error, shown))
}

/// Opens the state store for reading only, as damaged as it may be.
pub async fn open_archive(location: &str) -> Result<Box<dyn Archive>, Failure> {
    let shown = if location.contains("://") { "the URL given" } else { location };
    store::open_archive(location).await.map_err(|error| trouble::opening(&error, shown))
}

/// Opens every database of a plan. References in URLs are resolved here and nowhere else; files are relative to the
/// plan's folder.
pub async fn open_drivers(
    pin: &Pin,
    line: &CommandLine,
    redact: Redact,
) -> Result<BTreeMap<TargetName, SharedDriver>, Failure> {
    let mut drivers = BTreeMap::new();
    for name in pin.program.targets().keys() {
        drivers.insert(name.clone(), open_driver((pin, line), name, Access::Full, redact).await?);
    }
    Ok(drivers)
}

/// Opens one database of a plan, of which nothing is said that is to be hidden: by policy, or as typed.
pub async fn open_driver(
    (pin, line): (&Pin, &CommandLine),
    name: &TargetName,
    access: Access,
    redact: Redact,
) -> Result<SharedDriver, Failure> {
    let target = pin.program.targets().get(name);
    let target = target.ok_or_else(|| Failure::usage(format!("there is no target {name}")))?;
    let base = Path::new(&pin.path).parent().unwrap_or_else(|| Path::new(""));
    let url = plan::resolve_secrets(&target.url, base).map_err(|error| {
        Failure::usage(format!("the URL of target {name} is not known"))
            .because(error.to_string())
            .help("set it, and give the command again")
    })?;
    let schema = target.schema.as_deref();
    let opened =
        engine::patiently(|| false, || driver::open(target.engine, &url, schema, access)).await;
    let driver = opened.map_err(|error| trouble::of_target(&error, name, Some((pin, line))))?;
    Ok(driver::redacted(driver, redact.max(pin.program.policy().redact)))
}

/// The JSON Schema of plans or of the project file.
#[must_use]
pub fn schema(document: args::Document) -> serde_json::Value {
    plan::schema(match document {
        args::Document::Plan => SchemaKind::Plan,
        args::Document::Project => SchemaKind::Project,
    })
}
