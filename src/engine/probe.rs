//! Reading from the targets what gates ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bounds::engine::{COUNTERS_SETTLED_AFTER_MS, PROBE_WITHIN_MS};
use crate::bounds::message::LOGGED_VALUE_CHARS_MAX;
use crate::driver::crossing::{Entered, Lag, Sides, of_mapping};
use crate::driver::{self, SharedDriver, SyncState};
use crate::run::{
    Action, Behind, Direction, DualWrite, Gate, Mapping, MappingName, Observations, Program,
    Progress, State, Step, StepId, SyncSeen, TargetFacts, TargetName, Timestamp, Unused, UsedBy,
    Value, Window,
};
use crate::store::SharedStore;

use super::Context;
use super::patience::{patiently, within};
use super::step::failure_of;
use super::window;

/// What a gate's conditions ask of the targets and of the clock, gathered before anything is awaited.
pub(super) struct Questions {
    queries: Vec<(TargetName, String)>,
    other_policy: Option<String>,
    window: Option<Window>,
    uses: Vec<Use>,
    /// The mappings of which rows may be parked, with their directions.
    parks: Vec<(Mapping, Direction)>,
    syncs: Vec<(Mapping, Direction)>,
    /// The mappings whose changes are captured for another database, by the one they are captured in; where the gate asks how far
    /// those are behind.
    behind: Option<BTreeMap<TargetName, Vec<Mapping>>>,
    /// The databases that the gate depends on: where something was done that it needs, or is to be done that it lets go.
    on: BTreeSet<TargetName>,
    tables: BTreeMap<TargetName, Vec<String>>,
}

/// How the last use of something is asked for.
enum Use {
    /// By the counters of a table; for the first time not before this moment.
    Counters(TargetName, String, Option<Timestamp>),
    /// By a query.
    Query(TargetName, String),
    /// Not at all, for this reason.
    Never(String),
}

impl Questions {
    pub(super) fn of(ctx: &Context, state: &State, gate: &StepId) -> Self {
        let program = state.program();
        let other_policy = (ctx.other_policy)(program);
        let tables = tables_behind(program, gate);
        let (parks, syncs) = (parks(state), live_syncs(state));
        let on = databases_of(program, gate);
        let Some(Action::Gate(gate)) = program.step(gate).map(|step| &step.action) else {
            let (queries, uses) = (Vec::new(), Vec::new());
            let (window, behind) = (None, None);
            return Self { queries, other_policy, window, uses, parks, syncs, behind, on, tables };
        };
        let queries = gate.queries.iter().map(|query| (query.target.clone(), query.query.clone()));
        Self {
            queries: queries.collect(),
            other_policy,
            window: gate.window.clone(),
            uses: gate.unused_for.iter().map(|asked| use_of(state, &asked.by)).collect(),
            parks,
            behind: asks_behind(gate).then(|| captured(&syncs)),
            syncs,
            on,
            tables,
        }
    }

    /// For a look that nothing is recorded of: it waits for no counters.
    pub(super) fn at_once(mut self) -> Self {
        for used in &mut self.uses {
            if let Use::Counters(_, _, settled_at) = used {
                *settled_at = None;
            }
        }
        self
    }

    pub(super) async fn ask(
        self,
        drivers: &BTreeMap<TargetName, SharedDriver>,
        store: &SharedStore,
    ) -> Observations {
        let mut seen =
            Observations { other_policy: self.other_policy.clone(), ..Observations::default() };
        for (target, query) in &self.queries {
            seen.queries.push(value(drivers, target, query).await.map_err(|e| e.to_string()));
        }
        for used in &self.uses {
            if let Use::Counters(_, _, Some(settled_at)) = used
                && let Ok(now) = store.now().await
            {
                let rest = settled_at.since_ms(now).min(COUNTERS_SETTLED_AFTER_MS);
                tokio::time::sleep(Duration::from_millis(rest)).await;
            }
            seen.unused.push(last_use(drivers, used).await);
        }
        for (target, driver) in drivers.iter().filter(|(target, _)| self.on.contains(*target)) {
            let told = asked(|| driver.lineage()).await.map_err(failure_of).transpose();
            seen.lineages.extend(told.map(|told| (target.clone(), told)));
        }
        for (mapping, direction) in &self.syncs {
            let found = match for_looking(drivers, mapping) {
                Some(driver) => sync_now(&driver, mapping, *direction).await,
                None => Err(unknown(&mapping.from.target)),
            };
            seen.syncs.insert(mapping.name.clone(), found.map_err(|error| error.to_string()));
        }
        for (target, tables) in &self.tables {
            let facts = match drivers.get(target) {
                Some(driver) => facts(driver, tables).await,
                None => Err(unknown(target)),
            };
            seen.targets.insert(target.clone(), facts.map_err(|error| error.to_string()));
        }
        if !self.parks.is_empty() {
            seen.parked = Some(parked(drivers, &self.parks).await.map_err(|e| e.to_string()));
        }
        if let Some(captured) = &self.behind {
            seen.behind = Some(BTreeMap::new());
            for (target, mappings) in captured {
                let found = behind_in(drivers, target, mappings).await;
                seen.behind.get_or_insert_default().insert(target.clone(), found);
            }
        }
        // Last, so that the answers of slow databases don't make it old.
        if let Some(asked) = &self.window {
            let now = store.now().await.map_err(|error| error.to_string());
            seen.window = Some(now.and_then(|now| window::look(asked, now)));
        }
        seen
    }
}

/// The databases of the steps that a gate needs, and of those that it lets go.
fn databases_of(program: &Program, gate: &StepId) -> BTreeSet<TargetName> {
    let needed = program.needed_by(gate);
    let needed = needed.iter().filter_map(|id| program.step(id));
    let steps = needed.chain(program.released_by(gate));
    steps.flat_map(|step| program.databases(step)).cloned().collect()
}

/// The database of a mapping, or both as one, for whoever changes nothing.
pub(super) fn for_looking(
    drivers: &BTreeMap<TargetName, SharedDriver>,
    mapping: &Mapping,
) -> Option<SharedDriver> {
    let sides = Sides {
        home: mapping.from.target.clone(),
        entered: Entered::Both,
        beside: None,
        live: Vec::new(),
    };
    of_mapping(drivers, mapping, sides)
}

/// Whether a sync is in place, and what stands for it. In this order: what is whole now and was not before shows in the second.
async fn sync_now(
    driver: &SharedDriver,
    mapping: &Mapping,
    direction: Direction,
) -> Result<SyncSeen, driver::Error> {
    let wrong = match asked(|| driver.sync_state(mapping, direction)).await? {
        SyncState::Active => None,
        SyncState::Broken(why) => Some(why),
    };
    let digest = asked(|| driver.basis(mapping)).await?.of_sync();
    Ok(SyncSeen { wrong, digest })
}

/// The mappings of which the plan lets rows be parked, under the names that they have now, with their directions.
pub(super) fn parks(state: &State) -> Vec<(Mapping, Direction)> {
    let mappings = state.program().parks().collect::<BTreeSet<_>>();
    let of =
        |name| Some((state.mapping(name)?, state.direction(name).unwrap_or(Direction::Forward)));
    mappings.into_iter().filter_map(of).collect()
}

/// How many rows are parked and not right by now.
async fn parked(
    drivers: &BTreeMap<TargetName, SharedDriver>,
    parks: &[(Mapping, Direction)],
) -> Result<u64, driver::Error> {
    let mut rows = 0;
    for (mapping, direction) in parks {
        let driver = for_looking(drivers, mapping);
        let driver = driver.ok_or_else(|| unknown(&mapping.from.target))?;
        rows += asked(|| driver.parked(mapping, *direction, 1)).await?.total;
    }
    Ok(rows)
}

/// The mappings that are kept in step now, under the names that hold now: from their dual-write until it is stopped, its old side
/// is dropped, or with `forward` put aside.
#[must_use]
pub fn live_syncs(state: &State) -> Vec<(Mapping, Direction)> {
    let steps = state.program().steps();
    let is_over = |name: &MappingName, direction: Direction| {
        steps.iter().filter(|step| state.is_applied(&step.id)).any(|step| match &step.action {
            Action::StopDualWrite { mapping } | Action::Drop { mapping } => mapping == name,
            Action::Retire(retire) => retire.mapping == *name && direction == Direction::Forward,
            _ => false,
        })
    };
    let live = |step: &Step| match &step.action {
        Action::DualWrite(DualWrite { mapping, direction, .. })
            if state.is_applied(&step.id) && !is_over(mapping, *direction) =>
        {
            Some((state.mapping(mapping)?, *direction))
        }
        _ => None,
    };
    steps.iter().filter_map(live).collect()
}

const fn asks_behind(gate: &Gate) -> bool {
    gate.relay_lag_max_ms.is_some() || gate.relay_rows_max.is_some()
}

/// Of the mappings that are kept in step, those between two databases. By where their changes are captured, so that one look tells of
/// all that are captured there.
fn captured(syncs: &[(Mapping, Direction)]) -> BTreeMap<TargetName, Vec<Mapping>> {
    let mut captured: BTreeMap<TargetName, Vec<Mapping>> = BTreeMap::new();
    for (mapping, _) in syncs.iter().filter(|(mapping, _)| !mapping.is_pushdown()) {
        captured.entry(mapping.from.target.clone()).or_default().push(mapping.clone());
    }
    captured
}

/// How far the new sides of mappings from one database are behind, or why that can't be told.
pub async fn behind(old: &SharedDriver, mappings: &[Mapping]) -> Result<Lag, String> {
    let source = old.change_source().ok_or("its changes can't be captured")?;
    let lag = asked(|| source.lag(mappings)).await;
    lag.map_err(|error| old.told(error).to_string())
}

/// What is wrong with the capture of a mapping's changes, or why that can't be told. Nothing where it was ended, and where a step
/// is about to end it.
pub async fn capture_broken(
    old: &SharedDriver,
    state: &State,
    mapping: &Mapping,
) -> Result<Option<String>, String> {
    let is_live = live_syncs(state).iter().any(|(live, _)| live.name == mapping.name);
    if !is_live || is_being_ended(state, &mapping.name) {
        return Ok(None);
    }
    let source = old.change_source().ok_or("its changes can't be captured")?;
    match asked(|| source.capture_state(mapping)).await {
        Ok(SyncState::Active) => Ok(None),
        Ok(SyncState::Broken(why)) => Ok(Some(why)),
        Err(error) => Err(old.told(error).to_string()),
    }
}

fn is_being_ended(state: &State, name: &MappingName) -> bool {
    let is_begun =
        |id: &StepId| !matches!(state.step(id).progress, Progress::Pending | Progress::Succeeded);
    state.program().steps().iter().filter(|step| is_begun(&step.id)).any(|step| {
        match &step.action {
            Action::StopDualWrite { mapping } | Action::Drop { mapping } => mapping == name,
            Action::DualWrite(dual_write) => dual_write.mapping == *name,
            _ => false,
        }
    })
}

async fn behind_in(
    drivers: &BTreeMap<TargetName, SharedDriver>,
    target: &TargetName,
    mappings: &[Mapping],
) -> Result<Behind, String> {
    let driver = drivers.get(target).ok_or_else(|| unknown(target).to_string())?;
    let Lag { rows, is_more, oldest_ms, .. } = behind(driver, mappings).await?;
    Ok(Behind { rows, is_more, oldest_ms })
}

fn use_of(state: &State, by: &UsedBy) -> Use {
    match by {
        UsedBy::Query { target, query } => Use::Query(target.clone(), query.clone()),
        UsedBy::Counters(mapping) => {
            let (Some(retire), Some(old)) = (state.retired_by(mapping), state.mapping(mapping))
            else {
                return Use::Never("it has not been put aside yet".to_owned());
            };
            let is_first = state.usage(mapping).is_none();
            let put_aside_at = state.step(retire).ended_at.filter(|_| is_first);
            let settled_at = put_aside_at.map(|at| at.plus_ms(COUNTERS_SETTLED_AFTER_MS));
            Use::Counters(old.from.target, old.from.table, settled_at)
        }
    }
}

async fn value(
    drivers: &BTreeMap<TargetName, SharedDriver>,
    target: &TargetName,
    query: &str,
) -> Result<Value, driver::Error> {
    match drivers.get(target) {
        Some(driver) => asked(|| driver.value(query)).await,
        None => Err(unknown(target)),
    }
}

async fn last_use(
    drivers: &BTreeMap<TargetName, SharedDriver>,
    used: &Use,
) -> Result<Unused, String> {
    match used {
        Use::Never(reason) => Err(reason.clone()),
        Use::Query(target, query) => {
            let found = value(drivers, target, query).await.map_err(|error| error.to_string())?;
            seconds_ago(&found).map(Unused::ForMs)
        }
        Use::Counters(target, table, _) => {
            let usage = match drivers.get(target) {
                Some(driver) => asked(|| driver.usage(table)).await,
                None => Err(unknown(target)),
            };
            usage.map(Unused::Counted).map_err(|error| error.to_string())
        }
    }
}

/// How long ago the last use was, in milliseconds, from the seconds that a query gave. What isn't a number of seconds is no
/// answer: NULL means that nobody knows, and not that nothing was ever used.
fn seconds_ago(value: &Value) -> Result<u64, String> {
    let seconds = match value {
        #[allow(clippy::cast_precision_loss)]
        Value::Integer(seconds) => *seconds as f64,
        Value::Real(seconds) => *seconds,
        Value::Text(text) => text.trim().parse().unwrap_or(f64::NAN),
        Value::Null | Value::Boolean(_) => f64::NAN,
    };
    if !(0.0..=1e12).contains(&seconds) {
        return Err(format!("the query gave {}, not the seconds since the last use", brief(value)));
    }
    // In range, as was just looked.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok((seconds * 1_000.0) as u64)
}

fn unknown(target: &TargetName) -> driver::Error {
    driver::Error::failed(crate::run::FailureClass::Stale, format!("no target {target}"))
}

/// Asks again while others are in the way, and not for ever.
pub(super) async fn asked<T, F>(call: impl FnMut() -> F) -> Result<T, driver::Error>
where
    F: Future<Output = Result<T, driver::Error>>,
{
    within(PROBE_WITHIN_MS, patiently(|| false, call)).await
}

async fn facts(driver: &SharedDriver, tables: &[String]) -> Result<TargetFacts, driver::Error> {
    let identity = asked(|| driver.identity()).await?;
    let fingerprint = asked(|| driver.fingerprint(tables)).await?;
    let identity = format!("{} / {} as {}", identity.system, identity.database, identity.role);
    Ok(TargetFacts { identity, fingerprint })
}

/// The tables that the work behind a gate touches, by target.
pub(super) fn tables_behind(program: &Program, gate: &StepId) -> BTreeMap<TargetName, Vec<String>> {
    let mut tables: BTreeMap<TargetName, BTreeSet<String>> = BTreeMap::new();
    for step in program.released_by(gate) {
        for target in program.databases(step) {
            tables.entry(target.clone()).or_default().extend(touched(program, step, target));
        }
    }
    tables.into_iter().map(|(target, tables)| (target, tables.into_iter().collect())).collect()
}

/// The tables that a step touches in a database. Of a mapping that is retired in the course of the plan, both names of each side: so the
/// list is the same before and after, and a table that isn't there is part of the fingerprint too.
pub(super) fn touched(program: &Program, step: &Step, target: &TargetName) -> Vec<String> {
    let mut tables: Vec<String> = match &step.action {
        Action::Sql(script) => script.tables.clone(),
        _ => Vec::new(),
    };
    let mapping = step.action.mapping().and_then(|name| program.mappings().get(name));
    if let Some(mapping) = mapping {
        let sides = [&mapping.from, &mapping.into].into_iter();
        let here = sides.filter(|side| side.target == *target);
        tables.extend(here.map(|side| side.table.clone()));
        let shape = super::step::shape_of(program, &mapping.name);
        if let Some(shape) = shape {
            let retired = mapping.retired(shape);
            tables.extend([retired.from.table, retired.into.table]);
        }
    }
    tables
}

/// A value for logs: never longer than a line.
pub(super) fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(LOGGED_VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::run::{
        Actor, Event, Outcome, Phase, ProgramParts, Record, Retire, RetireShape, Usage, Way, apply,
        begin,
    };

    #[test]
    fn only_a_number_of_seconds_says_when_something_was_last_used() {
        for (value, ms) in [
            (Value::Integer(72), Some(72_000)),
            (Value::Integer(0), Some(0)),
            (Value::Real(1.5), Some(1_500)),
            (Value::Text(" 259200.25 ".into()), Some(259_200_250)),
            (Value::Integer(-1), None),
            (Value::Real(f64::NAN), None),
            (Value::Real(f64::INFINITY), None),
            (Value::Null, None),
            (Value::Boolean(true), None),
            (Value::Text("2026-11-20 12:00".into()), None),
        ] {
            assert_eq!(seconds_ago(&value).ok(), ms, "{value:?}");
        }
    }

    /// A run whose `leads` can be put aside.
    fn run() -> State {
        let mut pin = crate::report::fixture::pin();
        let mut parts: ProgramParts = pin.program.into();
        let mut retire = parts.steps[2].clone();
        retire.id = "retire".into();
        retire.phase = Phase::Contract;
        let shape = RetireShape::Table { old_name: "leads_old".into(), take_name: true };
        retire.action =
            Action::Retire(Retire { mapping: "leads".into(), shape, known: Vec::new() });
        parts.steps.push(retire);
        pin.program = Program::new(parts).unwrap();
        let event = Event::RunStarted { run: "run".into(), pin: Box::new(pin) };
        begin(&record(1, event)).unwrap()
    }

    fn record(version: u64, event: Event) -> Record {
        Record { version, at: Timestamp::from_unix_ms(1_000), by: Actor::engine("here"), event }
    }

    fn asked_for(state: &State) -> Option<(String, Option<i64>)> {
        match use_of(state, &UsedBy::Counters("leads".into())) {
            Use::Counters(_, table, settled) => Some((table, settled.map(Timestamp::as_unix_ms))),
            Use::Query(..) | Use::Never(_) => None,
        }
    }

    #[test]
    fn counters_are_first_read_when_what_was_done_before_has_been_reported() {
        let mut state = run();
        assert_eq!(asked_for(&state), None, "it has not been put aside");
        let (step, way) = (StepId::from("retire"), Way::Forward);
        let outcome = Outcome::default();
        let done = Event::StepSucceeded { step, attempt: 1, way, outcome };
        apply(&mut state, &record(2, done)).unwrap();
        assert_eq!(asked_for(&state), Some(("leads_old".into(), Some(13_000))));
        let usage = Usage { counters: "a".into(), count: 7, is_in_use: false };
        apply(&mut state, &record(3, Event::UsageSeen { mapping: "leads".into(), usage })).unwrap();
        assert_eq!(asked_for(&state), Some(("leads_old".into(), None)));
    }
}
