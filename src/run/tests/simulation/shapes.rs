//! Plans of many shapes: what is guarded by which gates, what runs beside what and where, and what can't be told or taken back. And what
//! becomes of them when they are amended.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::*;
use super::super::{approvals, gate, leads_steps, mapping, script, step};
use super::dice::{Dice, pick};

/// A step of a plan that is made of statements outside a transaction.
const INDEX: &str = "index";
/// The same, and the catalogue can't tell of its statements whether they were done.
const OPAQUE: &str = "opaque";
/// The same, and the catalogue can tell of every other one.
const MIXED: &str = "mixed";
/// How old the evidence behind a gate may be, in milliseconds.
pub(super) const FRESH_MS: u64 = 60_000;
/// The two databases: the mapping that every plan has is in the first.
pub(super) const APP: &str = "app";
const HUB: &str = "hub";
/// The second mapping, of plans that have one.
const PEOPLE: &str = "people";
const SOAK_MS: u64 = 5_000;

/// Whether the catalogue can't tell of a statement whether it was done.
pub(super) fn is_opaque(step: &StepId, at: usize) -> bool {
    match step.as_str() {
        OPAQUE => true,
        MIXED | "scrub" => at % 2 == 1,
        _ => false,
    }
}

/// A plan.
pub(super) fn drawn(dice: &mut Dice) -> Pin {
    let mut steps = leads_steps(asked(dice, 3), asked(dice, 2));
    let shared = dice.one_in(3);
    if shared {
        // One gate before both guarded steps, which the second may need itself or by way of the first.
        steps.retain(|step| step.id.as_str() != "end");
        let both = ["retire", "switch"];
        needs(&mut steps, "drop", if dice.one_in(2) { &both } else { &both[..1] });
    } else if dice.one_in(4) {
        soak(&mut steps, "end", "retire");
    }
    if dice.one_in(2) {
        let id = [INDEX, INDEX, OPAQUE, MIXED][pick(&[(); 4], dice.roll(4)).unwrap()];
        let outside = in_parts(if id == MIXED { 3 } else { 1 + dice.roll(2) });
        steps.insert(1, step(id, Phase::Expand, &["create"], Action::Sql(outside)));
        let both = ["create", id];
        needs(&mut steps, "sync", if dice.one_in(2) { &both[..1] } else { &both });
    }
    if dice.one_in(3) {
        // Beside everything else.
        let beside =
            step("audit", Phase::Expand, &[], Action::Sql(script("CREATE TABLE audit ()")));
        steps.insert(0, beside);
    }
    if dice.one_in(3) {
        // It destroys and can be undone, or not.
        let script = if dice.one_in(2) { in_parts(1 + dice.roll(3)) } else { script("DELETE") };
        let irreversible = dice.one_in(3).then(|| "the rows are gone".to_owned());
        let at = steps.iter().position(|step| step.id.as_str() == "switch").unwrap() + 1;
        steps.insert(at, destroying("scrub", script, irreversible));
    }
    match dice.roll(4) {
        0 => without_return(&mut steps),
        // A second comparison, which a gate needs too.
        1 if !shared => {
            let again = step("again", Phase::Verify, &["copy"], super::super::full_verify());
            let at = steps.iter().position(|step| step.id.as_str() == "switch").unwrap();
            steps.insert(at, again);
            needs(&mut steps, "switch", &["compare", "again"]);
        }
        _ => {}
    }
    if dice.one_in(4) {
        both_ways(&mut steps);
    }
    let second = dice.one_in(3).then(|| if dice.one_in(2) { APP } else { HUB });
    if let Some(target) = second {
        beside(&mut steps, target, dice);
    }
    let mut policy = Policy::default();
    if dice.one_in(12) {
        compares_in_part(&mut steps, dice);
        policy.allow_partial_verify = dice.one_in(2);
    }
    workers(&mut steps, dice);
    pin(steps, second.unwrap_or(APP), policy)
}

/// Nothing is past any point of no return.
fn without_return(steps: &mut Vec<Step>) {
    let last = steps.pop().unwrap();
    let stop = Action::StopDualWrite { mapping: "leads".into() };
    steps.retain(|step| step.id.as_str() != "retire");
    steps.push(step("stop", Phase::Contract, &[], stop));
    if let Some(end) = steps.iter_mut().find(|step| step.id.as_str() == "end") {
        end.needs.remove("retire");
        if let Action::Gate(Gate { soak: Some(soak), .. }) = &mut end.action
            && soak.after.as_str() == "retire"
        {
            soak.after = "compare".into();
        }
    }
    let stop = steps.last_mut().unwrap();
    stop.needs = last.needs.into_iter().filter(|id| id.as_str() != "retire").collect();
    if stop.needs.is_empty() {
        stop.needs.insert("switch".into());
    }
}

/// Writes to either side reach the other.
fn both_ways(steps: &mut [Step]) {
    for step in steps {
        if let Action::DualWrite(dual) = &mut step.action {
            dual.direction = Direction::Both;
        }
    }
}

/// A second mapping beside the first, there or in another database.
fn beside(steps: &mut Vec<Step>, target: &str, dice: &mut Dice) {
    let at = steps.iter().position(|step| step.id.as_str() == "switch").unwrap();
    let of = |from: &str| steps.iter().find(|step| step.id.as_str() == from).unwrap().clone();
    let named = |id: &str, like: Step, before: &str| Step {
        id: id.into(),
        needs: BTreeSet::from([before.into()]),
        target: Some(target.into()),
        action: moved(like.action),
        ..like
    };
    let sync = named("people-sync", of("sync"), "create");
    let copy = named("people-copy", of("copy"), "people-sync");
    let compare = named("people-compare", of("compare"), "people-copy");
    let end = if dice.one_in(2) {
        let like = steps.iter().find(|step| step.id.as_str() == "retire").cloned();
        like.map(|like| named("people-retire", like, "switch"))
    } else {
        None
    };
    let end = end.unwrap_or_else(|| {
        let stop = Action::StopDualWrite { mapping: PEOPLE.into() };
        let stop = step("people-stop", Phase::Contract, &["switch"], stop);
        Step { target: Some(target.into()), ..stop }
    });
    steps.insert(at + 1, end);
    steps.splice(at..at, [sync, copy, compare]);
    let switch = steps.iter_mut().find(|step| step.id.as_str() == "switch").unwrap();
    switch.needs.insert("people-compare".into());
}

fn moved(mut action: Action) -> Action {
    match &mut action {
        Action::DualWrite(DualWrite { mapping, .. })
        | Action::Backfill(Backfill { mapping, .. })
        | Action::Verify(Verify::Mapping { mapping, .. })
        | Action::Retire(Retire { mapping, .. }) => *mapping = PEOPLE.into(),
        _ => {}
    }
    action
}

/// Some comparisons look at less than everything.
fn compares_in_part(steps: &mut [Step], dice: &mut Dice) {
    for step in steps {
        if let Action::Verify(Verify::Mapping { method, .. }) = &mut step.action
            && dice.one_in(2)
        {
            *method = if dice.one_in(2) { Method::Counts } else { Method::Sample(2) };
        }
    }
}

fn workers(steps: &mut [Step], dice: &mut Dice) {
    for step in steps {
        if let Action::Backfill(backfill) = &mut step.action {
            backfill.workers = 1 + u32::try_from(dice.roll(3)).unwrap();
        }
    }
}

fn in_parts(count: u64) -> Script {
    let one = script("CREATE INDEX");
    let statement = &one.statements[0];
    let statements = (0..count).map(|_| statement.clone()).collect();
    Script { transaction: Transaction::None, statements, ..one }
}

fn destroying(id: &str, script: Script, irreversible: Option<String>) -> Step {
    let like = step(id, Phase::Contract, &["switch"], Action::Sql(script));
    let hazard = Hazard::Destructive("removes rows".into());
    let undo = irreversible.as_ref().map_or(like.undo.clone(), |_| Undo::Impossible);
    Step { undo, irreversible, hazard, ..like }
}

fn asked(dice: &mut Dice, most: u64) -> Gate {
    let count = dice.roll(most);
    let mut asked = Gate { verified_within_ms: Some(FRESH_MS), ..gate() };
    if count > 0 {
        asked.approvals = approvals("release", u32::try_from(count).unwrap());
    }
    if dice.one_in(3) {
        asked.expires_ms = 30_000;
    }
    if dice.one_in(4) {
        asked.soak = Some(Soak { after: "compare".into(), for_ms: SOAK_MS });
    }
    asked
}

fn soak(steps: &mut [Step], gate: &str, after: &str) {
    let step = steps.iter_mut().find(|step| step.id.as_str() == gate).unwrap();
    if let Action::Gate(gate) = &mut step.action {
        gate.soak = Some(Soak { after: after.into(), for_ms: SOAK_MS });
    }
}

fn needs(steps: &mut [Step], of: &str, ids: &[&str]) {
    let step = steps.iter_mut().find(|step| step.id.as_str() == of).unwrap();
    step.needs = ids.iter().map(|id| StepId::from(*id)).collect::<BTreeSet<_>>();
}

fn pin(steps: Vec<Step>, second: &str, policy: Policy) -> Pin {
    let target = |parallel| Target {
        engine: Engine::Sqlite,
        url: "sqlite://app.db".into(),
        schema: None,
        parallel,
    };
    let mut people = Mapping { name: PEOPLE.into(), ..mapping() };
    people.from.target = second.into();
    people.into.target = second.into();
    let mut targets = BTreeMap::from([(APP.into(), target(2))]);
    if second == HUB {
        targets.insert(HUB.into(), target(1));
    }
    of_parts(ProgramParts {
        plan: "leads".into(),
        digest: Digest::of_bytes(b""),
        environment: "default".into(),
        targets,
        mappings: BTreeMap::from([("leads".into(), mapping()), (PEOPLE.into(), people)]),
        steps,
        policy,
    })
}

fn of_parts(mut parts: ProgramParts) -> Pin {
    parts.digest = Digest::of("plan", &serde_json::to_value(&parts.steps).unwrap());
    Pin {
        path: "plan.yaml".into(),
        source: String::new(),
        meaning: serde_json::Value::Null,
        program: Program::new(parts).unwrap(),
    }
}

/// Another plan: a step does something else, is gone, or is new.
pub(super) fn amended(program: &Program, by: u64) -> Pin {
    let mut parts: ProgramParts = program.clone().into();
    let more = by / 4;
    let at = pick(&parts.steps, more).unwrap();
    match by % 4 {
        0 => add(&mut parts.steps, more),
        1 => remove(&mut parts.steps, at),
        _ => parts.steps[at].digest = Digest::of_bytes(&(by % 1_000).to_be_bytes()),
    }
    of_parts(parts)
}

fn add(steps: &mut Vec<Step>, by: u64) {
    let id = format!("extra-{}", by % 3);
    if steps.iter().any(|step| step.id.as_str() == id) {
        return;
    }
    match by / 3 % 4 {
        0 => steps.push(destroying(&id, script("DELETE"), None)),
        kind => {
            let sql = if (by / 12).is_multiple_of(2) {
                script("CREATE TABLE extra ()")
            } else {
                in_parts(2)
            };
            steps.insert(1, step(&id, Phase::Expand, &["create"], Action::Sql(sql)));
            // Something that may have begun needs it.
            let of = ["", "sync", "switch"][usize::try_from(kind).unwrap() - 1];
            if let Some(of) = steps.iter_mut().find(|step| step.id.as_str() == of) {
                of.needs.insert(id.as_str().into());
            }
        }
    }
}

/// What needed a step needs from then on what the step did. Not of every step: what is left is a plan as people could write it.
fn remove(steps: &mut Vec<Step>, at: usize) {
    let id = steps[at].id.clone();
    let is_known = [INDEX, OPAQUE, MIXED, "audit", "scrub", "again"].contains(&id.as_str());
    if !is_known && !id.as_str().starts_with("extra") {
        return;
    }
    let gone = steps.remove(at);
    for step in steps {
        if step.needs.remove(&id) {
            step.needs.extend(gone.needs.iter().cloned());
        }
    }
}

/// Whether evidence such as this plan gathers can open its gates at all.
pub(super) fn can_be_proven(program: &Program) -> bool {
    let is_whole = |step: &&Step| match &step.action {
        Action::Verify(Verify::Mapping { method, .. }) => *method == Method::Full,
        _ => true,
    };
    program.policy().allow_partial_verify || program.steps().iter().all(|step| is_whole(&step))
}
