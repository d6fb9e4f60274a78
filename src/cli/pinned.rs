//! The policy that a run was started under, held against what its environment asks today.
//!
//! A run acts on the policy it pinned. Where the project file has changed since, nobody may go on with the old one without
//! a word, whichever of the two asks for more: whatever goes on or approves is refused, until somebody takes the new policy
//! over with `amend`. What only looks, stops or goes back is not.

use std::path::Path;

use serde_json::json;

use crate::report::advice::quoted;
use crate::run::{Policy, Standing};

use super::answer::Failure;
use super::difference;
use super::exit::Exit;
use super::session::{OpenRun, Session};
use super::wiring::{self, Project};

/// Refuses when the policy of the run's environment is not the one that the run pinned.
pub fn refuse_other_policy(session: &Session, run: &OpenRun) -> Result<(), Failure> {
    if *run.state().standing() != Standing::Forward {
        return Ok(());
    }
    let program = run.state().program();
    let project = project_of(session, run)?;
    match wiring::policy_now(project.as_ref(), program) {
        Some(now) if now == *program.policy() => Ok(()),
        Some(now) => Err(changed(session, run, &now)),
        None => Err(unknown(run, project.as_ref())),
    }
}

/// The project file that was named, else the one beside the run's plan or above it, else the one above this folder.
fn project_of(session: &Session, run: &OpenRun) -> Result<Option<Project>, Failure> {
    let here = run.desk.settings.project.as_ref();
    if session.global.config.is_some() {
        return Ok(here.cloned());
    }
    let folder = Path::new(&run.state().pin().path).parent().unwrap_or_else(|| Path::new(""));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    Ok(wiring::find_project(folder, None)?.or_else(|| here.cloned()))
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
            .because(
                "no phasegate.yaml stands beside the run's plan, above it, or above this folder",
            )
            .help("name the project file with --config")
            .with("environment", json!(environment)),
    }
}
