//! The policy that a run was started under, held against what its environment asks today.
//!
//! A run acts on the policy it pinned. Where the project file has changed since, nobody may go on with the old one without
//! a word, whichever of the two asks for more: whatever goes on or approves is refused, until somebody takes the new policy
//! over with `amend`. What only looks, stops or goes back is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use crate::engine::OtherPolicy;
use crate::report::advice::quoted;
use crate::run::{Pin, Policy, Standing};

use super::answer::Failure;
use super::difference;
use super::exit::Exit;
use super::session::{Desk, OpenRun, Session};
use super::wiring::{self, Project};

/// Refuses when the policy of the run's environment is not the one that the run pinned.
pub fn refuse_other_policy(session: &Session, run: &OpenRun) -> Result<(), Failure> {
    if *run.state().standing() != Standing::Forward {
        return Ok(());
    }
    let program = run.state().program();
    let place = Place::of(session, &run.desk, run.state().pin());
    let project = place.project()?;
    match wiring::policy_now(project.as_ref(), program) {
        Some(now) if now == *program.policy() => Ok(()),
        Some(now) => Err(changed(session, run, &now)),
        None => Err(unknown(run, project.as_ref())),
    }
}

/// Holds a program's policy against the project file as it is at that moment, for a process that drives a run.
pub fn watch(session: &Session, desk: &Desk, pin: &Pin) -> OtherPolicy {
    let place = Place::of(session, desk, pin);
    Arc::new(move |program| {
        let environment = program.environment();
        let project = match place.project() {
            Ok(project) => project,
            Err(failure) => {
                return Some(format!("a project file that can't be read: {}", failure.message));
            }
        };
        match wiring::policy_now(project.as_ref(), program) {
            Some(now) if now == *program.policy() => None,
            Some(_) => Some(format!("a changed policy of environment {environment}")),
            None => Some(format!("no environment {environment} in the project file any more")),
        }
    })
}

/// Where the project file of a run is: the one that was named, else the one beside the run's plan or above it. Only where the
/// plan isn't at hand, the one that the command itself goes by.
struct Place {
    named: Option<PathBuf>,
    plan: PathBuf,
    here: Option<PathBuf>,
}

impl Place {
    fn of(session: &Session, desk: &Desk, pin: &Pin) -> Self {
        Self {
            named: session.global.config.clone(),
            plan: PathBuf::from(&pin.path),
            here: desk.settings.project.as_ref().map(|project| project.path().to_path_buf()),
        }
    }

    fn project(&self) -> Result<Option<Project>, Failure> {
        let is_at_hand = self.plan.is_file();
        let other = self.here.as_deref().filter(|_| !is_at_hand);
        let folder = self.plan.parent().filter(|folder| !folder.as_os_str().is_empty());
        wiring::find_project(folder.unwrap_or(Path::new(".")), self.named.as_deref().or(other))
    }
}

/// The failure that says what has changed, and how it is taken over.
pub fn changed(session: &Session, run: &OpenRun, now: &Policy) -> Failure {
    let program = run.state().program();
    let changes = wiring::policy_difference(program.policy(), now);
    session.printer.message(&difference::render(&changes, session.printer.message_colour()));
    let amend = run.line.of(&format!("amend {{run}} {}", quoted(&run.state().pin().path)));
    let environment = program.environment();
    let message = format!("the policy of environment {environment} has changed");
    Failure::new(Exit::Stale, message)
        .because(format!("run {} was started or last amended under the policy as it was", run.id))
        .help(format!("`{amend}` takes the new policy over; approvals under the old one are void"))
        .with("difference", difference::document(&changes))
}

fn unknown(run: &OpenRun, project: Option<&Project>) -> Failure {
    let environment = run.state().program().environment();
    match project {
        Some(project) => {
            let file = project.path().display();
            let message = format!("{file} no longer defines environment {environment}");
            Failure::new(Exit::Stale, message)
                .because(format!("run {} holds to the policy of that environment", run.id))
                .help("define it again, or name another project file with --config")
        }
        None => Failure::usage(format!("what environment {environment} asks isn't known here"))
            .because("no phasegate.yaml stands beside the run's plan or above it")
            .help("name the project file with --config")
            .with("environment", json!(environment)),
    }
}
