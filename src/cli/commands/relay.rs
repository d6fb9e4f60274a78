//! `relay`: changes of a run are carried to other databases, while nobody drives it.

use crate::bounds::cli::RELAY_EVERY;
use crate::cli::answer::{Answer, Failure};
use crate::cli::args::RunArg;
use crate::cli::drive::Cockpit;
use crate::cli::exit::Exit;
use crate::cli::relays;
use crate::cli::session::{OpenRun, Session};
use crate::engine::{self, Relays, Signal};
use crate::report::relay::{RelayView, document, render};
use crate::run::{Mapping, Timestamp};

pub async fn perform(session: &Session, args: &RunArg) -> Result<Answer, Failure> {
    let mut run = session.open(&args.run).await?;
    if run.state().program().mappings().values().all(Mapping::is_pushdown) {
        return Err(Failure::usage("the plan copies nothing into another database")
            .help("`relay` carries changes of mappings whose sides are in two targets"));
    }
    if run.state().is_ended() {
        return answer(session, &run, "The run is over: there is nothing to carry.\n").await;
    }
    let cockpit = Cockpit::open(session, &run.desk, run.state().pin(), &run.line).await?;
    engine::is_here(&cockpit.ctx, run.state()).await.map_err(|error| run.failure(&error))?;
    session.catch_signals();
    let mut signal = session.signal.clone();
    let mut carrying = Relays::start(&cockpit.ctx, run.state());
    let mut said = String::new();
    let ended = loop {
        tokio::select! {
            biased;
            changed = signal.wait_for(|signal| *signal != Signal::None) => {
                if changed.is_ok() {
                    break None;
                }
            }
            ended = carrying.ended() => break Some(ended),
            () = tokio::time::sleep(RELAY_EVERY) => {}
        }
        let views = match look(session, &mut run).await {
            Ok(views) => views,
            Err(failure) => {
                // The relay waits until this has passed, and so do we.
                let why = [vec![failure.message], failure.causes].concat().join(": ");
                let news = format!("what waits can't be told now: {why}");
                if news != said {
                    tracing::warn!("{news}");
                    said = news;
                }
                continue;
            }
        };
        carrying.learn(&cockpit.ctx, run.state());
        // That time has passed since the last change is nothing new.
        let news = render(&views, Timestamp::default());
        if news != said {
            session.printer.message(render(&views, run.now).trim_start_matches('\n'));
            said = news;
        }
    };
    carrying.stop().await;
    cockpit.close().await;
    if let Some(Err(error)) = &ended {
        return Err(run.failure(error));
    }
    run.reload().await?;
    let exit = Exit::of_signal(*signal.borrow());
    let sentence = if ended.is_none() {
        "Stopped: changes wait in the outbox until a relay goes on.\n"
    } else {
        "The run is over: there is nothing left to carry.\n"
    };
    Ok(answer(session, &run, sentence).await?.exiting(exit))
}

async fn look(session: &Session, run: &mut OpenRun) -> Result<Vec<RelayView>, Failure> {
    run.reload().await?;
    relays::look(session, run).await
}

async fn answer(session: &Session, run: &OpenRun, sentence: &str) -> Result<Answer, Failure> {
    let views = relays::look(session, run).await?;
    let human = format!("{sentence}{}", render(&views, run.now));
    let state = engine::load(&run.desk.store, &run.id).await.map_err(|it| run.failure(&it))?;
    Ok(Answer::done(human)
        .with("run", serde_json::json!(state.state.run()))
        .with("relays", document(&views)))
}
