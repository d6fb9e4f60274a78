//! Whether a run is still this state store's, before anything is written about it.
//!
//! A run can be taken to another store and driven on from there. What is recorded here since then would be of no effect, and would part
//! the two histories for good. Only the databases know: each keeps whose the run is. One that can't be asked leaves the question open:
//! a command that is to drive the run fails with that before it records anything, and one that only records says so and goes on, since
//! whoever approves or pauses may have no way to the databases.

use std::collections::BTreeMap;

use super::answer::Failure;
use super::drive::Cockpit;
use super::session::{OpenRun, Session};
use super::wiring;
use crate::driver::Access;
use crate::engine;
use crate::run::TargetName;

/// Fails where another store has the run. `goes_on` is whether the command drives it next.
pub async fn is_here(session: &Session, run: &OpenRun, goes_on: bool) -> Result<(), Failure> {
    if run.state().is_ended() {
        return Ok(());
    }
    let (mut drivers, mut silent) = (BTreeMap::new(), Vec::new());
    for target in run.state().program().targets().keys() {
        let of = (run.state().pin(), &run.line);
        match wiring::open_driver(of, target, Access::Full, session.global.redact()).await {
            Ok(driver) => {
                drivers.insert(target.clone(), driver);
            }
            Err(failure) => silent.push((target.clone(), failure)),
        }
    }
    let cockpit = Cockpit::over(session, &run.desk, run.state().pin(), drivers);
    let asked = engine::is_ours(&cockpit.ctx, run.state()).await;
    cockpit.close().await;
    let unheard = asked.map_err(|error| run.failure(&error))?.into_iter();
    silent.extend(unheard.map(|(target, error)| (target, run.failure(&error))));
    for (target, failure) in silent {
        if goes_on {
            return Err(failure.because("nothing was recorded"));
        }
        warn(session, &target, &failure);
    }
    Ok(())
}

fn warn(session: &Session, target: &TargetName, failure: &Failure) {
    session.printer.message(&format!(
        "warning: target {target} was not asked whether another state store has the run by now: {}",
        failure.message
    ));
}
