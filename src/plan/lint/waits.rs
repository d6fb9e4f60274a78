//! The conditions of a gate can hold together.

use std::time::Duration;

use crate::diagnostic::known as codes;
use crate::run::{Hazard, Method, Phase};

use super::super::document::{ActionDef, CheckDef, GateDef, VerifyDef};
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let fresh: Vec<usize> =
        view.all().filter(|(at, _)| gives_fresh(view, *at)).map(|(at, _)| at).collect();
    let guarding = guarding(view);
    for (at, gate) in view.gates() {
        soak(view, at, gate, reports);
        expiry(view, at, gate, reports);
        let Some(within) = gate.verified_within_ms else { continue };
        if !fresh.iter().any(|verify| view.graph.is_before(*verify, at)) {
            let id = &view.step(at).id.value;
            let message =
                format!("`{id}` asks for fresh evidence, and no verify it needs gives any");
            reports
                .error(codes::NO_EVIDENCE, within.span, message)
                .help("put a verify step without `capture` into phase verify, before this gate");
        }
    }
    let partings = partings(view);
    for (at, _) in view.gates() {
        for parting in partings.iter().filter(|parting| view.graph.is_before(parting.retire, at)) {
            stale_for_ever(view, at, parting, guarding[at], reports);
        }
    }
}

/// A forward `retire`, after which the evidence of its mapping grows no younger.
struct Parting<'a> {
    retire: usize,
    mapping: &'a str,
    /// How old the evidence may be when it begins, in milliseconds; `None`: of any age.
    allowed_ms: Option<u64>,
}

fn partings<'a>(view: &View<'a>) -> Vec<Parting<'a>> {
    let mut partings = Vec::new();
    for (mapping, life) in view.mappings() {
        if life.is_both_ways() {
            continue;
        }
        for retire in life.retires.iter().copied() {
            let is_evidence = life.verifies.iter().any(|(verify, method)| {
                *method == Method::Full && view.graph.is_before(*verify, retire)
            });
            if is_evidence {
                let gates = view.graph.releasing_gates(retire).into_iter();
                let allowed_ms = gates.filter_map(|gate| view.verified_within_ms(gate, true)).min();
                partings.push(Parting { retire, mapping: &mapping.name.value, allowed_ms });
            }
        }
    }
    partings
}

/// Whether a step gives evidence that a gate can ask again for.
fn gives_fresh(view: &View<'_>, at: usize) -> bool {
    let phase = view.graph.nodes()[at].phase;
    let captures =
        |check: &CheckDef| matches!(check, CheckDef::Query(query) if query.capture.is_some());
    matches!(phase, Phase::Verify | Phase::Contract)
        && matches!(view.action(at), Some(ActionDef::Verify(VerifyDef { check })) if !captures(check))
}

/// Which gates stand in front of destruction, so that policy's conditions are theirs too.
fn guarding(view: &View<'_>) -> Vec<bool> {
    let mut guarding = vec![false; view.document.steps.len()];
    for (at, _) in view.all() {
        if matches!(view.hazard(at), Hazard::Destructive(_))
            || matches!(view.action(at), Some(ActionDef::Retire(_)))
        {
            for gate in view.graph.releasing_gates(at) {
                guarding[gate] = true;
            }
        }
    }
    guarding
}

fn soak(view: &View<'_>, at: usize, gate: &GateDef, reports: &mut Reports) {
    let Some((after, _)) = &gate.soak else { return };
    let Some(awaited) = view.graph.index_of(&after.value) else { return };
    let id = &view.step(at).id.value;
    if awaited == at {
        reports
            .error(codes::NEVER_MET, after.span, format!("`{id}` waits for itself"))
            .help("name the step that is to have been well for that long");
    } else if view.graph.is_before(at, awaited) {
        let message = format!("`{id}` waits for `{}`, which can't start before it", after.value);
        reports
            .error(codes::NEVER_MET, after.span, message)
            .help("name a step that comes before this gate");
    } else if !view.graph.is_before(awaited, at) {
        let message = format!("`{id}` waits for `{}`, which it doesn't need", after.value);
        reports
            .error(codes::NEVER_MET, after.span, message)
            .help(format!("add `{}` to the gate's `needs`, so that it runs first", after.value));
    }
}

fn expiry(view: &View<'_>, at: usize, gate: &GateDef, reports: &mut Reports) {
    let Some(expires) = gate.expires_ms else { return };
    let cap = view.surroundings.policy.longest_wait_ms.unwrap_or(u64::MAX);
    let soak = gate.soak.iter().map(|(_, length)| length.value);
    let waits = soak.chain(gate.unused_for.iter().map(|unused| unused.for_ms.value));
    let wait = waits.max().unwrap_or(0).min(cap);
    let policy = view.surroundings.policy.destructive.as_ref();
    let is_asked =
        !gate.approvals.is_empty() || policy.is_some_and(|policy| !policy.approvals.is_empty());
    if is_asked && expires.value <= wait {
        let message = format!(
            "approvals of `{}` expire after {}, and the gate waits {}",
            view.step(at).id.value,
            shown(expires.value),
            shown(wait)
        );
        reports
            .error(codes::EXPIRES_TOO_SOON, expires.span, message)
            .help("let them count for longer than the gate waits, or remove `expires`");
    }
}

/// A gate behind a forward `retire` can't ask for fresher evidence than the gate in front of the retire did.
fn stale_for_ever(
    view: &View<'_>,
    at: usize,
    parting: &Parting<'_>,
    is_guarding: bool,
    reports: &mut Reports,
) {
    let Some(within) = view.verified_within_ms(at, is_guarding) else { return };
    if parting.allowed_ms.is_some_and(|earlier| earlier <= within) {
        return;
    }
    let own = view.gate(at).and_then(|gate| gate.verified_within_ms);
    let span = own.map_or(view.step(at).id.span, |within| within.span);
    let allowed = match parting.allowed_ms {
        Some(ms) => format!("up to {} old", shown(ms)),
        None => "of any age".to_owned(),
    };
    let message = format!(
        "`{}` asks for evidence of `{}` from the last {}, but it grows no younger after `{}`, whose gate takes it {allowed}",
        view.step(at).id.value,
        parting.mapping,
        shown(within),
        view.step(parting.retire).id.value,
    );
    reports.error(codes::NEVER_MET, span, message).help(format!(
        "ask for `verified_within: {}` or less in front of the retire, or let this gate take older evidence",
        shown(within)
    ));
}

fn shown(ms: u64) -> String {
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}
