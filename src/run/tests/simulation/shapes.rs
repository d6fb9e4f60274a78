//! Plans of many shapes: what is guarded by which gates, what runs beside what, and what can't be told or taken back.

use std::collections::BTreeSet;

use super::super::super::*;
use super::super::{approvals, gate, leads_steps, script, step};
use super::dice::Dice;

/// A step of a plan that is made of statements outside a transaction. The catalogue can't tell of the second whether it was done.
pub(super) const INDEX: &str = "index";
pub(super) const OPAQUE: &str = "opaque";
/// How old the evidence behind a gate may be, in milliseconds.
pub(super) const FRESH_MS: u64 = 60_000;

/// The steps of a plan.
pub(super) fn drawn(dice: &mut Dice) -> Vec<Step> {
    let mut steps = leads_steps(asked(dice, 3), asked(dice, 2));
    let shared = dice.one_in(3);
    if shared {
        // One gate before both guarded steps.
        steps.retain(|step| step.id.as_str() != "end");
        needs(&mut steps, "drop", &["retire", "switch"]);
    }
    if dice.one_in(2) {
        let id = if dice.one_in(3) { OPAQUE } else { INDEX };
        let outside = Script { transaction: Transaction::None, ..script("CREATE INDEX") };
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
        // It destroys and can be undone.
        let transaction = if dice.one_in(2) { Transaction::None } else { script("").transaction };
        let script = Script { transaction, ..script("DELETE") };
        let scrub = step("scrub", Phase::Contract, &["switch"], Action::Sql(script));
        let at = steps.iter().position(|step| step.id.as_str() == "switch").unwrap() + 1;
        let hazard = Hazard::Destructive("removes rows".into());
        let irreversible = dice.one_in(3).then(|| "the rows are gone".to_owned());
        let undo = irreversible.as_ref().map_or(scrub.undo.clone(), |_| Undo::Impossible);
        steps.insert(at, Step { undo, irreversible, hazard, ..scrub });
    }
    match dice.roll(4) {
        0 => {
            // Nothing is past any point of no return.
            let last = steps.pop().unwrap();
            let mapping = "leads".into();
            let stop = step("stop", Phase::Contract, &[], Action::StopDualWrite { mapping });
            steps.retain(|step| step.id.as_str() != "retire");
            let all: Vec<String> = last.needs.iter().map(|id| id.as_str().to_owned()).collect();
            let all: Vec<&str> =
                all.iter().map(String::as_str).filter(|id| *id != "retire").collect();
            steps.push(stop);
            needs(&mut steps, "stop", &all);
            if steps.iter().any(|step| step.id.as_str() == "end") {
                needs(&mut steps, "end", &["switch"]);
            }
        }
        // A second comparison, which only the end needs.
        1 if !shared => {
            let again = step("again", Phase::Contract, &["switch"], super::super::full_verify());
            let at = steps.iter().position(|step| step.id.as_str() == "end").unwrap();
            steps.insert(at, again);
            needs(&mut steps, "end", &["retire", "switch"]);
        }
        _ => {}
    }
    steps
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
        asked.soak = Some(Soak { after: "compare".into(), for_ms: 5_000 });
    }
    asked
}

fn needs(steps: &mut [Step], of: &str, ids: &[&str]) {
    let step = steps.iter_mut().find(|step| step.id.as_str() == of).unwrap();
    step.needs = ids.iter().map(|id| StepId::from(*id)).collect::<BTreeSet<_>>();
}
