//! Driving a run: opens its databases, shows how it goes, and says how it ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::driver::SharedDriver;
use crate::engine::event::Observer;
use crate::engine::{self, Context, Driven, Options, Signal, process};
use crate::report::gates::GateView;
use crate::report::status::StatusView;
use crate::report::{Bars, CommandLine, Format, Plain, summary};
use crate::run::{Ending, GateReport, Goal, Pin, Stop, TargetName, Way};

use super::answer::{Answer, Failure};
use super::args::Drive;
use super::exit::Exit;
use super::pinned;
use super::session::{Desk, OpenRun, Session};
use super::wiring;

/// How far a drive goes, and what its asker wanted of the run.
#[derive(Clone, Debug)]
pub struct Journey {
    /// How far.
    pub goal: Goal,
    /// How long it waits at gates.
    pub wait: Duration,
    /// How the run should end, if it ends.
    pub wanted: Ending,
    /// What a reached goal with work left is answered with.
    pub left: Exit,
}

impl Journey {
    /// Forward, to a goal, as typed.
    #[must_use]
    pub fn forward(goal: Goal, typed: &Drive) -> Self {
        Self {
            goal,
            wait: typed.wait.unwrap_or_default(),
            wanted: Ending::Completed,
            left: if typed.detailed_exitcode { Exit::Pending } else { Exit::Done },
        }
    }

    /// To another end of the run, as far as that takes.
    #[must_use]
    pub const fn ending(wanted: Ending) -> Self {
        Self { goal: Goal::End, wait: Duration::ZERO, wanted, left: Exit::Done }
    }

    fn options(&self) -> Options {
        let wait_ms = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX);
        Options { goal: self.goal.clone(), wait_ms }
    }
}

/// Everything the engine works with, and the watcher whose bars must go at the end.
pub struct Cockpit {
    /// For the engine.
    pub ctx: Context,
    bars: Option<Arc<Bars>>,
}

impl Cockpit {
    /// Opens every database of a plan.
    pub async fn open(
        session: &Session,
        desk: &Desk,
        pin: &Pin,
        line: &CommandLine,
    ) -> Result<Self, Failure> {
        let drivers = wiring::open_drivers(pin, line, session.global.redact()).await?;
        Ok(Self::over(session, desk, pin, drivers))
    }

    /// Over databases that are open.
    pub fn over(
        session: &Session,
        desk: &Desk,
        pin: &Pin,
        drivers: BTreeMap<TargetName, SharedDriver>,
    ) -> Self {
        let bars =
            session.printer.shows_bars().then(|| Arc::new(Bars::new(session.printer.clone())));
        let observer: Arc<dyn Observer> = match &bars {
            Some(bars) => bars.clone(),
            None => Arc::new(Plain::new(session.printer.clone())),
        };
        let ctx = Context {
            store: desk.store.clone(),
            drivers,
            actor: desk.actor().clone(),
            claimant: process::this_process(&desk.actor().name),
            observer,
            signal: session.signal.clone(),
            redact: session.global.redact(),
            other_policy: pinned::watch(session, desk, pin),
        };
        Self { ctx, bars }
    }

    /// Takes the bars away and closes the databases.
    pub async fn close(self) {
        if let Some(bars) = &self.bars {
            bars.clear();
        }
        for driver in self.ctx.drivers.values() {
            driver.close().await;
        }
    }
}

/// Drives a run and answers with how that ended.
pub async fn drive(
    session: &Session,
    mut run: OpenRun,
    journey: &Journey,
) -> Result<Answer, Failure> {
    let cockpit = Cockpit::open(session, &run.desk, run.state().pin(), &run.line).await?;
    // From here on a signal is the engine's: it ends in order, with everything recorded.
    session.catch_signals();
    let driven = engine::drive(&cockpit.ctx, &run.id, &journey.options()).await;
    cockpit.close().await;
    let driven = driven.map_err(|error| run.failure(&error))?;
    run.reload().await?;
    Ok(answer(session, &run, &driven, journey))
}

/// What there is to say at the end of a drive.
fn answer(session: &Session, run: &OpenRun, driven: &Driven, journey: &Journey) -> Answer {
    let state = run.state();
    let exit = match Exit::of_driven(driven, journey.wanted) {
        Exit::Done if !state.is_ended() => journey.left,
        exit => exit,
    };
    let view = StatusView { state, driver: run.driver(), live: &[], line: &run.line, now: run.now };
    let colour = session.printer.result_colour();
    let mut human = String::new();
    if session.printer.format() == Format::Human {
        human = summary::render(state, &view.advice(), run.now, colour);
        if let Driven::Stopped(Stop::AtGate(reports)) = driven {
            for report in reports {
                human.push('\n');
                human.push_str(&gate_view(run, report).render(colour));
            }
        }
        if let Driven::Interrupted(signal) = driven {
            human.push_str(&interrupted(*signal));
        }
    }
    let stop = stop_document(run, driven);
    Answer::done(human).exiting(exit).with_all(view.document()).with("stop", stop)
}

fn gate_view<'a>(run: &'a OpenRun, report: &'a GateReport) -> GateView<'a> {
    GateView { report, state: run.state(), line: &run.line, now: run.now }
}

fn interrupted(signal: Signal) -> String {
    let how = match signal {
        Signal::Now(_) => "It was stopped at once",
        _ => "It was stopped after its last chunk",
    };
    format!("\n{how}; everything done is recorded, and the same command goes on.\n")
}

fn stop_document(run: &OpenRun, driven: &Driven) -> Value {
    let stop = match driven {
        Driven::Interrupted(_) => return json!({ "kind": "interrupted" }),
        Driven::Stopped(stop) => stop,
    };
    match stop {
        Stop::Ended(ending) => json!({ "kind": "ended", "ending": ending }),
        Stop::ReachedGoal => json!({ "kind": "reached_goal" }),
        Stop::AtGate(reports) => {
            let gates: Vec<Value> =
                reports.iter().map(|report| gate_view(run, report).document()).collect();
            json!({ "kind": "at_gate", "gates": gates })
        }
        Stop::StepFailed { step, way, failure } => json!({
            "kind": "step_failed",
            "step": step,
            "undoing": *way == Way::Back,
            "failure": failure,
        }),
        Stop::Differs { step, evidence } => {
            json!({ "kind": "differs", "step": step, "evidence": evidence })
        }
        Stop::Ambiguous { step, detail } => {
            json!({ "kind": "ambiguous", "step": step, "detail": detail })
        }
        Stop::Paused { reason } => json!({ "kind": "paused", "reason": reason }),
    }
}
