//! The rows that a run has parked: which, and why.

use crate::run::{FailureClass, MappingName, Parked, State};

use super::probe::{asked, for_looking, parks};
use super::start::at;
use super::{Context, Error};

/// The parked rows of each mapping of which the plan lets any be parked, at most `most` of each listed. Looks only.
pub async fn parked(
    ctx: &Context,
    state: &State,
    most: u32,
) -> Result<Vec<(MappingName, Parked)>, Error> {
    let mut found = Vec::new();
    for (mapping, direction) in parks(state) {
        let target = &mapping.from.target;
        let driver = for_looking(&ctx.drivers, &mapping).ok_or_else(|| {
            let message = format!("target {target} was not opened");
            at(target, crate::driver::Error::failed(FailureClass::Stale, message))
        })?;
        let parked = asked(|| driver.parked(&mapping, direction, most)).await;
        found.push((mapping.name.clone(), parked.map_err(|source| at(target, source))?));
    }
    Ok(found)
}
