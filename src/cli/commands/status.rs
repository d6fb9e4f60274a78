//! `status`: where a run stands, and what to do next.

use serde_json::{Value, json};

use crate::bounds::cli::WATCH_EVERY;
use crate::bounds::message::PARKED_LISTED_MAX;
use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Status;
use crate::cli::drive::Cockpit;
use crate::cli::relays;
use crate::cli::select;
use crate::cli::session::{Desk, OpenRun, Session};
use crate::cli::trouble;
use crate::engine::{self, Signal};
use crate::report::status::StatusView;
use crate::report::{Format, parked, relay};
use crate::run::{MappingName, Parked, RunId};
use crate::store::{Create, RunHeader};

pub async fn perform(session: &Session, args: &Status) -> Result<Answer, Failure> {
    let desk = session.desk(session.settings_for_run()?, Create::Never).await?;
    let runs = desk.runs().await?;
    let Some(id) = chosen(&desk, &runs, args.run.as_deref())? else {
        let program = &desk.settings.program;
        let human =
            format!("No runs yet in {}. `{program} run PLAN` starts one.\n", desk.store.location());
        return Ok(Answer::done(human).with("run", Value::Null));
    };
    let mut run = desk.open(id, &runs).await?;
    if args.watch {
        return watch(session, &mut run).await;
    }
    let mut answer = answer(session, &run).await?;
    if args.parked {
        let mut parked = parked(session, &run).await?;
        let redact = session.global.redact().max(run.state().program().policy().redact);
        for (_, rows) in &mut parked {
            rows.redact(redact);
        }
        answer.human.push_str(&parked::render(&parked));
        answer = answer.with("parked", parked::document(&parked));
    }
    let others = others(&runs, &run);
    if args.run.is_none() && !others.is_empty() {
        answer.human.push_str("\nOther unfinished runs: ");
        answer.human.push_str(&others.join(", "));
        answer.human.push('\n');
    }
    Ok(answer.with("other_unfinished_runs", json!(others)))
}

/// The run that was typed; else the newest unfinished one, else the newest.
fn chosen(desk: &Desk, runs: &[RunHeader], typed: Option<&str>) -> Result<Option<RunId>, Failure> {
    let environment =
        desk.settings.environment.as_ref().filter(|_| desk.settings.project.is_some());
    if let Some(typed) = typed {
        return select::choose(runs, typed, environment).map(Some);
    }
    let here = || runs.iter().filter(|run| environment.is_none_or(|name| run.environment == *name));
    let run = here().find(|run| !run.ended).or_else(|| here().next());
    Ok(run.map(|run| run.run.clone()))
}

fn others(runs: &[RunHeader], shown: &OpenRun) -> Vec<String> {
    let others = runs.iter().filter(|run| !run.ended && run.run != shown.id);
    others.map(|run| format!("{} ({})", run.plan, run.run)).collect()
}

async fn answer(session: &Session, run: &OpenRun) -> Result<Answer, Failure> {
    let live = run.desk.store.progress(&run.id).await;
    let live = live.map_err(|error| trouble::of_store(&error, &run.desk))?;
    let view = StatusView {
        state: run.state(),
        driver: run.driver(),
        live: &live,
        line: &run.line,
        now: run.now,
    };
    let mut human = view.render(session.printer.result_colour());
    let relays = relays::look(session, run).await?;
    human.push_str(&relay::render(&relays, run.now));
    Ok(Answer::done(human).with_all(view.document()).with("relays", relay::document(&relays)))
}

/// The parked rows as the targets have them, at most [`PARKED_LISTED_MAX`] of each mapping.
async fn parked(session: &Session, run: &OpenRun) -> Result<Vec<(MappingName, Parked)>, Failure> {
    // The tables of a run that is over are gone, and nothing is parked in them.
    if run.state().is_ended() || run.state().program().parks().next().is_none() {
        return Ok(Vec::new());
    }
    let cockpit = Cockpit::open(session, &run.desk, run.state().pin(), &run.line).await?;
    let found = engine::parked(&cockpit.ctx, run.state(), PARKED_LISTED_MAX).await;
    cockpit.close().await;
    found.map_err(|error| run.failure(&error))
}

/// Shows the status again and again until nobody drives the run. Ctrl-C ends the watching, and nothing else.
async fn watch(session: &Session, run: &mut OpenRun) -> Result<Answer, Failure> {
    session.catch_signals();
    let mut signal = session.signal.clone();
    loop {
        let shown = answer(session, run).await?.ending_a_stream();
        if run.driver().is_none() || *signal.borrow() != Signal::None {
            return Ok(shown);
        }
        redraw(session, &shown);
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            changed = signal.changed() => {
                if changed.is_err() {
                    return Ok(shown);
                }
            }
        }
        run.reload().await?;
    }
}

/// On a terminal the screen is drawn anew; elsewhere each look is a document of its own.
fn redraw(session: &Session, shown: &Answer) {
    match session.printer.format() {
        Format::Json => session.printer.line(&shown.document("status")),
        Format::Human if session.printer.shows_results() => {
            session.printer.result(&format!("\u{1b}[H\u{1b}[2J{}", shown.human));
        }
        Format::Human => session.printer.result(&shown.human),
    }
}
