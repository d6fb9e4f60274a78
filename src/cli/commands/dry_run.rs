//! `dry-run`: what a plan would do, and what its databases say to it. Changes nothing, and opens no state store.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::json;

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::{self, DryRun, FailOn, Format, ReportFile, ReportKind};
use crate::cli::exit::Exit;
use crate::cli::outlook::{self, Looked, Looks};
use crate::cli::session::Session;
use crate::cli::settings::Settings;
use crate::cli::{trouble, wiring};
use crate::clock::Stopwatch;
use crate::diagnostic::Severity;
use crate::driver::Access;
use crate::engine;
use crate::report::dry_run::{Depth, DryRun as Document};
use crate::report::{Colour, CommandLine};
use crate::run::{Pin, Redact, TargetName};

pub async fn perform(session: &Session, args: &DryRun) -> Result<Answer, Failure> {
    args.reports.iter().try_for_each(has_folder)?;
    let path = &args.plan.plan;
    let settings = session.settings_for_plan(path)?;
    let environment = settings.environment_of_plan();
    let loaded = wiring::load_plan(path, settings.project.as_ref(), &environment);
    let depth = match args.depth {
        args::Depth::Render => Depth::Render,
        args::Depth::Probe => Depth::Probe,
    };
    let answer = match loaded {
        // Findings are what was asked for, in whatever form: a result, and not a failure to give one.
        Err(failure) if failure.exit == Exit::Findings => {
            let file = path.display().to_string();
            let run = outlook::of_findings(&file, &environment, depth, &failure);
            answer(session, &run, Exit::Findings)
        }
        Err(failure) => return Err(failure),
        Ok(plan) => {
            let looks = match depth {
                Depth::Render => None,
                Depth::Probe => Some(look(&settings, &plan.pin, session.global.redact()).await),
            };
            let run = outlook::of_plan(&plan, looks.as_ref());
            let unseen = looks.iter().flatten().find_map(|(_, look)| match look {
                Ok(looked) => looked.unseen.as_ref(),
                Err(failure) => Some(failure),
            });
            let found = match args.fail_on {
                FailOn::Error => run.count(Severity::Error),
                FailOn::Warning => run.findings.len(),
            };
            match unseen {
                Some(failure) => incomplete(session, &run, failure),
                None if found > 0 => answer(session, &run, Exit::Findings),
                None => answer(session, &run, Exit::Done),
            }
        }
    };
    let (answer, run) = answer;
    for report in &args.reports {
        write(report, &contents(report.kind, &answer, &run))?;
    }
    Ok(answer)
}

fn answer(session: &Session, run: &Document, exit: Exit) -> (Answer, Document) {
    let human = match session.global.format {
        Format::Junit => run.junit(),
        Format::Markdown => run.markdown(),
        Format::Github => run.github(),
        _ => run.human(session.printer.result_colour()),
    };
    (Answer::done(human).exiting(exit).with_all(run.document()), run.clone())
}

/// What could be seen, where a database could not be: the answer is that of the database, since nobody knows what else is
/// wrong.
fn incomplete(session: &Session, run: &Document, failure: &Failure) -> (Answer, Document) {
    if session.global.format != Format::Json {
        session.printer.message(&failure.render(session.printer.message_colour()));
    }
    let error = json!({
        "message": failure.message,
        "causes": failure.causes,
        "help": failure.help,
    });
    let (answer, run) = answer(session, run, failure.exit);
    (answer.with("error", error), run)
}

/// Asks every database, whether or not another could be asked.
async fn look(settings: &Settings, pin: &Pin, redact: Redact) -> Looks {
    let line = settings.line(pin.program.plan());
    let mut looks = Looks::new();
    for target in pin.program.targets().keys() {
        looks.insert(target.clone(), look_at((pin, &line), target, redact).await);
    }
    looks
}

async fn look_at(
    (pin, line): (&Pin, &CommandLine),
    target: &TargetName,
    redact: Redact,
) -> Result<Looked, Failure> {
    let watch = Stopwatch::start();
    let driver = wiring::open_driver((pin, line), target, Access::ReadOnly, redact).await?;
    let survey = outlook::survey(&pin.program, target);
    let told = async {
        let identity = engine::patiently(|| false, || driver.identity()).await?;
        let probed = engine::patiently(|| false, || driver.probe(&survey)).await?;
        Ok((identity, probed))
    };
    let told = told.await;
    driver.close().await;
    let failure = |error| trouble::of_target(&error, target, Some((pin, line)));
    let (identity, probed) = told.map_err(failure)?;
    let unseen = probed.unseen.clone().map(failure);
    Ok(Looked { identity, probed, took_ms: watch.elapsed_ms(), unseen })
}

/// A report for which there is no folder is found out before anything is asked.
fn has_folder(report: &ReportFile) -> Result<(), Failure> {
    let folder = folder(&report.file);
    if folder.is_dir() {
        return Ok(());
    }
    let shown = folder.display();
    Err(Failure::usage(format!("there is no folder {shown} to write {} to", report.file.display()))
        .help(format!("make it first: `mkdir -p {shown}`")))
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn contents(kind: ReportKind, answer: &Answer, run: &Document) -> String {
    match kind {
        ReportKind::Human => run.human(Colour::Off),
        ReportKind::Json => format!("{:#}\n", answer.document("dry-run")),
        ReportKind::Junit => run.junit(),
        ReportKind::Markdown => run.markdown(),
        ReportKind::Github => run.github(),
    }
}

/// Writes a file whole or not at all: whoever reads it while it is written finds the one from before.
fn write(report: &ReportFile, text: &str) -> Result<(), Failure> {
    let file = &report.file;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = folder(file).join(format!(".{name}.{}", std::process::id()));
    let written = fs::File::create(&beside)
        .and_then(|mut open| open.write_all(text.as_bytes()).and_then(|()| open.sync_all()))
        .and_then(|()| fs::rename(&beside, file));
    written.map_err(|error| {
        // What was begun is of no use; if it can't be removed either, the first error says why.
        let _ = fs::remove_file(&beside);
        Failure::new(Exit::Unreachable, format!("could not write {}", file.display()))
            .because(error.to_string())
            .help("write to a folder with room that you may write to")
    })
}
