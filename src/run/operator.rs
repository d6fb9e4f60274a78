//! What operators ask, and the records or the refusal it comes to.

use std::collections::BTreeSet;

use super::action::{Action, Gate};
use super::command::{Command, Refusal, RefusalKind};
use super::decide::{Decided, ending};
use super::gate::{self, gate_of};
use super::name::{GroupName, MappingName, RunId, StepId};
use super::people::{Unfillable, unfillable};
use super::planted::{Fault, is_planted};
use super::program::{Identity, Program, Step};
use super::record::{Actor, Ending, Event, Pin, Proof, Tuning, Way};
use super::resolve;
use super::schedule::leaves_nothing;
use super::state::{DecisionVerdict, GateState, Progress, Standing, State};
use super::time::Timestamp;
use super::tuning;

/// The records that a command comes to.
pub(super) fn answer(state: &State, command: &Command, by: &Actor, now: Timestamp) -> Decided {
    if let Standing::Ended { ending, .. } = state.standing() {
        // Asking again for what has come about is no mistake: the answer to the first time may have been lost.
        let has_come_about = matches!(
            (command, ending),
            (Command::Rollback { .. }, Ending::RolledBack)
                | (Command::Abort { .. }, Ending::Aborted)
        );
        if has_come_about {
            return Ok(Vec::new());
        }
        let message = format!("run {} is over: {}", state.run(), ending.as_str());
        return Err(Refusal::new(RefusalKind::Usage, message)
            .with_help("`phasegate run --new PLAN` starts another"));
    }
    if state.is_being_adopted() && !matches!(command, Command::ReleaseLock { .. }) {
        return Err(usage("what the targets have of the run has not been read yet")
            .with_help("`phasegate state adopt PLAN` goes on with that"));
    }
    unproven(state, by)?;
    if let Some(decided) = settled(state, command) {
        return decided;
    }
    match command {
        Command::Pause { reason } if state.paused().is_none() => {
            Ok(vec![Event::Paused { reason: reason.clone() }])
        }
        Command::Pause { .. } => Ok(Vec::new()),
        Command::Resume if state.paused().is_some() => Ok(vec![Event::Resumed]),
        Command::Resume => Err(Refusal::new(RefusalKind::Usage, "the run is not paused")
            .with_help("`phasegate run PLAN` goes on with a run that stopped")),
        Command::Retry => retry(state),
        Command::Resolve { step, outcome, reason, attempt } => {
            resolve::decide(state, (step, *attempt), *outcome, reason)
        }
        Command::ReleaseLock { lock, holder, reason } => release(lock, holder, reason),
        Command::Rollback { accept_loss } => rollback(state, accept_loss),
        Command::Abort { leave, reason } => abort(state, *leave, reason.as_ref()),
        Command::Amend { pin } => amend(state, pin, by),
        Command::Tune { step, tuning } => tune(state, step.as_ref(), tuning),
        Command::Approve { gate, work, group, comment } => {
            let (known, asks) = reached(state, gate)?;
            still_guards(state, gate)?;
            let work = shown(known, gate, work.as_deref())?;
            may_approve(state, gate, asks, (by, now))?;
            let group = group_of(state, gate, asks, group.as_ref(), (by, now))?;
            Ok(vec![Event::Approved { gate: gate.clone(), work, group, comment: comment.clone() }])
        }
        Command::Reject { gate, reason } => {
            let (known, _) = reached(state, gate)?;
            still_guards(state, gate)?;
            let work = shown(known, gate, None)?;
            let rejected = Event::Rejected { gate: gate.clone(), work, reason: reason.clone() };
            let why = format!("rejected by {}: {reason}", by.name);
            Ok(std::iter::once(rejected).chain(shut_again(state, gate, why)).collect())
        }
        Command::Revoke { gate } => revoke(state, gate, by),
    }
}

/// A run that has nothing left to do but to clear up takes no other direction any more: its ledger may be gone already, and
/// without it an undo finds nothing to undo.
fn settled(state: &State, command: &Command) -> Option<Decided> {
    let ending = ending(state)?;
    match (command, ending) {
        (Command::Rollback { .. }, Ending::RolledBack)
        | (Command::Abort { .. }, Ending::Aborted) => Some(Ok(Vec::new())),
        (Command::Rollback { .. } | Command::Abort { .. } | Command::Amend { .. }, _) => {
            let message = format!(
                "run {} is {} but for its bookkeeping in the targets",
                state.run(),
                ending.as_str()
            );
            Some(Err(usage(message).with_help("`phasegate run PLAN` ends it")))
        }
        _ => None,
    }
}

/// The history keeps who took a lease away, from whom, and why.
fn release(lock: &RunId, holder: &str, reason: &str) -> Decided {
    if reason.trim().is_empty() {
        let message = "taking a lock away needs a reason: whoever held it will ask";
        return Err(usage(message).with_help("add --reason"));
    }
    let (lock, holder, reason) = (lock.clone(), holder.to_owned(), reason.to_owned());
    Ok(vec![Event::LockReleased { lock, holder, reason }])
}

/// Where policy asks who somebody is, a name that was merely given decides nothing, whatever the command line was told.
fn unproven(state: &State, by: &Actor) -> Result<(), Refusal> {
    if by.proof != Proof::Claimed || state.program().policy().identity == Identity::Claimed {
        return Ok(());
    }
    let environment = state.program().environment();
    Err(not_permitted(format!(
        "environment {environment} knows people by their account, not by a given name"
    ))
    .with_help(format!("leave --as out, and give --env {environment} with its project file")))
}

fn usage(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Usage, message)
}

fn not_permitted(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::NotPermitted, message)
}

fn retry(state: &State) -> Decided {
    let mut steps: Vec<StepId> = steps_where(state, |progress| {
        matches!(progress, Progress::Failed { .. } | Progress::Differs | Progress::Retrying { .. })
    });
    // A copy whose rows are long mended is not begun anew for another step's failure.
    let has_differed = !steps_where(state, |progress| *progress == Progress::Differs).is_empty();
    if steps.is_empty() || has_differed {
        steps.extend(with_parked_rows(state));
    }
    if steps.is_empty() {
        return Err(
            usage("no step has failed").with_help("`phasegate status` shows where the run stands")
        );
    }
    Ok(vec![Event::RetryAsked { steps }])
}

/// Copies that have ended and left rows parked. Once its old side is put aside a mapping is copied no more.
fn with_parked_rows(state: &State) -> impl Iterator<Item = StepId> + '_ {
    let goes_on = *state.standing() == Standing::Forward;
    let steps = state.program().steps().iter().filter(move |_| goes_on);
    steps
        .filter(|step| match &step.action {
            Action::Backfill(backfill) => {
                let known = state.step(&step.id);
                known.progress == Progress::Succeeded
                    && known.parked().is_some()
                    && state.retired_by(&backfill.mapping).is_none()
            }
            _ => false,
        })
        .map(|step| step.id.clone())
}

fn steps_where(state: &State, wanted: impl Fn(&Progress) -> bool) -> Vec<StepId> {
    let steps = state.program().steps().iter();
    steps.filter(|s| wanted(&state.step(&s.id).progress)).map(|s| s.id.clone()).collect()
}

fn rollback(state: &State, accept_loss: &[MappingName]) -> Decided {
    if let Some(unknown) =
        accept_loss.iter().find(|name| !state.program().mappings().contains_key(*name))
    {
        return Err(usage(format!("the plan has no mapping {unknown}")));
    }
    if *state.standing() == Standing::Back {
        return Ok(accept_more(state, accept_loss));
    }
    let passed: Vec<String> = beyond_return(state)
        .map(|step| format!("{} ({})", step.id, step.irreversible.as_deref().unwrap_or_default()))
        .collect();
    if !passed.is_empty() {
        let message = format!(
            "the run is past its point of no return: {} can't be undone",
            passed.join(", ")
        );
        return Err(not_permitted(message).with_help(
            "go on with `phasegate run PLAN`, or `phasegate abort --leave --reason …`",
        ));
    }
    Ok(vec![Event::RollbackBegun { accept_loss: accept_loss.to_vec() }])
}

/// The steps that can't be undone and have, or may have, changed something: behind one of them a run can't go back.
pub fn beyond_return(state: &State) -> impl Iterator<Item = &Step> {
    let steps = state.program().steps().iter();
    steps.filter(|step| step.irreversible.is_some() && left_traces(state, step))
}

/// The steps that have, or may have, changed something.
pub fn changed(state: &State) -> impl Iterator<Item = &Step> {
    let steps = state.program().steps().iter();
    steps.filter(|step| has_changed(state, step))
}

/// What a run that goes back makes of losses accepted on the way: they are added to those accepted before, and the undoing
/// that failed for want of them is tried again.
fn accept_more(state: &State, accept_loss: &[MappingName]) -> Vec<Event> {
    let mut all = state.accepted_losses().to_vec();
    all.extend(accept_loss.iter().filter(|name| !state.accepted_losses().contains(name)).cloned());
    if all.len() == state.accepted_losses().len() {
        return Vec::new();
    }
    let failed =
        steps_where(state, |progress| matches!(progress, Progress::Failed { way: Way::Back, .. }));
    let again = (!failed.is_empty()).then_some(Event::RetryAsked { steps: failed });
    std::iter::once(Event::RollbackBegun { accept_loss: all }).chain(again).collect()
}

/// Whether a step may have changed a database.
pub(super) fn has_changed(state: &State, step: &Step) -> bool {
    step.action.changes_data() && left_traces(state, step)
}

/// Whether a step may have changed something: of one that failed the ledger has told whether anything of it is committed, and where it
/// could not be asked nobody knows. A copy that failed keeps its chunks.
fn left_traces(state: &State, step: &Step) -> bool {
    let known = state.step(&step.id);
    let progress = &known.progress;
    let rolled_back = matches!(
        progress,
        Progress::Failed { way: Way::Forward, .. } | Progress::Retrying { way: Way::Forward, .. }
    ) && !(known.may_be_done && step.action.changes_data())
        && !matches!(step.action, Action::Backfill(_));
    let only_looked = *progress == Progress::Differs || gate_of(step).is_some();
    !matches!(progress, Progress::Pending | Progress::Undone) && !rolled_back && !only_looked
}

fn abort(state: &State, leave: bool, reason: Option<&String>) -> Decided {
    let changed: Vec<&str> = changed(state).map(|step| step.id.as_str()).collect();
    if !leave && !changed.is_empty() {
        let message = format!("{} already changed the targets", changed.join(", "));
        return Err(not_permitted(message).with_help(
            "`phasegate rollback RUN` undoes it; `phasegate abort RUN --leave --reason …` leaves it",
        ));
    }
    if leave && reason.is_none() {
        return Err(usage("leaving changes behind needs a reason").with_help("add --reason"));
    }
    Ok(vec![Event::AbortBegun { leave, reason: reason.cloned() }])
}

fn tune(state: &State, step: Option<&StepId>, tuning: &Tuning) -> Decided {
    let backfills: Vec<&Step> = state
        .program()
        .steps()
        .iter()
        .filter(|step| matches!(step.action, Action::Backfill(_)))
        .collect();
    let names = || backfills.iter().map(|step| step.id.as_str()).collect::<Vec<_>>().join(", ");
    let chosen = match (step, backfills.as_slice()) {
        (Some(id), all) => all.iter().find(|step| step.id == *id).copied().ok_or_else(|| {
            usage(format!("{id} is not a backfill of this plan")).with_help(names())
        })?,
        (None, [only]) => only,
        (None, []) => return Err(usage("the plan has no backfill")),
        (None, _) => {
            return Err(usage("the plan has several backfills")
                .with_help(format!("say which, behind the run: {}", names())));
        }
    };
    if state.step(&chosen.id).progress == Progress::Succeeded {
        return Err(usage(format!("{} is done, so there is nothing to tune", chosen.id))
            .with_help("`phasegate status RUN` shows what is still to come"));
    }
    if let Action::Backfill(backfill) = &chosen.action {
        tuning::check(&chosen.id, backfill, tuning)?;
    }
    Ok(vec![Event::Tuned { step: chosen.id.clone(), tuning: tuning.clone() }])
}

fn reached<'a>(state: &'a State, id: &StepId) -> Result<(&'a GateState, &'a Gate), Refusal> {
    let asks = state.program().step(id).and_then(gate_of);
    let Some(asks) = asks else {
        let gates: Vec<&str> = state
            .program()
            .steps()
            .iter()
            .filter(|step| gate_of(step).is_some())
            .map(|step| step.id.as_str())
            .collect();
        return Err(usage(format!("the plan has no gate {id}"))
            .with_help(format!("its gates are: {}", gates.join(", "))));
    };
    match state.gate(id) {
        Some(known) if known.work.is_some() => Ok((known, asks)),
        _ => {
            Err(usage(format!("gate {id} has not been reached: what it releases is not final yet"))
                .with_help("`phasegate run PLAN` goes on until it is"))
        }
    }
}

/// A gate whose work is all done is used up: nothing that is decided on it now could mean anything.
fn still_guards(state: &State, gate: &StepId) -> Result<(), Refusal> {
    if *state.standing() != Standing::Forward {
        return Err(usage("the run goes back, and opens no gate any more")
            .with_help("`phasegate status RUN` shows where it stands"));
    }
    if is_used(state, gate) {
        return Err(usage(format!("gate {gate} is used: everything it lets go is done"))
            .with_help("`phasegate gates RUN` shows which gates are still to come"));
    }
    Ok(())
}

/// Whether a gate is open, lets something go, and all of that is done. One that was voided since has to open again first.
fn is_used(state: &State, gate: &StepId) -> bool {
    let mut released = state.program().released_by(gate).peekable();
    released.peek().is_some()
        && released.all(|step| state.is_applied(&step.id))
        && state.is_applied(gate)
}

fn shown(known: &GateState, gate: &StepId, typed: Option<&str>) -> Result<super::Digest, Refusal> {
    let Some(work) = &known.work else {
        return Err(usage(format!("gate {gate} has not been reached")));
    };
    match typed {
        Some(typed) if !work.is_named_by(typed) => Err(Refusal::new(
            RefusalKind::Stale,
            format!("gate {gate} now releases work {work}, not {typed}"),
        )
        .with_help(format!("`phasegate gates RUN` shows it; then approve --digest {work}"))),
        _ => Ok(work.clone()),
    }
}

fn may_approve(
    state: &State,
    gate: &StepId,
    asks: &Gate,
    (by, now): (&Actor, Timestamp),
) -> Result<(), Refusal> {
    let known = state.gate(gate);
    let work = known.and_then(|known| known.work.as_ref());
    let own = known.into_iter().flat_map(|known| &known.decisions).find(|decision| {
        let is_rejected = matches!(decision.verdict, DecisionVerdict::Rejected(_));
        decision.by.name == by.name && (is_rejected || Some(&decision.work) == work)
    });
    match own.map(|decision| (&decision.verdict, decision.at.plus_ms(asks.expires_ms))) {
        Some((DecisionVerdict::Approved(_), expires)) if expires > now => {
            return Err(not_permitted(format!("{} has approved gate {gate} already", by.name))
                .with_help("approvals come from distinct people"));
        }
        Some((DecisionVerdict::Rejected(_), _)) => {
            return Err(not_permitted(format!("{} has rejected gate {gate}", by.name))
                .with_help(format!("`phasegate revoke RUN {gate}` takes that back")));
        }
        Some((DecisionVerdict::Approved(_), _)) | None => {}
    }
    let is_author = state.author().name == by.name;
    if is_author && state.program().policy().author_may_approve == Some(false) {
        return Err(not_permitted(format!(
            "{} started or amended this run, and policy lets nobody approve their own",
            by.name
        )));
    }
    Ok(())
}

/// The group that an approval counts for.
fn group_of(
    state: &State,
    gate: &StepId,
    asks: &Gate,
    typed: Option<&GroupName>,
    (by, now): (&Actor, Timestamp),
) -> Result<Option<GroupName>, Refusal> {
    let asked: Vec<&GroupName> = asks.approvals.iter().map(|approvals| &approvals.group).collect();
    if asked.is_empty() {
        return Err(usage(format!("gate {gate} asks for no approval")));
    }
    if let Some(group) = typed
        && !asked.contains(&group)
    {
        let names = join(&asked);
        return Err(usage(format!("gate {gate} asks for no approval of {group}"))
            .with_help(format!("it asks for: {names}")));
    }
    let is_member = |group: &GroupName| match &state.program().policy().groups {
        None => true,
        Some(groups) => groups.get(group).is_some_and(|members| members.contains(&by.name)),
    };
    let wanted = typed.map_or_else(|| asked.clone(), |group| vec![group]);
    let able: Vec<&GroupName> = wanted.iter().copied().filter(|group| is_member(group)).collect();
    match able.as_slice() {
        [] => Err(not_permitted(format!("{} is not a member of {}", by.name, join(&wanted)))
            .with_help(members(state, &wanted))),
        [only] => Ok(Some((*only).clone())),
        several => {
            let report = gate::report(state, gate, &gate::Observations::default(), now);
            let open = |group: &&&GroupName| {
                report.conditions.iter().any(|condition| {
                    condition.kind == gate::ConditionKind::Approvals((**group).clone())
                        && condition.verdict != gate::ConditionVerdict::Pass
                })
            };
            let open: Vec<&GroupName> = several.iter().filter(open).copied().collect();
            match open.as_slice() {
                [only] => Ok(Some((*only).clone())),
                _ => Err(usage(format!("{} may approve for several groups", by.name))
                    .with_help(format!("say which with --group: {}", join(several)))),
            }
        }
    }
}

/// Who can approve for these groups.
fn members(state: &State, wanted: &[&GroupName]) -> String {
    let groups = state.program().policy().groups.as_ref();
    let of = |group: &&GroupName| {
        let people = groups.and_then(|groups| groups.get(*group));
        let names = people.map(|people| people.iter().cloned().collect::<Vec<_>>().join(", "));
        format!("{group}: {}", names.filter(|n| !n.is_empty()).unwrap_or_else(|| "nobody".into()))
    };
    format!("who can: {}", wanted.iter().map(of).collect::<Vec<_>>().join("; "))
}

fn join(groups: &[&GroupName]) -> String {
    groups.iter().map(|group| group.as_str()).collect::<Vec<_>>().join(", ")
}

fn revoke(state: &State, gate: &StepId, by: &Actor) -> Decided {
    let (known, _) = reached(state, gate)?;
    if !known.decisions.iter().any(|decision| decision.by.name == by.name) {
        return Err(usage(format!("{} has decided nothing on gate {gate}", by.name)));
    }
    let why = format!("{} took back an approval", by.name);
    let revoked = Event::Revoked { gate: gate.clone() };
    Ok(std::iter::once(revoked).chain(shut_again(state, gate, why)).collect())
}

/// An open gate shuts, unless all it releases has begun: what is under way is not torn out.
fn shut_again(state: &State, gate: &StepId, why: String) -> Option<Event> {
    let is_open = state.step(gate).progress == Progress::Succeeded;
    let is_waited_for = state.program().released_by(gate).any(|step| {
        !matches!(state.step(&step.id).progress, Progress::Running { .. } | Progress::Succeeded)
    });
    (is_open && is_waited_for).then(|| Event::GateShut { gate: gate.clone(), reasons: vec![why] })
}

/// Steps that have begun must be in the new plan as they are; what else changed begins anew.
fn amend(state: &State, pin: &Pin, by: &Actor) -> Decided {
    if *state.standing() != Standing::Forward {
        return Err(usage("a run that goes back can't be amended"));
    }
    let (old, new) = (state.program(), &pin.program);
    if old.plan() != new.plan() || old.environment() != new.environment() {
        let message = format!(
            "the run is of plan {} in environment {}, the file is plan {} for {}",
            old.plan(),
            old.environment(),
            new.plan(),
            new.environment()
        );
        return Err(usage(message));
    }
    let mut against = Vec::new();
    for step in old.steps().iter().filter(|step| left_traces(state, step)) {
        match new.step(&step.id) {
            None => against.push(format!("{} has begun and is no longer in the plan", step.id)),
            Some(now) if !same_work(old, step, new, now) => {
                against.push(format!("{} has begun and is changed", step.id));
            }
            Some(now) => against.extend(needs_unmet(state, now)),
        }
    }
    if !against.is_empty() && !is_planted(Fault::AmendedBlindly) {
        return Err(Refusal::new(RefusalKind::Findings, against.join("; ")).with_help(
            "only steps that have not begun can be replaced; `phasegate rollback RUN` undoes the others",
        ));
    }
    let lacking = unfillable(new, &by.name);
    if let Some(Unfillable { gate, group }) = lacking.iter().find(|one| !is_used(state, &one.gate))
    {
        let message =
            format!("with {} as author, too few of {group} could approve gate {gate}", by.name);
        return Err(Refusal::new(RefusalKind::Findings, message)
            .with_help("let somebody amend who is not in that group, or name more people in it"));
    }
    let changed = changed_steps(old, new);
    let voided = voided_gates(state, new, &changed);
    Ok(vec![Event::PlanAmended { pin: Box::new(pin.clone()), changed, voided }])
}

/// Whether a step does the same, on the same objects of the same databases.
fn same_work(old: &Program, was: &Step, new: &Program, is: &Step) -> bool {
    let mapping = |program: &Program, step: &Step| {
        step.action.mapping().and_then(|name| program.mappings().get(name).cloned())
    };
    let targets = |program: &Program, step: &Step| -> Vec<_> {
        let names = program.databases(step);
        names.map(|name| program.targets().get(name).cloned()).collect()
    };
    was.digest == is.digest
        && was.phase == is.phase
        && mapping(old, was) == mapping(new, is)
        && targets(old, was) == targets(new, is)
}

/// A step that has begun can't be given a new need that has not been met: it would have begun too early.
fn needs_unmet(state: &State, step: &Step) -> Option<String> {
    if gate_of(step).is_some() {
        return None;
    }
    let unmet: Vec<&str> = step
        .needs
        .iter()
        .filter(|need| state.step(need).progress != Progress::Succeeded)
        .map(StepId::as_str)
        .collect();
    (!unmet.is_empty())
        .then(|| format!("{} has begun, and would need {} first", step.id, unmet.join(", ")))
}

fn changed_steps(old: &Program, new: &Program) -> Vec<StepId> {
    let ids: BTreeSet<&StepId> =
        old.steps().iter().chain(new.steps()).map(|step| &step.id).collect();
    ids.into_iter()
        .filter(|id| match (old.step(id), new.step(id)) {
            (Some(was), Some(is)) => !same_work(old, was, new, is),
            _ => true,
        })
        .cloned()
        .collect()
}

/// Gates that must be decided anew: what they let go has changed, or what they ask. Not one that is used up by the very
/// steps it lets go in the new plan too: nothing would ever open it again, and nothing waits for it.
fn voided_gates(state: &State, new: &Program, changed: &[StepId]) -> Vec<StepId> {
    let old = state.program();
    old.steps()
        .iter()
        .filter(|step| gate_of(step).is_some())
        .filter(|gate| {
            let releases = |program: &Program| -> BTreeSet<StepId> {
                program.released_by(&gate.id).map(|step| step.id.clone()).collect()
            };
            let needs = |program: &Program| program.step(&gate.id).map(|gate| gate.needs.clone());
            let (was, is) = (releases(old), releases(new));
            let is_other = was != is
                || needs(old) != needs(new)
                || changed.contains(&gate.id)
                || was.iter().any(|id| changed.contains(id));
            is_other && !(was == is && is_used(state, &gate.id))
        })
        .map(|gate| gate.id.clone())
        .collect()
}

/// The steps that a rollback will undo, in its order, for people to see before they confirm.
#[must_use]
pub fn to_undo(state: &State) -> Vec<StepId> {
    let program = state.program();
    program
        .order()
        .iter()
        .rev()
        .filter_map(|id| program.step(id))
        .filter(|step| {
            !matches!(state.step(&step.id).progress, Progress::Pending | Progress::Undone)
                && !leaves_nothing(step)
        })
        .map(|step| step.id.clone())
        .collect()
}
