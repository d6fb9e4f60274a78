//! `state export`: runs as JSON lines. They are read and checked before the first line is written.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Export;
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::cli::{select, trouble, wiring};
use crate::engine::process;
use crate::report::{Format, words};
use crate::run::{Redact, RunId};
use crate::store::export::{Exported, Source, write};
use crate::store::{Archive, Error, Flaw, History, Kept, RunHeader};

pub async fn perform(session: &Session, args: &Export) -> Result<Answer, Failure> {
    refuse_senseless(session, args)?;
    let settings = session.settings_for_run()?;
    let mut archive = wiring::open_archive(settings.state.as_ref().map_err(Clone::clone)?).await?;
    let location = archive.location();
    let of_store = |error: Error| trouble::opening(&error, &location);
    let (found, unreadable) = all(archive.as_mut()).await.map_err(of_store)?;
    let chosen = choose(args, &found, &unreadable, settings.environment.as_ref())?;
    let found = found.into_iter().filter(|kept| chosen.contains(&kept.header.run)).collect();
    let (runs, mut wrong) = whole(archive.as_mut(), found).await.map_err(of_store)?;
    if args.runs.is_empty() {
        wrong.extend(unreadable);
    }
    if !wrong.is_empty() {
        return Err(damaged(&wrong, &runs, &settings.program));
    }
    let source = Source {
        store: archive.identity().await.map_err(of_store)?,
        location: location.clone(),
        at: archive.now().await.map_err(of_store)?,
        program: concat!("phasegate ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let text = write(&source, &runs)
        .map_err(|error| Failure::new(Exit::Damaged, error.to_string()).help(RESTORE))?;
    for run in &runs {
        note_driven(session, run);
    }
    match &args.out {
        Some(out) => {
            let place = if args.force { Place::Taken } else { Place::Free };
            to_file(out, &text, place, &runs)
        }
        None => {
            session.printer.whole(&text).map_err(|error| {
                Failure::new(Exit::Unreachable, format!("the export can't be written: {error}"))
                    .help("what was written is not whole; `state import` would refuse it")
            })?;
            Ok(Answer::done(String::new()))
        }
    }
}

fn refuse_senseless(session: &Session, args: &Export) -> Result<(), Failure> {
    if session.global.redact() != Redact::Nothing {
        return Err(Failure::usage("an export holds records exactly as they are stored")
            .help("leave --redact out; `policy.redact` keeps values out of the journal itself"));
    }
    if args.out.is_none() && session.printer.format() == Format::Json {
        return Err(Failure::usage("the export itself goes to stdout, and so would the document")
            .help("name a file with --out, or leave --format json out"));
    }
    match &args.out {
        Some(out) if !args.force && out.exists() => Err(is_there(out)),
        _ => Ok(()),
    }
}

/// The runs that hold, with what goes along with their journals, and what is wrong with the others.
async fn whole(
    archive: &mut dyn Archive,
    found: Vec<Kept>,
) -> Result<(Vec<Exported>, Vec<(RunId, Flaw)>), Error> {
    let (now, leases) = (archive.now().await?, archive.leases().await?);
    let (mut runs, mut wrong) = (Vec::new(), Vec::new());
    for kept in found {
        let run = kept.header.run.clone();
        let history = match History::verify(kept) {
            Ok(history) => history,
            Err(flaw) => {
                wrong.push((run, flaw));
                continue;
            }
        };
        let of_run = leases.iter().filter(|lease| lease.of.served() == run);
        let tokens = of_run.clone().map(|lease| (lease.of.clone(), lease.token())).collect();
        let driven_by = of_run
            .filter(|lease| lease.of == run)
            .find_map(|lease| lease.holder(now, process::is_dead));
        runs.push(Exported { history, tokens, driven_by });
    }
    Ok((runs, wrong))
}

fn note_driven(session: &Session, run: &Exported) {
    let Some(holder) = &run.driven_by else { return };
    session.printer.message(&words::visible(&format!(
        "note: run {} is driven by {} (pid {} on {}) now, so this export of it can't be imported; export it again when \
         nobody drives it",
        run.history.run(),
        holder.name,
        holder.pid,
        holder.host
    )));
}

fn to_file(out: &Path, text: &str, place: Place, runs: &[Exported]) -> Result<Answer, Failure> {
    let was_there = out.exists();
    put(out, text.as_bytes(), place)?;
    let records: usize = runs.iter().map(|run| run.history.records().len()).sum();
    let human = format!(
        "Exported {} with {} to {}{}.\n",
        words::plural(runs.len() as u64, "run"),
        words::plural(records as u64, "record"),
        out.display(),
        if was_there { ", in the place of the file that was there" } else { "" }
    );
    let ids: Vec<&RunId> = runs.iter().map(|run| run.history.run()).collect();
    Ok(Answer::done(human)
        .with("file", json!(out.display().to_string()))
        .with("replaced", json!(was_there))
        .with("runs", json!(ids))
        .with("records", json!(records)))
}

const RESTORE: &str = "nothing was written; bring the state store back from a backup";

/// Every run that can be read, and what is wrong with the others.
async fn all(archive: &mut dyn Archive) -> Result<(Vec<Kept>, Vec<(RunId, Flaw)>), Error> {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for run in archive.names().await? {
        let how = match archive.run(&run).await {
            Ok(Some(kept)) => {
                found.push(kept);
                continue;
            }
            Ok(None) => "there are records of it, and the run's row is missing".to_owned(),
            Err(Error::Damaged { message }) => format!("it can't be read: {message}"),
            Err(error) => return Err(error),
        };
        let kind = crate::store::FlawKind::Damaged;
        unreadable.push((run, Flaw { version: None, kind, how }));
    }
    Ok((found, unreadable))
}

/// The runs that were typed, or all.
fn choose(
    args: &Export,
    found: &[Kept],
    unreadable: &[(RunId, Flaw)],
    environment: Option<&crate::run::EnvironmentName>,
) -> Result<Vec<RunId>, Failure> {
    let headers: Vec<RunHeader> = found.iter().map(|kept| kept.header.clone()).collect();
    if args.runs.is_empty() {
        return Ok(headers.into_iter().map(|header| header.run).collect());
    }
    let one = |typed: &String| match unreadable.iter().find(|(run, _)| run.as_str() == typed) {
        Some((run, flaw)) => Err(Failure::new(Exit::Damaged, flaw.sentence(run)).help(RESTORE)),
        None => select::choose(&headers, typed, environment),
    };
    args.runs.iter().map(one).collect()
}

fn damaged(wrong: &[(RunId, Flaw)], whole: &[Exported], program: &str) -> Failure {
    let runs = words::plural(wrong.len() as u64, "run");
    let mut failure = Failure::new(Exit::Damaged, format!("nothing was exported: {runs} can't be"));
    failure.causes.extend(wrong.iter().map(|(run, flaw)| flaw.sentence(run)));
    if !whole.is_empty() {
        let ids: Vec<&str> = whole.iter().map(|run| run.history.run().as_str()).collect();
        failure = failure
            .help(format!("name the runs that hold: `{program} state export {}`", ids.join(" ")));
    }
    failure.help(RESTORE)
}

fn is_there(out: &Path) -> Failure {
    Failure::usage(format!("{} is there already", out.display()))
        .help("name another file, or replace it with --force")
}

/// Where a file is put.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where nothing is.
    Free,
    /// Where something may be, which is replaced.
    Taken,
}

/// Writes a file as a whole: under another name, and then in its place.
fn put(out: &Path, bytes: &[u8], place: Place) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Unreachable, format!("{} can't be written: {error}", out.display()))
            .help("nothing was left there; name another file with --out")
    };
    let mut name = out.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(name);
    let placed = draw_up(&draft, bytes).and_then(|()| {
        if place == Place::Taken {
            return fs::rename(&draft, out);
        }
        match fs::hard_link(&draft, out) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists && !out.exists() => {
                // Not every file system has hard links.
                fs::rename(&draft, out)
            }
            linked => linked,
        }
    });
    // Whatever came of it, the draft goes.
    let _ = fs::remove_file(&draft);
    placed.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(out),
        _ => failed(error),
    })
}

fn draw_up(draft: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs::File::create(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}
