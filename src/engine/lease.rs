//! Keeping a lease while a run is driven.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::bounds::engine::{LAST_WORDS_WITHIN, LEASE_RENEW_EVERY_MS, LEASE_TTL_MS};
use crate::bounds::store::ANSWER_WITHIN;
use crate::clock::Stopwatch;
use crate::store::{self, Lease, SharedStore};

use super::{Driven, Error};

// Whoever drives a run hears that its store is mute before others may have the run.
const _: () = assert!(ANSWER_WITHIN.as_millis() < LEASE_TTL_MS as u128);

/// A lease that a task of its own renews. Dropping it ends the renewal, not the lease.
pub(super) struct Keeper {
    lost: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(store: SharedStore, lease: Lease) -> Self {
        let (say, lost) = watch::channel(None);
        let task = tokio::spawn(renew(store, lease, say));
        Self { lost, task }
    }
}

impl Keeper {
    /// Waits until the lease is lost, and says to whom.
    pub(super) async fn lost(&mut self) -> String {
        let gone = || "the lease is no longer being renewed".to_owned();
        match self.lost.wait_for(Option::is_some).await {
            Ok(words) => words.clone().unwrap_or_else(gone),
            Err(_) => gone(),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn renew(store: SharedStore, mut lease: Lease, say: watch::Sender<Option<String>>) {
    let mut ticks = interval(Duration::from_millis(LEASE_RENEW_EVERY_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut since_renewal = Stopwatch::start();
    loop {
        ticks.tick().await;
        match store.renew(&lease, LEASE_TTL_MS).await {
            Ok(renewed) => {
                lease = renewed;
                since_renewal = Stopwatch::start();
            }
            Err(store::Error::LeaseLost(_)) => {
                let _ = say.send(Some(lost_to(&store, &lease).await));
                return;
            }
            // The store may come back before the lease lapses; until then nobody else can have it.
            Err(error) if since_renewal.elapsed_ms() < LEASE_TTL_MS => {
                tracing::warn!(%error, "the lease could not be renewed yet");
            }
            Err(error) => {
                let _ = say.send(Some(format!("the lease lapsed: {error}")));
                return;
            }
        }
    }
}

/// Gives a lease back at the end of a drive. Where that failed, the store may be why: it is told in passing. A lease that stays behind is
/// free when it lapses, and before that for whoever sees that its process is gone.
pub(super) async fn give_back(
    store: &SharedStore,
    lease: &Lease,
    driven: Result<Driven, Error>,
) -> Result<Driven, Error> {
    let told = store.release(lease);
    let told = match &driven {
        Ok(_) => told.await,
        Err(_) => timeout(LAST_WORDS_WITHIN, told).await.unwrap_or(Ok(())),
    };
    match told {
        // It is somebody else's already, which the result says.
        Ok(()) | Err(store::Error::LeaseLost(_)) => driven,
        Err(other) => driven.and(Err(other.into())),
    }
}

/// Who has a lease now, in words.
pub(super) async fn lost_to(store: &SharedStore, lost: &Lease) -> String {
    match store.lease(&lost.run).await {
        Ok(Some(lease)) if lease.token > lost.token => format!(
            "{} (pid {} on {}) took over the run",
            lease.holder.name, lease.holder.pid, lease.holder.host
        ),
        _ => "the lease is not its own any more: it lapsed before it was renewed, or `phasegate lock release` took it away"
            .to_owned(),
    }
}
