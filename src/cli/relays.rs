//! How far the new sides of a run's mappings are behind: asked of their databases, which are opened for looking.

use std::collections::BTreeMap;

use crate::driver::Access;
use crate::engine::{self, process};
use crate::report::relay::{RelayView, Waiting};
use crate::report::words;

use super::answer::Failure;
use super::session::{OpenRun, Session};
use super::{trouble, wiring};

/// The mappings of a run whose changes are carried; none when it is over.
pub async fn look(session: &Session, run: &OpenRun) -> Result<Vec<RelayView>, Failure> {
    let state = run.state();
    let mappings = engine::captured(state);
    if state.is_ended() || mappings.is_empty() {
        return Ok(Vec::new());
    }
    let redact = session.global.redact().max(state.program().policy().redact);
    let mut drivers = BTreeMap::new();
    let mut away = BTreeMap::new();
    for (_, mapping) in &mappings {
        let target = &mapping.from.target;
        if drivers.contains_key(target) || away.contains_key(target) {
            continue;
        }
        let of = (state.pin(), &run.line);
        match wiring::open_driver(of, target, Access::ReadOnly, session.global.redact()).await {
            Ok(driver) => drop(drivers.insert(target.clone(), driver)),
            Err(failure) => drop(away.insert(target.clone(), failure.message)),
        }
    }
    let store = &run.desk.store;
    let of_store = |error| trouble::of_store(&error, &run.desk);
    let progress = store.progress(&run.id).await.map_err(of_store)?;
    let mut views = Vec::new();
    for (step, mapping) in mappings {
        let (from, into) = (mapping.from.target.clone(), mapping.into.target.clone());
        let mut broken = None;
        let waiting = match (drivers.get(&from), away.get(&from)) {
            (Some(driver), _) => {
                // Where changes are missed, that none of them waits says nothing.
                let captured = engine::capture_broken(driver, state, &mapping).await;
                let is_told = captured.map(|found| broken = found);
                let lag = engine::behind(driver, std::slice::from_ref(&mapping)).await;
                is_told.and(lag).map(|mut lag| {
                    lag.redact(redact);
                    waiting(lag)
                })
            }
            (None, why) => Err(why.cloned().unwrap_or_default()),
        };
        let lease = store.lease(&run.id.relay(&from, &into)).await.map_err(of_store)?;
        let lease = lease.filter(|lease| process::is_held(lease, run.now));
        let by = lease.map(|it| words::holder(&it.holder));
        let known = progress.iter().find(|one| one.step == step);
        views.push(RelayView {
            mapping: mapping.name,
            carried: known.map_or(0, |known| known.rows_done),
            last_at: known.map(|known| known.at),
            step,
            from,
            into,
            waiting,
            broken,
            by,
        });
    }
    for driver in drivers.values() {
        driver.close().await;
    }
    Ok(views)
}

fn waiting(lag: crate::driver::crossing::Lag) -> Waiting {
    Waiting {
        rows: lag.rows,
        is_more: lag.is_more,
        oldest_ms: lag.oldest_ms,
        bytes: lag.bytes,
        parked: lag.parked,
        last_error: lag.last_error,
    }
}
