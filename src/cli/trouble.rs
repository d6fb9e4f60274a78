//! From the rooms' errors to what people read: a sentence, the cause, and the next command.

use crate::diagnostic::{self, Code, Diagnostic, Location, Source};
use crate::driver::{self, Finding, Holder, Severity, Shared};
use crate::engine;
use crate::report::CommandLine;
use crate::report::advice::quoted;
use crate::report::steps::failure_line;
use crate::report::words;
use crate::run::{Pin, TargetName};
use crate::store::{self, Lease};

use super::answer::{Failure, Found};
use super::exit::Exit;
use super::session::Desk;

/// What an error is about, where that is known: the plan and how the run is named.
pub type About<'a> = Option<(&'a Pin, &'a CommandLine)>;

/// A store's error.
#[must_use]
pub fn of_store(error: &store::Error, desk: &Desk) -> Failure {
    let exit = Exit::of_store(error);
    match error {
        store::Error::Held(lease) => held(lease, desk),
        store::Error::Conflict { .. } => {
            Failure::new(exit, "somebody else changed the run at the same moment")
                .because(error.to_string())
                .help("look at `status`, then try again")
        }
        store::Error::LeaseLost(_) => Failure::new(exit, error.to_string())
            .help("another runner may have taken over; `status` shows who drives the run"),
        store::Error::Diverged { run, here, there } => Failure::new(
            exit,
            format!("run {run} is in this state store with another journal than the export's"),
        )
        .because(format!("here its last record is {}, with the hash {}", here.version, here.hash))
        .because(format!("in the export it is {}, with the hash {}", there.version, there.hash))
        .help(if there.version < here.version {
            "the export is older, or the run was driven on here: export it again where it was driven last"
        } else {
            "the run was driven on in both stores: the targets know which of them is right; see `history --verify`"
        }),
        store::Error::NoRun(_)
        | store::Error::Unreachable { .. }
        | store::Error::Busy { .. }
        | store::Error::NotWritable { .. }
        | store::Error::Damaged { .. }
        | store::Error::Newer { .. } => opening(error, &desk.store.location()),
    }
}

/// A store's error while it is being opened; `location` holds no secret.
#[must_use]
pub fn opening(error: &store::Error, location: &str) -> Failure {
    let exit = Exit::of_store(error);
    let failure = Failure::new(exit, error.to_string());
    match error {
        store::Error::Unreachable { .. } => failure.help(format!(
            "the state store is {location}; --state or PHASEGATE_STATE names another"
        )),
        store::Error::Busy { .. } => {
            failure.help("another process holds the state store; try again when it is done")
        }
        store::Error::NotWritable { .. } => {
            failure.help(format!("make room or allow writing at {location}, then try again"))
        }
        store::Error::Damaged { .. } => failure.help(format!(
            "nothing was changed; bring {location} back from a backup, and keep the damaged file"
        )),
        store::Error::Newer { .. } => {
            failure.help("use the version of phasegate that wrote it, or a newer one")
        }
        _ => failure,
    }
}

fn held(lease: &Lease, desk: &Desk) -> Failure {
    let holder = &lease.holder;
    let line = desk.settings.line(lease.run.to_string());
    let message = format!(
        "run {} is driven by {} since {}",
        lease.run,
        words::holder(holder),
        words::moment(lease.since),
    );
    Failure::new(Exit::Held, message)
        .because(format!("its lease in state store {} is renewed and not free", desk.store.location()))
        .because(format!("its last heartbeat was at {}", words::moment(lease.renewed_at)))
        .help(format!("`{}` shows how it goes", line.of("status {run} --watch")))
        .help(format!(
            "when that process is gone the lease lapses by itself at {}; then the same command goes on",
            words::moment(lease.expires_at)
        ))
        .help(format!(
            "where it hangs and can't be ended: `{}`",
            line.of("lock release {run} --force --reason 'why'")
        ))
        .with(
            "holder",
            serde_json::json!({
                "run": lease.run,
                "name": holder.name,
                "host": holder.host,
                "pid": holder.pid,
                "since": words::rfc3339(lease.since),
                "last_heartbeat": words::rfc3339(lease.renewed_at),
                "store": desk.store.location(),
            }),
        )
}

/// A claim of another run on a target.
fn claimed(holder: &Holder, target: &TargetName, line: Option<&CommandLine>) -> Failure {
    // The options that led here are about this store, and that run is in another.
    let program = line.map_or("phasegate", |line| line.program.as_str());
    let program = program.split(" --").next().unwrap_or(program);
    let store = holder.store.split_once(" at ").map_or("STORE", |(_, location)| location);
    let there = format!("{program} --state {}", quoted(store));
    let mut failure = overlapping(holder, target)
        .because(format!(
            "it was last driven by pid {} on {}, since {}, with state store {}",
            holder.pid, holder.host, holder.since, holder.store
        ))
        .help(format!(
            "to adopt it, go on with that run from its own state store: `{there} status {}`",
            holder.run
        ))
        .help(format!(
            "or bring it into this one, while nobody drives it: `{there} state export {} --out FILE` there, then \
             `state import FILE` here",
            holder.run
        ));
    if holder.over != Shared::Run {
        failure = failure.help("or end it there first, with `rollback` or `abort`");
    }
    failure = failure.help(
        "or, where its state store is lost for good: `state adopt PLAN` goes on with it from what its targets have of it",
    );
    if let Shared::Mapping(_) = holder.over {
        failure = failure.help("or give the mapping of this plan another name");
    }
    failure.with(
        "holder",
        serde_json::json!({
            "run": holder.run,
            "plan": holder.plan,
            "host": holder.host,
            "pid": holder.pid,
            "since": holder.since,
            "store": holder.store,
            "target": target,
            "over": holder.over.to_string(),
        }),
    )
}

/// What another run has that this one wants.
fn overlapping(holder: &Holder, target: &TargetName) -> Failure {
    let held = format!("target {target} is held by run {} of plan {}", holder.run, holder.plan);
    match &holder.over {
        Shared::Run => Failure::new(
            Exit::Held,
            format!(
                "target {target}: run {} of plan {} is driven from another state store",
                holder.run, holder.plan
            ),
        ),
        Shared::Database => Failure::new(Exit::Held, held),
        Shared::Table(name) => {
            Failure::new(Exit::Held, held).because(format!("both work on table {name}"))
        }
        Shared::Mapping(name) => {
            let message = format!(
                "target {target}: run {} of plan {} has a mapping called {name} too",
                holder.run, holder.plan
            );
            Failure::new(Exit::Held, message).because(
                "triggers, functions and tables of marks are called after their mapping, so each would take the other's",
            )
        }
    }
}

/// A target's error outside a step.
#[must_use]
pub fn of_target(error: &driver::Error, target: &TargetName, about: About<'_>) -> Failure {
    let exit = Exit::of_driver(error);
    match error {
        driver::Error::Held(holder) => claimed(holder, target, about.map(|(_, line)| line)),
        driver::Error::Ambiguous(_) => Failure::new(exit, format!("target {target}: {error}")),
        driver::Error::Fenced { .. } => Failure::new(exit, format!("target {target}: {error}"))
            .help("`status` shows who drives the run"),
        driver::Error::Failed(failure) | driver::Error::Unknown(failure) => {
            let mut shown =
                Failure::new(exit, format!("target {target}: {}", failure_line(failure)));
            shown.causes.extend(failure.detail.clone());
            // The URL as the plan has it: its secrets are still references.
            let url = about.and_then(|(pin, _)| Some(&pin.program.targets().get(target)?.url));
            shown.causes.extend(url.map(|url| format!("target {target} is {url}")));
            shown.help.extend(failure.help.clone());
            shown
        }
    }
}

/// An engine's error.
#[must_use]
pub fn of_engine(error: &engine::Error, desk: &Desk, about: About<'_>) -> Failure {
    match error {
        engine::Error::Store(error) => of_store(error, desk),
        engine::Error::Target { target, source } => of_target(source, target, about),
        engine::Error::Findings(findings) => of_findings(findings, about.map(|(pin, _)| pin)),
        engine::Error::Refused(refusal) => {
            let mut failure = Failure::new(Exit::of_refusal(refusal.kind), refusal.message.clone());
            failure.help.extend(refusal.help.as_ref().map(|help| in_place(help, about)));
            failure
        }
        engine::Error::Journal { .. } => Failure::new(Exit::of_engine(error), error.to_string())
            .help("nothing was changed; bring the state store back from a backup"),
        engine::Error::Crashed(_) => Failure::new(Exit::of_engine(error), error.to_string())
            .help("this is a fault of phasegate; everything done is recorded, and the same command goes on"),
        engine::Error::Hangs { pid, .. } => Failure::new(Exit::of_engine(error), error.to_string())
            .because("its lease has lapsed, but it was stopped, or hangs, in the middle of a transaction".to_owned())
            .help(format!("end it with `kill -9 {pid}`, which takes its transaction back; then the same command goes on")),
        engine::Error::TakenOver(by) => {
            Failure::new(Exit::of_engine(error), "another runner took the run over")
                .because(by.clone())
                .help("`status --watch` shows how it goes there")
        }
    }
}

/// A refusal's advice with this run, this plan and this program in the places that it leaves open.
fn in_place(help: &str, about: About<'_>) -> String {
    let Some((pin, line)) = about else { return help.to_owned() };
    line.filled(help, &pin.path)
}

/// What looking at the targets found, each beside the step it belongs to.
fn of_findings(findings: &[(TargetName, Finding)], pin: Option<&Pin>) -> Failure {
    let count = words::plural(findings.len() as u64, "finding");
    let mut failure = Failure::new(
        Exit::Findings,
        format!("the targets are not as the plan needs them: {count}"),
    )
    .help("nothing was changed; put it right, then run again");
    (*failure.found, failure.causes) = found(findings, pin);
    failure
}

/// Findings in targets as diagnostics, and in words those that have no page to explain them: none is lost.
pub fn found(findings: &[(TargetName, Finding)], pin: Option<&Pin>) -> (Found, Vec<String>) {
    let (mut known, mut others) = (Found::default(), Vec::new());
    for (target, finding) in findings {
        match diagnostic::code(finding.code) {
            Some(code) => known.findings.push(shown(code, target, finding, pin)),
            None => others.push(in_words(target, finding)),
        }
    }
    known.sources = pin.map(|pin| Source::new(&*pin.path, &*pin.source)).into_iter().collect();
    (known, others)
}

/// A finding of a driver as a diagnostic beside its step. One whose code no page explains is a fault of ours, and is said all
/// the same.
#[must_use]
pub fn as_diagnostic(target: &TargetName, finding: &Finding, pin: &Pin) -> Diagnostic {
    let code = diagnostic::code(finding.code).unwrap_or(diagnostic::known::NO_PROGRAM);
    shown(code, target, finding, Some(pin))
}

fn in_words(target: &TargetName, finding: &Finding) -> String {
    let help = finding.help.as_ref().map_or(String::new(), |help| format!("\n{help}"));
    format!("[{}] target {target}, step {}: {}{help}", finding.code, finding.step, finding.message)
}

fn shown(code: Code, target: &TargetName, finding: &Finding, pin: Option<&Pin>) -> Diagnostic {
    let message = format!("target {target}: {}", finding.message);
    let mut shown = match finding.severity {
        Severity::Error => Diagnostic::error(code, message),
        Severity::Warning => Diagnostic::warning(code, message),
    };
    if let Some(help) = &finding.help {
        shown = shown.with_help(help.clone());
    }
    let step = pin.and_then(|pin| Some((pin, pin.program.step(&finding.step)?)));
    if let Some((pin, step)) = step {
        let location =
            Location { file: pin.path.as_str().into(), line: step.line, column: 1, length: 0 };
        shown = shown.at(location);
    }
    shown
}
