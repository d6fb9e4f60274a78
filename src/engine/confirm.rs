//! Before a run goes on: what its journal says is done, each target's ledger has.
//!
//! A target can go back behind the journal: a standby was promoted that had not received the last transactions, a backup
//! was restored, or the URL leads to another database now. What is missing there was never done as far as the data are
//! concerned, and whatever builds on it would be wrong.
//!
//! The other way round a state store can go back behind its targets: an older copy was put in its place, its log was lost, or
//! the run went on in another store. Then the target keeps a head that the journal doesn't have.
//!
//! Invariant: nothing was changed yet when this says no. Absent on purpose: going back, which asks the ledger of each step
//! by itself, and looking at the data, which is verify's.

use crate::bounds::engine::ANSWER_WITHIN_MS;
use crate::bounds::message::STEPS_NAMED_MAX;
use crate::driver::{
    Adoption, Claim, Error as DriverError, Fence, Head, Holder, Shared, SharedDriver,
};
use crate::run::{
    FailureClass, Looked, Observations, Progress, RunId, Standing, State, StepId, TargetName, Way,
    in_doubt,
};
use crate::store::{self, Lease, SharedStore};

use super::patience::{patiently, within};
use super::start::{at, claim};
use super::{Context, Error, is_signalled, process};

/// Fails where a target lacks what the run has done there.
pub(super) async fn confirm(
    ctx: &Context,
    state: &State,
    (target, driver): (&TargetName, &SharedDriver),
) -> Result<(), Error> {
    if *state.standing() != Standing::Forward || is_signalled(ctx) {
        return Ok(());
    }
    let run = state.run();
    let done: Vec<&StepId> = state
        .program()
        .steps()
        .iter()
        .filter(|step| state.program().enters(step, target) && step.action.changes_data())
        .map(|step| &step.id)
        .filter(|id| state.step(id).progress == Progress::Succeeded)
        .collect();
    let mut missing = Vec::new();
    for step in &done {
        let asked = patiently(|| is_signalled(ctx), || driver.is_applied(run, step, Way::Forward));
        let asked = within(ANSWER_WITHIN_MS, asked).await;
        if !asked.map_err(|source| at(target, source))? {
            missing.push(step.as_str());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if missing.len() == done.len() {
        // A run that had left before it could record that it is over has its row, and nothing in the ledger.
        let head = within(ANSWER_WITHIN_MS, driver.head(run)).await;
        if head.map_err(|source| at(target, source))?.is_some() {
            return Ok(());
        }
    }
    let more = missing.len().saturating_sub(STEPS_NAMED_MAX);
    missing.truncate(STEPS_NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message =
        format!("the database has nothing of what was done there: {}{more}", missing.join(", "));
    let help = "it may have lost its last transactions (a failover, a restored backup), or the target's URL leads to another \
                database: name the one that has them; if they are lost for good, go back with phasegate rollback, and run \
                the plan anew";
    Err(at(target, DriverError::failed(FailureClass::Stale, message).with_help(help)))
}

/// What the databases that were entered say of their history, and where that is news, which steps their ledgers have of those whose end
/// nobody recorded. Whoever drove the run before is ended everywhere by now, so that nothing of it can come behind.
pub(super) async fn look(ctx: &Context, state: &State) -> Result<Looked, Error> {
    let mut looked = Looked::default();
    for (target, driver) in &ctx.drivers {
        let asked = patiently(|| is_signalled(ctx), || driver.lineage());
        let lineage = within(ANSWER_WITHIN_MS, asked).await.map_err(|source| at(target, source))?;
        looked.lineages.extend(lineage.map(|lineage| (target.clone(), lineage)));
    }
    if !looked.is_news(state) {
        return Ok(looked);
    }
    for step in in_doubt(state) {
        let on = step.target.as_ref().and_then(|target| ctx.drivers.get_key_value(target));
        let Some((target, driver)) = on else { continue };
        let is_applied = || driver.is_applied(state.run(), &step.id, Way::Forward);
        let asked = patiently(|| is_signalled(ctx), is_applied);
        if within(ANSWER_WITHIN_MS, asked).await.map_err(|source| at(target, source))? {
            looked.done.insert(step.id.clone());
        }
    }
    Ok(looked)
}

/// Fails where a database was followed by another since the run was entered there: nothing that is known of it here can be relied on.
pub(super) fn goes_on(state: &State, seen: &Observations) -> Result<(), Error> {
    for (target, lineage) in &seen.lineages {
        let source = match lineage {
            Err(failure) if failure.class == FailureClass::Stale => {
                DriverError::Failed(failure.clone())
            }
            Ok(now) if state.lineage(target) != Some(now) => {
                let before = state.lineage(target).unwrap_or("nothing that is known");
                let message = format!("the database is {now} now, and was {before}");
                DriverError::failed(FailureClass::Stale, message).with_help(
                    "its last transactions may be lost; the same command goes on, and compares anew what was compared before",
                )
            }
            Ok(_) | Err(_) => continue,
        };
        return Err(at(target, source));
    }
    Ok(())
}

/// The head that a target keeps of a run, which the journal has. Fails where it hasn't: with who drives the run now, if that is
/// another store, and otherwise because this one has lost its newest records.
pub(super) async fn known(
    (ctx, state): (&Context, &State),
    (target, driver): (&TargetName, &SharedDriver),
    claim: &Claim,
) -> Result<Option<Head>, Error> {
    if is_signalled(ctx) {
        return Ok(None);
    }
    let asked = patiently(|| is_signalled(ctx), || driver.head(&claim.run));
    let head = within(ANSWER_WITHIN_MS, asked).await.map_err(|source| at(target, source))?;
    let Some(head) = head else { return Ok(None) };
    if is_lost(state, target, &head) || has(&ctx.store, &claim.run, &head).await? {
        return Ok(Some(head));
    }
    let asked = patiently(|| is_signalled(ctx), || driver.holder(claim));
    let holder = within(ANSWER_WITHIN_MS, asked).await.map_err(|source| at(target, source))?;
    if let Some(holder) = holder.filter(|holder| holder.over == Shared::Run) {
        return Err(at(target, DriverError::Held(Box::new(holder))));
    }
    let newest = ctx.store.version(&claim.run).await?;
    Err(store::Error::Damaged {
        message: format!(
            "the journal of run {} ends at record {newest}, and target {target} knows record {} of it, which is not there: \
             the state store was put back to an older copy, or has lost its newest records (those of a SQLite file may \
             stand in the -wal file beside it)",
            claim.run, head.version
        ),
    }
    .into())
}

/// Whether that is the head of a journal that this one took the place of.
fn is_lost(state: &State, target: &TargetName, head: &Head) -> bool {
    let lost = state.adoption().and_then(|adoption| adoption.heads.get(target));
    lost.is_some_and(|lost| lost.version == head.version && lost.hash == head.hash)
}

/// What of another store's claim on a target is this store's to take over: the run came from there, or its journal there is lost.
pub(super) fn adopts(
    (state, target): (&State, &TargetName),
    taken_up_to: Option<u64>,
    head: Option<Head>,
    newest: Option<&Head>,
) -> Option<Adoption> {
    // Only over what the lost journal left: what was entered since counts as it stands.
    let is_lost = match &head {
        Some(head) => is_lost(state, target, head),
        None => state.is_being_adopted(),
    };
    let anew = newest.filter(|_| is_lost).cloned();
    taken_up_to.map(|up_to_token| Adoption { up_to_token, head, anew })
}

/// Whether a journal has a record with its hash.
async fn has(store: &SharedStore, run: &RunId, head: &Head) -> Result<bool, Error> {
    let Some(before) = head.version.checked_sub(1) else { return Ok(false) };
    match store.read(run, before, 1).await {
        Ok(entries) => Ok(entries.first().is_some_and(|entry| entry.hash == head.hash)),
        Err(store::Error::Conflict { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Fails where a run is not to be driven from here, before a token is drawn for it: by the newest one that this store has given another
/// store may take the run over. Whoever is at work for this store is not looked behind: the lease refuses by itself.
pub(super) async fn may_draw(
    ctx: &Context,
    state: &State,
    lease: Option<&Lease>,
) -> Result<(), Error> {
    if let Some(lease) = lease
        && process::is_held(lease, ctx.store.now().await?)
    {
        return Ok(());
    }
    match is_ours(ctx, state).await?.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Fails where a run isn't this store's to write about: another store has it, or this one is an older copy. Gives the targets that
/// couldn't be asked, and why. One that is over is nobody's.
pub async fn is_ours(ctx: &Context, state: &State) -> Result<Vec<(TargetName, Error)>, Error> {
    if state.is_ended() {
        return Ok(Vec::new());
    }
    let taken_up_to = ctx.store.taken_up_to(state.run()).await?;
    let mut silent = Vec::new();
    for (target, driver) in &ctx.drivers {
        match is_ours_in((target, driver), ctx, (state, taken_up_to)).await {
            Ok(()) => {}
            Err(
                error @ Error::Target {
                    source: DriverError::Failed(_) | DriverError::Unknown(_),
                    ..
                },
            ) => silent.push((target.clone(), error)),
            Err(error) => return Err(error),
        }
    }
    Ok(silent)
}

/// Enters a target.
pub(super) async fn enter(
    ctx: &Context,
    (target, driver): (&TargetName, &SharedDriver),
    claim: &Claim,
    token: u64,
) -> Result<Vec<Fence>, Error> {
    let entered = patiently(|| is_signalled(ctx), || driver.enter(claim, token));
    match within(ANSWER_WITHIN_MS, entered).await {
        Ok(fences) => Ok(fences),
        Err(source) => Err(hangs(ctx, (target, driver), claim, source).await),
    }
}

/// Why a target could not be entered. Where sessions can't be ended by others, as in SQLite, a runner that was stopped in the middle of a
/// transaction keeps everybody out for as long as it is there.
async fn hangs(
    ctx: &Context,
    (target, driver): (&TargetName, &SharedDriver),
    claim: &Claim,
    source: DriverError,
) -> Error {
    let is_busy =
        matches!(&source, DriverError::Failed(it) if it.class == FailureClass::Contention);
    if is_busy
        && let Ok(Some((host, pid))) = within(ANSWER_WITHIN_MS, driver.entered_by(&claim.run)).await
        && host == ctx.claimant.host
        && pid != ctx.claimant.pid
        && process::is_there(pid)
    {
        return Error::Hangs { target: target.clone(), host, pid };
    }
    at(target, source)
}

async fn is_ours_in(
    (target, driver): (&TargetName, &SharedDriver),
    ctx: &Context,
    (state, taken_up_to): (&State, Option<u64>),
) -> Result<(), Error> {
    let Some(mut claim) = claim(ctx, state.program(), state.run(), target) else { return Ok(()) };
    let head = known((ctx, state), (target, driver), &claim).await?;
    claim.adopts = adopts((state, target), taken_up_to, head, None);
    let asked = patiently(|| is_signalled(ctx), || driver.holder(&claim));
    let holder = within(ANSWER_WITHIN_MS, asked).await.map_err(|source| at(target, source))?;
    match holder.filter(|holder| holder.over == Shared::Run) {
        Some(holder) => Err(at(target, DriverError::Held(Box::new(holder)))),
        None => Ok(()),
    }
}

/// The other state store that has a run, as a target says.
pub async fn driven_elsewhere(ctx: &Context, state: &State, target: &TargetName) -> Option<Holder> {
    let claim = claim(ctx, state.program(), state.run(), target)?;
    let holder = within(ANSWER_WITHIN_MS, ctx.drivers.get(target)?.holder(&claim)).await;
    holder.ok().flatten().filter(|holder| holder.over == Shared::Run)
}

/// Fails where another state store drives a run now. A target that doesn't answer says nothing.
pub async fn is_here(ctx: &Context, state: &State) -> Result<(), Error> {
    for (target, driver) in &ctx.drivers {
        let Some(claim) = claim(ctx, state.program(), state.run(), target) else { continue };
        let holder = within(ANSWER_WITHIN_MS, driver.holder(&claim)).await;
        match holder {
            Ok(Some(holder)) if holder.over == Shared::Run => {
                return Err(at(target, DriverError::Held(Box::new(holder))));
            }
            _ => {}
        }
    }
    Ok(())
}
