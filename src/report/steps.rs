//! A run's steps as rows: what tables and documents show of each.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::run::{
    Action, ChunkRows, Failure, Phase, Progress, State, Step, StepId, Throttled, Timestamp, Tuning,
    Undo, Verdict, Verify, Way,
};
use crate::store::StepProgress;

use super::gates::asked;
use super::paint::Tone;
use super::words;

/// What is shown of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRow {
    /// The step.
    pub id: StepId,
    /// Its phase.
    pub phase: Phase,
    /// The action's key in plans.
    pub action: &'static str,
    /// Where it stands.
    pub standing: StepStanding,
    /// Attempts begun.
    pub attempts: u32,
    /// Rows done, where that can be told.
    pub rows_done: Option<u64>,
    /// Rows to do, about.
    pub rows_total: Option<u64>,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When its last attempt ended.
    pub ended_at: Option<Timestamp>,
    /// How long it took, or has taken so far.
    pub took_ms: Option<u64>,
    /// Rows of a copy that are parked, as of its last attempt; none where it may park none.
    pub parked: Option<u64>,
    /// What came of it, what is wrong, or what it waits for.
    pub detail: Option<String>,
    /// What holds it back now, each with since when.
    pub throttled: Vec<(Throttled, Timestamp)>,
    /// What operators have set otherwise than the plan.
    pub tuning: Tuning,
}

/// Where a step stands, in the words that documents use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepStanding {
    /// Not begun, and not its turn.
    Pending,
    /// A gate whose turn it is, and that is shut.
    Waiting,
    /// Under way.
    Running,
    /// Being undone.
    Undoing,
    /// It failed and is tried again by itself.
    Retrying,
    /// Done.
    Succeeded,
    /// A gate that let what follows go.
    Open,
    /// It waits for an operator.
    Failed,
    /// It compared, and found differences.
    Differs,
    /// Nobody can tell whether it was done.
    Ambiguous,
    /// It was done, and undone.
    Undone,
}

impl StepStanding {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Undoing => "undoing",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Open => "open",
            Self::Failed => "failed",
            Self::Differs => "differs",
            Self::Ambiguous => "ambiguous",
            Self::Undone => "undone",
        }
    }

    /// The tone that repeats the word.
    #[must_use]
    pub const fn tone(self) -> Tone {
        match self {
            Self::Pending | Self::Undone => Tone::Dim,
            Self::Waiting | Self::Retrying | Self::Undoing => Tone::Warn,
            Self::Running => Tone::Strong,
            Self::Succeeded | Self::Open => Tone::Good,
            Self::Failed | Self::Differs | Self::Ambiguous => Tone::Bad,
        }
    }

    /// Where a step stands in a run.
    #[must_use]
    pub fn of(state: &State, step: &Step) -> Self {
        let is_gate = matches!(step.action, Action::Gate(_));
        match &state.step(&step.id).progress {
            Progress::Pending if is_gate && is_its_turn(state, step) => Self::Waiting,
            Progress::Pending => Self::Pending,
            Progress::Running { .. } if is_gate => Self::Waiting,
            Progress::Running { way: Way::Forward } => Self::Running,
            Progress::Running { way: Way::Back } => Self::Undoing,
            Progress::Retrying { .. } => Self::Retrying,
            Progress::Succeeded if is_gate => Self::Open,
            Progress::Succeeded => Self::Succeeded,
            Progress::Failed { .. } => Self::Failed,
            Progress::Differs => Self::Differs,
            Progress::Ambiguous { .. } => Self::Ambiguous,
            Progress::Undone => Self::Undone,
        }
    }
}

/// Whether everything a step needs has succeeded, in a run that still goes on.
#[must_use]
pub fn is_its_turn(state: &State, step: &Step) -> bool {
    !state.is_ended() && step.needs.iter().all(|need| state.is_applied(need))
}

/// The rows of all steps in the plan's order. `live` is what the store knows of rows under way; `now` is the store's clock.
#[must_use]
pub fn rows(state: &State, live: &[StepProgress], now: Timestamp) -> Vec<StepRow> {
    let live: BTreeMap<&StepId, &StepProgress> = live.iter().map(|one| (&one.step, one)).collect();
    let row = |step| row(state, step, live.get(&step.id).copied(), now);
    state.program().steps().iter().map(row).collect()
}

fn row(state: &State, step: &Step, live: Option<&StepProgress>, now: Timestamp) -> StepRow {
    let known = state.step(&step.id);
    let standing = StepStanding::of(state, step);
    let finished_rows = known.outcome.as_ref().and_then(|outcome| {
        outcome.rows.or_else(|| outcome.evidence.as_ref().map(|evidence| evidence.rows))
    });
    let under_way =
        matches!(standing, StepStanding::Running | StepStanding::Undoing | StepStanding::Retrying);
    // That a statement which makes a table changed no rows is nothing to read.
    let finished_rows = finished_rows
        .filter(|rows| *rows > 0 || matches!(step.action, Action::Backfill(_) | Action::Verify(_)));
    let took_ms = match known.ended_at {
        _ if standing == StepStanding::Retrying => known.took_ms(known.ended_at.unwrap_or(now)),
        _ if under_way => known.took_ms(now),
        // Of a step that went both ways only the whole span is known, which is no time that anything took.
        Some(ended) if standing != StepStanding::Undone => known.took_ms(ended),
        _ => None,
    };
    let throttled: Vec<(Throttled, Timestamp)> = match live {
        Some(live) if standing == StepStanding::Running => live
            .throttled
            .iter()
            .map(|held| (held.clone(), live.at.minus_ms(held.for_ms)))
            .collect(),
        _ => Vec::new(),
    };
    let held = throttled.first().map(|(held, since)| {
        let more = throttled.len() - 1;
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        format!("held back: {}{more}", held.sentence(now.since_ms(*since)))
    });
    StepRow {
        id: step.id.clone(),
        phase: step.phase,
        action: step.action.name(),
        standing,
        attempts: known.attempts,
        rows_done: finished_rows.or_else(|| live.map(|live| live.rows_done)),
        rows_total: live.and_then(|live| live.rows_total).or(finished_rows),
        started_at: known.started_at,
        ended_at: known.ended_at.filter(|_| !under_way),
        took_ms,
        parked: known.outcome.as_ref().and_then(|outcome| outcome.parked),
        detail: held.or_else(|| detail(state, step, now)),
        throttled,
        tuning: known.tuning.clone(),
    }
}

fn detail(state: &State, step: &Step, now: Timestamp) -> Option<String> {
    let known = state.step(&step.id);
    match &known.progress {
        Progress::Retrying { at, failure, .. } => {
            // What an operator had a hand in waits for nothing but to be driven.
            let when = match at.since_ms(now) {
                0 => "when the run goes on".to_owned(),
                wait => format!("in {}", words::duration(wait)),
            };
            Some(format!("{}; again {when}", failure.message))
        }
        Progress::Failed { failure, .. } => Some(failure_line(failure)),
        Progress::Ambiguous { detail, .. } => Some(detail.clone()),
        Progress::Differs => known.evidence.as_ref().map(|evidence| {
            format!(
                "{} missing, {} extra, {} different of {}",
                words::count(evidence.missing),
                words::count(evidence.extra),
                words::count(evidence.different),
                words::plural(evidence.rows, "row"),
            )
        }),
        Progress::Succeeded => succeeded_detail(state, step),
        Progress::Pending | Progress::Running { .. } if known.tuning != Tuning::NONE => {
            Some(format!("tuned: {}", tuned(&known.tuning)))
        }
        Progress::Pending | Progress::Running { .. } | Progress::Undone => {
            let shut = state.gate(&step.id).filter(|gate| !gate.shut.is_empty());
            let asked = asked(state.program(), &step.id);
            let asks = || (!asked.is_empty()).then(|| format!("asks {}", asked.join(", ")));
            shut.map(|gate| format!("shut again: {}", gate.shut.join("; "))).or_else(asks)
        }
    }
}

fn succeeded_detail(state: &State, step: &Step) -> Option<String> {
    let outcome = state.step(&step.id).outcome.as_ref()?;
    if let Some(detail) = &outcome.detail {
        return Some(detail.clone());
    }
    if let Some(evidence) = &outcome.evidence {
        return Some(match (&step.action, evidence.verdict) {
            (Action::Verify(Verify::Mapping { .. }), Verdict::Pass) => "every row is equal".into(),
            (_, Verdict::Pass) => "as expected".into(),
            (_, Verdict::Partial) => "PARTIAL: not every row was compared".into(),
            (_, Verdict::Fail) => "differences were found".into(),
        });
    }
    outcome.value.as_ref().map(|value| format!("value {}", words::value(value)))
}

/// A failure in one line: the database's code, then its sentence.
#[must_use]
pub fn failure_line(failure: &Failure) -> String {
    match &failure.code {
        Some(code) => format!("{} [{code}]", failure.message),
        None => failure.message.clone(),
    }
}

/// As [`failure_line`], with the line of the plan and what else is known: who was in the way, which statement it was.
#[must_use]
pub fn failure_story(failure: &Failure) -> String {
    let line = failure.line.map(|line| format!(" at line {line}"));
    let detail = failure.detail.as_ref().map(|detail| {
        if is_to_paste(detail) { format!(":\n{detail};") } else { format!("; {detail}") }
    });
    let parts = [Some(failure_line(failure)), line, detail];
    parts.into_iter().flatten().collect()
}

/// Whether what is known besides is statements, which people run as they stand.
#[must_use]
pub fn is_to_paste(detail: &str) -> bool {
    let verbs = ["ALTER ", "ANALYZE ", "CREATE ", "DROP ", "GRANT "];
    verbs.iter().any(|verb| detail.starts_with(verb))
}

impl StepRow {
    /// Rows as a table shows them: done, or done of about how many.
    #[must_use]
    pub fn rows_text(&self) -> String {
        match (self.rows_done, self.rows_total) {
            (Some(done), Some(total)) if total > done => {
                format!("{}/~{}", words::count(done), words::count(total))
            }
            (Some(done), _) => words::count(done),
            (None, _) => "-".to_owned(),
        }
    }

    /// The row as documents have it.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "id": self.id,
            "phase": self.phase.as_str(),
            "action": self.action,
            "state": self.standing.as_str(),
            "attempts": self.attempts,
            "rows_done": self.rows_done,
            "rows_total": self.rows_total,
            "started_at": self.started_at.and_then(words::rfc3339),
            "ended_at": self.ended_at.and_then(words::rfc3339),
            "took_ms": self.took_ms,
            "parked": self.parked,
            "detail": self.detail,
            "throttled": self.throttled.iter().map(throttled_document).collect::<Vec<_>>(),
            "tuning": tuning_document(&self.tuning),
        })
    }
}

fn throttled_document((held, since): &(Throttled, Timestamp)) -> Value {
    json!({
        "name": held.name,
        "reason": held.reason,
        "of": held.of,
        "value": held.value,
        "limit": held.limit,
        "unit": held.unit,
        "since": words::rfc3339(*since),
    })
}

/// Only what is tuned; nothing where nothing is.
fn tuning_document(tuning: &Tuning) -> Value {
    if *tuning == Tuning::NONE {
        return Value::Null;
    }
    json!({
        "workers": tuning.workers,
        "chunk_time_ms": tuning.chunk_time_ms,
        "chunk_rows": tuning.chunk_rows.map(|rows| match rows {
            ChunkRows::Auto => json!("auto"),
            ChunkRows::Fixed(rows) => json!(rows),
        }),
        "pause_between_ms": tuning.pause_between_ms,
        "limits": tuning.limits,
    })
}

/// What was set, in words.
#[must_use]
pub fn tuned(tuning: &Tuning) -> String {
    let rows = tuning.chunk_rows.map(|rows| match rows {
        ChunkRows::Auto => "chunks of automatic size".to_owned(),
        ChunkRows::Fixed(rows) => format!("chunks of {}", words::plural(u64::from(rows), "row")),
    });
    let parts = [
        tuning.workers.map(|workers| words::plural(u64::from(workers), "worker")),
        tuning.chunk_time_ms.map(|ms| format!("chunks of {}", words::duration(ms))),
        rows,
        tuning.pause_between_ms.map(|ms| format!("{} between chunks", words::duration(ms))),
    ];
    let limits = tuning.limits.iter().map(|(name, limit)| format!("{name} {limit}"));
    parts.into_iter().flatten().chain(limits).collect::<Vec<_>>().join(", ")
}

/// How a step would be undone, in the statements or the words that `rollback` shows.
#[must_use]
pub fn undo_lines(step: &Step) -> Vec<String> {
    match &step.undo {
        Undo::None(reason) => {
            let reason = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            vec![format!("-- nothing to undo{reason}")]
        }
        Undo::Script(script) => {
            script.statements.iter().map(|statement| format!("{};", statement.text)).collect()
        }
        Undo::Derived => vec![derived_undo(&step.action)],
        Undo::Impossible => {
            let reason = step.irreversible.as_deref().unwrap_or("no way back is known");
            vec![format!("-- can't be undone: {reason}")]
        }
    }
}

fn derived_undo(action: &Action) -> String {
    match action {
        Action::DualWrite(dual_write) => {
            format!("-- remove the sync of mapping {}", dual_write.mapping)
        }
        Action::Backfill(backfill) => format!(
            "-- leave the copied rows of mapping {}; they go when its sync is removed",
            backfill.mapping
        ),
        Action::Retire(retire) => {
            format!(
                "-- give the tables or columns of mapping {} their old names back",
                retire.mapping
            )
        }
        Action::StopDualWrite { mapping } => {
            format!("-- install the sync of mapping {mapping} again")
        }
        Action::Sql(_) | Action::Verify(_) | Action::Gate(_) | Action::Drop { .. } => {
            "-- nothing to undo".to_owned()
        }
    }
}
