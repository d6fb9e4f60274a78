//! What must hold, judged by what is in the databases and in the journal, and not by what the core makes of them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::gate::{gate_of, is_guarded, judged_verifies, work};
use super::super::super::schedule::leaves_nothing;
use super::super::super::*;
use super::attempt::WORKERS_MAX;
use super::shapes::FRESH_MS;
use super::target::{Target, parts};
use super::world::{World, is_live};

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
        Event::StepSucceeded { step, attempt, way, outcome } => {
            if let Some(evidence) = &outcome.evidence {
                passes(world, (step, *attempt), outcome, evidence);
            }
            ended_well(world, step, *way, outcome);
        }
        Event::StepDiffers { step, evidence, .. } => {
            world.compared.insert(step.clone(), (world.now, evidence.clone()));
        }
        Event::GateOpened { gate, work } => {
            if let Err((promise, why)) = is_open(world, (gate, work), seen) {
                world.breaks(promise, || format!("{gate} opens: {why}"));
            }
        }
        Event::PlanAmended { changed, .. } => {
            for step in changed {
                let is_marked = |target: &Target| target.marks_of(step).next().is_some();
                let is_marked = world.targets.values().any(is_marked);
                if world.ledger_has(step) || is_marked {
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
    if world.ledger_has(step) {
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
        if let Err((promise, why)) = is_open(world, (gate, work), seen) {
            world.breaks(promise, || format!("{step} starts while {gate} is shut: {why}"));
        }
    }
    world.permitted.insert(step.clone(), world.now);
}

/// Why something is not as it must be, and which promise says so.
type Against = (&'static str, String);

/// A verdict is that of one comparison, made for this very attempt, and says what it found. PASS is of a whole and full one, and there is no
/// row that differed all the while.
fn passes(world: &mut World, of: (&StepId, u32), outcome: &Outcome, evidence: &Evidence) {
    let (step, attempt) = of;
    world.compared.insert(step.clone(), (world.now, evidence.clone()));
    let at = outcome.detail.as_ref().and_then(|detail| detail.parse::<usize>().ok());
    let Some(pass) = at.and_then(|at| world.passes.get(at)).cloned() else {
        return world.breaks("P7", || format!("{step} has a verdict that no comparison came to"));
    };
    let action = world.truth.program().step(step).map(|step| step.action.clone());
    let Some(Action::Verify(Verify::Mapping { mapping, method, .. })) = action else { return };
    let lost = world.sides.get(&mapping).map(|sides| sides.parted_since(pass.tick));
    let why = if (&pass.step, pass.attempt) != (step, attempt) || pass.began_at != evidence.began_at
    {
        Some(format!("the verdict is of another comparison: {pass:?}"))
    } else if pass.differing > 0 || evidence.verdict == Verdict::Fail {
        Some(format!("it has succeeded, and found differences: {pass:?}"))
    } else if !pass.is_whole() {
        Some(format!("it has looked at {} parts only", pass.regions))
    } else if evidence.verdict == Verdict::Pass && (method, pass.method) != (Method::Full, method) {
        Some(format!("it passes, and looks at {method:?}"))
    } else {
        let lost = lost.filter(|lost| !lost.is_empty() && method == Method::Full);
        lost.map(|lost| format!("rows {lost:?} have differed since before it began"))
    };
    if let Some(why) = why {
        world.breaks("P7", || format!("{step}: {why}"));
    }
}

/// Whether a gate is open for a piece of work, by the records themselves and by what was read.
fn is_open(
    world: &World,
    (gate, of): (&StepId, &Digest),
    seen: &[(StepId, Observations)],
) -> Result<(), Against> {
    let state = &world.truth;
    let definition = state.program().step(gate).unwrap();
    let asks = gate_of(definition).unwrap();
    let against = |why: String| Err(("P8", why));
    for need in &definition.needs {
        if state.step(need).progress != Progress::Succeeded {
            return against(format!("{need} has not succeeded"));
        }
    }
    let said = decisions(world, gate);
    if let Some((name, _)) = said.iter().find(|(_, (work, _))| work.is_none()) {
        return against(format!("{name} has rejected it"));
    }
    let known = state.gate(gate).ok_or(("P8", "it was never reached".to_owned()))?;
    let seen = seen.iter().find(|(of, _)| of == gate).map(|(_, seen)| seen);
    let seen = seen.filter(|seen| !seen.targets.is_empty());
    let seen = seen.ok_or(("P8", "nothing was read of the targets".to_owned()))?;
    let mut identities = BTreeMap::new();
    for (target, facts) in &seen.targets {
        let Ok(facts) = facts else { return against(format!("{target} could not be read")) };
        if known.expected.get(target) != Some(&facts.fingerprint) {
            return against(format!("the schema of {target} is not what it was"));
        }
        identities.insert(target.clone(), facts.identity.clone());
    }
    if work(state, gate, &identities, &known.reached) != *of {
        return against("it releases other work".to_owned());
    }
    for asked in &asks.approvals {
        let standing = said.values().filter(|(work, at)| {
            work.as_ref() == Some(of) && at.plus_ms(asks.expires_ms) > world.now
        });
        let have = standing.count();
        if have < asked.count as usize {
            return against(format!("{have} of {} have approved this work", asked.count));
        }
    }
    if let Some(soak) = &asks.soak {
        let since = well_since(world, &soak.after);
        if since.is_none_or(|since| world.now.since_ms(since) < soak.for_ms) {
            return against(format!("{} has been well since {since:?}", soak.after));
        }
    }
    is_fresh(world, (gate, asks), seen)?;
    is_proven(world, gate)
}

/// Whether the evidence is fresh, and made under the sync that there is. Once the old side is put aside nothing can be compared with it
/// any more, and what was compared before counts.
fn is_fresh(
    world: &World,
    (gate, asks): (&StepId, &Gate),
    seen: &Observations,
) -> Result<(), Against> {
    let state = &world.truth;
    for step in judged_verifies(state, gate) {
        let mapping = step.action.mapping().unwrap();
        let is_parted = !is_live(state, mapping);
        let evidence = world.compared.get(&step.id).map(|(_, evidence)| evidence);
        let Some(evidence) = evidence.filter(|evidence| evidence.verdict != Verdict::Fail) else {
            return Err(("P7", format!("the evidence of {} is {evidence:?}", step.id)));
        };
        if is_parted {
            continue;
        }
        let age = world.now.since_ms(evidence.began_at);
        if asks.verified_within_ms.is_some() && age > FRESH_MS {
            return Err(("P8", format!("the evidence of {} is {age} ms old", step.id)));
        }
        let sync = match seen.syncs.get(mapping) {
            Some(Ok(SyncSeen { wrong: None, digest })) => digest,
            None => continue,
            other => return Err(("P7", format!("the sync of {mapping} is {other:?}"))),
        };
        if evidence.sync.as_ref() != Some(sync) {
            let why = format!("{} was compared under another sync of {mapping}", step.id);
            return Err(("P7", why));
        }
    }
    Ok(())
}

/// Whether for all that a gate guards something vouches: a PASS, and where it is about a mapping one of that mapping. PARTIAL does only where
/// policy says so.
fn is_proven(world: &World, gate: &StepId) -> Result<(), Against> {
    let state = &world.truth;
    let partial_will_do = state.program().policy().allow_partial_verify;
    let vouches = |of: Option<&MappingName>| {
        judged_verifies(state, gate)
            .filter(|step| of.is_none() || step.action.mapping() == of)
            .filter_map(|step| world.compared.get(&step.id))
            .any(|(_, evidence)| {
                evidence.verdict == Verdict::Pass
                    || evidence.verdict == Verdict::Partial && partial_will_do
            })
    };
    let guarded = state.program().released_by(gate).filter(|step| is_guarded(step));
    for step in guarded {
        if !vouches(step.action.mapping()) {
            return Err(("P7", format!("no PASS stands before {}", step.id)));
        }
    }
    Ok(())
}

/// Since when a step has ended well, or found nothing.
fn well_since(world: &World, of: &StepId) -> Option<Timestamp> {
    let mut since = None;
    for record in &world.journal {
        match &record.event {
            Event::StepSucceeded { step, way: Way::Forward, outcome, .. } if step == of => {
                since = match &outcome.evidence {
                    Some(evidence) => since.or(Some(evidence.ended_at)),
                    None => Some(record.at),
                };
            }
            Event::StepDiffers { step, .. } | Event::StepSucceeded { step, .. } if step == of => {
                since = None;
            }
            _ => {}
        }
    }
    since
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
    let (is_in, mapping) = (world.ledger_has(step), definition.action.mapping().cloned());
    match way {
        Way::Forward if !is_in => {
            world.breaks("P5", || format!("{step} is recorded as done, and is not"));
        }
        Way::Forward if is_copy => {
            let sides = &world.sides[&mapping.unwrap()];
            let (rows, is_whole) = (sides.rows_brought(), sides.copy.is_whole());
            if outcome.rows != Some(rows) || !is_whole {
                let said = outcome.rows;
                world.breaks("P3", || {
                    format!("{step} says {said:?} rows of {rows}, all chunks: {is_whole}")
                });
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
    if way == Way::Back || !is_guarded || world.ledger_has(step) {
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
pub(super) fn of_commit(world: &mut World, token: u64, of: (&Step, u32, Way)) {
    let (definition, attempt, way) = of;
    let step = &definition.id;
    let target = world.target_of(definition);
    let (newest, is_cleared) = (target.token, target.is_cleared);
    if token != newest {
        world.breaks("P6", || format!("token {token} commits {step}, and {newest} has entered"));
    }
    let known = world.truth.step(step);
    if known.progress != (Progress::Running { way }) || known.attempts != attempt {
        let what = format!("{:?}, attempt {}", known.progress, known.attempts);
        world.breaks("P2", || {
            format!("attempt {attempt} at {step} commits {way:?}; the journal has {what}")
        });
    }
    if is_cleared {
        world.breaks("P3", || format!("{step} commits behind the end of the run"));
    }
    let program = world.truth.program();
    match way {
        Way::Forward => {
            let is_missing = |need: &&StepId| {
                let changes = program.step(need).is_some_and(|need| need.action.changes_data());
                changes && !world.ledger_has(need)
            };
            if let Some(need) = definition.needs.iter().find(is_missing).cloned() {
                world.breaks("P1", || format!("{step} is done before {need}"));
            }
            if is_guarded(definition) && !world.permitted.contains_key(step) {
                world.breaks("P1", || format!("{step} destroys, and nothing has permitted it"));
            }
        }
        Way::Back => {
            let left = |other: &&Step| {
                world.has_some(&other.id) && program.needed_by(&other.id).contains(step)
            };
            let dependent = program.steps().iter().find(left).map(|other| other.id.clone());
            if definition.irreversible.is_some() {
                world.breaks("P9", || format!("{step} comes back"));
            }
            if let Some(dependent) = dependent {
                world.breaks("P9", || format!("{step} is undone before {dependent}"));
            }
        }
    }
}

/// At the moment when a chunk is written.
pub(super) fn of_chunk(world: &mut World, step: &Step) {
    let mapping = step.action.mapping().unwrap();
    let steps = world.truth.program().steps().iter();
    let is_sync =
        |step: &&Step| matches!(&step.action, Action::DualWrite(dual) if dual.mapping == *mapping);
    let sync = steps.filter(is_sync).map(|sync| &sync.id).next().unwrap();
    if !world.ledger_has(sync) {
        world.breaks("P4", || format!("a chunk of {} is copied that no sync covers", step.id));
    }
}

/// At the moment when a copy takes another chunk in hand.
pub(super) fn of_chunks(world: &mut World, step: &Step, (in_flight, may): (usize, usize)) {
    if in_flight > may.min(WORKERS_MAX) {
        let id = &step.id;
        world
            .breaks("P10", || format!("{id} has {in_flight} chunks in flight, and may have {may}"));
    }
}

/// At the moment when the old side comes back though the new side has what it lacks.
pub(super) fn of_loss(world: &mut World, step: &Step) {
    let mapping = step.action.mapping().unwrap();
    if !world.truth.accepted_losses().contains(mapping) {
        world.breaks("P9", || format!("what only the new side of {mapping} had is lost"));
    }
}

/// After every move: what there is of each step, of each copy and of each row.
pub(super) fn of_world(world: &mut World) {
    if world.broken.is_some() {
        return;
    }
    let tick = world.tick;
    world.sides.values_mut().for_each(|sides| sides.note(tick));
    let of_sides = world.sides.iter().find_map(|(name, sides)| {
        let (promise, why) = sides.complaint()?;
        Some((promise, format!("{name}: {why}")))
    });
    let of_steps = || world.truth.program().steps().iter().find_map(|step| of_step(world, step));
    if let Some((promise, why)) = of_sides.or_else(of_steps) {
        world.breaks(promise, || why);
    }
}

/// What the journal has of a step, the ledger, and the database itself, do not contradict each other.
fn of_step(world: &World, step: &Step) -> Option<Against> {
    if !step.action.changes_data() {
        return None;
    }
    let (id, known) = (&step.id, world.truth.step(&step.id));
    let target = &world.targets[step.target.as_ref()?];
    let is_in = target.ledger.contains(id);
    let is_there = (0..parts(step)).all(|at| target.effects.contains_key(&(id.clone(), at)));
    if is_in && !is_there {
        return Some(("P3", format!("the ledger has {id}, and it was not done")));
    }
    if !is_in && parts(step) == 1 && !step_in_parts(step) && target.has_some(id) {
        return Some(("P3", format!("{id} was done, and the ledger does not have it")));
    }
    match &known.progress {
        Progress::Succeeded if !is_in => Some(("P5", format!("{id} passes for done, and is not"))),
        Progress::Pending | Progress::Undone if is_in && !leaves_nothing(step) => {
            Some(("P5", format!("{id} passes for undone, and is not")))
        }
        Progress::Failed { way: Way::Forward, .. }
        | Progress::Retrying { way: Way::Forward, .. }
            if !known.may_be_done && (is_in || target.has_some(id)) =>
        {
            Some((
                "P5",
                format!("{id} passes for one that has done nothing, and something is there"),
            ))
        }
        _ => None,
    }
}

fn step_in_parts(step: &Step) -> bool {
    matches!(&step.action, Action::Sql(script) if script.commits_in_parts())
}

fn at_the_end(world: &mut World, ending: Ending) {
    let program = world.truth.program();
    let steps = || program.steps().iter().filter(|step| step.action.changes_data());
    let all: BTreeSet<StepId> = steps().map(|step| step.id.clone()).collect();
    let once: BTreeMap<_, u32> =
        steps().flat_map(|step| (0..parts(step)).map(|at| ((step.id.clone(), at), 1))).collect();
    let targets = world.targets.values();
    let ledger: BTreeSet<StepId> = targets.clone().flat_map(|it| it.ledger.clone()).collect();
    let effects: BTreeMap<_, u32> = targets.clone().flat_map(|it| it.effects.clone()).collect();
    let has_halves = targets.clone().any(|target| !target.halves.is_empty());
    let is_under_way = targets.clone().any(|target| !target.sessions.is_empty());
    let is_copied = world.sides.values().any(|sides| sides.copy.planned > 0);
    let is_left = targets.clone().any(|target| !target.is_untouched()) || is_copied;
    match ending {
        Ending::Completed if ledger != all => {
            world.breaks("P3", || format!("the run ends completed, having done {ledger:?}"));
        }
        Ending::Completed if effects != once || has_halves => {
            world.breaks("P3", || format!("the run ends completed, having done {effects:?}"));
        }
        Ending::RolledBack if is_left => {
            world.breaks("P9", || {
                format!("the run ends rolled back, and has left {ledger:?}, {effects:?}")
            });
        }
        Ending::Aborted
            if is_left && *world.truth.standing() == (Standing::Aborting { leave: false }) =>
        {
            world.breaks("P9", || {
                format!("the run is aborted, and has left {ledger:?}, {effects:?}")
            });
        }
        _ => {}
    }
    if ending != Ending::Aborted && is_under_way {
        world.breaks("P6", || "the run ends, and statements of it go on".to_owned());
    }
}
