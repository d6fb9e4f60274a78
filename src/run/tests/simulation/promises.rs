//! What must hold, judged by what is in the target and in the journal, and not by what the core makes of them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::gate::{gate_of, is_guarded, judged_verifies, work};
use super::super::super::schedule::leaves_nothing;
use super::super::super::*;
use super::shapes::FRESH_MS;
use super::world::{CHUNK_ROWS, CHUNKS, World};

/// A promise that did not hold.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    pub promise: &'static str,
    pub what: String,
}

/// For how long the conditions count that a permit was made from, as the documents say.
const PERMIT_MS: u64 = 5_000;

/// At the moment when something is recorded.
pub(super) fn of_event(world: &mut World, event: &Event, seen: &[(StepId, Observations)]) {
    match event {
        Event::StepStarted { step, way: Way::Forward, permit, .. } => {
            begins(world, step, permit.as_ref(), seen);
        }
        Event::StepStarted { step, way: Way::Back, .. }
            if *world.truth.standing() != Standing::Back =>
        {
            world.breaks("P9", || format!("{step} is to be undone in a run that goes forward"));
        }
        Event::StepSucceeded { step, way, outcome, .. } => {
            if let Some(evidence) = &outcome.evidence {
                world.compared.insert(step.clone(), (evidence.began_at, true));
            }
            ended_well(world, step, *way, outcome);
        }
        Event::StepDiffers { step, evidence, .. } => {
            world.compared.insert(step.clone(), (evidence.began_at, false));
        }
        Event::GateOpened { gate, work } => {
            if let Err(why) = is_open(world, (gate, work), seen) {
                world.breaks("P8", || format!("{gate} opens: {why}"));
            }
        }
        Event::PlanAmended { changed, .. } => {
            for step in changed {
                let target = &world.target;
                if target.ledger.contains(step) || target.marks.contains_key(step) {
                    world.breaks("P8", || format!("{step} has begun, and is amended"));
                }
            }
        }
        Event::RunEnded { ending } => at_the_end(world, *ending),
        _ => {}
    }
}

fn begins(
    world: &mut World,
    step: &StepId,
    permit: Option<&PermitRecord>,
    seen: &[(StepId, Observations)],
) {
    // What is in the ledger has begun before; the journal only learns of it.
    if world.target.ledger.contains(step) {
        return;
    }
    let definition = world.truth.program().step(step).unwrap().clone();
    let is_done = |need: &&StepId| world.truth.step(need).progress == Progress::Succeeded;
    if let Some(need) = definition.needs.iter().find(|need| !is_done(need)).cloned() {
        world.breaks("P1", || format!("{step} starts before {need} has succeeded"));
    }
    if !is_guarded(&definition) {
        return;
    }
    let gates = permit.map(|permit| permit.gates.clone()).unwrap_or_default();
    let wanted: BTreeSet<&StepId> = world.truth.program().releasing_gates(step).collect();
    if gates.is_empty() || gates.iter().map(|(gate, _)| gate).collect::<BTreeSet<_>>() != wanted {
        world.breaks("P1", || format!("{step} starts without all of its gates: {gates:?}"));
        return;
    }
    for (gate, work) in &gates {
        if let Err(why) = is_open(world, (gate, work), seen) {
            world.breaks("P8", || format!("{step} starts while {gate} is shut: {why}"));
        }
    }
    world.permitted.insert(step.clone(), world.now);
}

/// Whether a gate is open for a piece of work, by the records themselves and by what was read.
fn is_open(
    world: &World,
    (gate, of): (&StepId, &Digest),
    seen: &[(StepId, Observations)],
) -> Result<(), String> {
    let state = &world.truth;
    let definition = state.program().step(gate).unwrap();
    let asks = gate_of(definition).unwrap();
    for need in &definition.needs {
        if state.step(need).progress != Progress::Succeeded {
            return Err(format!("{need} has not succeeded"));
        }
    }
    let said = decisions(world, gate);
    if let Some((name, _)) = said.iter().find(|(_, (work, _))| work.is_none()) {
        return Err(format!("{name} has rejected it"));
    }
    let known = state.gate(gate).ok_or("it was never reached")?;
    let seen = seen.iter().find(|(of, _)| of == gate).map(|(_, seen)| seen);
    let facts = seen.and_then(|seen| seen.targets.get("app")?.as_ref().ok());
    let facts = facts.ok_or("nothing was read of the target")?;
    let identities = BTreeMap::from([("app".into(), facts.identity.clone())]);
    if work(state, gate, &identities, &known.reached) != *of {
        return Err("it releases other work".to_owned());
    }
    if known.expected.get("app") != Some(&facts.fingerprint) {
        return Err("the schema is not what it was".to_owned());
    }
    for asked in &asks.approvals {
        let standing = said.values().filter(|(work, at)| {
            work.as_ref() == Some(of) && at.plus_ms(asks.expires_ms) > world.now
        });
        let have = standing.count();
        if have < asked.count as usize {
            return Err(format!("{have} of {} have approved this work", asked.count));
        }
    }
    // Once the old side is put aside nothing can be compared with it any more.
    if asks.verified_within_ms.is_some() && state.retired_by(&"leads".into()).is_none() {
        for step in judged_verifies(state, gate) {
            match world.compared.get(&step.id) {
                Some((began, true)) if world.now.since_ms(*began) <= FRESH_MS => {}
                other => return Err(format!("the evidence of {} is {other:?}", step.id)),
            }
        }
    }
    Ok(())
}

/// What people have said of a gate and not taken back: the work that they approved, or nothing where they rejected.
fn decisions(world: &World, gate: &StepId) -> BTreeMap<String, (Option<Digest>, Timestamp)> {
    let mut said = BTreeMap::new();
    for record in &world.journal {
        let name = record.by.name.clone();
        match &record.event {
            Event::Approved { gate: of, work, .. } if of == gate => {
                said.insert(name, (Some(work.clone()), record.at));
            }
            Event::Rejected { gate: of, .. } if of == gate => {
                said.insert(name, (None, record.at));
            }
            Event::Revoked { gate: of } if of == gate => {
                said.remove(&name);
            }
            Event::PlanAmended { voided, .. } if voided.contains(gate) => said.clear(),
            _ => {}
        }
    }
    said
}

fn ended_well(world: &mut World, step: &StepId, way: Way, outcome: &Outcome) {
    let definition = world.truth.program().step(step).unwrap();
    if !definition.action.changes_data() {
        return;
    }
    let (is_copy, settles) =
        (matches!(definition.action, Action::Backfill(_)), leaves_nothing(definition));
    let is_in = world.target.ledger.contains(step);
    match way {
        Way::Forward if !is_in => {
            world.breaks("P5", || format!("{step} is recorded as done, and is not"));
        }
        Way::Forward if is_copy => {
            let rows = Some(u64::from(CHUNKS) * CHUNK_ROWS);
            let written = &world.target.copy.written;
            let is_whole = (1..=CHUNKS).all(|seq| written.get(&seq) == Some(&1));
            if outcome.rows != rows || !is_whole {
                let what = format!("{:?} rows, {written:?}", outcome.rows);
                world.breaks("P3", || format!("{step} has copied {what}"));
            }
        }
        Way::Back if is_in && !settles => {
            world.breaks("P9", || format!("{step} is recorded as undone, and is there"));
        }
        _ => {}
    }
}

/// When a runner takes an attempt in hand.
pub(super) fn of_start(world: &mut World, step: &StepId, way: Way, has_permit: bool) {
    let is_guarded = is_guarded(world.truth.program().step(step).unwrap());
    if way == Way::Back || !is_guarded || world.target.ledger.contains(step) {
        return;
    }
    let gates: Vec<StepId> = world.truth.program().releasing_gates(step).cloned().collect();
    let is_shut = |gate: &&StepId| world.truth.step(gate).progress != Progress::Succeeded;
    let permitted = world.permitted.get(step);
    let age = permitted.map(|at| world.now.since_ms(*at));
    let why = if !has_permit {
        Some("without a permit".to_owned())
    } else if *world.truth.standing() != Standing::Forward {
        Some(format!("in a run that is {:?}", world.truth.standing()))
    } else if let Some(gate) = gates.iter().find(is_shut) {
        Some(format!("behind the shut gate {gate}"))
    } else if gates.iter().any(|gate| decisions(world, gate).values().any(|it| it.0.is_none())) {
        Some("against a rejection".to_owned())
    } else if age.is_none_or(|age| age > PERMIT_MS) {
        Some(format!("by conditions that held {age:?} ms ago"))
    } else {
        None
    };
    if let Some(why) = why {
        world.breaks("P1", || format!("{step} destroys {why}"));
    }
}

/// At the moment when a target commits something of a step.
pub(super) fn of_commit(world: &mut World, token: u64, (step, attempt, way): (&StepId, u32, Way)) {
    if token != world.target.token {
        let newest = world.target.token;
        world.breaks("P6", || format!("token {token} commits {step}, and {newest} has entered"));
    }
    let known = world.truth.step(step);
    if known.progress != (Progress::Running { way }) || known.attempts != attempt {
        let what = format!("{:?}, attempt {}", known.progress, known.attempts);
        world.breaks("P2", || {
            format!("attempt {attempt} at {step} commits {way:?}; the journal has {what}")
        });
    }
    if world.target.is_cleared {
        world.breaks("P3", || format!("{step} commits behind the end of the run"));
    }
    let program = world.truth.program();
    let definition = program.step(step).unwrap();
    let is_missing = |need: &&StepId| {
        let need = program.step(need).unwrap();
        need.action.changes_data() && !world.target.ledger.contains(&need.id)
    };
    match way {
        Way::Forward => {
            if let Some(need) = definition.needs.iter().find(is_missing).cloned() {
                world.breaks("P1", || format!("{step} is done before {need}"));
            }
        }
        Way::Back => {
            if definition.irreversible.is_some() {
                world.breaks("P9", || format!("{step} comes back"));
            }
            let left = |id: &&StepId| world.target.ledger.contains(*id);
            let dependents = world.truth.program().dependents(step);
            if let Some(dependent) = dependents.iter().find(left).cloned() {
                world.breaks("P9", || format!("{step} is undone before {dependent}"));
            }
        }
    }
}

/// At the moment when what a step does is there once more.
pub(super) fn of_effect(world: &mut World, step: &StepId) {
    let times = world.target.effects.get(step).copied().unwrap_or_default();
    if times > 1 {
        world.breaks("P3", || format!("{step} was done {times} times"));
    }
}

fn at_the_end(world: &mut World, ending: Ending) {
    let program = world.truth.program();
    let all: BTreeSet<StepId> = program
        .steps()
        .iter()
        .filter(|step| step.action.changes_data())
        .map(|step| step.id.clone())
        .collect();
    let ledger = world.target.ledger.clone();
    let times: BTreeMap<StepId, u32> = all.iter().map(|step| (step.clone(), 1)).collect();
    let is_left = !world.target.is_untouched();
    match ending {
        Ending::Completed if ledger != all => {
            world.breaks("P3", || format!("the run ends completed, having done {ledger:?}"));
        }
        Ending::Completed if world.target.effects != times => {
            let effects = world.target.effects.clone();
            world.breaks("P3", || format!("the run ends completed, having done {effects:?}"));
        }
        Ending::RolledBack if is_left => {
            let left = world.target.effects.clone();
            world.breaks("P9", || {
                format!("the run ends rolled back, and has left {ledger:?}, {left:?}")
            });
        }
        Ending::Aborted
            if is_left && *world.truth.standing() == (Standing::Aborting { leave: false }) =>
        {
            let left = world.target.effects.clone();
            world.breaks("P9", || format!("the run is aborted, and has left {ledger:?}, {left:?}"));
        }
        _ => {}
    }
    if ending != Ending::Aborted && !world.target.sessions.is_empty() {
        world.breaks("P6", || "the run ends, and statements of it go on".to_owned());
    }
}
