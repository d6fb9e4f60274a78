//! The journal in words, and as documents without the plan's text.

use serde_json::{Value, json};

use crate::run::{
    Event, Evidence, MappingName, Outcome, PermitRecord, Pin, StepId, TargetName, Verdict, Way,
};
use crate::store::Entry;

use super::paint::{Colour, Tone};
use super::steps::{self, failure_line};
use super::table::{Alignment, Table};
use super::words;

/// Entries as a table: number, time, who, what.
#[must_use]
pub fn render(entries: &[Entry], colour: Colour) -> String {
    let columns = [
        ("no", Alignment::Right),
        ("at", Alignment::Left),
        ("by", Alignment::Left),
        ("what", Alignment::Left),
    ];
    let mut table = Table::new(colour, &columns);
    for entry in entries {
        let record = &entry.record;
        table.row(&[
            (record.version.to_string(), Tone::Dim),
            (words::moment(record.at), Tone::Dim),
            (words::actor(&record.by), Tone::Plain),
            (sentence(&record.event), Tone::Plain),
        ]);
    }
    table.render()
}

/// An entry as one document: what happened with its fields, the plan left to its name and digest.
#[must_use]
pub fn document(entry: &Entry) -> Value {
    let record = &entry.record;
    json!({
        "version": record.version,
        "at": words::rfc3339(record.at),
        "by": { "name": record.by.name, "proof": record.by.proof, "host": record.by.host },
        "hash": entry.hash.as_str(),
        "text": sentence(&record.event),
        "event": event_document(&record.event),
    })
}

fn event_document(event: &Event) -> Value {
    match event {
        Event::RunStarted { run, pin } => {
            json!({ "kind": "run_started", "run": run, "plan": pin_document(pin) })
        }
        Event::PlanAmended { pin, changed, voided } => json!({
            "kind": "plan_amended",
            "plan": pin_document(pin),
            "changed": changed,
            "voided": voided,
        }),
        other => serde_json::to_value(other).unwrap_or(Value::Null),
    }
}

fn pin_document(pin: &Pin) -> Value {
    json!({
        "name": pin.program.plan(),
        "digest": pin.program.digest().as_str(),
        "environment": pin.program.environment(),
        "path": pin.path,
    })
}

/// What happened, in one sentence.
#[must_use]
pub fn sentence(event: &Event) -> String {
    match event {
        Event::RunStarted { pin, .. } => {
            format!("started the run of {} from {}", plan(pin), pin.path)
        }
        Event::AdoptionBegun { from, .. } => {
            format!("began to go on without the journal that was lost: {from}")
        }
        Event::RunAdopted { traces } => {
            let found: Vec<StepId> = traces.steps.iter().map(|it| it.step.clone()).collect();
            let found = names(&found);
            format!(
                "read what the targets have of the run: {found}; approvals and evidence are void"
            )
        }
        Event::PlanAmended { pin, changed, voided } => amended(pin, changed, voided),
        Event::StepStarted { step, attempt, way, permit } => {
            format!("{step}: {} {attempt} began{}", attempt_at(*way), permitted(permit.as_ref()))
        }
        Event::StepSucceeded { step, way, outcome, .. } => {
            let done = match way {
                Way::Forward => "done",
                Way::Back => "undone",
            };
            format!("{step}: {done}{}", came_of_it(outcome))
        }
        Event::StepFailed { step, attempt, way, failure, retry_at, .. } => {
            let again = match retry_at {
                Some(at) => format!("; again at {}", words::moment(*at)),
                None => String::new(),
            };
            let what = failure_line(failure);
            format!("{step}: {} {attempt} failed: {what}{again}", attempt_at(*way))
        }
        Event::StepDiffers { step, evidence, .. } => {
            format!("{step}: {}", compared(evidence))
        }
        Event::StepAmbiguous { step, detail, .. } => {
            format!("{step}: nobody can tell whether it was done: {detail}")
        }
        Event::StepResolved { step, attempt, way, outcome, reason } => {
            format!(
                "{step}: {} {attempt} resolved as {}: {reason}",
                attempt_at(*way),
                outcome.as_str()
            )
        }
        Event::RetryAsked { steps } => format!("asked to try {} again", names(steps)),
        Event::GateReached { gate, work, .. } => {
            format!("gate {gate}: takes approvals for digest {work}")
        }
        Event::GateOpened { gate, work } => format!("gate {gate}: opened for digest {work}"),
        Event::GateShut { gate, reasons } => {
            format!("gate {gate}: shut again: {}", reasons.join("; "))
        }
        Event::Approved { gate, work, group, comment } => {
            let group = group.as_ref().map_or(String::new(), |group| format!(" for {group}"));
            format!("gate {gate}: approved digest {work}{group}{}", said(comment.as_deref()))
        }
        Event::Rejected { gate, work, reason } => {
            format!("gate {gate}: rejected digest {work}: {reason}")
        }
        Event::Revoked { gate } => format!("gate {gate}: took back the own decision"),
        Event::LockReleased { lock, holder, reason } => {
            format!("took lock {lock} away from {holder}: {reason}")
        }
        Event::LineageSeen { target, before, now, void, lost } => {
            let what = looked_at(target, before.as_deref(), now);
            let void = told("what was found is void, and is found again", void);
            let lost = told("what was found is void, and can't be found again", lost);
            format!("{what}{void}{lost}")
        }
        Event::UsageSeen { mapping, usage } => {
            format!(
                "the old side of {mapping}: {} uses counted; its time unused counts from here",
                usage.count
            )
        }
        Event::Paused { reason } => format!("paused the run{}", said(reason.as_deref())),
        Event::Resumed => "resumed the run".to_owned(),
        Event::Tuned { step, tuning } => format!("{step}: tuned: {}", steps::tuned(tuning)),
        Event::RollbackBegun { accept_loss } => {
            let losses: Vec<&str> = accept_loss.iter().map(MappingName::as_str).collect();
            let losses = if losses.is_empty() {
                String::new()
            } else {
                format!(", accepting the loss of new writes to {}", losses.join(", "))
            };
            format!("began to roll back{losses}")
        }
        Event::AbortBegun { leave, reason } => {
            let leaving = if *leave { ", leaving what was changed" } else { "" };
            format!("gave the run up{leaving}{}", said(reason.as_deref()))
        }
        Event::RunEnded { ending } => format!("the run is over: {}", ending.as_str()),
    }
}

fn plan(pin: &Pin) -> String {
    format!("plan {} (digest {})", pin.program.plan(), pin.program.digest())
}

fn names(steps: &[StepId]) -> String {
    if steps.is_empty() {
        return "nothing".to_owned();
    }
    steps.iter().map(StepId::as_str).collect::<Vec<_>>().join(", ")
}

fn amended(pin: &Pin, changed: &[StepId], voided: &[StepId]) -> String {
    let voided = told("approvals void at", voided).replacen(": ", " ", 1);
    let changed = if changed.is_empty() { "no step".to_owned() } else { names(changed) };
    format!("amended the plan to {}: changed {changed}{voided}", plan(pin))
}

fn looked_at(target: &TargetName, before: Option<&str>, now: &str) -> String {
    match before {
        None => format!("looked at {target}: it is {now}"),
        Some(before) => {
            format!(
                "{target} may have lost its last transactions: it is {now} now, and was {before}"
            )
        }
    }
}

/// Something about steps, where there are any.
fn told(what: &str, steps: &[StepId]) -> String {
    if steps.is_empty() { String::new() } else { format!("; {what}: {}", names(steps)) }
}

const fn attempt_at(way: Way) -> &'static str {
    match way {
        Way::Forward => "attempt",
        Way::Back => "undo attempt",
    }
}

fn permitted(permit: Option<&PermitRecord>) -> String {
    match permit {
        None => String::new(),
        Some(permit) if permit.gates.is_empty() => ", for what the ledger has already".to_owned(),
        Some(permit) => {
            let gates: Vec<&str> = permit.gates.iter().map(|(gate, _)| gate.as_str()).collect();
            format!(", permitted by {}", gates.join(", "))
        }
    }
}

fn came_of_it(outcome: &Outcome) -> String {
    let mut parts = Vec::new();
    // Evidence tells its own rows; no rows at all is what most statements change.
    if let Some(rows) = outcome.rows.filter(|rows| *rows > 0 && outcome.evidence.is_none()) {
        parts.push(words::plural(rows, "row"));
    }
    if let Some(evidence) = &outcome.evidence {
        // A question has an answer, and compares no rows.
        parts.push(match outcome.value {
            Some(_) => verdict(evidence).to_owned(),
            None => compared(evidence),
        });
    }
    if let Some(value) = &outcome.value {
        parts.push(format!("value {}", words::value(value)));
    }
    if let Some(detail) = outcome.detail.as_ref().filter(|detail| !parts.contains(*detail)) {
        parts.push(detail.clone());
    }
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) }
}

const fn verdict(evidence: &Evidence) -> &'static str {
    match evidence.verdict {
        Verdict::Pass => "PASS",
        Verdict::Partial => "PARTIAL",
        Verdict::Fail => "FAIL",
    }
}

fn compared(evidence: &Evidence) -> String {
    format!(
        "{} over {}: {} missing, {} extra, {} different",
        verdict(evidence),
        words::plural(evidence.rows, "row"),
        words::count(evidence.missing),
        words::count(evidence.extra),
        words::count(evidence.different),
    )
}

fn said(text: Option<&str>) -> String {
    text.map_or(String::new(), |text| format!(": {text}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::report::fixture::{evidence, failed, records, started, up_to_gate};
    use crate::run::{ChunkRows, Digest, Limit, Moved, Tuning, Unit};

    #[test]
    fn every_record_is_a_sentence() {
        let table = [
            (started(), "started the run of plan leads"),
            (failed("copy"), "copy: attempt 1 failed: no such table: leads_v3 [SQLITE_ERROR]"),
            (
                Event::Tuned {
                    step: "copy".into(),
                    tuning: Tuning {
                        chunk_rows: Some(ChunkRows::Fixed(1)),
                        pause_between_ms: Some(50),
                        chunk_time_ms: Some(100),
                        workers: Some(2),
                        limits: [
                            ("lag".to_owned(), Moved::To(Limit { value: 2_500.0, unit: Unit::Ms })),
                            ("stop".to_owned(), Moved::Off),
                        ]
                        .into(),
                    },
                },
                "copy: tuned: 2 workers, chunks of 100ms, chunks of 1 row, 50ms between chunks, lag 2.5s, stop off",
            ),
            (
                Event::StepResolved {
                    step: "copy".into(),
                    attempt: 2,
                    way: Way::Back,
                    outcome: crate::run::Resolution::NotApplied,
                    reason: "the rows are there".into(),
                },
                "copy: undo attempt 2 resolved as not applied: the rows are there",
            ),
            (
                Event::AbortBegun { leave: true, reason: Some("no longer wanted".into()) },
                "gave the run up, leaving what was changed: no longer wanted",
            ),
        ];
        for (event, text) in table {
            assert!(sentence(&event).starts_with(text), "{}", sentence(&event));
        }
    }

    #[test]
    fn the_answer_to_a_question_is_told_once_and_compares_no_rows() {
        let evidence = Some(evidence(Verdict::Pass, 0));
        let compared = Outcome { evidence: evidence.clone(), ..Outcome::default() };
        let told = came_of_it(&compared);
        assert!(told.starts_with(": PASS over ") && told.ends_with(" 0 different"), "{told}");
        let value = Some(crate::run::Value::Integer(7));
        let detail = Some("value 7".to_owned());
        let answered = Outcome { detail, evidence, value, ..Outcome::default() };
        assert_eq!(came_of_it(&answered), ": PASS, value 7");
    }

    #[test]
    fn documents_hold_the_plan_by_name_only() {
        for record in records(up_to_gate()) {
            let entry = Entry { record, hash: Digest::of_bytes(b"x") };
            let document = document(&entry);
            assert!(document["event"]["kind"].is_string(), "{document:#}");
            assert!(document["event"].get("pin").is_none(), "{document:#}");
        }
    }
}
