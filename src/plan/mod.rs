//! From YAML to a valid plan: read, checked in all its parts, and compiled to a [`run::Program`](crate::run::Program).
//!
//! Architecture invariants:
//! - Everything that is wrong is found at once, each finding with its place and what to do.
//! - What compiles has no findings: no cycle, no destructive step without gate and evidence, no name that leads nowhere.
//! - Only `source.rs` knows YAML; past it there are located nodes.
//! - Validation is near-linear in the size of the plan.
//!
//! Absent on purpose: databases. What only a target can tell is found by its driver, before the first change.

mod compile;
mod difference;
mod document;
mod fields;
mod files;
mod findings;
mod graph;
mod into_graph;
mod limit;
mod lint;
mod meaning;
mod node;
mod not_yet;
mod policy;
mod project;
mod read;
mod relations;
mod reports;
mod resolve;
mod schema;
mod secret;
mod source;
mod statements;
mod suggest;

use std::path::Path;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity, Source, known as codes};
use crate::run::{EnvironmentName, Pin};

use self::files::Files;
use self::reports::Reports;
use self::resolve::{Surroundings, View};

pub use difference::{Change, difference};
pub use findings::Findings;
pub use graph::{Graph, GraphEdge, GraphNode, Need};
pub use limit::limit;
pub use node::{At, Span};
pub use policy::{asked_groups, policy_now};
pub use project::{
    DEFAULT_ENVIRONMENT, DestructivePolicy, Environment, EnvironmentPolicy, FILE_NAME, Project,
    TargetOverride,
};
pub use schema::{SchemaKind, schema};
pub use secret::{SecretError, resolve_secrets};

/// A plan without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What a run pins.
    pub pin: Pin,
    /// What is worth saying and stops nothing.
    pub warnings: Vec<Diagnostic>,
    /// The plan's file.
    pub source: Source,
    /// The files that it refers to, for showing where a warning stands.
    pub files: Vec<Source>,
    /// Its steps as a graph.
    pub graph: Graph,
}

/// Reads, checks and compiles a plan for an environment.
pub fn load(
    path: &Path,
    project: Option<&Project>,
    environment: &EnvironmentName,
) -> Result<Loaded, Findings> {
    let bytes = files::read_bounded(path).map_err(|error| Findings::unreadable(path, &error))?;
    parse(path, bytes, project, environment)
}

/// Checks and compiles the bytes of a plan, as if they had been read from `path`.
pub fn parse(
    path: &Path,
    bytes: Vec<u8>,
    project: Option<&Project>,
    environment: &EnvironmentName,
) -> Result<Loaded, Findings> {
    let file: Arc<str> = path.display().to_string().into();
    let mut reports = Reports::new(&file);
    let text = match source::decode(bytes, &mut reports) {
        Ok(text) => text,
        Err(text) => return Err(Findings::found(reports, vec![Source::new(file, text)])),
    };
    let source = Source::new(Arc::clone(&file), text);
    let mut sources = vec![source.clone()];
    sources.extend(project.map(|project| project.source.clone()));
    let Some(read) = source::read(&source.text, &mut reports) else {
        return Err(Findings::found(reports, sources));
    };
    let document = read::document(&read.root, &mut reports);
    let graph = Graph::new(&document.steps);
    let surroundings = surroundings(project, environment, &mut reports);
    let mut files = Files::beside(path);
    let view = View::new(&document, &graph, &surroundings, &mut files, &mut reports, &file);
    lint::check(&view, &mut reports);
    sources.extend(files.sources().cloned());
    if reports.has_errors() {
        return Err(Findings::found(reports, sources));
    }
    let meaning = meaning::meaning(read.value, &files);
    let program = match compile::program(&view, &meaning) {
        Ok(program) => program,
        Err(error) => {
            let message = format!("the plan passed every rule and makes no program: {error}");
            let help = "this is a fault of phasegate; please report it with the plan";
            reports.add(Diagnostic::error(codes::NO_PROGRAM, message).with_help(help));
            return Err(Findings::found(reports, sources));
        }
    };
    // What is pinned is stored: a secret in a comment, which nothing else looks at, must not be.
    let shown = crate::diagnostic::masked(&source.text);
    let pin = Pin { path: file.to_string(), source: shown, meaning, program };
    let mut warnings = reports.into_sorted();
    warnings.retain(|finding| finding.severity == Severity::Warning);
    sources.remove(0);
    Ok(Loaded { pin, warnings, source, files: sources, graph })
}

/// The environment that a plan is checked for; one that isn't defined is a finding, and the plan is checked as for none.
fn surroundings<'a>(
    project: Option<&'a Project>,
    environment: &'a EnvironmentName,
    reports: &mut Reports,
) -> Surroundings<'a> {
    let mut known = None;
    match project.map(|project| project.require(environment)) {
        Some(Ok(found)) => known = found,
        Some(Err(finding)) => drop(reports.add(*finding)),
        None if environment.as_str() == DEFAULT_ENVIRONMENT => {}
        None => {
            let message =
                format!("there is no environment `{environment}`: no {FILE_NAME} defines any");
            let help =
                format!("leave `--env` out, or write a {FILE_NAME} beside the plan or above it");
            reports.add(Diagnostic::error(codes::UNKNOWN_ENVIRONMENT, message).with_help(help));
        }
    }
    Surroundings::of(project, known, environment)
}
