//! `state import`: runs of another state store become this one's, all of a run or nothing of it.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::bounds::store::IMPORT_BYTES_MAX;
use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Import;
use crate::cli::exit::Exit;
use crate::cli::session::{Desk, Session};
use crate::cli::trouble;
use crate::engine::process;
use crate::report::words;
use crate::run::RunId;
use crate::store::export::{self, Export, Exported};
use crate::store::{Create, Error, Fit, Head, History};

pub async fn perform(session: &Session, args: &Import) -> Result<Answer, Failure> {
    let name = args.file.display().to_string();
    let bytes = read(&args.file)?;
    let export = export::read(&bytes).map_err(|error| unreadable(&name, &error))?;
    drop(bytes);
    for run in &export.runs {
        refuse_driven(run, &export)?;
    }
    let desk = session.desk(session.settings_for_run()?, Create::IfMissing).await?;
    // Everything is looked at before anything is written; the store looks again as it writes.
    for run in &export.runs {
        fits(&desk, &run.history).await?;
    }
    let mut done = Vec::new();
    for run in &export.runs {
        let arrival = run.arrival(&export.source);
        let fit = desk.store.import(&arrival, &process::is_dead).await;
        let fit = fit.map_err(|error| {
            let failure = trouble::of_store(&error, &desk);
            if done.is_empty() {
                return failure;
            }
            failure.help(format!(
                "{} came before it, and stay imported",
                words::plural(done.len() as u64, "run")
            ))
        })?;
        done.push((&run.history, fit));
    }
    Ok(answer(&desk, &export, &done))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(IMPORT_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(IMPORT_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    let shown = path.display();
    match read {
        Ok(length) if length as u64 > IMPORT_BYTES_MAX => {
            Err(Failure::new(Exit::Damaged, format!("{shown} is larger than an export can be"))
                .help("export fewer runs at once: `phasegate state export RUN --out FILE`"))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::new(Exit::Damaged, format!("{shown} can't be read: {error}"))
            .help("`phasegate state export --out FILE` writes such a file")),
    }
}

fn unreadable(name: &str, error: &export::Error) -> Failure {
    let failure =
        Failure::new(Exit::Damaged, format!("{name} can't be imported")).because(error.to_string());
    match error {
        export::Error::Newer(_) => {
            failure.help("use the version of phasegate that wrote it, or a newer one")
        }
        export::Error::NotOne => {
            failure.help("`phasegate state export --out FILE` writes such a file")
        }
        _ => failure.help(
            "nothing was imported; carry the file over again, or export the runs again where they are",
        ),
    }
}

/// What was exported while somebody drove the run may lack what was done since, and whoever did that may still be at work.
fn refuse_driven(run: &Exported, export: &Export) -> Result<(), Failure> {
    let Some(holder) = run.driven_by.as_ref().filter(|holder| !process::is_dead(holder)) else {
        return Ok(());
    };
    let id = run.history.run();
    Err(Failure::new(Exit::Held, format!("run {id} was being driven when it was exported"))
        .because(format!(
            "by {} (pid {} on {}), with state store {}",
            holder.name, holder.pid, holder.host, export.source.location
        ))
        .help("nothing was imported; stop it there (Ctrl-C, or `phasegate pause`), then export it again")
        .with(
            "holder",
            json!({ "run": id, "name": holder.name, "host": holder.host, "pid": holder.pid,
                "store": export.source.location }),
        ))
}

/// Whether a run can be imported, by what the store has of it now.
async fn fits(desk: &Desk, history: &History) -> Result<(), Failure> {
    let of_store = |error: Error| trouble::of_store(&error, desk);
    let present = present(desk, history.run()).await.map_err(of_store)?;
    if history.fit(present.as_ref()).map_err(of_store)? == Fit::Same {
        return Ok(());
    }
    let lease = desk.store.lease(history.run()).await.map_err(of_store)?;
    let now = desk.now().await?;
    match lease.filter(|lease| process::is_held(lease, now)) {
        Some(lease) => Err(of_store(Error::Held(Box::new(lease)))),
        None => Ok(()),
    }
}

async fn present(desk: &Desk, run: &RunId) -> Result<Option<Head>, Error> {
    let version = match desk.store.version(run).await {
        Ok(version) => version,
        Err(Error::NoRun(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let last = desk.store.read(run, version.saturating_sub(1), 1).await?.pop();
    Ok(last.map(|entry| Head { version, hash: entry.hash.as_str().to_owned() }))
}

fn answer(desk: &Desk, export: &Export, done: &[(&History, Fit)]) -> Answer {
    let store = &desk.store;
    let documents = done.iter().map(|(history, fit)| document(history, *fit)).collect();
    Answer::done(human(desk, export, done))
        .with("store", json!({ "location": store.location(), "identity": store.identity() }))
        .with(
            "from",
            json!({
                "location": export.source.location,
                "identity": export.source.store,
                "at": words::rfc3339(export.source.at),
                "program": export.source.program,
            }),
        )
        .with("runs", Value::Array(documents))
}

fn human(desk: &Desk, export: &Export, done: &[(&History, Fit)]) -> String {
    if done.is_empty() {
        return "There are no runs in the export.\n".to_owned();
    }
    let mut lines: Vec<String> = done.iter().map(|(history, fit)| said(history, *fit)).collect();
    let open: Vec<&RunId> = done
        .iter()
        .filter(|(history, _)| !history.header().ended)
        .map(|(history, _)| history.run())
        .collect();
    if export.source.store != desk.store.identity() && !open.is_empty() {
        lines.push(format!(
            "From now on drive {} from here only: whoever drives a run first takes its targets over, and the other store is \
             refused there.",
            if open.len() == 1 { "it" } else { "them" }
        ));
    }
    for run in open {
        let line = desk.settings.line(run.to_string());
        lines.push(format!(
            "`{}` holds it against its targets; `{}` shows what is next",
            line.of("history {run} --verify"),
            line.of("status {run}")
        ));
    }
    lines.join("\n")
}

fn said(history: &History, fit: Fit) -> String {
    let header = history.header();
    let what = match fit {
        Fit::New => format!("imported, {}", words::plural(history.head().version, "record")),
        Fit::Same => "is here already, with the same head: nothing was written".to_owned(),
        Fit::Extends(after) => format!(
            "imported what it lacked, {} behind record {after}",
            words::plural(history.head().version - after, "record")
        ),
    };
    words::visible(&format!(
        "run {} of {} in environment {}: {what}",
        header.run, header.plan, header.environment
    ))
}

fn document(history: &History, fit: Fit) -> Value {
    let (word, new) = match fit {
        Fit::New => ("imported", history.head().version),
        Fit::Same => ("present", 0),
        Fit::Extends(after) => ("extended", history.head().version - after),
    };
    let header = history.header();
    json!({
        "run": header.run,
        "plan": header.plan,
        "environment": header.environment,
        "ended": header.ended,
        "outcome": word,
        "records": history.head().version,
        "records_new": new,
    })
}
