//! `state adopt`: goes on with a run whose state store is lost.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Adopt;
use crate::cli::commands::run::{refuse_unfillable, warn};
use crate::cli::confirm::{self, Agreed};
use crate::cli::drive::{Cockpit, Journey, drive};
use crate::cli::exit::Exit;
use crate::cli::session::{Desk, OpenRun, Session};
use crate::cli::trouble;
use crate::cli::wiring;
use crate::driver::{Remnant, store_identity};
use crate::engine::{self, Remnants, process};
use crate::report::advice::quoted;
use crate::report::words;
use crate::run::{Ending, Goal, Pin, RunId, Standing, TargetName};
use crate::store::{self, Create};

pub async fn perform(session: &Session, args: &Adopt) -> Result<Answer, Failure> {
    let path = &args.plan.plan;
    let settings = session.settings_for_plan(path)?;
    let environment = settings.environment_of_plan();
    let plan = wiring::load_plan(path, settings.project.as_ref(), &environment)?;
    warn(session, &plan);
    let desk = session.desk(settings, Create::IfMissing).await?;
    let pin = plan.pin;
    let runs = desk.runs().await?;
    let here = runs
        .iter()
        .find(|run| !run.ended && run.plan == pin.program.plan() && run.environment == environment);
    if let Some(header) = here {
        let run = desk.open(header.run.clone(), &runs).await?;
        if !run.state().is_being_adopted() {
            return Err(not_lost(&run));
        }
        return read(session, &desk, run).await;
    }
    refuse_unfillable(&pin, &desk.actor().name)?;
    let line = desk.settings.line(pin.program.plan());
    let cockpit = Cockpit::open(session, &desk, &pin, &line).await?;
    let begun = begin(session, (&desk, &cockpit), &pin, args).await;
    cockpit.close().await;
    let id = begun?;
    let runs = desk.runs().await?;
    let run = desk.open(id, &runs).await?;
    read(session, &desk, run).await
}

/// The store has the run, so there is nothing to adopt.
fn not_lost(run: &OpenRun) -> Failure {
    let plan = run.state().program().plan();
    Failure::usage(format!(
        "run {} of plan {plan} is in this state store: its journal is not lost",
        run.id
    ))
    .help(format!("`{}` goes on with it", run.line.go_on(run.state())))
    .help("where that says that this is an older copy, and the newer one is lost, adopt into a new state store: `phasegate --state NEW state adopt PLAN`")
}

/// Finds the run in the targets, makes sure that it may be taken, and begins a journal for it.
async fn begin(
    session: &Session,
    (desk, cockpit): (&Desk, &Cockpit),
    pin: &Pin,
    args: &Adopt,
) -> Result<RunId, Failure> {
    let line = desk.settings.line(pin.program.plan());
    let of_engine = |error| trouble::of_engine(&error, desk, Some((pin, &line)));
    let remnants = engine::remnants(&cockpit.ctx, pin.program.plan()).await.map_err(of_engine)?;
    let run = choose(&remnants, pin, args.run.as_deref())?;
    let found: BTreeMap<&TargetName, &Remnant> = remnants
        .iter()
        .filter_map(|(target, all)| Some((target, all.iter().find(|one| one.run == run)?)))
        .collect();
    refuse_other_plan(&run, &found, pin)?;
    refuse_older_copy(&run, &found, desk)?;
    refuse_living(&run, &found, &cockpit.ctx.claimant.host)?;
    refuse_whole(&run, &found, desk).await?;
    let listed = listed(&run, &found);
    confirm::confirm(session, Agreed::from(args.yes), &listed, "Go on with this run from here?")
        .await?;
    let from = found.values().map(|one| holder(one)).collect::<BTreeSet<_>>();
    let from = from.into_iter().collect::<Vec<_>>().join("; ");
    engine::begin_anew(&cockpit.ctx, pin.clone(), (&run, from), &remnants)
        .await
        .map_err(of_engine)?;
    Ok(run)
}

/// The run that the targets have open.
fn choose(remnants: &Remnants, pin: &Pin, typed: Option<&str>) -> Result<RunId, Failure> {
    let open: BTreeSet<&RunId> =
        remnants.values().flatten().filter(|one| one.is_open).map(|one| &one.run).collect();
    let plan = pin.program.plan();
    let meant: Vec<&RunId> = open
        .iter()
        .filter(|run| typed.is_none_or(|typed| run.as_str().starts_with(typed)))
        .copied()
        .collect();
    let names = || open.iter().map(|run| run.as_str()).collect::<Vec<_>>().join(", ");
    match (meant.as_slice(), typed) {
        ([run], _) => Ok((*run).clone()),
        ([], Some(typed)) if !open.is_empty() => {
            Err(Failure::usage(format!("the targets have no open run {typed} of plan {plan}"))
                .help(format!("they have: {}", names())))
        }
        ([], _) => {
            let message =
                format!("no target has an open run of plan {plan}: there is nothing to adopt");
            Err(Failure::usage(message)
                .help(format!("`phasegate run {}` starts one", quoted(&pin.path))))
        }
        _ => Err(Failure::usage(format!("the targets have several open runs of plan {plan}"))
            .help(format!("say which with --run: {}", names()))),
    }
}

/// What the ledgers have is told by the plan that they were written under: that of the target that knows most of the journal. One
/// that an amendment has left out, or not come to yet, still has the plan from before.
fn refuse_other_plan(
    run: &RunId,
    found: &BTreeMap<&TargetName, &Remnant>,
    pin: &Pin,
) -> Result<(), Failure> {
    let ours = pin.program.digest().as_str();
    let newest = found.values().max_by_key(|one| one.head.as_ref().map(|head| head.version));
    if newest.is_some_and(|one| one.digest == ours) {
        return Ok(());
    }
    let mut failure = Failure::new(
        Exit::Stale,
        format!("run {run} was not made by {} as it is now, whose digest is {ours}", pin.path),
    );
    for (target, one) in found {
        failure = failure.because(format!("target {target} has it with digest {}", one.digest));
    }
    Err(failure.help("name the plan as it was when the state store was lost, from version control; `validate` shows a digest"))
}

/// Under the same identity nobody could tell the newer tokens from the older ones.
fn refuse_older_copy(
    run: &RunId,
    found: &BTreeMap<&TargetName, &Remnant>,
    desk: &Desk,
) -> Result<(), Failure> {
    let is_same = |one: &&Remnant| store_identity(&one.store) == desk.store.identity();
    if !found.values().any(is_same) {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Damaged,
        format!("run {run} is of this state store, which doesn't have it: this is an older copy of it, or it has lost its newest records"),
    )
    .because(format!("the state store is {}", desk.store.location()))
    .help("look for the newer one first (those of a SQLite file may stand in the -wal file beside it)")
    .help("if it is lost for good, adopt into a new state store: `phasegate --state NEW state adopt PLAN`"))
}

/// Whoever still drives the run has a state store.
fn refuse_living(
    run: &RunId,
    found: &BTreeMap<&TargetName, &Remnant>,
    host: &str,
) -> Result<(), Failure> {
    // Ids come again: in a container this process may have the very one that the last had.
    let is_other = |pid: u32| pid != std::process::id() && process::is_there(pid);
    let living = |one: &&&Remnant| one.host == host && is_other(one.pid);
    let Some(one) = found.values().find(living) else { return Ok(()) };
    Err(Failure::new(Exit::Held, format!("run {run} may be under way: {}", holder(one)))
        .help("that process has not ended; if it is this run's driver, stop it first")
        .with("holder", json!({ "run": run, "host": one.host, "pid": one.pid, "since": one.since, "store": one.store })))
}

/// A state store that is still where it was has all that is to be known of the run.
async fn refuse_whole(
    run: &RunId,
    found: &BTreeMap<&TargetName, &Remnant>,
    desk: &Desk,
) -> Result<(), Failure> {
    let places: BTreeSet<&str> =
        found.values().filter_map(|one| one.store.split_once(" at ")).map(|(_, at)| at).collect();
    for place in places.into_iter().filter(|place| *place != desk.store.place()) {
        // One that can't be opened from here (it is away, damaged, or its password is not known) may well be lost.
        let Ok(other) = store::open(place, Create::Never).await else { continue };
        let mut has = other.version(run).await.is_ok();
        // An older copy of it, put where it was, is not what the targets know.
        for head in found.values().filter_map(|one| one.head.as_ref()) {
            let before = head.version.saturating_sub(1);
            let last = other.read(run, before, 1).await.ok().and_then(|mut all| all.pop());
            has &= last.is_some_and(|last| last.hash == head.hash);
        }
        other.close().await;
        if has {
            return Err(Failure::new(
                Exit::Held,
                format!("run {run} is not lost: its journal is in state store {place}"),
            )
            .help(format!(
                "go on from there: `phasegate --state {} status {run}`",
                quoted(place)
            )));
        }
    }
    Ok(())
}

fn holder(one: &Remnant) -> String {
    format!(
        "last driven by pid {} on {}, since {}, with state store {}",
        one.pid, one.host, one.since, one.store
    )
}

fn listed(run: &RunId, found: &BTreeMap<&TargetName, &Remnant>) -> String {
    let of = |(target, one): (&&TargetName, &&Remnant)| {
        format!("  {target}: {}\n", words::visible(&holder(one)))
    };
    let found: String = found.iter().map(of).collect();
    format!(
        "Run {run} has left in its targets:\n{found}Its journal is given up: approvals are void, comparisons are made again, and whoever still drives it is shut out.\n"
    )
}

/// Has the ledgers read, and the journal learn what they have.
async fn read(session: &Session, desk: &Desk, run: OpenRun) -> Result<Answer, Failure> {
    let id = run.id.clone();
    let only_look =
        Journey { goal: Goal::Through(BTreeSet::new()), ..Journey::ending(Ending::Completed) };
    let looked = drive(session, run, &only_look).await?;
    let run = desk.open(id, &desk.runs().await?).await?;
    let state = run.state();
    let whole = state.adoption().map(|adoption| adoption.whole.clone()).unwrap_or_default();
    if *state.standing() != Standing::Forward || whole.is_empty() {
        return Ok(looked);
    }
    // By the steps themselves: there may be work behind an entry, and the journal learns what came of them.
    drive(session, run, &Journey { goal: Goal::Through(whole), ..only_look }).await
}
