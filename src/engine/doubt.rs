//! What a database has of a step of which nobody can tell whether it was done.

use crate::driver::SharedDriver;
use crate::run::{Action, InLedger, State, Step, Undo, Way};

use super::probe::asked;

/// What the ledger of a database has of a step in the way that is in doubt, and what its catalogue says. Looks only; where it can't, it
/// says why.
pub async fn doubt(
    driver: &SharedDriver,
    state: &State,
    (step, way): (&Step, Way),
) -> Result<InLedger, String> {
    let script = match (way, &step.action, &step.undo) {
        (Way::Forward, Action::Sql(script), _) | (Way::Back, _, Undo::Script(script)) => {
            Some(script)
        }
        _ => None,
    };
    let (run, id) = (state.run(), &step.id);
    let told = |error| driver.told(error).to_string();
    let is_applied = asked(|| driver.is_applied(run, id, way)).await.map_err(told)?;
    let marks =
        asked(|| driver.marks(run, id, script.map(|script| (way, script)))).await.map_err(told)?;
    Ok(InLedger { is_applied, marks })
}
