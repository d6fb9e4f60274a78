//! Who holds a run and its relays, and taking that away from somebody.
//!
//! Invariant: a lease that is taken away is never held by two. It passes to us under the next token, by which its holder is refused by
//! the store from then on, and is given back at once. What that holder still has under way in a database commits as long as nobody
//! else has entered there: then it is the only one, as before.

use crate::bounds::engine::LEASE_TTL_MS;
use crate::run::State;
use crate::store::{Claimant, Lease, SharedStore};

use super::Error;

/// The leases of a run that somebody has, or had when they lapsed: its own, and those of its relays.
pub async fn locks(store: &SharedStore, state: &State) -> Result<Vec<Lease>, Error> {
    let mut held = Vec::new();
    for lock in std::iter::once(state.run().clone()).chain(state.relays()) {
        held.extend(store.lease(&lock).await?);
    }
    Ok(held)
}

/// Takes a lease away from whom it was seen with. Nobody has it then. Who came after them keeps it, and is named.
pub async fn seize(store: &SharedStore, seen: &Lease, by: &Claimant) -> Result<(), Error> {
    let is_seen = |holder: &Claimant| holder.id == seen.holder.id;
    let taken = store.acquire(&seen.run, by, LEASE_TTL_MS, &is_seen).await?;
    store.release(&taken).await?;
    Ok(())
}
